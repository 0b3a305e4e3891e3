"""The functions of `definition` for filter banks, each as one pass of compiled loops.

Pad once, run the kernel on the padded image, fold the border back with the adjoint of the
padding. The responses A u + b are never stored unless the caller asks for them.
"""

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.fields_of_experts.slopes import Slopes
from refimpl.parameters import Parameters


def energy(bank, potential, theta: Parameters, u: Array) -> Array:
    """Σ_k w_k Σ φ((A u + b)_k) for each image, shape (N,), E2."""
    return _field(bank, potential, theta, u, measured=True)[1]


def value(bank, potential, theta: Parameters, u: Array) -> Array:
    """Cᵀ( w ⊙ σ(A u + b) ), E3."""
    return bank.padding.adjoint(_field(bank, potential, theta, u, measured=False)[0])


def value_and_energy(bank, potential, theta: Parameters, u: Array) -> tuple[Array, Array]:
    """E3 and E2 at one u."""
    field, energies = _field(bank, potential, theta, u, measured=True)
    return bank.padding.adjoint(field), energies


def _field(bank, potential, theta: Parameters, u: Array, *, measured: bool) -> tuple[Array, Array]:
    up, code, parameter = bank.padding.matvec(u), potential.code, potential.parameter
    return kernels.field(
        up, theta.A, theta.synthesis, theta.b, theta.weights, code, parameter, measured
    )


def model_slopes(
    bank, potential, theta: Parameters, slopes: Slopes
) -> tuple[Array, Array | None]:
    """(d, lines) for all responses: σ′(z) and None, or the safeguarded slopes and their lines."""
    up, settings = bank.padding.matvec(slopes.u), (potential.code, potential.parameter)
    if not slopes.safeguarded:
        return kernels.slopes(up, theta.A, theta.b, *settings), None
    return kernels.safeguarded_slopes(up, slopes.lines, theta.A, theta.b, *settings)


def tangent(bank, A: Array, C: Array, d: Array, v: Array) -> Array:
    """Cᵀ( d ⊙ A v ), E4; with A and C exchanged it is E5."""
    return bank.padding.adjoint(kernels.tangent(bank.padding.matvec(v), A, C, d))


def parameter_vjp(bank, potential, theta: Parameters, u: Array, q: Array) -> tuple[Array, ...]:
    """(∂_θ F)ᵀ q, E6, for (A, C, b, w)."""
    up, qp = bank.padding.matvec(u), bank.padding.matvec(q)
    C, code, parameter = theta.synthesis, potential.code, potential.parameter
    return kernels.parameters(up, qp, theta.A, C, theta.b, theta.weights, code, parameter)
