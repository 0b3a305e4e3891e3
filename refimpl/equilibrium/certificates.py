"""Certificates (E12): bounds on ‖u − u*‖ and on the hypergradient's error, from residuals.

G(u) = λ Kᵀ(K u − y) + F(u) is strongly monotone with the constant μ of `proved_monotonicity`. If
μ > 0, then u* exists, is the only one, and for every u

    ‖u − u*‖ ≤ ‖G(u)‖ / μ        ‖J(u)⁻¹‖ ≤ 1 / μ.

Where μ ≤ 0 no bound follows and `inf` is returned. A number is "proved" where it takes in the
rounding of all that it is computed from (`refimpl.equilibrium.proved`), else "estimated".
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, as_images, shown
from refimpl.engine import (
    Step,
    StepLinearization,
    as_step,
    compiled,
    is_known,
    slope_bound,
    strength,
)
from refimpl.equilibrium.proved import (
    UP_SINGLE,
    data_roundings,
    field_roundings,
    grown,
    proved_bank_norm,
    proved_monotonicity,
    rounding_of_adjoint,
    rounding_of_direction,
)
from refimpl.kernels.vectors import norm
from refimpl.paper.operators import DenseBank, FilterBank
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
    kinds : dict of str
        "proved" or "estimated", for "monotonicity", "state", "adjoint" and "gradient".
    """

    monotonicity: float
    state: Array
    adjoint: Array
    gradient: dict[str, float]
    kinds: dict[str, str]


def state_bound(step: Step, u: Array) -> Array:
    """‖u − u*‖ ≤ ( ‖G(u)‖ + its rounding ) / μ for each image, proved, E12; inf where μ ≤ 0."""
    lin = step.linearize(u)
    return distance(residual(lin), proved_monotonicity(step, columns=np.inf))


def distance(size: Array, mu: float) -> Array:
    """‖G(u)‖ / μ ≥ ‖u − u*‖ for each image; inf where μ ≤ 0."""
    return UP_SINGLE * size / mu if mu > 0 else np.full(len(size), np.inf)


def residual(lin: StepLinearization) -> Array:
    """‖computed G(u)‖ and its rounding, (N,); infinite where that is not known."""
    return norm(lin.direction).astype(float) + rounding_of_direction(lin)


def certify(
    step: Step | Problem, u: Array, q: Array, loss_gradient: Array, *, mu: float | None = None
) -> Certificate:
    """Bounds on the state, the adjoint state and the hypergradient, E12, for the loss E11.

    With e = ‖u − u*‖ ≤ ‖G(u)‖ / μ, p = τ q, ρ = ‖∇ℓ(u) − Jᵀp‖, n the number of entries that E11
    averages over, and κ = sup|σ″|:

        ‖p − p*‖ ≤ ( ρ + 2e/n + γ w̄ κ ‖A‖² ‖Cp‖ e ) / μ

    since ∇ℓ moves by 2e/n and D by at most γ w̄ κ ‖A‖ e in every entry. `gradient_bounds`
    continues from there, and `Norms` says how rounding is taken in.

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
        Monotonicity constant to use instead of the proved one, for example a local one at this
        state; the results are then estimates.

    Returns
    -------
    Certificate
        Infinite bounds where μ ≤ 0, for adjoint and gradient where σ has kinks, and where a norm
        is not known, of a bank of one's own. There is none for γ. Estimated where `mu` is given,
        and with an operator, a bank or a potential of one's own, whose rounding is left out.
    """
    step = as_step(step)
    for name, x in (("u", u), ("q", q), ("loss_gradient", loss_gradient)):
        as_images(x, name, step.problem.bank.image_shape)
    if not (mu is None or (isinstance(mu, (int, float)) and np.isfinite(mu))):
        raise ValueError(f"mu: given {shown(mu)}, expected a finite number or None")
    lin, kinds = step.linearize(u), _kinds(step, mu)
    covered = np.isfinite(data_roundings(step) + field_roundings(step))
    mu = proved_monotonicity(step, columns=np.inf) if mu is None else mu
    e = distance(residual(lin) if covered else norm(lin.direction).astype(float), mu)
    if mu <= 0 or not np.isfinite(trait(step.problem.potential, "sup_third")):
        return _nothing_known(step.problem.theta, e, mu, kinds)
    p = step.tau * q
    norms = Norms.of(lin, p)
    delta = adjoint_bound(lin, p, loss_gradient, e, mu, norms)
    return Certificate(mu, e, delta, gradient_bounds(lin, p, e, delta, norms), kinds)


def _kinds(step: Step, mu: float | None) -> dict[str, str]:
    """What `Certificate.kinds` says."""
    covered = np.isfinite(data_roundings(step) + field_roundings(step))
    kind = "proved" if covered and mu is None else "estimated"
    kinds = dict.fromkeys(("state", "adjoint", "gradient"), kind)
    return {"monotonicity": "proved" if mu is None else "estimated"} | kinds


