"""The maps of this package in torch and in JAX, with every derivative by automatic differentiation.

A worked example of what `refimpl crosscheck` holds against the reference, and an independent
witness of the reference itself. Methods are small enough to read one by one and to replace one by
one:

    T and its parts      `maps`            every formula, for any framework
    φ and σ              `textbook`        likewise
    solves               `autodiff`        Newton's method, the adjoint state
    arrays, padding      `torch_backend`, `jax_backend`, with `torch_derivatives`

Nothing is shared with the reference but the case. Neither framework is imported before a backend
is made.
"""

from importlib import import_module
from typing import Any

BACKENDS = {
    "torch": ("refimpl.verification.backends.torch_backend", "TorchBackend"),
    "jax": ("refimpl.verification.backends.jax_backend", "JaxBackend"),
}

__all__ = ["BACKENDS", "make_backend"]


def make_backend(name: str, *, compiled: bool | None = None) -> Any:
    """A backend by the name of its framework.

    Parameters
    ----------
    name : "torch" or "jax"
    compiled : bool, optional
        Whether maps are compiled; left out: as the backend prefers, torch not and JAX compiled.

    Raises
    ------
    ValueError
        For an unknown name.
    ModuleNotFoundError
        If the framework is not installed; the message says how to install it.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    module, backend = BACKENDS[name]
    try:
        found = getattr(import_module(module), backend)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"backend {name!r}: {error.name} is not installed; "
            "install it with: pip install 'refimpl[backends]'",
            name=error.name,
        ) from error
    return found() if compiled is None else found(compiled)
