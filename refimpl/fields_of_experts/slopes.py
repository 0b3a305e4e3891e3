"""Slopes of σ for a Jacobian: σ′, or slopes whose Newton steps do not overshoot.

Where σ saturates, σ′(z) = 0 says nothing of where the potential bends, and Newton's step from there
overshoots. For the potentials of `MAJORIZED`, t ↦ φ(√t) is concave, so that the quadratic of slope
ψ(z) = σ(z)/z ≥ σ′(z) that touches φ at z lies above φ everywhere: tied and with w ≥ 0, steps with
ψ (iteratively reweighted least squares) always descend, but converge slowly. With the last iterate
z⁻,

    d = ρ σ′(z) + (1 − ρ) ψ(z),    ρ = (σ(z⁻) + σ′(z⁻)(z − z⁻)) / σ(z), clipped to [0, 1],

takes Newton's slope as far as the model that led from z⁻ to z was right about σ(z). As z⁻ and z
converge to one limit, ρ → 1 and d → σ′. This is the primal-dual Newton method for total variation
with its dual variable predicted from one iterate instead of carried along.

Reference: T. Chan, G. Golub, P. Mulet, A nonlinear primal-dual method for total variation-based
image restoration, SIAM J. Sci. Comput. 20 (1999).
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.kernels import BLENDED, MAJORIZING, NEWTON

# The others gain nothing: ψ = σ′ (quadratic), or t ↦ φ(√t) is not concave.
MAJORIZED = ("log_cosh", "lorentzian", "smoothed_l1", "huber")


class Slopes(NamedTuple):
    """Which slopes: those at u, by a rule of `refimpl.kernels.safeguards`.

    Attributes
    ----------
    u : array (N, C, H, W)
    rule : NEWTON, MAJORIZING or BLENDED
    previous : array (N, C, H, W) or None
        u⁻, for BLENDED.
    single : bool
        Whether a Jacobian with them may be held in float32.
    """

    u: Array
    rule: int = NEWTON
    previous: Array | None = None
    single: bool = False

    @property
    def before(self) -> Array:
        """u⁻, or u where the rule asks for none."""
        return self.u if self.previous is None else self.previous

    def images(self, part: slice) -> "Slopes":
        """Those of some of the images."""
        previous = None if self.previous is None else self.previous[part]
        return self._replace(u=self.u[part], previous=previous)

    @classmethod
    def safeguarded(cls, potential, u: Array, previous: Array | None, single: bool) -> "Slopes":
        """BLENDED; MAJORIZING without u⁻; NEWTON for potentials outside `MAJORIZED`."""
        if potential.name not in MAJORIZED:
            return cls(u)
        return cls(u, MAJORIZING if previous is None else BLENDED, previous, single)


def slopes_by_rule(potential, z: Array, before: Array, rule: int) -> Array:
    """The slopes of a rule at responses z, z⁻ = `before`; σ′(z) where σ(z) or z is 0."""
    d = potential.second_derivative(z)
    if rule == NEWTON:
        return d
    s, predicted = potential.derivative(z), 0
    if rule == BLENDED:
        moved = potential.second_derivative(before) * (z - before)
        predicted = potential.derivative(before) + moved
    usable = (s != 0) & (z != 0)
    s, z = np.where(usable, s, 1), np.where(usable, z, 1)
    rho = np.where(usable, np.clip(predicted / s, 0, 1), 1)
    return rho * d + (1 - rho) * (s / z)
