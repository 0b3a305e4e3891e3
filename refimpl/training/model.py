"""A model: everything that fixes the reconstruction but θ and the data.

    θ̂ --P--> θ --F--> T = u − τ ( λ Kᵀ(K u − y) + F(u) ) --fixed point--> u*

Training moves the raw parameters θ̂; without a parametrisation P, θ = θ̂.
"""

from dataclasses import dataclass

from refimpl.arrays import Array, positive
from refimpl.engine import Step, make_step
from refimpl.paper.operators import DenseBank, FilterBank, LinearOperator
from refimpl.paper.parameters import Parameters
from refimpl.paper.potentials import Potential
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.training.parametrisations import Parametrisation


@dataclass(frozen=True)
class Model:
    """Forward operator, bank, potential and constants of E8.

    Attributes
    ----------
    operator : LinearOperator
        K.
    bank : FilterBank or DenseBank
        The form of A and C.
    potential : Potential
        φ, with σ = φ′.
    lam : float
        λ > 0.
    tau : float or None
        τ > 0; None: a safe one for each θ.
    parametrisation : Parametrisation
        P; left out: θ = θ̂.
    """

    operator: LinearOperator
    bank: FilterBank | DenseBank
    potential: Potential
    lam: float
    tau: float | None
    parametrisation: Parametrisation = Parametrisation()

    def __post_init__(self):
        positive(self.lam, "lam")
        if self.tau is not None:
            positive(self.tau, "tau")

    def effective(self, raw: Parameters) -> Parameters:
        """θ from θ̂."""
        return self.parametrisation.apply(raw)

    def pull_back(self, raw: Parameters, gradient: Parameters) -> Parameters:
        """dℓ/dθ̂ from dℓ/dθ, the adjoint of the derivative of `effective` (or its frozen form)."""
        return self.parametrisation.vjp(raw, gradient)

    def step(self, raw: Parameters, y: Array) -> Step:
        """T of E8 for data `y`; a `TiedStep` when `raw` is tied."""
        experts = FieldOfExperts(self.bank, self.potential, self.effective(raw))
        return make_step(Problem(self.operator, y, experts, self.lam), self.tau)
