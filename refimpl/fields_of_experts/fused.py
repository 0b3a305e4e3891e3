"""The five functions of `definition` for filter banks, each as one pass of compiled loops.

Pad once, run the kernel on the padded image, fold the border back with the adjoint of the
padding. The responses A u + b are never stored unless the caller asks for them.
"""

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.parameters import Parameters


def energy(bank, potential, theta: Parameters, u: Array) -> Array:
    """Σ_k w_k Σ φ((A u + b)_k) for each image, shape (N,), E2."""
    return kernels.energy(
        bank.padding.matvec(u), theta.A, theta.b, theta.weights, potential.code, potential.parameter
    )


def value(bank, potential, theta: Parameters, u: Array) -> Array:
    """Cᵀ( w ⊙ σ(A u + b) ), E3."""
    up, code, parameter = bank.padding.matvec(u), potential.code, potential.parameter
    return bank.padding.adjoint(
        kernels.field(up, theta.A, theta.synthesis, theta.b, theta.weights, code, parameter)
    )


def responses(bank, potential, theta: Parameters, u: Array) -> tuple[Array, Array]:
    """σ(z) and σ′(z) at z = A u + b."""
    return kernels.responses(
        bank.padding.matvec(u), theta.A, theta.b, potential.code, potential.parameter
    )


def tangent(bank, A: Array, C: Array, d: Array, v: Array) -> Array:
    """Cᵀ( d ⊙ A v ), E4; with A and C exchanged it is E5."""
    return bank.padding.adjoint(kernels.tangent(bank.padding.matvec(v), A, C, d))


def parameter_vjp(
    bank, theta: Parameters, u: Array, q: Array, s: Array, d: Array
) -> tuple[Array, ...]:
    """(∂_θ F)ᵀ q, E6, for (A, C, b, w); that for C and w still lacks the factor γ."""
    up, qp = bank.padding.matvec(u), bank.padding.matvec(q)
    return kernels.parameters(up, qp, theta.A, theta.synthesis, s, d, theta.weights)
