"""Newton's method with exact products: on an energy (tied) and on a direction G(u) = 0 (any model).

    newton          (H + μI) d = −∇E(u) by truncated conjugate gradients, backtracking on E
    newton_krylov   (J + μI) d = −G(u) by GMRES, backtracking on ‖G‖

Both stop each image by the residual that all forward solvers share,

    r(u) = τ ‖g(u)‖ / max(‖u‖, ‖u0‖),   g = ∇E or G        (0/0 = 0).

The shift μ = min(r / 10, 1) / τ keeps steps finite where H is singular, as it is where data are
missing: for positive semidefinite H, ‖d‖ ≤ max(10, r) max(‖u‖, ‖u0‖).
It vanishes with g, so that convergence stays superlinear; with directions in float32, it ends
linear, with their rounding as its factor. The systems are solved to the relative residual
η = min(1/10, √(‖g‖/‖g0‖)), no further than `tol` needs. A step is taken only if what it must
decrease is finite and decreases, else it is shortened; with a safeguard, ‖G‖ need only fall below
the largest of its last 5 values.

Not here: the Hessian and Jacobian products (`refimpl.engine.step`).

References: Nocedal and Wright, Numerical Optimization, 2nd ed. (2006), algorithm 7.1; the shift:
Li, Fukushima, Qi and Yamashita, Comput. Optim. Appl. 28 (2004).
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from refimpl.arrays import Array, count, per_image, positive
from refimpl.kernels.vectors import dot, norm, plus, unit_and_size
from refimpl.results import SolverResult
from refimpl.solvers._conjugate import conjugate_start, conjugate_step
from refimpl.solvers._gmres import gmres_sweep
from refimpl.solvers._progress import Callback, Progress, as_batch, like, ratio
from refimpl.solvers._systems import Counted, Matvec, identity, solve

# Times a step is shortened, to half or less, before the image is given up: 2^-40 is below any use.
HALVINGS = 40
SUFFICIENT_DECREASE = 1e-4
SHIFT = 0.1

# A linearisation costs as much as many products: directions are worth solving well.
FORCING = 0.1

# Values of ‖G‖ that a safeguarded step is compared with.
MEMORY = 5

# Most products for one direction; a direction cut short still descends.
INNER_ITERATIONS = 500


class EnergyLinearization(Protocol):
    """E(u), one value for each image, ∇E(u) and v ↦ ∇²E(u) v at one u."""

    energy: Array
    gradient: Array

    def hvp(self, v: Array) -> Array:
        """Hessian product."""


class DirectionLinearization(Protocol):
    """G(u) and v ↦ ∂G(u) v at one u."""

    direction: Array

    def direction_jvp(self, v: Array) -> Array:
        """Jacobian product."""


Linearization = EnergyLinearization | DirectionLinearization
Preconditioner = Callable[[Linearization], Matvec]
Safeguard = Callable[[Linearization, Linearization | None], Linearization]


@np.errstate(over="ignore", invalid="ignore")
def newton(
    linearize: Callable[[Array], EnergyLinearization],
    u0: Array,
    *,
    step: float,
    tol: float = 1e-10,
    max_iterations: int = 100,
    max_products: int | None = None,
    safeguard: Safeguard | None = None,
    preconditioner: Preconditioner | None = None,
    precision: np.dtype | None = None,
    callback: Callback | None = None,
) -> SolverResult:
    """Minimise an energy by truncated Newton iteration with backtracking.

    Parameters
    ----------
    linearize : callable
        u ↦ an object with `energy` = E(u), shape (N,), `gradient` = ∇E(u) and `hvp(v)` = ∇²E(u) v.
        Of a point that is rejected only the energy is used.
    u0 : array (N, ...), float32 or float64
    step : float
        τ in the residual r and in the largest shift 1/τ; about 1/‖∇²E‖.
    tol : float
        Relative residual r to reach for each image.
    max_iterations : int
        Most Newton steps of an image.
    max_products : int, optional
        When the batch has taken so many Hessian products, one more step is the last.
    safeguard : callable, optional
        (lin, previous) ↦ a linearisation whose `hvp` replaces that of `lin`, for example by one
        that majorises where the last step shows its model to be wrong. `previous` is what it
        returned for the last step, None at the start. In the limit its `hvp` must approach the
        Hessian product, to the rounding of `precision`.
    preconditioner : callable, optional
        From a linearisation to r ↦ P r, P ≈ (∇²E)⁻¹ symmetric positive definite.
    precision : dtype, optional
        Of directions, which are computed from g/‖g‖: that in which the `hvp` of the safeguard's
        linearisation and the preconditioner act; left out: that of `u0`. Energies, gradients and
        iterates keep that of `u0`.
    callback : callable (iteration, u, residuals), optional

    Returns
    -------
    SolverResult
        `evaluations` counts linearisations, one for each point tried; `products` Hessian products.

    Raises
    ------
    BreakdownError
        When energy or gradient at an accepted iterate is NaN or infinite.

    Notes
    -----
    Conjugate gradients stop at negative curvature κ = ⟨p, (H + μI) p⟩ ≤ 0 with the iterate
    reached, or, at the first direction p = −P g, with −⟨g, p⟩/|κ| p. Both descend. Where
    E(u + t d) equals E(u) to rounding, the step is judged by ‖∇E‖, which keeps digits E has lost.
    """
    u = as_batch(u0, "newton: u0")
    tau = u.dtype.type(positive(step, "newton: step"))
    progress = Progress(
        "newton", u, tol, max_iterations,
        remedy="check the Hessian products, or start elsewhere", callback=callback,
    )
    lin, model, evaluations, products = linearize(u), None, 1, 0
    progress.require_finite(_energy(lin, u), "energy")
    first = norm(like(lin.gradient, u, "linearize: gradient"))
    while progress.record(progress.relative_residual(tau * lin.gradient, u), u):
        model = lin if safeguard is None else safeguard(lin, model)
        hvp = Counted(model.hvp, "newton: hvp")
        precondition = identity if preconditioner is None else preconditioner(model)
        unit, size = unit_and_size(lin.gradient, precision)
        forcing = _forcing(lin.gradient, first, progress)
        product = _shifted(hvp, progress.residuals, tau)
        most = progress.left(products, max_products, INNER_ITERATIONS)
        d = newton_direction(product, unit, precondition, forcing, progress.running, most)
        d = per_image(size, u) * d.astype(u.dtype, copy=False)
        products += hvp.products
        test = _EnergyTest(linearize, lin, d)
        u, tried = _backtrack(u, d, test, progress)
        # Where an image stalls, `test.lin` is not at its u; it does not run on, and is not asked.
        lin, evaluations = test.lin, evaluations + tried
    return progress.result(u, evaluations=evaluations, products=products)


@np.errstate(over="ignore", invalid="ignore")
def newton_krylov(
    linearize: Callable[[Array], DirectionLinearization],
    u0: Array,
    *,
    step: float,
    tol: float = 1e-10,
    max_iterations: int = 100,
    max_products: int | None = None,
    restart: int = 30,
    safeguard: Safeguard | None = None,
    preconditioner: Preconditioner | None = None,
    precision: np.dtype | None = None,
    callback: Callback | None = None,
) -> SolverResult:
    """Solve G(u) = 0 by inexact Newton iteration with GMRES and backtracking on ‖G‖.

    Parameters
    ----------
    linearize : callable
        u ↦ an object with `direction` = G(u) and `direction_jvp(v)` = ∂G(u) v.
    u0, step, tol, max_iterations, max_products, preconditioner, precision, callback
        As for `newton`; the preconditioner need not be symmetric.
    restart : int
        Cycle length of GMRES.
    safeguard : callable, optional
        As for `newton`. The steps of such a model need not decrease ‖G‖ at once: then ‖G‖ is
        compared with the largest of its last 5 values.

    Returns
    -------
    SolverResult
        `evaluations` counts linearisations, one for each point tried; `products` Jacobian products.

    Raises
    ------
    BreakdownError
        When G at an accepted iterate or a Jacobian product is NaN or infinite.
    """
    u = as_batch(u0, "newton_krylov: u0")
    tau = u.dtype.type(positive(step, "newton_krylov: step"))
    progress = Progress(
        "newton_krylov", u, tol, max_iterations,
        remedy="a local minimum of ‖G‖ or a kink; use picard or anderson", callback=callback,
    )
    sweep = partial(gmres_sweep, restart=count(restart, "newton_krylov: restart"))
    lin, model, evaluations, products, sizes = linearize(u), None, 1, 0, []
    first = norm(like(lin.direction, u, "linearize: direction"))
    while progress.record(progress.relative_residual(tau * lin.direction, u), u):
        model = lin if safeguard is None else safeguard(lin, model)
        forcing = np.where(progress.running, _forcing(lin.direction, first, progress), np.inf)
        unit, size = unit_and_size(lin.direction, precision)
        inner = solve(
            "newton_krylov: gmres", sweep,
            _shifted(model.direction_jvp, progress.residuals, tau), -unit, x0=None,
            preconditioner=None if preconditioner is None else preconditioner(model),
            tol=forcing, max_iterations=progress.left(products, max_products, INNER_ITERATIONS),
            remedy="check the Jacobian products",
        )
        products += inner.products
        sizes = [*sizes, norm(lin.direction)][-(1 if safeguard is None else MEMORY) :]
        test = _NormTest(linearize, np.max(sizes, axis=0))
        d = per_image(size, u) * inner.x.astype(u.dtype, copy=False)
        u, tried = _backtrack(u, d, test, progress)
        lin, evaluations = test.lin, evaluations + tried
    return progress.result(u, evaluations=evaluations, products=products)


def _shifted(product: Matvec, residuals: Array, tau: float) -> Matvec:
    """v ↦ M v + μ v with μ = min(r / 10, 1) / τ."""
    mu = np.minimum(SHIFT * residuals, 1) / tau
    return lambda v: plus(product(v), mu, v)


def newton_direction(
    hvp: Matvec, gradient: Array, precondition: Matvec, forcing: Array, running: Array,
    most: int = INNER_ITERATIONS,
) -> Array:
    """d with ‖H d + g‖ ≤ η ‖g‖ by conjugate gradients that stop at negative curvature.

    After `most` iterations they stop with what they have.
    """
    goal = forcing * norm(gradient)
    state = conjugate_start(-gradient, precondition)
    for k in range(most):
        if not running.any():
            break
        Hp = hvp(state.p)
        curvature = dot(state.p, Hp)
        negative = ~(curvature > 0)
        if k == 0:
            # The first step is taken whatever the sign: it is along −P g.
            curvature = np.where(curvature == 0, 1, np.abs(curvature))
        else:
            running = running & ~negative
        state = conjugate_step(state, Hp, curvature, precondition, running)
        running = running & ~negative & (norm(state.r) > goal)
    return state.x


def _forcing(g: Array, first: Array, progress: Progress) -> Array:
    """η = min(1/10, √(‖g‖/‖g0‖)), but not below half of what `tol` asks for."""
    needed = ratio(progress.tol.astype(g.dtype), 2 * progress.residuals)
    eta = np.minimum(FORCING, np.maximum(np.sqrt(ratio(norm(g), first)), needed))
    return eta.astype(g.dtype)


def _backtrack(
    u: Array, d: Array, accepts: "_EnergyTest | _NormTest", progress: Progress
) -> tuple[Array, int]:
    """u + t d with the first t = 1, or ever shorter, that passes, and how many points were tried.

    An image without one stalls at u.
    """
    t, pending = np.ones(len(u), dtype=u.dtype), progress.running
    for tried in range(1, HALVINGS + 1):
        candidate = progress.keep(plus(u, t, d), u)
        pending = pending & ~accepts(candidate, t)
        if not pending.any():
            return candidate, tried
        t = np.where(pending, accepts.shorter(t), t)
    progress.stall(pending)
    return np.where(per_image(pending, u), u, candidate), HALVINGS


class _EnergyTest:
    """E(u + t d) ≤ E(u) + 1e-4 t ⟨∇E(u), d⟩, or, where E cannot tell, ‖∇E‖ falls by 1e-4 of itself.

    E sums n terms and is rounded by about eps √n |E|; smaller differences say nothing. The fall
    asked of ‖∇E‖ does not shrink with t: at some t every difference is a rounding error.

    Attributes
    ----------
    lin : EnergyLinearization
        At the last candidate.
    """

    def __init__(self, linearize: Callable, lin: EnergyLinearization, d: Array):
        g = lin.gradient
        self.linearize, self.lin = linearize, lin
        self.before, self.size, self.slope = lin.energy, norm(g), dot(g, d)
        self.rounding = np.sqrt(g[0].size) * np.abs(lin.energy) * np.finfo(g.dtype).eps

    def __call__(self, candidate: Array, t: Array) -> Array:
        self.lin = self.linearize(candidate)
        energy = _energy(self.lin, candidate)
        difference = energy - self.before
        accepted = difference <= SUFFICIENT_DECREASE * t * np.minimum(self.slope, 0)
        undecided = np.abs(difference) <= self.rounding
        if undecided.any():
            enough = (1 - SUFFICIENT_DECREASE) * self.size
            accepted = np.where(undecided, norm(self.lin.gradient) <= enough, accepted)
        self.excess = energy - self.before - t * self.slope
        return accepted & np.isfinite(energy)

    def shorter(self, t: Array) -> Array:
        """The minimiser of the parabola through E(u), its slope and the last E, in [t/10, t/2]."""
        curved = np.isfinite(self.excess) & (self.excess > 0)
        best = -self.slope * t**2 / (2 * np.where(curved, self.excess, 1))
        return np.where(curved, np.clip(best, t / 10, t / 2), t / 2).astype(t.dtype)


class _NormTest:
    """‖G(u + t d)‖ ≤ (1 − 1e-4 t) `size`; `lin` is the linearisation at the last candidate."""

    def __init__(self, linearize: Callable, size: Array):
        self.linearize, self.size = linearize, size

    def __call__(self, candidate: Array, t: Array) -> Array:
        self.lin = self.linearize(candidate)
        value = like(self.lin.direction, candidate, "linearize: direction")
        return norm(value) <= (1 - SUFFICIENT_DECREASE * t) * self.size

    def shorter(self, t: Array) -> Array:
        """Half of t."""
        return t / 2


def _energy(lin: EnergyLinearization, u: Array) -> Array:
    """E of the linearisation, if it is (N,)."""
    values = np.asarray(lin.energy)
    if values.shape != u.shape[:1]:
        raise ValueError(
            f"newton: linearize: energy has shape {values.shape}, expected {u.shape[:1]}; "
            "return one value per image"
        )
    return values