def adjoint_bound(
    lin: StepLinearization, p: Array, loss_gradient: Array, e: Array, mu: float, norms: "Norms"
) -> Array:
    """‖p − p*‖ ≤ ( ‖∇ℓ − Jᵀp‖ + 2e/n + bend ‖A‖ ‖Cp‖ e ) / μ, with the rounding of it all.

    The rounding of z in σ′(z) counts as `Norms.u_rounding`, beside e.
    """
    defect = norm(loss_gradient - lin.direction_vjp(p)).astype(float)
    rounding = rounding_of_adjoint(lin, p, loss_gradient)
    moved = or_infinite(2 * e / p.size + norms.bend * norms.A * norms.Cp * (e + norms.u_rounding))
    return UP_SINGLE * (defect + np.where(np.isfinite(rounding), rounding, 0) + moved) / mu


class Norms(NamedTuple):
    """Sizes in the bounds: of A, C and, per image, Cp; bend = γ w̄ κ ‖A‖, slope = γ w̄ s̄.

    Rounding of what is computed at u and p is as if these were moved. z = A u + b errs by at most
    γ_n ( ‖|A|‖ ‖u‖ + √m ‖b‖ ), m positions, and the bounds on norms hold for |A| too: it is as if u
    moved by `u_rounding` = γ_n ( ‖u‖ + √m ‖b‖ / ‖A‖ ). In the same way Cp, σ′ and the products and
    sums of E10 err as if p moved by `p_rounding` = γ_n ‖p‖, if n counts the positions that E10
    sums over and the images too.
    """

    A: float
    C: float
    Cp: Array
    bend: float
    slope: float
    u_rounding: Array
    p_rounding: Array

    @classmethod
    def of(cls, lin: StepLinearization, p: Array) -> "Norms":
        """Norms at one linearisation and one adjoint state."""
        problem, theta, bank = lin.step.problem, lin.step.problem.theta, lin.step.problem.bank
        A = proved_bank_norm(bank, theta.A)
        C = A if theta.tied else proved_bank_norm(bank, theta.C)
        positions, terms = np.prod(bank.response_shape[1:]), field_roundings(lin.step)
        terms = terms + positions * len(p) if np.isfinite(terms) else 0
        gamma_n, b = grown(terms, p.dtype), np.sqrt(positions) * np.linalg.norm(theta.b)
        u_rounding = gamma_n * (norm(lin.u).astype(float) + (b / A if A > 0 else 0.0))
        p_rounding = gamma_n * norm(p).astype(float)
        Cp = norm(compiled(bank).apply(theta.synthesis, p)) + C * p_rounding
        bend = strength(problem) * trait(problem.potential, "sup_third") * A
        return cls(A, C, Cp, bend, slope_bound(problem), u_rounding, p_rounding)


def gradient_bounds(
    linearization: StepLinearization, p: Array, e: Array, delta: Array, norms: Norms
) -> dict[str, float]:
    """Bounds on the errors of the entries of E10, from ‖u − u*‖ ≤ e and ‖p − p*‖ ≤ δ.

    With r = d ⊙ Cp and ‖B*(x, z)‖ ≤ β ‖x‖ ‖z‖, e and δ with the roundings of `norms` added:

        ‖r − r*‖ ≤ bend e ‖Cp‖ + slope ‖C‖ δ =: ε
        A        β ( e ‖r‖ + (‖u‖ + e) ε )                      g_A = −B*(u, r)
        C        γ β ( δ ‖wσ‖ + (‖p‖ + δ) w̄ s̄ ‖A‖ e )          g_C = −γ B*(p, w σ)
        b        √m ε                                           g_b = −Σ r over m positions
        w        γ ( s̄ ‖A‖ e ‖Cp‖ + (‖σ‖ + s̄ ‖A‖ e) ‖C‖ δ )    g_w = −γ Σ σ ⊙ Cp

    Tied, the bounds of A and C add up to that of A (E7). Terms of second order count three times,
    for r, σ and Cp are computed too, and as far from the ones in E10 as their rounding.
    """
    problem, (s, d) = linearization.step.problem, linearization.field.responses
    theta, bank, steepest = problem.theta, problem.bank, trait(problem.potential, "sup_second")
    beta, positions = bilinear_norm(bank), float(np.prod(bank.response_shape[1:]))
    e, delta = e + norms.u_rounding, delta + norms.p_rounding
    r = norm(d * compiled(bank).apply(theta.synthesis, p))
    epsilon = norms.bend * e * norms.Cp + norms.slope * norms.C * delta
    moved = steepest * norms.A * e
    errors = {
        "A": beta * (e * r + (norm(linearization.u) + 3 * e) * epsilon),
        "C": beta
        * (
            delta * norm(theta.gamma * bank.per_filter(theta.weights) * s)
            + (norm(p) + 3 * delta) * norms.slope * norms.A * e
        ),
        "b": np.sqrt(positions) * epsilon,
        "weights": abs(theta.gamma) * (moved * norms.Cp + (norm(s) + 3 * moved) * norms.C * delta),
    }
    bounds = {name: UP_SINGLE * float(or_infinite(x).sum()) for name, x in errors.items()}
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


def or_infinite(x: Array) -> Array:
    """x, infinite where it is NaN: 0 times an unknown number."""
    return np.where(np.isnan(x), np.inf, x)


def _nothing_known(theta: Parameters, state: Array, mu: float, kinds: dict) -> Certificate:
    names = [name for name, _ in theta.items() if name != "gamma"]
    return Certificate(
        mu, state, np.full(len(state), np.inf), dict.fromkeys(names, np.inf), kinds
    )
