"""The paper, in plain NumPy: what is computed, as it is written, for real and complex arrays.

    equations     E2 to E11, each one function: the page to read first
    problem       data, forward operator, field of experts
    potentials    φ, σ = φ′ and σ′
    parameters    θ = (A, C, b, w, γ) and its tie, E7
    operators     K, and the banks through which A and C act
    filters       total variation and the cosine basis as filters
    loss          E11

Nothing here is fast, and nothing depends on what is: `refimpl.engine` computes the same maps with
compiled loops and is held to these definitions.
"""

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """A module of this room, imported when it is first used."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
