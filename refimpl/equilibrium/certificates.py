"""Certificates (E12): bounds on ‖u − u*‖ and on the hypergradient's error, from residuals.

G(u) = λ Kᵀ(K u − y) + F(u) is strongly monotone with constant

    μ = λ σ_min(K)² − γ w̄ s̄ ‖A‖ ‖C − A‖      (φ convex, w ≥ 0)
    μ = λ σ_min(K)² − γ w̄ s̄ ‖A‖ ‖C‖          (otherwise)

with w̄ = max|w|, s̄ = sup|σ′|: for convex φ, vᵀAᵀDA v ≥ 0 with D = diag(γ w σ′), and what remains
of vᵀCᵀDA v is at most the product shown. If μ > 0 then for every u

    ‖u − u*‖ ≤ ‖G(u)‖ / μ        ‖J(u)⁻¹‖ ≤ 1 / μ.

Where μ ≤ 0 no bound follows and `inf` is returned. Bounds are for exact arithmetic:
rounding is not covered.
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, as_images
from refimpl.engine import (
    Step,
    StepLinearization,
    as_step,
    compiled,
    is_known,
    slope_bound,
    strength,
)
from refimpl.equilibrium.norms import bank_norm, bank_norms
from refimpl.kernels.vectors import norm
from refimpl.paper.operators import (
    Convolution,
    DenseBank,
    FilterBank,
    Identity,
    LinearOperator,
    Matrix,
)
from refimpl.paper.parameters import Parameters
from refimpl.paper.potentials import trait
from refimpl.paper.problem import Problem


class Certificate(NamedTuple):
    """Bounds for one batch.

    Attributes
    ----------
    monotonicity : float
        μ.
    state : array (N,)
        Bound on ‖u − u*‖ of each image.
    adjoint : array (N,)
        Bound on ‖p − p*‖, p = τ q, of each image.
    gradient : dict of float
        Bound on the Frobenius norm of the error of dℓ/dθ, for "A", "C" (untied), "b", "weights".
    """

    monotonicity: float
    state: Array
    adjoint: Array
    gradient: dict[str, float]


def monotonicity(step: Step) -> float:
    """μ of the module's docstring: certified, for every u; may be ≤ 0, and then proves nothing."""
    theta, bank, potential = step.problem.theta, step.problem.bank, step.problem.potential
    data = step.problem.lam * smallest_singular_value(step.problem.operator) ** 2
    convex = trait(potential, "convex") and bool((theta.gamma * theta.weights >= 0).all())
    if convex and theta.tied:
        return data
    apart = theta.synthesis - theta.A if convex else theta.synthesis
    return data - slope_bound(step.problem) * bank_norm(bank, theta.A) * bank_norm(bank, apart)


def smallest_singular_value(operator: LinearOperator) -> float:
    """A lower bound on σ_min(K): identity, matrix, periodic convolution; for others the safe 0.

    From what the decomposition returns, its rounding error is taken off, so that a singular K
    gives 0.
    """
    if is_known(operator, (Identity,)):
        return 1.0
    if is_known(operator, (Matrix,)) and operator.matrix.shape[0] >= operator.matrix.shape[1]:
        values = np.linalg.svd(operator.matrix, compute_uv=False)
    elif is_known(operator, (Convolution,)) and operator.boundary == "periodic":
        values = np.abs(operator.symbol())
    else:
        return 0.0
    rounding = max(operator.domain_shape[1:]) ** 2 * np.finfo(values.dtype).eps * values.max()
    return max(0.0, float(values.min() - rounding))


def state_bound(step: Step, u: Array) -> Array:
    """‖u − u*‖ ≤ ‖G(u)‖ / μ for each image, E12; inf where μ ≤ 0."""
    return distance(step.direction(u), monotonicity(step))


def distance(direction: Array, mu: float) -> Array:
    """‖G(u)‖ / μ ≥ ‖u − u*‖ for each image; inf where μ ≤ 0."""
    return norm(direction) / mu if mu > 0 else np.full(len(direction), np.inf)


def certify(
    step: Step | Problem, u: Array, q: Array, loss_gradient: Array, *, mu: float | None = None
) -> Certificate:
    """Bounds on the state, the adjoint state and the hypergradient, E12, for the loss E11.

    With e = ‖u − u*‖ ≤ ‖G(u)‖ / μ, p = τ q, ρ = ‖∇ℓ(u) − Jᵀp‖, n the number of entries that E11
    averages over, and κ = sup|σ″|:

        ‖p − p*‖ ≤ ( ρ + 2e/n + γ w̄ κ ‖A‖² ‖Cp‖ e ) / μ

    since ∇ℓ moves by 2e/n and D by at most γ w̄ κ ‖A‖ e in every entry. `gradient_bounds`
    continues from there.

    Parameters
    ----------
    step : Step or Problem
        Of a problem, the step with a safe τ.
    u : array (N, C, H, W)
        A state, near u* or not.
    q : array like u
        Adjoint state of this step at u, E9.
    loss_gradient : array like u
        ∇ℓ(u).
    mu : float, optional
        Monotonicity constant to use instead of the certified one, for example a local one
        at this state; the results are then estimates.

    Returns
    -------
    Certificate
        Infinite bounds where μ ≤ 0, and for adjoint and gradient where σ has kinks. There is
        none for γ.
    """
    step = as_step(step)
    for name, x in (("u", u), ("q", q), ("loss_gradient", loss_gradient)):
        as_images(x, name, step.problem.bank.image_shape)
    linearization = step.linearize(u)
    mu = monotonicity(step) if mu is None else mu
    if not (isinstance(mu, (int, float)) and np.isfinite(mu)):
        raise ValueError(f"mu: given {mu!r}, expected a finite number or None")
    e = distance(linearization.direction, mu)
    if mu <= 0 or not np.isfinite(trait(step.problem.potential, "sup_third")):
        return _nothing_known(step.problem.theta, e, mu)
    p = step.tau * q
    norms = Norms.of(linearization, p)
    defect = norm(loss_gradient - linearization.direction_vjp(p))
    moved = 2 * e / p.size + norms.bend * norms.A * norms.Cp * e
    delta = (defect + moved) / mu
    return Certificate(mu, e, delta, gradient_bounds(linearization, p, e, delta, norms))


