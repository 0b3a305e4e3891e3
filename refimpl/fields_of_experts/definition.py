"""The field of experts as the paper writes it: functions of a bank, a potential and θ.

There is no γ here: it is part of w, as in `FieldsOfExperts.effective`. Everything is plain NumPy on
the bank's three maps and accepts complex arrays, which is what the complex-step check needs.
"""

import numpy as np

from refimpl.arrays import Array
from refimpl.fields_of_experts.slopes import Slopes, safeguarded_slopes
from refimpl.parameters import Parameters


def energy(bank, potential, theta: Parameters, u: Array) -> Array:
    """Σ_k w_k Σ φ((A u + b)_k) for each image, shape (N,), E2."""
    values = bank.per_filter(theta.weights) * potential.value(preactivation(bank, theta, u))
    return values.reshape(u.shape[0], -1).sum(axis=1)


def value(bank, potential, theta: Parameters, u: Array) -> Array:
    """Cᵀ( w ⊙ σ(A u + b) ), E3."""
    s = potential.derivative(preactivation(bank, theta, u))
    return bank.adjoint(theta.synthesis, bank.per_filter(theta.weights) * s)


def value_and_energy(bank, potential, theta: Parameters, u: Array) -> tuple[Array, Array]:
    """E3 and E2 at one u."""
    return value(bank, potential, theta, u), energy(bank, potential, theta, u)


def responses(bank, potential, theta: Parameters, u: Array) -> tuple[Array, Array]:
    """σ(z) and σ′(z) at z = A u + b."""
    z = preactivation(bank, theta, u)
    return potential.derivative(z), potential.second_derivative(z)


def model_slopes(
    bank, potential, theta: Parameters, slopes: Slopes
) -> tuple[Array, Array | None]:
    """(d, lines) for all responses: σ′(z) and None, or the safeguarded slopes and their lines."""
    z = preactivation(bank, theta, slopes.u)
    if not slopes.safeguarded:
        return potential.second_derivative(z), None
    return safeguarded_slopes(potential, z, slopes.lines)


def tangent(bank, A: Array, C: Array, d: Array, v: Array) -> Array:
    """Cᵀ( d ⊙ A v ), E4; with A and C exchanged it is E5."""
    return bank.adjoint(C, d * bank.apply(A, v))


def parameter_vjp(bank, potential, theta: Parameters, u: Array, q: Array) -> tuple[Array, ...]:
    """(∂_θ F)ᵀ q, E6, for (A, C, b, w).

    F = B(C, ·)ᵀ(w ⊙ σ(B(A, u) + b)), so ⟨F, q⟩ = ⟨w ⊙ σ(z), B(C, q)⟩. Differentiating by A and b
    goes through σ, with the cotangent r = w ⊙ σ′ ⊙ Cq of z; by C and w it does not.
    """
    s, slope = responses(bank, potential, theta, u)
    weights, Cq = bank.per_filter(theta.weights), bank.apply(theta.synthesis, q)
    r = weights * slope * Cq
    return (
        bank.adjoint_filters(u, r),
        bank.adjoint_filters(q, weights * s),
        bank.sum_per_filter(r),
        bank.sum_per_filter(s * Cq),
    )


def preactivation(bank, theta: Parameters, u: Array) -> Array:
    """z = A u + b."""
    return bank.apply(theta.A, u) + bank.per_filter(np.asarray(theta.b))
