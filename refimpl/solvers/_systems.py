"""The loop around every Krylov method: sweep, measure the true residual, sweep what is open.

A sweep solves M d = r for the true residual r = b − M x, and ends when its own recurrence claims
the tolerance (for GMRES: at a restart). Recurrences drift from the true residual by rounding, so r
is then computed anew at x + d with one more product, and images above the tolerance are swept
again. An image stops for good when two sweeps in a row leave its true residual where it was.

A `model` of M in float32 makes this iterative refinement: sweeps use it, on r / ‖r‖, and lower r
by at most 1e-4 at a time; residuals use M. So the result has the accuracy of M. Images whose
residual a sweep with the model does not halve, since M is too badly conditioned, go on with M
alone, as if there had been no model.

Not here: the recurrences.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, norm, per_image, same_dtype
from refimpl.results import BreakdownError, SolverResult
from refimpl.solvers._progress import Progress, as_batch, like, ratio, tolerance

Matvec = Callable[[Array], Array]

# A sweep that leaves more than this part of the true residual gained nothing.
GAIN = 0.99
FRUITLESS_SWEEPS = 2

# The same for a sweep with the model, and the part at which its recurrence ends.
HALF, ENOUGH = 0.5, 1e-4


class Counted:
    """A linear callable that counts its calls and checks shape and dtype of what it returns."""

    def __init__(self, matvec: Matvec, name: str):
        self.matvec, self.name, self.products = matvec, name, 0

    def __call__(self, x: Array) -> Array:
        self.products += 1
        return like(self.matvec(x), x, self.name)


class System(NamedTuple):
    """What a sweep needs: products with M and P ≈ M⁻¹, ‖b‖, the bookkeeping, and the ‖r‖ that it
    need not go below."""

    matvec: Counted
    precondition: Matvec
    scale: Array
    progress: Progress
    enough: float = 0.0

    def relative(self, r: Array) -> Array:
        """‖r‖ / ‖b‖, 0 for b = 0."""
        return ratio(norm(r), self.scale)

    def record(self, residual_norm: Array) -> bool:
        """Enter ‖r‖ / ‖b‖; whether any image runs on."""
        self.progress.require_finite(residual_norm, "residual norm")
        running = self.progress.record(ratio(residual_norm, self.scale))
        self.progress.pause(residual_norm <= self.enough)
        return running


Sweep = Callable[[System, Array], Array]


def identity(r: Array) -> Array:
    """The preconditioner that does nothing."""
    return r


@np.errstate(over="ignore", invalid="ignore")
def solve(
    solver: str,
    sweep: Sweep,
    matvec: Matvec,
    b: Array,
    *,
    x0: Array | None,
    preconditioner: Matvec | None,
    tol: float | Array,
    max_iterations: int,
    remedy: str,
    model: Matvec | None = None,
) -> SolverResult:
    """Sweep until the true relative residual of every image is at most `tol`, one value or (N,)."""
    b = as_batch(b, f"{solver}: b")
    tol = tol if isinstance(tol, np.ndarray) else tolerance(tol, solver)
    progress = Progress(solver, b, tol, max_iterations, remedy=remedy)
    M = Counted(matvec, f"{solver}: matvec")
    model = model and Counted(model, f"{solver}: model")
    P = Counted(preconditioner or identity, f"{solver}: preconditioner")
    system = System(M, P, norm(b), progress)
    x, r = _start(system, b, x0)
    fruitless, modelled = np.zeros(len(b), dtype=int), np.full(len(b), model is not None)
    running = system.record(norm(r))
    while running:
        rough = progress.running & modelled
        if rough.any():
            progress.pause(~rough)
        swept, before = progress.running, system.relative(r)
        d = _rough_correction(system, sweep, r, model) if rough.any() else sweep(system, r)
        rest = b - system.matvec(x + d)
        failed = rough & ~(system.relative(rest) <= HALF * before)
        modelled &= ~failed
        x, r = _chosen(failed, x, x + d), _chosen(failed, r, rest)
        gained = system.relative(r) <= GAIN * before
        fruitless = np.where(swept & ~rough & ~gained, fruitless + 1, 0)
        progress.stall(fruitless >= FRUITLESS_SWEEPS)
        running = progress.reopen(system.relative(r))
    return progress.result(x, products=M.products + (model.products if model else 0))


def _chosen(images: Array, one: Array, other: Array) -> Array:
    """`one` for these images, `other` for the rest."""
    return np.where(per_image(images, one), one, other) if images.any() else other


def _rough_correction(system: System, sweep: Sweep, r: Array, model: Counted) -> Array:
    """d with M d ≈ r by one sweep with the model; 0 if that breaks down."""
    size = per_image(np.where(system.progress.running, norm(r), 1), r)
    inner = system._replace(matvec=model, scale=system.scale / size.ravel(), enough=ENOUGH)
    try:
        return size * sweep(inner, (r / size).astype(np.float32))
    except BreakdownError:
        return np.zeros_like(r)


def _start(system: System, b: Array, x0: Array | None) -> tuple[Array, Array]:
    """x and its residual b − M x; x = 0 where b = 0."""
    if x0 is None:
        return np.zeros_like(b), b
    x0 = as_batch(x0, "x0")
    same_dtype(b=b, x0=x0)
    if x0.shape != b.shape:
        raise ValueError(f"x0: shape is {x0.shape}, expected {b.shape}; pass one start per image")
    x = np.where(per_image(system.scale > 0, b), x0, 0).astype(b.dtype)
    return x, b - system.matvec(x)