class Norms(NamedTuple):
    """Norms in the bounds: of A, C and, per image, Cp; bend = γ w̄ κ ‖A‖, slope = γ w̄ s̄."""

    A: float
    C: float
    Cp: Array
    bend: float
    slope: float

    @classmethod
    def of(cls, linearization: StepLinearization, p: Array) -> "Norms":
        """Norms at one linearisation and one adjoint state."""
        problem = linearization.step.problem
        norm_A, norm_C = bank_norms(linearization.step)
        Cp = norm(compiled(problem.bank).apply(problem.theta.synthesis, p))
        bend = strength(problem) * trait(problem.potential, "sup_third") * norm_A
        return cls(norm_A, norm_C, Cp, bend, slope_bound(problem))


def gradient_bounds(
    linearization: StepLinearization, p: Array, e: Array, delta: Array, norms: Norms
) -> dict[str, float]:
    """Bounds on the errors of the entries of E10, from ‖u − u*‖ ≤ e and ‖p − p*‖ ≤ δ.

    With r = d ⊙ Cp and ‖B*(x, z)‖ ≤ β ‖x‖ ‖z‖:

        ‖r − r*‖ ≤ bend e ‖Cp‖ + slope ‖C‖ δ =: ε
        A        β ( e ‖r‖ + (‖u‖ + e) ε )                      g_A = −B*(u, r)
        C        γ β ( δ ‖wσ‖ + (‖p‖ + δ) w̄ s̄ ‖A‖ e )          g_C = −γ B*(p, w σ)
        b        √m ε                                           g_b = −Σ r over m positions
        w        γ ( s̄ ‖A‖ e ‖Cp‖ + (‖σ‖ + s̄ ‖A‖ e) ‖C‖ δ )    g_w = −γ Σ σ ⊙ Cp

    Tied, the bounds of A and C add up to that of A (E7).
    """
    problem, (s, d) = linearization.step.problem, linearization.field.responses
    theta, bank, steepest = problem.theta, problem.bank, trait(problem.potential, "sup_second")
    beta, positions = bilinear_norm(bank), float(np.prod(bank.response_shape[1:]))
    r = norm(d * compiled(bank).apply(theta.synthesis, p))
    epsilon = norms.bend * e * norms.Cp + norms.slope * norms.C * delta
    moved = steepest * norms.A * e
    errors = {
        "A": beta * (e * r + (norm(linearization.u) + e) * epsilon),
        "C": beta
        * (
            delta * norm(theta.gamma * bank.per_filter(theta.weights) * s)
            + (norm(p) + delta) * norms.slope * norms.A * e
        ),
        "b": np.sqrt(positions) * epsilon,
        "weights": abs(theta.gamma) * (moved * norms.Cp + (norm(s) + moved) * norms.C * delta),
    }
    bounds = {name: float(error.sum()) for name, error in errors.items()}
    if theta.tied:
        bounds["A"] += bounds.pop("C")
    return bounds


def bilinear_norm(bank: FilterBank | DenseBank) -> float:
    """β with ‖B(A, u)‖ ≤ β ‖A‖_F ‖u‖: 1 for dense banks; β² = the most patches that read one pixel.

    Each response is an inner product of a filter with a patch of the padded image, so that
    ‖B(A, u)‖² ≤ ‖A‖_F² Σ ‖patch‖², and the sum counts u[i, j]² once for each patch that reads it.
    Of a bank of one's own nothing is known, and β is infinite.
    """
    if is_known(bank, (DenseBank,)):
        return 1.0
    if not is_known(bank, (FilterBank,)):
        return np.inf
    axes = (bank.padding.rows, bank.padding.columns)
    sides = bank.coefficients_shape[2:]
    return float(np.sqrt(np.prod([most_reads(*axis) for axis in zip(axes, sides, strict=True)])))


def most_reads(index: Array, side: int) -> float:
    """How often windows of `side` along one padded axis read the pixel that they read most."""
    reads = np.convolve(np.ones(len(index) - side + 1), np.ones(side))
    inside = index >= 0
    return np.bincount(index[inside], reads[inside]).max()


def _nothing_known(theta: Parameters, state: Array, mu: float) -> Certificate:
    names = [name for name, _ in theta.items() if name != "gamma"]
    return Certificate(mu, state, np.full(len(state), np.inf), dict.fromkeys(names, np.inf))
