"""How accurate the solved outputs of a case are: proved bounds (E12), and estimates.

Bounds, where μ is positive, are those of `refimpl.equilibrium.certificates`, rounding included,
with one refinement: where σ has kinks, bend, which carries sup|σ″|, is 0 if no response A u + b can
reach a kink within the distance ‖A‖ e, because σ′ is constant in between, and otherwise nothing is
known. A case with a norm has none, for its A comes from an iteration that proves no norm.

Estimates, always: residuals of the sizes found and of rounding, but of random direction, are
carried to first order through both linear systems, and the outputs are computed again, with a
normalised A and C also through the derivative of the norm. Bounds hold for every problem with the
same norms and can exceed the error by many orders; estimates are of its size.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.engine import Step, StepLinearization, TiedStep, strength
from refimpl.equilibrium.certificates import (
    Norms,
    adjoint_bound,
    distance,
    gradient_bounds,
    residual,
)
from refimpl.equilibrium.proved import grown, magnitudes, proved_monotonicity
from refimpl.kernels.vectors import norm
from refimpl.paper.potentials import trait
from refimpl.results import BreakdownError, SolverResult
from refimpl.solvers import cg, gmres, lanczos
from refimpl.verification.cases.given import Given
from refimpl.verification.checks import dense_matrix
from refimpl.verification.rounding import (
    NORM_TOL,
    Magnitudes,
    OperatorNorms,
    kink_distances,
)

# Largest image (number of values) whose Jacobian is formed as a matrix.
DENSE_LIMIT = 512

MAX_LANCZOS = 50
MAX_LINEAR = 5_000
LONGEST_CYCLE = 200
# Displacements that an estimate is the root mean square of.
DRAWS = 3

Matvec = Callable[[Array], Array]


class Solution(NamedTuple):
    """A state with its adjoint state: `lin` at u, q of E9, ∇ℓ(u) of E11, and what rounding does.

    Gradients are with respect to the parameters `given`.
    """

    lin: StepLinearization
    q: Array
    loss_gradient: Array
    sizes: Magnitudes
    given: Given

    @property
    def p(self) -> Array:
        """p = τ q, which solves Jᵀ p = ∇ℓ."""
        return self.lin.step.tau * self.q

    @property
    def residual(self) -> Array:
        """‖G(u)‖ + ρ_G for each image."""
        return norm(self.lin.direction) + self.sizes.of_direction()

    @property
    def defect(self) -> Array:
        """‖∇ℓ − Jᵀp‖ + ρ_p for each image."""
        defect = norm(self.loss_gradient - self.lin.direction_vjp(self.p))
        return defect + self.sizes.of_adjoint(self.p, self.loss_gradient)


def bounds(solution: Solution) -> dict[str, float]:
    """Certified bounds by output: `fixed_point` (norm over the batch), `loss`, `hypergradient_*`.

    Infinite or NaN where nothing is known.
    """
    lin, p = solution.lin, solution.p
    mu = proved_monotonicity(lin.step, columns=np.inf)
    if mu <= 0 or solution.given.normalized:
        return dict.fromkeys(_output_names(lin), np.inf)
    e, norms = distance(residual(lin), mu), Norms.of(lin, p)
    norms = norms._replace(bend=bend(lin, norms, e + 2 * norms.u_rounding))
    with np.errstate(invalid="ignore"):
        delta = adjoint_bound(lin, p, solution.loss_gradient, e, mu, norms)
        gradient = gradient_bounds(lin, p, e, delta, norms)
    loss = loss_error(solution.loss_gradient, e) + loss_rounding(solution.loss_gradient)
    values = {"fixed_point": float(np.linalg.norm(e)), "loss": loss}
    return values | {f"hypergradient_{name}": bound for name, bound in gradient.items()}


def _output_names(lin: StepLinearization) -> list[str]:
    names = [name for name, _ in lin.step.problem.theta.items() if name != "gamma"]
    return ["fixed_point", "loss", *(f"hypergradient_{name}" for name in names)]


def loss_error(loss_gradient: Array, e: Array) -> float:
    """|ℓ(u) − ℓ(u*)| ≤ Σ_n ‖∇ℓ‖ e + e²/n, by E11 being a sum of squares."""
    return float(np.sum(norm(loss_gradient) * e + e**2 / loss_gradient.size))


def loss_rounding(loss_gradient: Array) -> float:
    """γ_n ℓ, the rounding of a sum of n squares, from ‖∇ℓ‖² = 4 ℓ / n."""
    n = loss_gradient.size
    roundings = grown(n + 4, loss_gradient.dtype)
    return float(roundings * n / 4 * np.sum(norm(loss_gradient).astype(float) ** 2))


def bend(lin: StepLinearization, norms: Norms, e: Array) -> Array | float:
    """γ w̄ κ ‖A‖ with κ = sup|σ″| over what lies within e of u; see the module's docstring."""
    potential, z = lin.step.problem.potential, lin.field.preactivation
    if np.isfinite(trait(potential, "sup_third")):
        return norms.bend
    away = kink_distances(potential.kinks, z).reshape(len(z), -1).min(axis=1)
    return np.where(away > norms.A * e, 0.0, np.inf)


