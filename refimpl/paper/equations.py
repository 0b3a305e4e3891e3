"""The equations of the paper, E2 to E11, each one function.

A problem p has the forward operator K and data y = K u† + ε n (E1), the weight λ, the potential φ
with σ = φ′, and the parameters θ = (A, C, b, w, γ). C = A, tied, is bilevel learning; C free,
untied, is the deep equilibrium model. Images u are arrays (N, C, H, W); `bank` says how A acts:

    bank.apply(A, u) = A u     bank.adjoint(A, z) = Aᵀ z     bank.adjoint_filters(u, z) = B*(u, z)

B*(u, z) is the gradient of ⟨A u, z⟩ in A. `theta.synthesis` is C, which is A when tied. Everything
is plain NumPy, real or complex.

Reference: D. Riccio, M. Ehrhardt, M. Benning, arXiv:2206.13193v2.
"""

import numpy as np

from refimpl.arrays import NUMBERS, Array, positive
from refimpl.paper.loss import squared_loss as loss  # noqa: F401, E11
from refimpl.paper.loss import squared_loss_gradient as loss_gradient  # noqa: F401
from refimpl.paper.parameters import Parameters
from refimpl.paper.problem import Problem, require_alike, require_pair
from refimpl.results import BreakdownError, NotConvergedError


def residual(p: Problem, u: Array) -> Array:
    """K u − y."""
    if not hasattr(p, "operator") or getattr(u, "shape", ())[:1] != p.y.shape[:1]:
        require_pair(p, u)
    if u.dtype.kind not in "biufc":
        raise TypeError(f"u: dtype is {u.dtype}, expected numbers")
    return p.operator.matvec(u) - p.y


def responses(p: Problem, u: Array) -> Array:
    """z = A u + b."""
    if not (hasattr(p, "theta") and hasattr(p, "bank")):
        require_pair(p, u)
    return p.bank.apply(p.theta.A, u) + p.bank.per_filter(p.theta.b)


def energy(p: Problem, u: Array) -> Array:
    """E(u) = λ/2 ‖K u − y‖² + R(u), tied, one value for each image, E2."""
    squares = total(residual(p, u) ** 2)
    return p.lam / 2 * squares + regulariser(p, u)


def regulariser(p: Problem, u: Array) -> Array:
    """R(u) = γ Σ_k w_k Σ φ((A u + b)_k), tied, one value for each image, E2."""
    z = responses(p, u)
    if not p.tied:
        raise TypeError("energy: an untied problem (C given) has none; tied ones leave C out")
    return p.theta.gamma * total(p.bank.per_filter(p.theta.weights) * p.potential.value(z))


def field(p: Problem, u: Array) -> Array:
    """F(u) = γ Cᵀ( w ⊙ σ(A u + b) ); tied, F = ∇R, E3."""
    z = responses(p, u)
    w, sigma = p.bank.per_filter(p.theta.weights), p.potential.derivative(z)
    return p.theta.gamma * p.bank.adjoint(p.theta.synthesis, w * sigma)


def field_jvp(p: Problem, u: Array, v: Array) -> Array:
    """∂F v = γ Cᵀ( w ⊙ σ′(A u + b) ⊙ A v ), E4."""
    require_alike(u, v, "v")
    z, Av = responses(p, u), p.bank.apply(p.theta.A, v)
    w, slope = p.bank.per_filter(p.theta.weights), p.potential.second_derivative(z)
    return p.theta.gamma * p.bank.adjoint(p.theta.synthesis, w * slope * Av)


def field_vjp(p: Problem, u: Array, q: Array) -> Array:
    """(∂F)ᵀ q = γ Aᵀ( w ⊙ σ′(A u + b) ⊙ C q ), E5."""
    require_alike(u, q, "q")
    z, Cq = responses(p, u), p.bank.apply(p.theta.synthesis, q)
    w, slope = p.bank.per_filter(p.theta.weights), p.potential.second_derivative(z)
    return p.theta.gamma * p.bank.adjoint(p.theta.A, w * slope * Cq)


