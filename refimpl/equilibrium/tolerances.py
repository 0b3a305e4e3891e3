"""Tolerances on errors, for methods that know residuals.

A method is run to ever smaller residuals, until what measures its error finds that small enough.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image, positive, shown
from refimpl.results import ROUNDING_FACTOR, SINGULAR, SolverResult
from refimpl.solvers import continued

# The first residual, at most: where it is larger, errors are seldom known.
FIRST = 1e-4

# By how much, at least and at most, the residual asked for falls where the error is too large.
LEAST_STEP, MOST_STEP = 0.5, 1e-3
UNKNOWN_STEP = 1e-2


def chosen_tolerance(
    tol: float | None, residual_tol: float | None, dtype: np.dtype, error: str | None = None
) -> tuple[float | None, float | None]:
    """The one of both that is meant: that which is given, else the default one on the error.

    Raises unless `error` is "estimate" or None.
    """
    if not (error is None or (isinstance(error, str) and error == "estimate")):
        raise ValueError(f"error: given {shown(error)}, expected 'estimate' or None")
    if residual_tol is None:
        return default_tolerance(dtype) if tol is None else positive(tol, "tol"), None
    if tol is not None:
        raise TypeError(
            f"tol is {shown(tol)} and residual_tol {shown(residual_tol)}; pass one, tol for the "
            "error or residual_tol for the residual"
        )
    return None, positive(residual_tol, "residual_tol")


def default_tolerance(dtype: np.dtype) -> float:
    """The relative error that the public functions ask for: 1e-4, of float32 1e-3."""
    return 1e-4 if dtype == np.float64 else 1e-3


class Measured(NamedTuple):
    """How far an iterate is from the answer.

    Attributes
    ----------
    error : array (N,)
        ‖x − x*‖ / ‖x‖; infinite where nothing is known.
    kind : tuple of N str
        "proved", "estimated" or "unknown".
    corrected : array (N, ...)
        Nearer to x*, if the error is right.
    why : tuple of N str
        What stands in the way of a smaller error, or of knowing it; "" where nothing does.
    """

    error: Array
    kind: tuple[str, ...]
    corrected: Array
    why: tuple[str, ...]

    def where(self, images: Array, other: "Measured") -> "Measured":
        """This for `images`, the other for the rest."""
        chosen = np.where(per_image(images, self.corrected), self.corrected, other.corrected)
        kind, why = (np.where(images, *pair).tolist() for pair in zip(self[1::2], other[1::2]))
        error = np.where(images, self.error, other.error)
        return Measured(error, tuple(kind), chosen, tuple(why))

    @classmethod
    def unknown(cls, x: Array, why: str) -> "Measured":
        """Nothing is known of any image, for this reason."""
        N = len(x)
        return cls(np.full(N, np.inf), ("unknown",) * N, x, (why,) * N)


def to_error(
    run: Callable[[Array, Array], SolverResult],
    measure: Callable[[SolverResult, float], Measured],
    start: Array,
    tol: float,
    *,
    hop: bool = False,
) -> SolverResult:
    """Run a method to ever smaller residuals, until the error of every image is at most `tol`.

    Parameters
    ----------
    run : callable (start, tolerances (N,))
        The method; an image whose tolerance is infinite it leaves as it is.
    measure : callable (result, tolerance)
        How far it is from the answer, with all checks where that is at most the tolerance.
    start : array (N, ...)
    tol : float
        Relative to ‖x‖ and to the norm of the Jacobian, a residual is at most the error; the first
        one to ask for is a tenth of this, and at most 1e-4.
    hop : bool
        Whether a run that is continued starts from the corrected iterate.
    """
    asked = np.full(len(start), min(tol / 10, FIRST))
    result = run(start, asked)
    found, fell = measure(result, tol), True
    while True:
        known = np.isfinite(found.error) & hop
        going = (found.error > tol) & (result.converged | known) & fell
        if not going.any():
            break
        # Where the residual falls no further, a correction is applied as it is.
        further = going & result.converged
        asked = np.where(further, smaller(result.residuals, found.error, tol), np.inf)
        start = np.where(per_image(known, result.x), found.corrected, result.x)
        last, result = (result, found), continued(result, run(start, asked), ~going)
        found = measure(result, tol)
        fell = (result.residuals < last[0].residuals) | (2 * found.error < last[1].error)
    if (above := found.error > tol).any():
        found = found.where(~above, measure(result, np.inf))
    return judged(result, found, tol)


def smaller(residuals: Array, error: Array, tol: float) -> Array:
    """The residuals at which errors should be half of `tol`."""
    known = np.isfinite(error)
    factor = np.clip(tol / (2 * np.where(known & (error > 0), error, 1)), MOST_STEP, LEAST_STEP)
    return residuals * np.where(known, factor, UNKNOWN_STEP)


def judged(result: SolverResult, found: Measured, tol: float) -> SolverResult:
    """The result with these errors, by which it converged or did not."""
    dtype = result.residuals.dtype
    rounded = result.residuals <= ROUNDING_FACTOR * np.finfo(dtype).eps
    advice = np.where(rounded, f"{dtype} does not determine it: {SINGULAR}", result.advice)
    raised = tuple(why or said for why, said in zip(found.why, advice.tolist(), strict=True))
    result = result._replace(error=found.error, kind=found.kind, advice=raised)
    return result.judged_by_error(tol)