def estimates(solution: Solution) -> dict[str, float]:
    """Estimated errors by output, as `bounds`; NaN where a linear system is not solved.

    The root mean square of what `DRAWS` displacements change: an output of few numbers may by
    chance see next to nothing of a single one.
    """
    rng = np.random.default_rng(0)
    try:
        draws = [_changes(solution, rng) for _ in range(DRAWS)]
    except BreakdownError:
        return dict.fromkeys(_output_names(solution.lin), np.nan)
    return {
        name: float(np.hypot.reduce([draw[name] for draw in draws]) / np.sqrt(DRAWS))
        for name in draws[0]
    }


def _changes(solution: Solution, rng: np.random.Generator) -> dict[str, float]:
    """How far outputs are moved by a state and an adjoint state displaced at random.

    With random ξ, ζ of the norms of residual and defect: J d = ξ, u′ = u + d, and
    J(u′)ᵀ p′ = ∇ℓ(u′) + ζ; the outputs at (u′, p′) are compared with those at (u, p). A norm is
    differentiated at coefficients that are moved by its relative error.
    """
    lin, p = solution.lin, solution.p
    d = _solved(lin, lin.direction_jvp, _random(rng, solution.residual, p))
    moved = lin.step.linearize(lin.u + d)
    goal = solution.loss_gradient + 2 / p.size * d + _random(rng, solution.defect, p)
    change = _solved(moved, moved.direction_vjp, goal - moved.direction_vjp(p))
    before = solution.given.pull_back(lin.params_vjp(solution.q))
    after = moved.params_vjp((p + change) / lin.step.tau)
    after = solution.given.shaken(rng).pull_back(after)
    values = {
        "fixed_point": float(np.linalg.norm(d)), "loss": loss_error(solution.loss_gradient, norm(d))
    }
    for (name, x), (_, y) in zip(before.items(), after.items(), strict=True):
        if name != "gamma":
            values[f"hypergradient_{name}"] = float(np.linalg.norm(x - y))
    return values


def _random(rng: np.random.Generator, sizes: Array, like: Array) -> Array:
    """Images of these norms in random directions."""
    x = rng.standard_normal(like.shape).astype(like.dtype)
    return x * per_image((sizes / norm(x)).astype(x.dtype), x)


def local_monotonicity(lin: StepLinearization) -> Array:
    """σ_min(J(u)) of each image, shape (N,); NaN where it is not found.

    Near a fixed point ‖u − u*‖ ≤ ‖G(u)‖ / σ_min(J(u)) to first order.
    """
    images = (lin.step.image(n).linearize(lin.u[n : n + 1]) for n in range(len(lin.u)))
    smallest = _by_matrix if lin.u[0].size <= DENSE_LIMIT else _by_inverse_lanczos
    return np.array([smallest(image) for image in images])