def field_params_vjp(p: Problem, u: Array, q: Array) -> Parameters:
    """(∂_θ F)ᵀ q, E6, summed over the images; tied, the gradients of A and C add up, E7.

    ⟨F, q⟩ = γ ⟨w ⊙ σ(z), C q⟩ with z = A u + b: C, w and γ stand outside σ; A and b inside, so that
    their gradients go through the cotangent r = w ⊙ σ′(z) ⊙ C q of z.
    """
    require_alike(u, q, "q")
    z, Cq = responses(p, u), p.bank.apply(p.theta.synthesis, q)
    bank, gamma, w = p.bank, p.theta.gamma, p.bank.per_filter(p.theta.weights)
    sigma, r = p.potential.derivative(z), w * p.potential.second_derivative(z) * Cq
    gradient = Parameters(
        A=gamma * bank.adjoint_filters(u, r),
        C=gamma * bank.adjoint_filters(q, w * sigma),
        b=gamma * bank.sum_per_filter(r),
        weights=gamma * bank.sum_per_filter(sigma * Cq),
        gamma=np.sum(w * sigma * Cq),
    )
    return gradient.adjoint_tie() if p.tied else gradient


def direction(p: Problem, u: Array) -> Array:
    """G(u) = λ Kᵀ(K u − y) + F(u), which vanishes at u*; tied, G = ∇E."""
    r = residual(p, u)
    return p.lam * p.operator.adjoint(r) + field(p, u)


def step(p: Problem, tau: float, u: Array) -> Array:
    """T(u) = u − τ ( λ Kᵀ(K u − y) + F(u) ), E8."""
    if not isinstance(tau, NUMBERS):
        positive(tau, "tau")
    return u - tau * direction(p, u)


def step_jvp(p: Problem, tau: float, u: Array, v: Array) -> Array:
    """∂_u T v = v − τ ( λ KᵀK v + ∂F v ), E8."""
    Jv = field_jvp(p, u, v) + p.lam * p.operator.adjoint(p.operator.matvec(v))
    return v - positive(tau, "tau") * Jv


def step_vjp(p: Problem, tau: float, u: Array, q: Array) -> Array:
    """(∂_u T)ᵀ q = q − τ ( λ KᵀK q + (∂F)ᵀ q ), E8."""
    JTq = field_vjp(p, u, q) + p.lam * p.operator.adjoint(p.operator.matvec(q))
    return q - positive(tau, "tau") * JTq


def step_params_vjp(p: Problem, tau: float, u: Array, q: Array) -> Parameters:
    """(∂_θ T)ᵀ q = −τ (∂_θ F)ᵀ q, E8."""
    tau, gradient = positive(tau, "tau"), field_params_vjp(p, u, q)
    return Parameters(**{name: -tau * x for name, x in gradient.items()})


def fixed_point(
    p: Problem, tau: float, u: Array, *, tol: float, max_iterations: int = 100_000
) -> Array:
    """u* = T(u*) by u ← T(u), until ‖T(u) − u‖ ≤ tol ‖u‖ for each image, E8."""
    return iterate(lambda u: step(p, tau, u), u, tol, max_iterations)


def adjoint_state(
    p: Problem, tau: float, u: Array, gradient: Array, *, tol: float, max_iterations: int = 100_000
) -> Array:
    """q with (I − ∂_u T)ᵀ q = ∇ℓ(u*), by q ← ∇ℓ + (∂_u T)ᵀ q, E9."""
    return iterate(lambda q: gradient + step_vjp(p, tau, u, q), gradient, tol, max_iterations)


def hypergradient(p: Problem, tau: float, u: Array, truth: Array, *, tol: float) -> Parameters:
    """dℓ/dθ = (∂_θ T)ᵀ q at u = u*, with the adjoint state q of ∇ℓ(u*), E10."""
    q = adjoint_state(p, tau, u, loss_gradient(u, truth), tol=tol)
    return step_params_vjp(p, tau, u, q)


def iterate(function, x: Array, tol: float, max_iterations: int) -> Array:
    """x ← f(x) until ‖f(x) − x‖ ≤ tol ‖x‖ for each image, or NotConvergedError."""
    for _ in range(max_iterations):
        x, previous = function(x), x
        if not np.isfinite(x).all():
            raise BreakdownError("the iteration diverges; take a smaller tau")
        if (total(abs(x - previous) ** 2) <= tol**2 * total(abs(x) ** 2)).all():
            return x
    moved = f"x still moves by more than {tol:g} of its size"
    raise NotConvergedError(f"{moved} after {max_iterations} steps")


def total(x: Array) -> Array:
    """The sum of all entries of each image, (N,)."""
    return x.reshape(len(x), -1).sum(axis=1)
