"""What every iteration keeps: which images still run, how far each came, why it stopped.

Images in a batch are independent problems. Each has its own stopping test, and from the moment
it passes its iterate is frozen bit for bit, so that its result does not depend on the others.
Every solver calls the same few methods in the same order:

    record   enter the residuals of one iteration and decide which images still run
    keep     take the new iterate where images run, the old one where they do not
    result   the `SolverResult`, with advice on what to change

Not here: any formula of any solver.
"""

from collections.abc import Callable

import numpy as np

from refimpl.arrays import Array, as_finite, count, per_image, positive
from refimpl.kernels.vectors import norm
from refimpl.results import ROUNDING_FACTOR, BreakdownError, SolverResult

Callback = Callable[[int, Array, Array], None]

# A residual is called stagnant when the second half of at least this many rows of the history
# did not bring it below half of what the first half reached.
STAGNATION_ROWS = 20


class Progress:
    """Residuals, masks and counts of one run over a batch of N images.

    Parameters
    ----------
    solver : str
        Name for messages.
    x0 : array (N, ...)
        Start, or any array of the batch's shape and dtype.
    tol : float > 0, or array (N,)
        Relative residual at which an image stops.
    max_iterations : int
    remedy : str
        What to change when residuals stagnate.
    callback : callable (iteration, x, residuals), optional
        Its x is read-only.
    reference : array (N,), optional
        Denominator of `relative_residual` in place of max(‖x‖, ‖x0‖).
    """

    def __init__(
        self,
        solver: str,
        x0: Array,
        tol: float | Array,
        max_iterations: int,
        *,
        remedy: str,
        callback: Callback | None = None,
        reference: Array | None = None,
    ):
        images = len(x0)
        self.solver, self.remedy, self.callback = solver, remedy, callback
        tol = tol if isinstance(tol, np.ndarray) else positive(tol, f"{solver}: tol")
        self.tol = np.broadcast_to(tol, images)
        self.max_iterations = count(max_iterations, f"{solver}: max_iterations")
        self.eps = np.finfo(x0.dtype).eps
        self.start, self.reference = norm(x0), _as_reference(solver, reference, x0)
        self.history: list[Array] = []
        self.iterations, self.limit = np.zeros(images, dtype=int), self.max_iterations
        self.running = np.ones(images, dtype=bool)
        self.stalled = np.zeros(images, dtype=bool)

    @property
    def residuals(self) -> Array:
        """The last row of the history."""
        return self.history[-1]

    @property
    def rows(self) -> int:
        """Rows of the history: iterations of the slowest image, and one for the start."""
        return len(self.history)

    def relative_residual(self, change: Array, x: Array) -> Array:
        """‖change‖ / max(‖x‖, ‖x0‖) for each image, with 0/0 = 0 and c/0 = ∞."""
        size = norm(change)
        self.require_finite(size, "residual norm")
        scale = np.maximum(norm(x), self.start) if self.reference is None else self.reference
        return ratio(size, scale)

    def record(self, residuals: Array, x: Array | None = None) -> bool:
        """Enter the residuals after one more iteration; whether any image runs on.

        Images that do not run keep their last residual. The first call enters the start.
        """
        if self.history:
            self.iterations += self.running
            residuals = np.where(self.running, residuals, self.history[-1])
        self.history.append(residuals)
        if self.callback is not None:
            x = x.view()
            x.flags.writeable = False  # it may be the caller's own start, or the iterate itself
            self.callback(self.rows - 1, x, residuals)
        self.running = self.running & self._unfinished()
        return bool(self.running.any())

    def _unfinished(self) -> Array:
        short = self.iterations < self.limit
        return (self.residuals > self.tol) & short & ~self.stalled

    def require_finite(self, values: Array, what: str) -> None:
        """Raise `BreakdownError` where a running image has a value that is NaN or infinite."""
        bad = self.running & ~np.isfinite(values)
        if bad.any():
            n = int(np.flatnonzero(bad)[0])
            raise BreakdownError(
                f"{self.solver}: iteration {self.rows}: {what} of {{image}} is {values[n]}, "
                f"expected a finite number; {self.remedy}",
                n,
            )

    def keep(self, new: Array, old: Array) -> Array:
        """`new` where images run, `old` where they are frozen."""
        if self.running.all():
            return new
        return np.where(per_image(self.running, new), new, old)

    def stall(self, images: Array) -> None:
        """Stop `images` for good: no step improves them."""
        self.stalled = self.stalled | images
        self.running = self.running & ~images

    def begin_again(self) -> None:
        """Allow each image `max_iterations` more than it has taken."""
        self.limit = self.iterations + self.max_iterations

    def left(self, products: int, most: int | None, usual: int) -> int:
        """Products that the next step may take, at most `usual`; when `most` are spent, one."""
        if most is None:
            return usual
        if products >= most:
            self.limit = self.iterations + 1
        return max(1, min(usual, most - products))

    def pause(self, images: Array) -> None:
        """Stop `images` until `reopen`."""
        self.running = self.running & ~images

    def tighten(self, images: Array, factor: Array) -> None:
        """Lower the residual asked of `images`, of which those that can run on."""
        self.tol = np.where(images, factor * self.tol, self.tol)
        self.running = self.running | (images & self._unfinished())

    def reopen(self, residuals: Array) -> bool:
        """Replace the last row by residuals measured anew; whether they leave any image open."""
        self.running = np.ones_like(self.running)
        self.require_finite(residuals, "true residual")
        self.history[-1] = residuals
        self.running = self._unfinished()
        return bool(self.running.any())

    def result(self, x: Array, *, evaluations: int = 0, products: int = 0) -> SolverResult:
        """The outcome at `x`, at which the last row of residuals was measured."""
        converged, history = self.residuals <= self.tol, np.array(self.history)
        advice = ("" if c else self._advice(n, history[:, n]) for n, c in enumerate(converged))
        return SolverResult(
            np.array(x), converged, self.iterations, self.residuals, evaluations, products, history,
            method=self.solver, tol=self.tol, advice=tuple(advice),
            error=np.full(len(x), np.inf), kind=("unknown",) * len(x),
        )

    def _advice(self, n: int, history: Array) -> str:
        more = f"raise max_iterations above {self.max_iterations}"
        if not (self.stalled[n] or _stagnates(history[: self.iterations[n] + 1])):
            return more
        if self.residuals[n] <= ROUNDING_FACTOR * self.eps:
            return (
                f"the residual stagnates at the rounding errors of {self.residuals.dtype} "
                f"(eps = {self.eps:.2g}): raise tol, or use float64 if this is float32"
            )
        if self.stalled[n]:
            return f"no further step lowers the residual: {self.remedy}"
        return f"the last half of these did not halve the residual: {self.remedy}, or {more}"


