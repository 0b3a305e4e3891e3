"""The parameters as a case gives them: Â and Ĉ, from which the step's A and C are made.

    A = s Â / ‖Â‖        dℓ/dÂ = P_Â dℓ/dA,   P_Â the adjoint of the derivative

Without a norm, A = Â and P = I. What the computed norm and singular vectors add to the errors of
the outputs is here as well; the reparametrisation itself is `refimpl.training.normalization`.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refimpl.equilibrium.norms import leading_triplet
from refimpl.paper.operators.banks import Analysis
from refimpl.paper.parameters import Parameters
from refimpl.training.model import Model


class Given(NamedTuple):
    """A model with the parameters before normalisation."""

    model: Model
    theta: Parameters

    @property
    def normalized(self) -> bool:
        """Whether A and C are rescaled before use."""
        return self.model.parametrisation.filters is not None

    def banks(self) -> list[str]:
        """The parameters that a norm rescales: A, and C when untied."""
        return [name for name, _ in self.theta.items() if name in ("A", "C")]

    def pull_back(self, gradient: Parameters) -> Parameters:
        """The gradient with respect to the given parameters from that with respect to θ."""
        return self.model.pull_back(self.theta, gradient)

    def norm_error(self) -> float:
        """Bound on the relative error of A and C that their computed norms and rounding leave."""
        if not self.normalized:
            return 0.0
        eps, tol = np.finfo(self.theta.A.dtype).eps, self.model.parametrisation.filters.tol
        analyses = (Analysis(self.model.bank, getattr(self.theta, name)) for name in self.banks())
        triplets = (leading_triplet(x, tol=tol, dtype=x.A.dtype) for x in analyses)
        return float(max(t.error_bound / t.value for t in triplets) + 2 * eps)

    def shaken(self, rng: np.random.Generator) -> "Given":
        """Normalised coefficients moved in random directions by the relative error of the norm.

        Their singular vectors turn by about as much as the computed ones are wrong.
        """
        size, banks = self.norm_error(), self.banks() if self.normalized else []
        moved = {name: _moved(rng, getattr(self.theta, name), size) for name in banks}
        return self._replace(theta=replace(self.theta, **moved))


def _moved(rng: np.random.Generator, x: np.ndarray, size: float) -> np.ndarray:
    """x + d with ‖d‖ = `size` ‖x‖ in a random direction."""
    d = rng.standard_normal(x.shape)
    d *= size * np.linalg.norm(x) / np.linalg.norm(d)
    return x + d.astype(x.dtype)
