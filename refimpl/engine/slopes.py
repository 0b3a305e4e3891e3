"""Slopes of σ for a Jacobian: σ′, or slopes whose Newton steps do not overshoot.

Where σ saturates, σ′(z) = 0 says nothing of where the potential bends, and Newton's step from there
overshoots. For the potentials of `MAJORIZED`, t ↦ φ(√t) is concave, so that the quadratic of slope
ψ(z) = σ(z)/z ≥ σ′(z) that touches φ at z lies above φ everywhere: tied and with w ≥ 0, steps with
ψ (iteratively reweighted least squares) always descend, but converge slowly. Between the two,

    d = ρ σ′(z) + (1 − ρ) ψ(z),    ρ = (a⁻ + d⁻ z) / σ(z), clipped to [0, 1],

takes Newton's slope as far as the model that led to z, the line x ↦ a⁻ + d⁻ x of each response, was
right about σ(z); the next line touches σ at z, a = σ(z) − d z. The first lines are 0, so that
d = ψ. As the iterates converge, ρ → 1; above 1 − 2⁻⁷ it counts as 1, d = σ′, so that lines need few
binary digits. This is the primal-dual Newton method for total variation, with a⁻ + d⁻ z in the
place of its dual variable.

Reference: T. Chan, G. Golub, P. Mulet, A nonlinear primal-dual method for total variation-based
image restoration, SIAM J. Sci. Comput. 20 (1999).
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.kernels.safeguards import NEAR
from refimpl.paper.potentials import Huber, LogCosh, Lorentzian, SmoothedL1

# The others gain nothing: ψ = σ′ (quadratic), or t ↦ φ(√t) is not concave.
MAJORIZED = (LogCosh, Lorentzian, SmoothedL1, Huber)


class Slopes(NamedTuple):
    """Which slopes, at which u.

    Attributes
    ----------
    u : array (N, C, H, W)
    safeguarded : bool
    lines : array (N, ...) or None
        a⁻ and d⁻ of safeguarded slopes, as the engine that made them stores them (the compiled one
        to 8 binary digits); None for 0.
    """

    u: Array
    safeguarded: bool = False
    lines: Array | None = None

    def images(self, part: slice) -> "Slopes":
        """Those of some of the images."""
        lines = None if self.lines is None else self.lines[part]
        return self._replace(u=self.u[part], lines=lines)


def safeguarded_slopes(potential, z: Array, lines: Array | None) -> tuple[Array, Array]:
    """d, and the next lines (a, d) on axis 1; d = σ′(z) where σ(z) or z is 0."""
    s, d = potential.derivative(z), potential.second_derivative(z)
    predicted = 0 if lines is None else lines[:, 0] + lines[:, 1] * z
    usable = (s != 0) & (z != 0)
    s1, z1 = (np.where(usable, x, 1) for x in (s, z))
    rho = np.where(usable, np.clip(predicted / s1, 0, 1), 1)
    rho = np.where(rho > NEAR, 1, rho)
    d = rho * d + (1 - rho) * (s1 / z1)
    return d, np.stack([s - d * z, d], axis=1)
