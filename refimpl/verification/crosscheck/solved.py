"""Tolerances of fixed point, loss and hypergradient; `reference`, beside this, has the idea.

Images of up to `DENSE_LIMIT` values are treated with Jacobians as matrices. For larger ones the
accuracy that the oracle reports for itself, at its own residual, is scaled to the residual
allowed.
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.equilibrium.certificates import proved_monotonicity
from refimpl.kernels.vectors import norm
from refimpl.verification.cases import Case, CaseResult, build_step
from refimpl.verification.cases.accuracy import DENSE_LIMIT, loss_error
from refimpl.verification.cases.evaluation import ROUNDING_FACTOR
from refimpl.verification.crosscheck.anatomy import make_parts, parameters_vjp
from refimpl.verification.crosscheck.matrices import MatrixSystem, solve
from refimpl.verification.crosscheck.sizes import Sizes, kinks_touched, longest_sum

# Few random draws miss the worst direction, and another order of sums rounds otherwise.
SAFETY = 8

# First-order bounds hold near u*; the distances allowed are not infinitely small.
FIRST_ORDER = 2
DRAWS = 4

# A residual of this many roundings of u is left even where `tol` is smaller.
STAGNATION = 4


def solved_tolerances(case: Case, eps: float, result: CaseResult, tol: float) -> dict[str, float]:
    """The tolerances of the solved outputs that are there."""
    outputs = result.outputs
    if "fixed_point" not in outputs:
        return {}
    if case.arrays["u"][0].size > DENSE_LIMIT:
        return scaled_accuracy(case, eps, result, tol)
    problem = Solved.of(case, eps, outputs["fixed_point"], tol)
    tolerances = {"fixed_point": float(np.linalg.norm(problem.state))}
    tolerances["loss"] = problem.loss(eps)
    if "hypergradient_A" in outputs:
        tolerances |= problem.hypergradient(case, eps)
    return {name: tolerances[name] for name in outputs if name in tolerances}


def scaled_accuracy(case: Case, eps: float, result: CaseResult, tol: float) -> dict[str, float]:
    """SAFETY² times the oracle's own estimates, scaled from its residuals to those allowed.

    The estimates are for random directions only, hence the square.
    """
    star, report = result.outputs["fixed_point"], result.report
    rounding = np.array(report["fixed_point"]["residual_limit"], float) / ROUNDING_FACTOR
    allowed = (tol + STAGNATION * eps) * norm(star) / case.tau
    allowed += rounding * eps / np.finfo(float).eps
    worst = float(np.max(allowed / rounding))
    return {
        name: SAFETY**2 * worst * (accuracy["estimate"] or np.inf)
        for name, accuracy in report["accuracy"].items()
    }


class Solved(NamedTuple):
    """A fixed point with how far a backend may be from it.

    Attributes
    ----------
    system : MatrixSystem
    sizes : Sizes
        At u*, w being the adjoint state q.
    star, q : arrays (N, C, H, W)
        u* and the adjoint state.
    state : array (N,)
        e, allowed ‖u − u*‖.
    residual, defect : arrays (N,)
        Allowed ‖G(u)‖ and ‖∇ℓ − (I − ∂T)ᵀ q‖.
    """

    system: MatrixSystem
    sizes: Sizes
    star: Array
    q: Array
    state: Array
    residual: Array
    defect: Array

    @classmethod
    def of(cls, case: Case, eps: float, star: Array, tol: float) -> "Solved":
        """What a backend with this tolerance and roundoff may leave."""
        parts = make_parts(case)
        system = MatrixSystem.of(parts)
        goal = system.loss_gradient(star)
        q = system.adjoint_state(star, goal)
        sizes = Sizes.of(case, parts, u=star, w=q)
        rounding = 2 * eps * np.sqrt(longest_sum(parts, star[:1]))
        loosest = tol + STAGNATION * eps
        residual = loosest * norm(star) / parts.tau + rounding * norm(sizes.direction())
        defect = loosest * np.maximum(norm(q), norm(goal))
        defect += rounding * (parts.tau * norm(sizes.transposed()) + norm(goal))
        return cls(system, sizes, star, q, distance(case, system, star, residual), residual, defect)

    def loss(self, eps: float) -> float:
        """|∇ℓ| e + e² / n, and the rounding of the squares."""
        parts, u = self.system.parts, self.star
        apart = abs(u - parts.target) * (abs(u) + abs(parts.target)) + (u - parts.target) ** 2
        moved = loss_error(self.system.loss_gradient(u), self.state)
        return moved + 2 * eps * np.sqrt(u.size) * float(np.mean(apart))

    def hypergradient(self, case: Case, eps: float) -> dict[str, float]:
        """SAFETY times the largest change, plus rounding; `inf` near a kink."""
        parts, rng = self.system.parts, np.random.default_rng(0)
        before = parameters_vjp(parts, self.star, self.q)
        at_state = [
            difference(self.system.hypergradient(self.star + d), before)
            for d in self.directions(self.system.jacobian(self.star), self.residual, rng)
        ]
        at_adjoint = [
            parameters_vjp(parts, self.star, d / parts.tau)
            for d in self.directions(self.system.transposed(self.star), self.defect, rng)
        ]
        tolerances = {}
        for name in before:
            change = sum(max(np.linalg.norm(x[name]) for x in xs) for xs in (at_state, at_adjoint))
            rounding = self.sizes.rounding(f"vjp_{name}", eps)
            tolerances[f"hypergradient_{name}"] = float(SAFETY * change + rounding)
        return dict.fromkeys(tolerances, np.inf) if self.near_kink(case, eps) else tolerances

    def directions(self, J: Array, sizes: Array, rng: np.random.Generator) -> list[Array]:
        """J⁻¹ξ for ξ of these norms: along the direction that J⁻¹ amplifies most, and random."""
        left, _, _ = np.linalg.svd(J)
        worst = left[:, :, -1].reshape(self.star.shape)
        others = [rng.standard_normal(self.star.shape) for _ in range(DRAWS)]
        signs = per_image(rng.choice([-1.0, 1.0], len(worst)), worst)
        directions = [worst, signs * worst, *(x / per_image(norm(x), x) for x in others)]
        return [solve(J, per_image(sizes, x) * x) for x in directions]

    def near_kink(self, case: Case, eps: float) -> bool:
        """Whether a response at u* can cross a kink within the distance allowed."""
        rows = np.linalg.norm(self.system.matrices.analysis, axis=1).max()
        at = self.sizes.s
        away = (rows * self.state).reshape(-1, *[1] * (at.ndim - 1))
        return bool(kinks_touched(self.system.parts, case, self.star, eps, away).any())


def distance(case: Case, system: MatrixSystem, star: Array, residual: Array) -> Array:
    """e of each image: certified, or to first order if that is smaller or nothing is certified.

    Infinite where J is singular.
    """
    smallest = np.linalg.svd(system.jacobian(star), compute_uv=False)[:, -1]
    with np.errstate(divide="ignore"):
        first_order = FIRST_ORDER * residual / smallest
    mu = proved_monotonicity(build_step(case))
    return np.minimum(first_order, residual / mu) if mu > 0 else first_order


def difference(new: dict[str, Array], old: dict[str, Array]) -> dict[str, Array]:
    """new − old, by name."""
    return {name: new[name] - old[name] for name in old}
