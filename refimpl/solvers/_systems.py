"""The loop around every Krylov method: sweep, measure the true residual, sweep what is open.

A sweep solves M d = r for the true residual r = b − M x, and ends when its own recurrence claims
the tolerance (for GMRES: at a restart). Recurrences drift from the true residual by rounding, so r
is then computed anew at x + d with one more product, and images above the tolerance are swept
again. An image stops for good when two sweeps in a row leave its true residual where it was.

With a `model` of M in float32 this is iterative refinement: sweeps use it, on r / ‖r‖, and stop
when their recurrence has left 1e-4 of it; residuals use M, so that x has M's accuracy. Where such
a sweep breaks down or leaves 0.9 of an image's residual, the image goes on with M, for which it has
`max_iterations` of its own. A correction that does not lower the residual is dropped.

A sweep also says how near to singular P M is, by the smallest Ritz or singular value θ that it saw.
The error x − x* = (P M)⁻¹ P r is then about ‖P r‖ / θ or less, relative to ‖x‖. BiCGStab sees no θ;
there θ = ‖P b‖ / (√n ‖x‖), for n entries: then no part of b along a singular vector, if b has them
all in equal measure, is left in r. With `error_tol` it is this error, not the residual, that ends a
run: an image whose residual is small enough, but not its error, goes on to a smaller residual.

A weak direction of which b has next to no part shows in no sweep for b. A `probe` sweeps for random
signs first, which have a part of every direction, and θ is the least of both.

Not here: the recurrences.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image, same_dtype
from refimpl.kernels.vectors import norm, unit_and_size
from refimpl.results import ROUNDING_FACTOR, SINGULAR, BreakdownError, SolverResult
from refimpl.solvers._progress import Progress, as_batch, like, ratio

Matvec = Callable[[Array], Array]

# A sweep that leaves more than this part of the true residual gained nothing.
GAIN = 0.99
FRUITLESS_SWEEPS = 2

# By how much, at least and at most, the residual asked for falls where the error is too large.
LEAST_STEP, MOST_STEP = 0.5, 1e-3

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

    def error(self, x: Array, r: Array, b: Array, theta: Array) -> Array:
        """‖P r‖ / (θ ‖x‖), (N,) of float64."""
        rest, size = (norm(y).astype(float) for y in (self.precondition(r), x))
        theta = self.known(theta, x, b)
        seen = np.isfinite(theta)  # θ is infinite where no sweep ran
        return np.where(seen | (self.scale == 0), ratio(rest, theta * size), np.inf)

    def known(self, theta: Array, x: Array, b: Array) -> Array:
        """θ, or where it is NaN that of the module's docstring."""
        theta = theta.astype(float)
        if not np.isnan(theta).any():
            return theta
        right, size = (norm(y).astype(float) for y in (self.precondition(b), x))
        return np.where(np.isnan(theta), ratio(right, np.sqrt(x[0].size) * size), theta)

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


Sweep = Callable[[System, Array], tuple[Array, Array]]


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
    error_tol: float | None = None,
    probe: bool = False,
) -> SolverResult:
    """Sweep until the true relative residual of every image is at most `tol`, one value or (N,).

    With `error_tol`, until its error is at most that; `tol` is then the first residual to try.
    """
    b = as_batch(b, f"{solver}: b")
    progress = Progress(solver, b, tol, max_iterations, remedy=remedy)
    M = Counted(matvec, f"{solver}: matvec")
    P = Counted(preconditioner or identity, f"{solver}: preconditioner")
    model = model and Counted(model, f"{solver}: model")
    unit = per_image(power_of_two(norm(b)), b)  # so that squares of small b do not vanish
    x, r = _start(M, b / unit, x0, unit)
    system = System(M, P, norm(b / unit), progress)
    seen = _probed(system, sweep, b, model) if probe else np.full(len(b), np.inf)
    x, r, theta = _swept(system, sweep, x, r, b / unit, model, seen, error_tol)
    error = system.error(x, r, b / unit, theta)
    kind = tuple(np.where(np.isfinite(error), "estimated", "unknown").tolist())
    products = M.products + (model.products if model else 0)
    result = progress.result(x * unit, products=products)._replace(error=error, kind=kind)
    if error_tol is None:
        return result
    rounded = result.residuals <= ROUNDING_FACTOR * progress.eps
    advice = np.where(rounded, f"{b.dtype} does not determine it: {SINGULAR}", result.advice)
    return result._replace(advice=tuple(advice.tolist())).judged_by_error(error_tol)


