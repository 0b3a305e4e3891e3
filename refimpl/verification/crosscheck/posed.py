"""When a case can be held against: a fixed point that every method finds, away from kinks.

A case is well posed if

    • u* is found from Kᵀy, and J(u*) has singular values in a ratio of at most `MAX_CONDITION`;
    • u ← T(u) contracts at u* by `MAX_RADIUS` or faster, so that plain iterations end;
    • u* is the only fixed point: because μ = λ σ_min(K)² − γ w̄ sup|σ′| ‖A‖ ‖C‖ > 0, or because
      E is convex and its Hessian at u* positive definite, and otherwise as far as other starts
      tell, which must all lead to it;
    • every response A u + b at u and at u* is at least `MARGIN` from every kink of σ;
    • ∇ℓ(u*) is not small: ‖u* − u†‖ ≥ ‖u†‖ / 10 for each image;
    • with a norm, the largest singular values of A and of C are simple by a relative gap `MIN_GAP`.

All by dense linear algebra in float64; of compiled code only norms are used
(`refimpl.kernels.vectors`).
"""


import numpy as np

from refimpl.arrays import Array
from refimpl.kernels.vectors import norm
from refimpl.paper.potentials import Potential, make_potential
from refimpl.verification.cases import Case
from refimpl.verification.checks.dense_matrices import singular_gap
from refimpl.verification.crosscheck.anatomy import Parts, make_parts, responses
from refimpl.verification.crosscheck.matrices import MatrixSystem
from refimpl.verification.question import in_precision
from refimpl.verification.rounding import kink_distances

MAX_CONDITION = 50.0
MAX_RADIUS = 0.97
MARGIN = 1e-3
MIN_GAP = 0.02
SAME = 1e-8


def why_ill_posed(case: Case) -> str | None:
    """What keeps a case from being well posed, or None."""
    parts = make_parts(in_precision(case, np.dtype(float)))
    if parts.normalizer is not None and smallest_gap(parts) < MIN_GAP:
        return "the norm is not a simple singular value"
    system = MatrixSystem.of(parts)
    potential = make_potential(case.potential, **case.potential_parameters)
    start = parts.operator_adjoint.forward(parts.y)
    star = system.fixed_point(start)
    if star is None:
        return "no fixed point found"
    J = system.jacobian(star)
    if not well_conditioned(J, parts.tau):
        return "ill conditioned"
    if not unique(system, potential, star, J):
        return "more than one fixed point"
    if (norm(star - parts.target) < norm(parts.target) / 10).any():
        return "the target is the fixed point"
    states = (case.arrays["u"].astype(np.float64), star)
    near = any(close_to_kink(system.acting, potential, u) for u in states)
    return "a response close to a kink" if near else None


def well_conditioned(J: Array, tau: float) -> bool:
    """Condition of J and spectral radius of I − τ J, of every image."""
    values = np.linalg.svd(J, compute_uv=False)
    radius = np.abs(1 - tau * np.linalg.eigvals(J)).max()
    return bool((values[:, -1] * MAX_CONDITION >= values[:, 0]).all() and radius <= MAX_RADIUS)


def unique(system: MatrixSystem, potential: Potential, star: Array, J: Array) -> bool:
    """Whether u* is the only fixed point; see the module's docstring."""
    parts = system.acting
    if certified_monotone(system, potential):
        return True
    if parts.tied and potential.convex and (parts.weights >= 0).all():
        return bool(np.linalg.eigvalsh(J).min() > 0)
    starts = (np.zeros_like(star), -2 * star, star + 3 * parts.target)
    others = (system.fixed_point(start) for start in starts)
    return all(u is not None and (norm(u - star) <= SAME * norm(star)).all() for u in others)


def certified_monotone(system: MatrixSystem, potential: Potential) -> bool:
    """λ σ_min(K)² > γ w̄ sup|σ′| ‖A‖ ‖C‖."""
    parts, matrices = system.acting, system.matrices
    data = parts.lam * np.linalg.eigvalsh(matrices.data).min()
    norms = np.linalg.norm(matrices.analysis, 2) * np.linalg.norm(matrices.synthesis, 2)
    return bool(data > parts.gamma * abs(parts.weights).max() * potential.sup_second * norms)


def close_to_kink(parts: Parts, potential: Potential, u: Array) -> bool:
    """Whether a response at u lies within `MARGIN` of a kink."""
    return bool(kink_distances(potential.kinks, responses(parts, u).z).min() < MARGIN)


def smallest_gap(parts: Parts) -> float:
    """1 − σ₂/σ₁ of A, and of C when untied, as given; 0 where an array vanishes."""
    banks = (parts.A,) if parts.tied else (parts.A, parts.C)
    return min(singular_gap(parts.normalizer.bank, raw) for raw in banks)
