"""A = s Â / ‖Â‖: a parametrisation by the spectral norm, its derivative exact or frozen.

The norm is that of the whole operator under its boundary and image size. Training moves Â; the
field sees A, whose norm is s throughout, so that one step size serves the whole training.
"""

from typing import Literal

import numpy as np

from refimpl.arrays import Array, positive
from refimpl.engine import compiled
from refimpl.equilibrium.norms import leading_triplet
from refimpl.paper.operators import DenseBank, FilterBank
from refimpl.paper.operators.banks import Analysis
from refimpl.results import NotConvergedError


class Normalization:
    """The reparametrisation A = s Â / ‖Â‖ of a bank's coefficients, and its adjoint.

        dA = (s / ‖Â‖) (dÂ − Â d‖Â‖ / ‖Â‖),   d‖Â‖ = ⟨p, B(dÂ, q)⟩ = ⟨B*(q, p), dÂ⟩

    for a simple largest singular value with singular vectors B(Â, q) = ‖Â‖ p. The adjoint
    sends g = ∂ℓ/∂A to

        exact   (s / ‖Â‖) (g − ⟨g, Â⟩ / ‖Â‖ · B*(q, p))
        frozen  (s / ‖Â‖) g

    Frozen is what the authors do; it drops the second term and is not the gradient.

    Parameters
    ----------
    bank : FilterBank or DenseBank
        Fixes boundary and image size, on which the norm depends.
    derivative : "exact" or "frozen"
    norm : float
        s, the spectral norm that A gets.
    tol : float
        Relative accuracy of ‖Â‖.

    Notes
    -----
    At a multiple largest singular value the norm has no gradient; "exact" then gives one element
    of its subdifferential.
    """

    def __init__(
        self,
        bank: FilterBank | DenseBank,
        derivative: Literal["exact", "frozen"] = "exact",
        *,
        norm: float = 1.0,
        tol: float = 1e-12,
    ):
        if derivative not in ("exact", "frozen"):
            raise ValueError(
                f"Normalization: derivative is {derivative!r}, expected 'exact' or 'frozen'"
            )
        self.bank, self.derivative, self.tol = bank, derivative, tol
        self.norm = positive(norm, "Normalization: norm")

    def apply(self, raw: Array) -> Array:
        """A = s Â / ‖Â‖."""
        return raw * (self.norm / self._triplet(raw).value)

    def jvp(self, raw: Array, d: Array) -> Array:
        """dA from dÂ."""
        value, left, right, _ = self._triplet(raw)
        if self.derivative == "exact":
            slope = np.vdot(compiled(self.bank).adjoint_filters(right, left), d)
            d = d - raw * (slope / value)
        return d * (self.norm / value)

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """Gradient with respect to Â from the gradient with respect to A."""
        value, left, right, _ = self._triplet(raw)
        if self.derivative == "exact":
            along = np.vdot(gradient, raw) / value
            gradient = gradient - along * compiled(self.bank).adjoint_filters(right, left)
        return gradient * (self.norm / value)

    def inverse(self, value: Array) -> Array:
        """A itself, whose norm becomes s."""
        return value

    def _triplet(self, raw: Array):
        triplet = leading_triplet(Analysis(self.bank, raw), tol=self.tol, dtype=raw.dtype)
        limit = float(np.sqrt(np.finfo(raw.dtype).eps)) * triplet.value
        if triplet.error_bound > limit:
            raise NotConvergedError(
                f"Normalization: the norm is known to {triplet.error_bound:.2e} only, expected "
                f"{limit:.2e}; the largest singular values lie too close together for this image"
            )
        return triplet
