"""One solver, and another for what it leaves: how "auto" meets failures without hiding them."""

from collections.abc import Callable

import numpy as np

from refimpl.arrays import per_image
from refimpl.results import ROUNDING_FACTOR, BreakdownError, SolverResult

Solve = Callable[[], SolverResult]


def with_fallback(name: str, first: Solve, second: Solve) -> SolverResult:
    """The result of `first`, called `name`, and of `second` for the images where `first` fails.

    Residuals at rounding are no failure: no other method lowers them. A breakdown becomes a note.

    Raises
    ------
    BreakdownError
        If both break down.
    """
    try:
        result = first()
    except BreakdownError as error:
        other = second()
        method, note = f"{name}, then {other.method}", _broken(name, error)
        return other._replace(method=method, notes=(note, *other.notes))
    done = result.converged | (result.residuals <= ROUNDING_FACTOR * np.finfo(result.x.dtype).eps)
    if done.all():
        return result
    try:
        return continued(result, second(), done)
    except BreakdownError as error:
        return result._replace(notes=(*result.notes, _broken("its fallback", error)))


def _broken(name: str, error: BreakdownError) -> str:
    return f"{name} broke down ({error.about('an image')})"


def continued(first: SolverResult, second: SolverResult, done: np.ndarray) -> SolverResult:
    """Two runs as one: images `done` in the first keep its outcome; work adds up.

    So do images that the second leaves unconverged and no nearer than the first to the tolerance.
    """
    done = done | (~second.converged & (first.measure <= second.measure))
    return SolverResult(
        np.where(per_image(done, first.x), first.x, second.x),
        np.where(done, first.converged, second.converged),
        first.iterations + np.where(done, 0, second.iterations),
        np.where(done, first.residuals, second.residuals),
        first.evaluations + second.evaluations,
        first.products + second.products,
        np.concatenate([first.history, np.where(done, first.residuals, second.history)]),
        first.method
        if first.method.endswith(second.method)
        else f"{first.method}, then {second.method}",
        first.tol,
        tuple(np.where(done, first.advice, second.advice).tolist()),
        (*first.notes, *second.notes),
        np.where(done, first.error, second.error),
        tuple(np.where(done, first.kind, second.kind).tolist()),
        first.measured,
    )
