"""What a planted fault is: a class of overrides to be mixed into a correct backend.

    @fault("apply", "filters_flipped")
    class FiltersFlipped:
        def analyse(self, p, A, u):
            return super().analyse(p, turned(A), u)

The decorator records the first stage that must disagree and the causes that count as right. The
same class serves both frameworks: arrays have the same methods in both as far as faults need
them, and the functions of this module cover the rest.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

BOTH = ("torch", "jax")
LOWER = {"float64": "float32", "float32": "float16"}


class Fault(NamedTuple):
    """A planted fault.

    Attributes
    ----------
    name : str
    stage : str
        The first stage that must disagree.
    causes : tuple of str
        Slugs that count as the right diagnosis.
    overrides : type
        Mixed in before the class of a correct backend.
    frameworks : tuple of str
    time_limit : float
        Seconds for a call; many, because JAX compiles, and slowly beside other work.
    """

    name: str
    stage: str
    causes: tuple[str, ...]
    overrides: type
    frameworks: tuple[str, ...]
    time_limit: float


def fault(
    stage: str,
    *causes: str,
    frameworks: tuple[str, ...] = BOTH,
    time_limit: float = 600.0,
) -> Callable[[type], type]:
    """Mark a class of overrides as a planted fault."""

    def mark(overrides: type) -> type:
        overrides.fault = Fault(
            overrides.__name__, stage, causes, overrides, frameworks, time_limit
        )
        return overrides

    return mark


def faults_of(module: ModuleType) -> list[Fault]:
    """The faults that a module plants: its classes, and those of its tables, called TABLES."""
    classes = [*vars(module).values(), *vars(module).get("TABLES", ())]
    return [x.fault for x in classes if isinstance(x, type) and hasattr(x, "fault")]


Row = tuple[str, str, Any]


def overriding(method: str, stage: str, make: Callable[[Any], Callable], *rows: Row) -> list[type]:
    """Faults of a stage that override one method: rows of name, cause, and what `make` is given.

    `make(change)` returns the method, which is handed `right`, the correct one bound to self,
    before its own arguments.
    """
    found = []
    for name, cause, change in rows:
        overrides = type(name, (), {})
        new = make(change)

        def override(self, *arguments, new=new, own=overrides, **options):
            right = getattr(super(own, self), method)
            return new(self, right, *arguments, **options)

        setattr(overrides, method, override)
        found.append(fault(stage, cause)(overrides))
    return found


def planted(fault: Fault, base: type) -> type:
    """The correct backend with the fault."""
    return type(fault.name, (fault.overrides, base), {})


# What the two frameworks write differently.


def framework(x: Any) -> ModuleType:
    """torch, numpy or jax.numpy, whichever an array belongs to."""
    if isinstance(x, np.ndarray):
        return np
    if type(x).__module__.startswith("torch"):
        import torch

        return torch
    import jax.numpy

    return jax.numpy


def transforms(x: Any) -> Any:
    """The module with jvp(f, (x,), (v,)) and vjp(f, x)."""
    if type(x).__module__.startswith("torch"):
        from refimpl.verification.backends import torch_derivatives

        return torch_derivatives
    import jax

    return jax


def flipped(x: Any, *axes: int) -> Any:
    """x with axes reversed."""
    return framework(x).flip(x, axes)


def cast(x: Any, dtype: str) -> Any:
    """x in a precision, given by name."""
    if hasattr(x, "astype"):
        return x.astype(dtype)
    return x.to(getattr(framework(x), dtype))


def name_of_dtype(x: Any) -> str:
    """float64 or float32."""
    return str(x.dtype).removeprefix("torch.")


def rounded(x: Any) -> Any:
    """x rounded to the next lower precision and back."""
    own = name_of_dtype(x)
    return cast(cast(x, LOWER[own]), own)


def constant(x: Any) -> Any:
    """x, cut off from differentiation."""
    if hasattr(x, "detach"):
        return x.detach()
    import jax

    return jax.lax.stop_gradient(x)


def random_like(x: Any, rng: np.random.Generator) -> Any:
    """Standard normal numbers in the shape, precision and framework of x."""
    return framework(x).asarray(rng.standard_normal(x.shape).astype(name_of_dtype(x)))


def broadcast(x: Any, like: Any) -> Any:
    """x in the shape of another array."""
    return x + 0 * like


def image_norms(x: Any) -> Any:
    """‖x‖ of every image."""
    return (x**2).reshape(len(x), -1).sum(1) ** 0.5
