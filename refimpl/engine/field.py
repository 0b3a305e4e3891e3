"""The field F and, when tied, its energy R, as objects with linearisations.

    untied  F(u) = γ Cᵀ( w ⊙ σ(A u + b) )                       E3
    tied    C = A, F = ∇R, R(u) = γ Σ_k w_k Σ φ((A u + b)_k)    E2

How they are computed is chosen once, by `make_field`: fused kernels for what these know, else the
definition on a compiled bank. `linearize(u)` evaluates F, R and ∂F once, when they are first
needed; all products with ∂F (E4) and (∂F)ᵀ (E5) go through one object of `jacobians`. Only the tied
classes offer `energy` and `hvp`: without C = A there is no energy, and ∂F is not symmetric.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from refimpl.arrays import Array, same_dtype
from refimpl.engine.fused import FusedExperts, can_fuse
from refimpl.engine.general import GeneralExperts
from refimpl.engine.jacobians import Jacobian
from refimpl.engine.slopes import MAJORIZED, Slopes
from refimpl.paper import equations
from refimpl.paper.operators.base import check_shape
from refimpl.paper.parameters import Parameters
from refimpl.paper.problem import FieldOfExperts


@dataclass(frozen=True, eq=False)
class Field:
    """The untied field F(u) = γ Cᵀ( w ⊙ σ(A u + b) ), E3.

    Attributes
    ----------
    experts : FieldOfExperts
    maps : FusedExperts or GeneralExperts
        What computes them.
    """

    experts: FieldOfExperts
    maps: FusedExperts | GeneralExperts

    def value(self, u: Array) -> Array:
        """F(u), E3, shape (N, C, H, W)."""
        self.check(u)
        return self.maps.value(u)

    def linearize(self, u: Array) -> "FieldLinearization":
        """F with its derivatives at `u`."""
        self.check(u)
        return FieldLinearization(self, Slopes(u))

    def check(self, u: Array) -> None:
        """Raise unless u holds images that the bank takes, real and in the precision of A."""
        bank, A = self.experts.bank, self.experts.theta.A
        if u.shape[1:] != bank.image_shape or u.dtype != A.dtype:
            check_shape(bank, u, bank.image_shape, "u")
            same_dtype(u=u, A=A)


class TiedField(Field):
    """The tied field F = ∇R: C = A, with the energy R of E2."""

    def energy(self, u: Array) -> Array:
        """R(u) = γ Σ_k w_k Σ φ((A u + b)_k), one value for each image, E2."""
        self.check(u)
        return self.maps.energy(u)

    def value_and_energy(self, u: Array) -> tuple[Array, Array]:
        """∇R(u) and R(u), which cost less together than apart."""
        self.check(u)
        return self.maps.value_and_energy(u)

    def linearize(self, u: Array) -> "TiedFieldLinearization":
        """∇R with its derivatives at `u`."""
        self.check(u)
        return TiedFieldLinearization(self, Slopes(u))


@dataclass(frozen=True, eq=False)
class FieldLinearization:
    """F at u: every quantity is computed when it is first asked for, and kept.

    Attributes
    ----------
    field : Field
    slopes : Slopes
        u, and which slopes of σ make the Jacobian; σ′ unless `safeguarded`.
    given : ResponseJacobian or StencilJacobian, optional
        The Jacobian, as `rounded` has it; left out: computed from `slopes`.
    """

    field: Field
    slopes: Slopes
    given: Jacobian | None = None

    @property
    def u(self) -> Array:
        """Where F is linearised, (N, C, H, W)."""
        return self.slopes.u

    def images(self, part: slice) -> "FieldLinearization":
        """The linearisation at some of the images."""
        return type(self)(self.field, self.slopes.images(part))

    def rounded(self, field: Field) -> "FieldLinearization":
        """That of `field`, which is this one in another precision, with this Jacobian rounded."""
        dtype = field.experts.theta.A.dtype
        with np.errstate(over="ignore"):  # of u, only the shape is asked for again
            slopes = self.slopes._replace(u=self.u.astype(dtype), lines=None)
        return type(self)(field, slopes, self.jacobian.astype(dtype))

    @cached_property
    def value(self) -> Array:
        """F(u), E3."""
        return self.field.value(self.u)

    @cached_property
    def jacobian(self) -> Jacobian:
        """∂F."""
        return self.field.maps.jacobian(self.slopes) if self.given is None else self.given

    def safeguarded(self, previous: "FieldLinearization | None") -> "FieldLinearization":
        """This with slopes that do not overshoot (`refimpl.engine.slopes`).

        `previous` is what this returned at the last iterate, whose lines foretell σ here; None at
        the first. The jvp, vjp and `jacobian` are no longer those of F.
        """
        if type(self.field.experts.potential) not in MAJORIZED:
            return self
        lines = None if previous is None else previous.jacobian.lines
        return type(self)(self.field, Slopes(self.u, safeguarded=True, lines=lines))

    def jvp(self, v: Array) -> Array:
        """∂F v = γ Cᵀ( w ⊙ σ′ ⊙ A v ), E4."""
        self._check(v)
        return self.jacobian.matvec(v)

    def vjp(self, q: Array) -> Array:
        """(∂F)ᵀ q = γ Aᵀ( w ⊙ σ′ ⊙ C q ), E5."""
        self._check(q)
        return self.jacobian.adjoint(q)

    @property
    def mean_slopes(self) -> Array:
        """Mean of d = γ w ⊙ σ′ over the responses of each filter, (N, F)."""
        return self.jacobian.mean_slopes

    @property
    def diagonal(self) -> Array:
        """The diagonal of ∂F, (N, C, H, W)."""
        return self.jacobian.diagonal

    def params_vjp(self, q: Array) -> Parameters:
        """(∂_θ F)ᵀ q, E6, summed over the batch; tied, the gradients of A and C add up, E7."""
        self._check(q)
        return self.field.maps.params_vjp(self.u, q)

    @cached_property
    def responses(self) -> tuple[Array, Array]:
        """σ(z) and d = γ w ⊙ σ′(z) at z = A u + b: arrays of all responses."""
        experts = self.field.experts
        weights = experts.bank.per_filter(experts.theta.gamma * experts.theta.weights)
        z = self.preactivation
        return experts.potential.derivative(z), weights * experts.potential.second_derivative(z)

    @cached_property
    def preactivation(self) -> Array:
        """z = A u + b."""
        return equations.responses(self.field.maps, self.u)

    def _check(self, v: Array) -> None:
        """The kernels trust shapes: a batch of another size would read beyond the responses."""
        if v.shape != self.u.shape:
            raise ValueError(
                f"linearization: given shape {v.shape}, expected {self.u.shape}, that of u"
            )
        same_dtype(v=v, u=self.u)


class TiedFieldLinearization(FieldLinearization):
    """∇R at u; its Jacobian is the Hessian of R, symmetric."""

    @cached_property
    def _value_and_energy(self) -> tuple[Array, Array]:
        return self.field.value_and_energy(self.u)

    @property
    def value(self) -> Array:
        """∇R(u), E3."""
        return self._value_and_energy[0]

    @property
    def energy(self) -> Array:
        """R(u), one value for each image, E2."""
        return self._value_and_energy[1]

    def hvp(self, v: Array) -> Array:
        """∇²R v = γ Aᵀ( w ⊙ σ′ ⊙ A v ), E4 with C = A."""
        return self.jvp(v)


def make_field(experts: FieldOfExperts) -> Field:
    """The field that `experts` describe, `TiedField` if they have no C; how it is computed is
    chosen here."""
    maps = FusedExperts(experts) if can_fuse(experts) else GeneralExperts(experts)
    return (TiedField if experts.tied else Field)(experts, maps)
