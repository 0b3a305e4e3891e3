"""What solvers and checks report.

A solver returns a `SolverResult` whether or not it converged: not converging is a value, and
whoever uses the result decides. Breakdown (NaN, negative curvature where none can be) raises
`BreakdownError` at once. A quantity that makes no sense at an unconverged state, such as a
hypergradient, is refused with `NotConvergedError`.
"""

from typing import NamedTuple

import numpy as np

# Remarks that a message repeats; the others are in `SolverResult.notes`.
MOST_NOTES = 3

# Relative residuals within this factor of the unit roundoff are called rounding errors.
ROUNDING_FACTOR = 1000
SINGULAR = (
    "the system is nearly singular, as where missing pixels lie between edges of a steep potential "
    "(take a smaller slope) or K and the filters have a common kernel"
)


class SolverResult(NamedTuple):
    """Outcome of an iterative solver on a batch of N independent problems.

    Attributes
    ----------
    x : array (N, ...)
        The last iterate of each image.
    converged : bool array (N,)
        Whether what the tolerance bounds, the error or the residual, is at most that.
    iterations : int array (N,)
        Iterations that changed each image.
    residuals : array (N,)
        Relative residual of each image at `x`, as the solver's docstring defines it.
    evaluations : int
        Calls of the map, gradient or energy, each on the whole batch; for a batch that is solved in
        parts, the most of any part.
    products : int
        Products with a Jacobian or Hessian, likewise.
    history : array (rows, N)
        Relative residuals of every iteration; row 0 is the start.
    method : str
        What ran, for example "newton with jacobi, then anderson".
    tol : array (N,)
        The tolerance that each image was to reach.
    advice : tuple of N str
        What to change for each image that did not converge; "" where it did.
    notes : tuple of str
        Remarks on the whole run.
    error : array (N,)
        ‖x − x*‖ / ‖x‖ of each image, as `kind` says; infinite where nothing is known.
    kind : tuple of N str
        "proved" (a theorem, rounding included), "estimated" (of the size of the error) or
        "unknown".
    measured : "residual" or "error"
        What `tol` bounds, and by which `converged` is meant.
    """

    x: np.ndarray
    converged: np.ndarray
    iterations: np.ndarray
    residuals: np.ndarray
    evaluations: int
    products: int
    history: np.ndarray
    method: str
    tol: np.ndarray
    advice: tuple[str, ...]
    notes: tuple[str, ...] = ()
    error: np.ndarray = np.array(np.inf)
    kind: tuple[str, ...] = ()
    measured: str = "residual"

    def __repr__(self) -> str:
        return f"SolverResult({self.message})"

    @property
    def all_converged(self) -> bool:
        """Whether every image converged."""
        return bool(np.all(self.converged))

    @property
    def measure(self) -> np.ndarray:
        """What the tolerance bounds, of each image: its error, or its residual."""
        return self.error if self.measured == "error" else self.residuals

    @property
    def message(self) -> str:
        """What came of it: for the image furthest from its tolerance, what to change; the notes."""
        notes = list(dict.fromkeys(self.notes))
        if len(notes) > MOST_NOTES:
            notes[MOST_NOTES:] = [f"and {len(notes) - MOST_NOTES} more remarks in notes"]
        return "; ".join([self._outcome(), *notes])

    def _outcome(self) -> str:
        N, done = len(self.converged), int(np.sum(self.converged))
        if done == N:
            who = f"all {N} images converged in at most" if N > 1 else "the image converged in"
            what = f"{self.iterations.max()} iterations of {self.method}"
            return f"{who} {what}{self._largest_error()}"
        n = int(np.argmax(np.where(self.converged, -1, self.measure / self.tol)))
        value, tol = self.measure[n], self.tol[n]
        what = f"relative {self.measured} {value:.1e} {'≤' if value <= tol else '>'} {tol:.2g}"
        if self.measured == "error" and self.kind[n] == "unknown":
            what = f"relative error unknown, expected at most {tol:.2g},"
        return (
            f"{N - done} of {N} images did not converge; worst: image {n}, {what} "
            f"after {self.iterations[n]} iterations of {self.method}; {self.advice[n]}"
        )

    def _largest_error(self) -> str:
        """", error at most 2e-05 (proved)", or nothing where it is not known of all images."""
        if not self.kind or "unknown" in self.kind:
            return ""
        n = int(np.argmax(self.error))
        return f", relative error {self.error[n]:.1e} ({self.kind[n]})"

    def judged_by_error(self, tol: float | np.ndarray) -> "SolverResult":
        """The same, converged where `error` is at most `tol`, whatever the residual."""
        converged = self.error <= tol
        chosen = zip(converged, self.advice, strict=True)
        advice = tuple("" if good else said or "its error stays larger" for good, said in chosen)
        return self._replace(
            converged=converged, tol=np.broadcast_to(tol, len(converged)), advice=advice,
            measured="error",
        )

    def rejected(self, images: np.ndarray, advice: str) -> "SolverResult":
        """The same with these images, (N,) bool, not converged after all."""
        chosen = zip(images & self.converged, self.advice, strict=True)
        advised = tuple(advice if bad else old for bad, old in chosen)
        return self._replace(converged=self.converged & ~images, advice=advised)


class Check(NamedTuple):
    """One identity: what was measured, and the bound that it must not exceed."""

    name: str
    measured: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether measured ≤ bound; NaN fails."""
        return bool(self.measured <= self.bound)


class NotConvergedError(RuntimeError):
    """A quantity was asked for at a state that did not converge."""


class BreakdownError(ArithmeticError):
    """An iteration cannot go on: NaN, infinity, or curvature of the wrong sign.

    Parameters
    ----------
    text : str
        What happened; "{image}" in it stands for the image.
    image : int, optional
        Which image of the batch.
    """

    def __init__(self, text: str, image: int | None = None):
        super().__init__(text, image)
        self.text, self.image = text, image

    def __str__(self) -> str:
        return self.about("an image" if self.image is None else f"image {self.image}")

    def about(self, image: str) -> str:
        """The text with these words for the image."""
        return self.text.replace("{image}", image)

    def within(self, part: slice) -> "BreakdownError":
        """The same, its image counted in the batch of which `part` broke down."""
        return BreakdownError(self.text, None if self.image is None else part.start + self.image)

    def advising(self, advice: str) -> "BreakdownError":
        """The same with what to change."""
        return BreakdownError(f"{self.text}; {advice}", self.image)
