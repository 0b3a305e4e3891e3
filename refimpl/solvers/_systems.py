"""The loop around every Krylov method: sweep, measure the true residual, sweep what is open.

A sweep solves M d = r for the true residual r = b − M x, and ends when its own recurrence claims
the tolerance (for GMRES: at a restart). Recurrences drift from the true residual by rounding, so r
is then computed anew at x + d with one more product, and images above the tolerance are swept
again. An image stops for good when two sweeps in a row leave its true residual where it was.

With a `model` of M in float32 this is iterative refinement: sweeps use it, on r / ‖r‖, and stop
when their recurrence has left 1e-4 of it; residuals use M, so that x has M's accuracy. Where such
a sweep breaks down or leaves 0.9 of an image's residual, the image goes on with M, for which it has
`max_iterations` of its own. A correction that does not lower the residual is dropped.

Not here: the recurrences.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image, same_dtype
from refimpl.kernels.vectors import norm, unit_and_size
from refimpl.results import BreakdownError, SolverResult
from refimpl.solvers._progress import Progress, as_batch, like, ratio

Matvec = Callable[[Array], Array]

# A sweep that leaves more than this part of the true residual gained nothing.
GAIN = 0.99
FRUITLESS_SWEEPS = 2

MODEL_GAIN = 0.9  # a sweep with the model that leaves more is an image's last
MODEL_TOL = 1e-4  # where its recurrence ends


class Counted:
    """A linear callable that counts its calls and checks shape and dtype of what it returns."""

    def __init__(self, matvec: Matvec, name: str):
        self.matvec, self.name, self.products = matvec, name, 0

    def __call__(self, x: Array) -> Array:
        self.products += 1
        return like(self.matvec(x), x, self.name)


class System(NamedTuple):
    """What a sweep needs.

    Attributes
    ----------
    matvec, precondition : callable
        Products with M and P ≈ M⁻¹.
    scale : array (N,)
        ‖b‖ in the unit of r.
    progress : Progress
    enough : float
        ‖r‖ at which an image leaves the sweep; above 0 in a sweep with the model.
    """

    matvec: Counted
    precondition: Matvec
    scale: Array
    progress: Progress
    enough: float = 0.0

    def relative(self, r: Array) -> Array:
        """‖r‖ / ‖b‖, 0 for b = 0."""
        return ratio(norm(r), self.scale)

    def record(self, residual_norm: Array) -> None:
        """Enter ‖r‖ / ‖b‖, after which fewer images may run."""
        if self.enough > 0:
            self.progress.pause(~np.isfinite(residual_norm))
        self.progress.require_finite(residual_norm, "residual norm")
        self.progress.record(ratio(residual_norm, self.scale))
        self.progress.pause(residual_norm <= self.enough)

    def stop(self, bad: Array, complaint: Callable[[int], str]) -> None:
        """Where a sweep breaks down: images leave one with the model, else the solver raises."""
        bad = self.progress.running & bad
        if self.enough > 0:
            self.progress.pause(bad)
        elif bad.any():
            progress, n = self.progress, int(np.flatnonzero(bad)[0])
            where = f"{progress.solver}: iteration {progress.rows}"
            raise BreakdownError(f"{where}: {complaint(n)}", n)


Sweep = Callable[[System, Array], Array]


def identity(r: Array) -> Array:
    """The preconditioner that does nothing."""
    return r


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
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
    progress = Progress(solver, b, tol, max_iterations, remedy=remedy)
    M = Counted(matvec, f"{solver}: matvec")
    model = model and Counted(model, f"{solver}: model")
    P = Counted(preconditioner or identity, f"{solver}: preconditioner")
    system = System(M, P, norm(b), progress)
    x, r = _start(system, b, x0)
    system.record(norm(r))
    if model is not None:
        rough = system._replace(matvec=model, enough=MODEL_TOL)
        x, r = _refine(rough, sweep, x, r, lambda x: b - M(x))
        progress.begin_again()
        progress.reopen(system.relative(r))
    fruitless = np.zeros(len(b), dtype=int)
    while progress.running.any():
        swept, before = progress.running, system.relative(r)
        x = x + sweep(system, r)
        r = b - system.matvec(x)
        gained = system.relative(r) <= GAIN * before
        fruitless = np.where(swept & ~gained, fruitless + 1, 0)
        progress.stall(fruitless >= FRUITLESS_SWEEPS)
        progress.reopen(system.relative(r))
    return progress.result(x, products=M.products + (model.products if model else 0))


def _refine(
    rough: System, sweep: Sweep, x: Array, r: Array, residual: Matvec
) -> tuple[Array, Array]:
    """x and r after sweeps with the model, for as long as each gains on an image."""
    progress, modelled = rough.progress, rough.progress.running
    while modelled.any():
        progress.pause(~modelled)
        unit, size = unit_and_size(r, np.float32)
        d = per_image(size, r) * sweep(rough._replace(scale=rough.scale / size), unit)
        rest = residual(x + d)
        lower = per_image(modelled & (norm(rest) < norm(r)), r)
        gained = modelled & (norm(rest) <= MODEL_GAIN * norm(r))
        x, r = np.where(lower, x + d, x), np.where(lower, rest, r)
        progress.reopen(rough.relative(r))
        modelled = gained & progress.running
    return x, r


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