def _probed(system: System, sweep: Sweep, b: Array, model: Counted | None) -> Array:
    """θ as a random right-hand side shows it; 0 where that is not solved for."""
    (xi, part), run = random_probe(b), system.progress
    progress = Progress(run.solver, xi, part, run.max_iterations, remedy=run.remedy)
    system = system._replace(progress=progress, scale=norm(xi))
    unseen = np.full(len(xi), np.inf)
    x, _, theta = _swept(system, sweep, np.zeros_like(xi), xi, xi, model, unseen, None)
    return np.where(progress.residuals <= progress.tol, system.known(theta, x, xi), 0)


def random_probe(b: Array) -> tuple[Array, float]:
    """ξ = ±1 at random, the same for every image, and 1 / (4 √n), the residual to solve M x = ξ to.

    No direction is left out: of n in equal measure, a part left whole would be more.
    """
    signs = 2 * np.random.default_rng(0).integers(0, 2, b.shape[1:]) - 1
    xi = np.repeat(signs[None].astype(b.dtype), len(b), axis=0)
    return xi, 1 / (4 * np.sqrt(b[0].size))


def _swept(
    system: System, sweep: Sweep, x: Array, r: Array, b: Array, model: Counted | None,
    theta: Array, error_tol: float | None,
) -> tuple[Array, Array, Array]:
    """x, r and θ after all sweeps."""
    progress = system.progress
    system.record(norm(r))
    if model is not None:
        rough = system._replace(matvec=model, enough=MODEL_TOL)
        x, r, seen = _refine(rough, sweep, x, r, lambda x: b - system.matvec(x))
        theta = least(theta, seen)
        progress.begin_again()
        progress.reopen(system.relative(r))
    fruitless = np.zeros(len(b), dtype=int)
    _tightened(system, x, r, b, theta, error_tol)
    while progress.running.any():
        swept, before = progress.running, system.relative(r)
        correction, seen = sweep(system, r)
        x, theta = x + correction, least(theta, np.where(swept, seen, np.inf))
        r = b - system.matvec(x)
        gained = system.relative(r) <= GAIN * before
        fruitless = np.where(swept & ~gained, fruitless + 1, 0)
        progress.stall(fruitless >= FRUITLESS_SWEEPS)
        progress.reopen(system.relative(r))
        _tightened(system, x, r, b, theta, error_tol)
    return x, r, theta


def least(theta: Array, seen: Array) -> Array:
    """The smaller θ of two; NaN, which says nothing, where nothing else is known."""
    return np.where(np.isinf(theta), seen, np.where(np.isinf(seen), theta, np.fmin(theta, seen)))


def _tightened(
    system: System, x: Array, r: Array, b: Array, theta: Array, error_tol: float | None
) -> None:
    """Images run on whose residual is small enough and error is not."""
    if error_tol is None:
        return
    progress, error = system.progress, system.error(x, r, b, theta)
    factor = np.clip(ratio(np.full_like(error, error_tol), 2 * error), MOST_STEP, LEAST_STEP)
    above = (error > error_tol) & (progress.residuals <= progress.tol)
    progress.tighten(above, factor)


def _refine(
    rough: System, sweep: Sweep, x: Array, r: Array, residual: Matvec
) -> tuple[Array, Array, Array]:
    """x, r and θ after sweeps with the model, for as long as each gains on an image."""
    progress, modelled = rough.progress, rough.progress.running
    theta = np.full(len(x), np.inf)
    while modelled.any():
        progress.pause(~modelled)
        unit, size = unit_and_size(r, np.float32)
        correction, seen = sweep(rough._replace(scale=rough.scale / size), unit)
        d = per_image(size, r) * correction
        theta = least(theta, np.where(modelled, seen, np.inf))
        rest = residual(x + d)
        lower = per_image(modelled & (norm(rest) < norm(r)), r)
        gained = modelled & (norm(rest) <= MODEL_GAIN * norm(r))
        x, r = np.where(lower, x + d, x), np.where(lower, rest, r)
        progress.reopen(rough.relative(r))
        modelled = gained & progress.running
    return x, r, theta


def power_of_two(size: Array) -> Array:
    """The power of two next to each size, by which products are exact; 1 where that is 0 or ∞."""
    usable = (size > 0) & np.isfinite(size)
    exponent = np.frexp(np.where(usable, size, 1))[1]
    return np.ldexp(size.dtype.type(1), exponent)


def _start(M: Matvec, b: Array, x0: Array | None, unit: Array) -> tuple[Array, Array]:
    """x and its residual b − M x, x0 and x in multiples of `unit`; x = 0 where b = 0."""
    if x0 is None:
        return np.zeros_like(b), b
    x0 = as_batch(x0, "x0")
    same_dtype(b=b, x0=x0)
    if x0.shape != b.shape:
        raise ValueError(f"x0: shape is {x0.shape}, expected {b.shape}; pass one start per image")
    x = np.where(per_image(norm(b) > 0, b), x0 / unit, 0).astype(b.dtype)
    return x, b - M(x)
