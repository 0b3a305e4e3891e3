"""A batch solved in parts, side by side, with one result.

Images are independent, so a solver may have them in parts. A part of a few images keeps its vectors
in a cache and stops when its own slowest image does; parts run on several threads. They are cut by
the size of an image alone (`refimpl.maps.Step.parts`), so that no result depends on the threads.
"""

from collections.abc import Callable

import numpy as np

from refimpl.results import BreakdownError, SolverResult
from refimpl.threads import side_by_side


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
        If a part breaks down; the message says which images it holds.
    """
    if len(parts) == 1:
        return solve(parts[0])
    return joined(side_by_side(lambda part: _named(solve, part), parts), parts)


def _named(solve: Callable[[slice], SolverResult], part: slice) -> SolverResult:
    try:
        return solve(part)
    except BreakdownError as error:
        raise BreakdownError(f"{_name(part)}: {error}") from error


def joined(results: list[SolverResult], parts: list[slice]) -> SolverResult:
    """The outcomes of parts as that of the batch; evaluations and products are the most of any."""
    x, converged, iterations, residuals = (
        np.concatenate([getattr(result, name) for result in results])
        for name in ("x", "converged", "iterations", "residuals")
    )
    rows = max(len(result.history) for result in results)
    history = [np.pad(r.history, ((0, rows - len(r.history)), (0, 0)), "edge") for r in results]
    return SolverResult(
        x, converged, iterations, residuals,
        max(result.evaluations for result in results),
        max(result.products for result in results),
        np.concatenate(history, axis=1),
        _message(results, parts),
    )  # fmt: skip


def _message(results: list[SolverResult], parts: list[slice]) -> str:
    """What the worst part says: one that failed, or the one that took most iterations."""
    failed = [k for k, result in enumerate(results) if not result.all_converged]
    slowest = max(failed or range(len(results)), key=lambda k: results[k].iterations.max())
    which = f"{len(failed)} of them failed" if failed else "the slowest"
    return f"{len(parts)} parts, {which}: {_name(parts[slowest])}: {results[slowest].message}"


def _name(part: slice) -> str:
    last = part.stop - 1
    which = f"image {last}" if part.start == last else f"images {part.start} to {last}"
    return f"{which}, here counted from 0"
