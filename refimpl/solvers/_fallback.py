"""One solver, and another for what it leaves: how "auto" meets failures without hiding them."""

from collections.abc import Callable

import numpy as np

from refimpl.results import BreakdownError, SolverResult, continued
from refimpl.solvers._progress import ROUNDING_FACTOR

Solve = Callable[[], SolverResult]


def with_fallback(name: str, first: Solve, second: Solve) -> SolverResult:
    """The result of `first`, and of `second` for the images where `first` fails.

    The message says what `first` is called, and what became of both. Residuals at rounding are no
    failure: no other method lowers them.

    Raises
    ------
    BreakdownError
        If both break down.
    """
    try:
        result = first()
    except BreakdownError as error:
        other = second()
        return other._replace(message=f"{name} broke down ({error}); {other.message}")
    result = result._replace(message=f"{name}; {result.message}")
    done = result.converged | (result.residuals <= ROUNDING_FACTOR * np.finfo(result.x.dtype).eps)
    if done.all():
        return result
    try:
        other = second()
    except BreakdownError as error:
        return result._replace(message=f"{result.message}; then {error}")
    return continued(result, other, done, f"{result.message}; then {other.message}")
