"""Slopes between Newton's and the majorising ones: a Hessian whose steps do not overshoot.

Where σ saturates, σ′(z) = 0 says nothing of where the potential bends, and Newton's step from there
overshoots. For the potentials of `MAJORIZED`, t ↦ φ(√t) is concave, so that the quadratic of slope
ψ(z) = σ(z)/z ≥ σ′(z) that touches φ at z lies above φ everywhere: steps with ψ (iteratively
reweighted least squares) always descend, but converge slowly. With the last iterate z⁻,

    d = ρ σ′(z) + (1 − ρ) ψ(z),    ρ = (σ(z⁻) + σ′(z⁻)(z − z⁻)) / σ(z), clipped to [0, 1],

takes Newton's slope as far as the model that led from z⁻ to z was right about σ(z). As z⁻ and z
converge to one limit, ρ → 1 and d → σ′. This is the primal-dual Newton method for total variation
with its dual variable predicted from one iterate instead of carried along.

Reference: T. Chan, G. Golub, P. Mulet, A nonlinear primal-dual method for total variation-based
image restoration, SIAM J. Sci. Comput. 20 (1999).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.fields_of_experts.definition import preactivation
from refimpl.fields_of_experts.field import FieldLinearization, TiedFieldLinearization

MAJORIZED = ("log_cosh", "lorentzian", "smoothed_l1", "huber")


def safeguarded_slopes(potential, z: Array, before: Array, trusted: float = 1.0) -> Array:
    """ρ σ′(z) + (1 − ρ) σ(z)/z, ρ = (σ(z⁻) + σ′(z⁻)(z − z⁻)) / σ(z) in [0, trusted].

    z⁻ = `before`; σ′(z) where σ(z) or z is 0.
    """
    s, d = potential.derivative(z), potential.second_derivative(z)
    predicted = potential.derivative(before) + potential.second_derivative(before) * (z - before)
    usable = (s != 0) & (z != 0)
    s, z = np.where(usable, s, 1), np.where(usable, z, 1)
    rho = np.where(usable, np.clip(predicted / s, 0, trusted), 1)
    return rho * d + (1 - rho) * (s / z)


@dataclass(frozen=True)
class SafeguardedLinearization(FieldLinearization):
    """F at u with safeguarded slopes in place of σ′; `jvp` and `vjp` are not those of F.

    Attributes
    ----------
    previous : array (N, C, H, W) or None
        u⁻; without one ρ = 0: the slopes are the majorising ones.
    """

    previous: Array | None

    @cached_property
    def d(self) -> Array:
        """γ w ⊙ the safeguarded slopes."""
        field, theta = self.field, self.field.parameters
        z = preactivation(field.bank, theta, self.u)
        trusted = 0.0 if self.previous is None else 1.0
        before = z if self.previous is None else preactivation(field.bank, theta, self.previous)
        if field.bank.compiled:
            code, parameter = field.potential.code, field.potential.parameter
            slopes = kernels.safeguarded_slopes(z, before, trusted, code, parameter)
        else:
            slopes = safeguarded_slopes(field.potential, z, before, trusted)
        return field.bank.per_filter(theta.gamma * theta.weights) * slopes


class TiedSafeguardedLinearization(SafeguardedLinearization, TiedFieldLinearization):
    """∇R at u with safeguarded slopes; `hvp` is not the Hessian product."""


def safeguard(linearization: FieldLinearization, previous: Array | None) -> FieldLinearization:
    """The linearisation with safeguarded slopes; as it is for potentials not in `MAJORIZED`."""
    field, u = linearization.field, linearization.u
    if field.potential.name not in MAJORIZED:
        return linearization
    tied = isinstance(linearization, TiedFieldLinearization)
    return (TiedSafeguardedLinearization if tied else SafeguardedLinearization)(field, u, previous)
