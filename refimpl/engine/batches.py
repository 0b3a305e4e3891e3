"""A batch solved in parts, side by side, with one result.

Images are independent, so a solver may have them in parts. A part of a few images keeps its vectors
in a cache and stops when its own slowest image does; parts run on several threads. They are cut by
the size of an image alone (`refimpl.engine.step.Step.parts`), so that no result depends on the
threads; only BLAS, to which dense banks go, may round otherwise.
"""

from collections.abc import Callable
from itertools import chain

import numpy as np

from refimpl.kernels.threads import side_by_side
from refimpl.results import BreakdownError, SolverResult


def solve_in_parts(solve: Callable[[slice], SolverResult], parts: list[slice]) -> SolverResult:
    """`solve` on each part of a batch, as one result.

    Parameters
    ----------
    solve : callable
        From a part of the images to its outcome.
    parts : list of slice
        One after the other, all images of the batch.

    Raises
    ------
    BreakdownError
        If a part breaks down; its image is counted in the whole batch.
    """
    if len(parts) == 1:
        return solve(parts[0])
    return joined(side_by_side(lambda part: _numbered(solve, part), parts))


def _numbered(solve: Callable[[slice], SolverResult], part: slice) -> SolverResult:
    try:
        return solve(part)
    except BreakdownError as error:
        raise error.within(part) from error


def joined(results: list[SolverResult]) -> SolverResult:
    """The outcomes of parts as that of the batch; evaluations and products are the most of any.

    Where some parts took a fallback, `method` is theirs, the longest.
    """
    x, converged, iterations, residuals, tol, error = (
        np.concatenate([getattr(result, name) for result in results])
        for name in ("x", "converged", "iterations", "residuals", "tol", "error")
    )
    rows = max(len(result.history) for result in results)
    history = [np.pad(r.history, ((0, rows - len(r.history)), (0, 0)), "edge") for r in results]
    return SolverResult(
        x, converged, iterations, residuals,
        max(result.evaluations for result in results),
        max(result.products for result in results),
        np.concatenate(history, axis=1),
        max((result.method for result in results), key=len),
        tol,
        *(
            tuple(chain.from_iterable(getattr(result, name) for result in results))
            for name in ("advice", "notes")
        ),
        error,
        tuple(chain.from_iterable(result.kind for result in results)),
        results[0].measured,
    )


def parts_for(step, options: dict) -> list[slice]:
    """The parts of a batch, or the whole where options of a solver speak of all its images."""
    speaks = any(options.get(name) is not None for name in ("callback", "reference", "x0"))
    return [slice(0, len(step.problem.y))] if speaks else step.parts()