def _stagnates(rows: Array) -> bool:
    half = len(rows) // 2
    return len(rows) >= STAGNATION_ROWS and bool(rows[half:].min() > rows[:half].min() / 2)


def ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator with 0/0 = 0 and c/0 = ∞."""
    safe = np.where(denominator > 0, denominator, 1).astype(numerator.dtype)
    infinite = (numerator > 0) & (denominator == 0)
    return np.where(infinite, np.inf, numerator / safe).astype(numerator.dtype)


def as_batch(x: Array, name: str) -> Array:
    """Return `x` if it is a batch (N, ...) of finite float32 or float64 values."""
    x = as_finite(x, name)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(
            f"{name}: shape is {x.shape}, expected (N, ...) with N independent problems along "
            "axis 0; add the batch axis, for example x[None]"
        )
    return x


def like(value: Array, x: Array, name: str) -> Array:
    """Return `value`, computed by a callable, if it has the shape and dtype of `x`."""
    if value.shape != x.shape:
        raise ValueError(
            f"{name}: returned shape {value.shape}, expected {x.shape}; return that of its argument"
        )
    if value.dtype != x.dtype:
        raise TypeError(
            f"{name}: returned {value.dtype}, expected {x.dtype}; compute in one precision"
        )
    return value


def _as_reference(solver: str, reference: Array | None, x0: Array) -> Array | None:
    if reference is None:
        return None
    reference = as_finite(reference, f"{solver}: reference")
    if reference.shape != (len(x0),) or (reference < 0).any():
        raise ValueError(
            f"{solver}: reference has shape {reference.shape}, expected ({len(x0)},) "
            "with no negative value; give one norm for each image"
        )
    return reference.astype(x0.dtype)
