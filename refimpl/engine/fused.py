"""The field of experts on a filter bank, each of its functions one pass of compiled loops.

Pad once, run the kernel on the padded image, fold the border back with the adjoint of the padding.
The responses A u + b are never stored unless the caller asks for them. The kernels know no γ: it is
part of w. They hold the seven potentials as formulas, each by its number.
"""

import math

import numpy as np

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.engine.jacobians import Jacobian, ResponseJacobian, StencilJacobian, stencil_offsets
from refimpl.engine.slopes import Slopes
from refimpl.engine.twins import CompiledBank, is_known
from refimpl.paper import potentials
from refimpl.paper.operators.banks import FilterBank
from refimpl.paper.parameters import Parameters
from refimpl.paper.problem import FieldOfExperts

CODES = {
    potentials.Quadratic: kernels.QUADRATIC,
    potentials.HalfSquaredReLU: kernels.HALF_SQUARED_RELU,
    potentials.SoftShrinkage: kernels.SOFT_SHRINKAGE,
    potentials.LogCosh: kernels.LOG_COSH,
    potentials.Lorentzian: kernels.LORENTZIAN,
    potentials.SmoothedL1: kernels.SMOOTHED_L1,
    potentials.Huber: kernels.HUBER,
}


def can_fuse(experts: FieldOfExperts) -> bool:
    """Whether bank and potential are known, and so are what the kernels compute."""
    return is_known(experts.bank, (FilterBank,)) and is_known(experts.potential, CODES)


class FusedExperts:
    """E2 to E6 of a field of experts that `can_fuse`.

    Parameters
    ----------
    experts : FieldOfExperts
    """

    def __init__(self, experts: FieldOfExperts):
        self.bank, self.theta = CompiledBank(experts.bank), experts.theta
        self.weights = self.theta.gamma * self.theta.weights
        potential = CODES[type(experts.potential)], experts.potential.parameter
        theta, padding = self.theta, self.bank.padding
        self.given = theta.A, theta.synthesis, theta.b, self.weights, *potential
        self.potential, self.border = potential, (padding.rows, padding.columns)

    def energy(self, u: Array) -> Array:
        """R(u), E2."""
        return self.value_and_energy(u)[1]

    def value(self, u: Array) -> Array:
        """F(u), E3."""
        up = kernels.pad(np.ascontiguousarray(u), *self.border)
        field, _ = kernels.field(up, *self.given, False)
        return kernels.fold(field, *self.border, *u.shape[2:])

    def value_and_energy(self, u: Array) -> tuple[Array, Array]:
        """E3 and E2 at one u."""
        up = kernels.pad(np.ascontiguousarray(u), *self.border)
        field, energies = kernels.field(up, *self.given, True)
        return kernels.fold(field, *self.border, *u.shape[2:]), energies

    def jacobian(self, slopes: Slopes) -> Jacobian:
        """∂F with slopes of σ: as a stencil where that is the smaller of the two forms."""
        bank, theta = self.bank, self.theta
        F, channels, *sides = bank.coefficients_shape
        up = bank.padding.matvec(slopes.u)
        if channels == 1 and stencil_offsets(sides, theta.tied) <= F:
            arrays = slopes.lines, theta.A, theta.synthesis, theta.b, self.weights
            S, sums, lines = kernels.stencil(
                up, slopes.safeguarded, *arrays, *self.potential, theta.tied
            )
            mean_slopes = sums / math.prod(bank.image_shape[1:])
            return StencilJacobian(bank, theta.tied, S, mean_slopes, lines)
        arrays = theta.A, theta.b, *self.potential
        if slopes.safeguarded:
            d, lines = kernels.safeguarded_slopes(up, slopes.lines, *arrays)
        else:
            d, lines = kernels.slopes(up, *arrays), None
        return ResponseJacobian(bank, theta, bank.per_filter(self.weights) * d, lines)

    def params_vjp(self, u: Array, q: Array) -> Parameters:
        """(∂_θ F)ᵀ q, E6; tied, the gradients of A and C add up, E7.

        ⟨F, q⟩ = Σ_k γ w_k s_k with s_k = Σ (σ ⊙ Cq)_k, so that its gradients in w and γ are γ s and
        Σ_k w_k s_k.
        """
        up, qp, theta = self.bank.padding.matvec(u), self.bank.padding.matvec(q), self.theta
        A, C, b, s = kernels.parameters(up, qp, *self.given)
        gradient = Parameters(A, b, theta.gamma * s, np.asarray(np.sum(theta.weights * s)), C)
        return gradient.adjoint_tie() if theta.tied else gradient