def _by_matrix(lin: StepLinearization) -> float:
    """σ_min of J as a matrix, column by column, for one image."""
    J = dense_matrix(lin.direction_jvp, lin.u.shape, lin.u.dtype)
    return float(np.linalg.svd(J, compute_uv=False)[-1])


def _by_inverse_lanczos(lin: StepLinearization) -> float:
    """1 / √λ_max(J⁻¹J⁻ᵀ) for one image, to two digits."""

    def inverse(x: Array) -> Array:
        return _solved(lin, lin.direction_jvp, _solved(lin, lin.direction_vjp, x))

    start = np.random.default_rng(0).standard_normal(lin.u.shape).astype(lin.u.dtype)
    try:
        pair = lanczos(inverse, start, tol=NORM_TOL, max_iterations=MAX_LANCZOS)
    except BreakdownError:
        return np.nan
    return float(1 / np.sqrt(pair.value)) if pair.converged else np.nan


def _solved(lin: StepLinearization, matvec: Matvec, b: Array) -> Array:
    result = solve_linear(lin.step, matvec, b, tol=NORM_TOL**2)
    if not result.all_converged:
        raise BreakdownError(f"J x = b: {result.message}")
    return result.x


def solve_linear(step: Step, matvec: Matvec, b: Array, *, tol: float) -> SolverResult:
    """A system with J or Jᵀ: by conjugate gradients if H is positive definite, else by GMRES."""
    if isinstance(step, TiedStep):
        try:
            return cg(matvec, b, tol=tol, max_iterations=MAX_LINEAR)
        except BreakdownError:
            pass
    restart = min(b[0].size, LONGEST_CYCLE)
    return gmres(matvec, b, tol=tol, max_iterations=MAX_LINEAR, restart=restart)


def isolated(
    lin: StepLinearization, local: Array, sizes: Magnitudes, norms: OperatorNorms
) -> Array:
    """Whether J is known to be regular to working precision, at u of each image and near it.

    Near: within 2 ‖G(u)‖ / σ_min, where the fixed point is by Newton and Kantorovich, J moves by at
    most L times that, L = γ w̄ κ ‖A‖² ‖C‖; where σ has kinks, only at u. What is not known, NaN, is
    not isolated; a proved μ > 0 leaves one fixed point, and J regular.
    """
    problem, n = lin.step.problem, lin.u[0].size
    bent = trait(problem.potential, "sup_third")
    L = strength(problem) * bent * norms.A**2 * norms.C if np.isfinite(bent) else 0.0
    level = np.sqrt(n) * sizes.eps * sizes.jacobian
    residual = norm(lin.direction).astype(float) + sizes.of_direction()
    with np.errstate(divide="ignore", invalid="ignore"):
        nearby = local - L * 2 * residual / local > level
    return nearby | (proved_monotonicity(lin.step) > level)


def terms(solution: Solution) -> dict[str, float]:
    """Sizes of what each solved output sums: G's terms over ‖J‖, squares, magnitudes in E10."""
    lin, p, u = solution.lin, solution.p, solution.lin.u
    sizes, gradient = solution.sizes, solution.loss_gradient
    steepest = trait(lin.step.problem.potential, "sup_second")
    absolute = magnitudes(lin.step).linearize(abs(u)).field.params_vjp(abs(p))
    state = np.linalg.norm(sizes.direction / sizes.jacobian)
    values = {"fixed_point": float(state), "loss": float(np.vdot(u, u) / u.size)}
    values["loss"] += float(u.size / 4 * np.vdot(gradient, gradient))
    for name, x in absolute.items():
        values[f"hypergradient_{name}"] = float(steepest * np.linalg.norm(x))
    return values
