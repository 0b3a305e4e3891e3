"""The field of experts by its definition on a compiled bank: for any potential, and dense banks.

Banks are exchanged for their compiled twins, potentials keep their own functions of arrays, or have
them compiled where they offer Numba's. What is computed is `refimpl.paper.equations`.
"""

import logging
from dataclasses import replace
from functools import cache

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.engine.jacobians import ResponseJacobian
from refimpl.engine.slopes import Slopes, safeguarded_slopes
from refimpl.engine.twins import compiled, is_known
from refimpl.paper import equations
from refimpl.paper.parameters import Parameters
from refimpl.paper.potentials import POTENTIALS, Potential, trait
from refimpl.paper.problem import FieldOfExperts


class GeneralExperts:
    """E2 to E6 of a field of experts.

    Parameters
    ----------
    experts : FieldOfExperts
    """

    def __init__(self, experts: FieldOfExperts):
        potential = experts.potential
        if not is_known(potential, POTENTIALS.values()):
            potential = announced(potential)
        self.bank, self.potential, self.theta = compiled(experts.bank), potential, experts.theta
        self.experts = replace(experts, bank=self.bank, potential=potential)

    def energy(self, u: Array) -> Array:
        """R(u), E2."""
        return equations.regulariser(self.experts, u)

    def value(self, u: Array) -> Array:
        """F(u), E3."""
        return equations.field(self.experts, u)

    def value_and_energy(self, u: Array) -> tuple[Array, Array]:
        """E3 and E2 at one u."""
        return self.value(u), self.energy(u)

    def jacobian(self, slopes: Slopes) -> ResponseJacobian:
        """∂F with slopes of σ."""
        z, lines = equations.responses(self.experts, slopes.u), None
        if slopes.safeguarded:
            d, lines = safeguarded_slopes(self.potential, z, slopes.lines)
        else:
            d = self.potential.second_derivative(z)
        d = self.bank.per_filter(self.theta.gamma * self.theta.weights) * d
        return ResponseJacobian(self.bank, self.theta, d, lines)

    def params_vjp(self, u: Array, q: Array) -> Parameters:
        """(∂_θ F)ᵀ q, E6; tied, E7."""
        return equations.field_params_vjp(self.experts, u, q)


def announced(potential: Potential) -> Potential:
    """The potential, compiled where it gives Numba scalar functions; the log says which."""
    scalars = trait(potential, "scalars")
    name = type(potential).__name__
    if scalars is None:
        announce(name, "its own NumPy functions are used; `scalars` would have them compiled")
        return potential
    announce(name, "its scalar functions are compiled")
    return kernels.Elementwise(*scalars)


@cache
def announce(name: str, what: str) -> None:
    """Say once how a potential is computed."""
    logging.getLogger("refimpl").warning("potential %s is not one of refimpl's: %s", name, what)
