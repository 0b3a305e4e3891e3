"""The field F and, when tied, its energy R, as objects with linearisations.

    untied  F(u) = γ Cᵀ( w ⊙ σ(A u + b) )                    E3
    tied    C = A, F = ∇R, R(u) = γ Σ_k w_k Σ φ((A u + b)_k)    E2

`linearize(u)` evaluates F, R and ∂F once, when they are first needed; all products with ∂F (E4)
and (∂F)ᵀ (E5) go through one object of `jacobians`. Only the tied classes offer `energy` and `hvp`:
without C = A there is no energy, and ∂F is not symmetric.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refimpl.arrays import Array, same_dtype
from refimpl.fields_of_experts import definition, fused
from refimpl.fields_of_experts.jacobians import Jacobian, make_jacobian
from refimpl.fields_of_experts.slopes import MAJORIZED, Slopes
from refimpl.operators import DenseBank, FilterBank
from refimpl.operators.banks import is_complex
from refimpl.operators.base import check_shape
from refimpl.parameters import Parameters, make_parameters
from refimpl.potentials import Potential


class FieldsOfExperts:
    """The untied field F(u) = γ Cᵀ( w ⊙ σ(A u + b) ), E3.

    Parameters
    ----------
    bank : FilterBank or DenseBank
    potential : Potential
        σ is its derivative.
    parameters : Parameters
        With `C`; `make_field` chooses the class by its presence.
    """

    def __init__(self, bank: FilterBank | DenseBank, potential: Potential, parameters: Parameters):
        filters = bank.coefficients_shape
        each = filters[:1]
        shapes = {"A": filters, "C": filters, "b": each, "weights": each, "gamma": ()}
        for name, array in parameters.items():
            if np.shape(array) != shapes[name]:
                raise ValueError(
                    f"{name}: shape is {np.shape(array)}, the bank expects {shapes[name]}"
                )
        self.bank, self.potential, self.parameters = bank, potential, parameters

    @cached_property
    def effective(self) -> Parameters:
        """θ with γ in w, γ w and 1: the engines know no γ."""
        theta = self.parameters
        one = np.ones_like(theta.gamma)
        return replace(theta, weights=theta.gamma * theta.weights, gamma=one)

    def value(self, u: Array) -> Array:
        """F(u), E3, shape (N, C, H, W)."""
        self._check(u)
        return self._engine(u).value(self.bank, self.potential, self.effective, u)

    def linearize(self, u: Array) -> "FieldLinearization":
        """F with its derivatives at `u`."""
        self._check(u)
        return FieldLinearization(self, Slopes(u))

    def _engine(self, *arrays: Array):
        fast = self.bank.compiled and not is_complex(
            *arrays, *(a for _, a in self.parameters.items())
        )
        return fused if fast else definition

    def _check(self, u: Array) -> None:
        check_shape(self.bank, u, self.bank.image_shape, "u")
        if not is_complex(u, self.parameters.A):
            same_dtype(u=u, A=self.parameters.A)


class TiedFieldsOfExperts(FieldsOfExperts):
    """The tied field F = ∇R: C = A, with the energy R of E2."""

    def energy(self, u: Array) -> Array:
        """R(u) = γ Σ_k w_k Σ φ((A u + b)_k), one value for each image, E2."""
        self._check(u)
        return self._engine(u).energy(self.bank, self.potential, self.effective, u)

    def value_and_energy(self, u: Array) -> tuple[Array, Array]:
        """∇R(u) and R(u), which cost less together than apart."""
        self._check(u)
        return self._engine(u).value_and_energy(self.bank, self.potential, self.effective, u)

    def linearize(self, u: Array) -> "TiedFieldLinearization":
        """∇R with its derivatives at `u`."""
        self._check(u)
        return TiedFieldLinearization(self, Slopes(u))


@dataclass(frozen=True)
class FieldLinearization:
    """F at u: every quantity is computed when it is first asked for, and kept.

    Attributes
    ----------
    field : FieldsOfExperts
    slopes : Slopes
        u, and which slopes of σ make the Jacobian; σ′ unless `safeguarded`.
    given : ResponseJacobian or StencilJacobian, optional
        The Jacobian, as `rounded` has it; left out: computed from `slopes`.
    """

    field: FieldsOfExperts
    slopes: Slopes
    given: Jacobian | None = None

    @property
    def u(self) -> Array:
        """Where F is linearised, (N, C, H, W)."""
        return self.slopes.u

    def images(self, part: slice) -> "FieldLinearization":
        """That of some of the images."""
        return type(self)(self.field, self.slopes.images(part))

    def rounded(self, field: FieldsOfExperts) -> "FieldLinearization":
        """That of `field`, this one in another precision, with this Jacobian rounded to it."""
        dtype = field.parameters.A.dtype
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
        if self.given is not None:
            return self.given
        field, engine = self.field, self.field._engine(self.u)
        return make_jacobian(engine, field.bank, field.potential, field.effective, self.slopes)

    def safeguarded(self, previous: "FieldLinearization | None") -> "FieldLinearization":
        """This with slopes that do not overshoot (`refimpl.fields_of_experts.slopes`).

        `previous` is what this returned at the last iterate, whose lines foretell σ here; None at
        the first. The jvp, vjp and `jacobian` are no longer those of F.
        """
        if self.field.potential.name not in MAJORIZED:
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
        """(∂_θ F)ᵀ q, E6, summed over the batch.

        ⟨F, q⟩ = Σ_k γ w_k s_k with s_k = Σ (σ ⊙ Cq)_k, so that its gradients in w and γ are γ s and
        Σ_k w_k s_k.
        """
        self._check(q)
        field, theta, engine = self.field, self.field.parameters, self.field._engine(self.u, q)
        A, C, b, s = engine.parameter_vjp(field.bank, field.potential, field.effective, self.u, q)
        return Parameters(A, b, theta.gamma * s, np.asarray(np.sum(theta.weights * s)), C)

    @cached_property
    def responses(self) -> tuple[Array, Array]:
        """σ(z) and d = γ w ⊙ σ′(z) at z = A u + b: arrays of all responses."""
        field, theta = self.field, self.field.effective
        s, slope = definition.responses(field.bank, field.potential, theta, self.u)
        return s, field.bank.per_filter(theta.weights) * slope

    def _check(self, v: Array) -> None:
        """The kernels trust shapes: a batch of another size would read beyond the responses."""
        if v.shape != self.u.shape:
            raise ValueError(
                f"linearization: given shape {v.shape}, expected {self.u.shape}, that of u"
            )
        if not is_complex(v, self.u):
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

    def params_vjp(self, q: Array) -> Parameters:
        """(∂_θ F)ᵀ q of the tied field: the untied gradient through the adjoint of the tie, E7."""
        return super().params_vjp(q).adjoint_tie()


def make_field(
    bank: FilterBank | DenseBank, potential: Potential, parameters: Parameters | Array
) -> FieldsOfExperts:
    """The tied field if `parameters` has no C, else the untied one; a bare array is taken as A."""
    if not isinstance(parameters, Parameters):
        parameters = make_parameters(parameters)
    return (TiedFieldsOfExperts if parameters.tied else FieldsOfExperts)(
        bank, potential, parameters
    )
