"""The field F and, when tied, its energy R, as objects with linearisations.

    untied  F(u) = γ Cᵀ( w ⊙ σ(A u + b) )                    E3
    tied    C = A, F = ∇R, R(u) = γ Σ_k w_k Σ φ((A u + b)_k)    E2

`linearize(u)` evaluates σ and σ′ once, when they are first needed; products with ∂F (E4), (∂F)ᵀ
(E5) and (∂_θ F)ᵀ (E6) reuse them. Only the tied classes offer `energy` and `hvp`: without C = A
there is no energy, and ∂F is not symmetric.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from refimpl.arrays import Array, same_dtype
from refimpl.fields_of_experts import definition, fused
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
        if parameters.A.shape != bank.coefficients_shape:
            raise ValueError(
                f"A: shape is {parameters.A.shape}, the bank expects {bank.coefficients_shape}"
            )
        self.bank, self.potential, self.parameters = bank, potential, parameters

    def value(self, u: Array) -> Array:
        """F(u), E3, shape (N, C, H, W)."""
        self._check(u)
        theta = self.parameters
        return theta.gamma * self._engine(u).value(self.bank, self.potential, theta, u)

    def linearize(self, u: Array) -> "FieldLinearization":
        """F with its derivatives at `u`."""
        self._check(u)
        return FieldLinearization(self, u)

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
        theta = self.parameters
        return theta.gamma * self._engine(u).energy(self.bank, self.potential, theta, u)

    def linearize(self, u: Array) -> "TiedFieldLinearization":
        """∇R with its derivatives at `u`."""
        self._check(u)
        return TiedFieldLinearization(self, u)


@dataclass(frozen=True)
class FieldLinearization:
    """F at u, with s = σ(z) and d = γ w ⊙ σ′(z) at z = A u + b.

    Attributes
    ----------
    field : FieldsOfExperts
    u : array (N, C, H, W)
    """

    field: FieldsOfExperts
    u: Array

    @cached_property
    def responses(self) -> tuple[Array, Array]:
        """s and d, arrays of responses."""
        field, theta = self.field, self.field.parameters
        s, slope = field._engine(self.u).responses(field.bank, field.potential, theta, self.u)
        return s, field.bank.per_filter(theta.gamma * theta.weights) * slope

    @property
    def s(self) -> Array:
        """σ(z)."""
        return self.responses[0]

    @property
    def d(self) -> Array:
        """γ w ⊙ σ′(z)."""
        return self.responses[1]

    @cached_property
    def mean_slopes(self) -> Array:
        """Mean of d over the responses of each filter, (N, F)."""
        return self.d.reshape(*self.d.shape[:2], -1).mean(axis=2)

    @cached_property
    def diagonal(self) -> Array:
        """The diagonal of ∂F, (N, C, H, W): the adjoint of the bank A ⊙ C applied to d.

        Exact where no padded pixel repeats one inside the same filter window.
        """
        theta = self.field.parameters
        return self.field.bank.adjoint(theta.A * theta.synthesis, self.d)

    @cached_property
    def value(self) -> Array:
        """F(u), E3."""
        theta, bank = self.field.parameters, self.field.bank
        return theta.gamma * bank.adjoint(theta.synthesis, bank.per_filter(theta.weights) * self.s)

    def jvp(self, v: Array) -> Array:
        """∂F v = γ Cᵀ( w ⊙ σ′ ⊙ A v ), E4."""
        theta = self.field.parameters
        return self._tangent(theta.A, theta.synthesis, v)

    def vjp(self, q: Array) -> Array:
        """(∂F)ᵀ q = γ Aᵀ( w ⊙ σ′ ⊙ C q ), E5."""
        theta = self.field.parameters
        return self._tangent(theta.synthesis, theta.A, q)

    def params_vjp(self, q: Array) -> Parameters:
        """(∂_θ F)ᵀ q, E6, summed over the batch.

        γ enters F as a factor, so its entry is ⟨F, q⟩ / γ = Σ_k w_k Σ (σ ⊙ Cq)_k.
        """
        self._check(q)
        field, theta = self.field, self.field.parameters
        engine = field._engine(self.u, q)
        A, C, b, weights = engine.parameter_vjp(field.bank, theta, self.u, q, self.s, self.d)
        along_gamma = np.asarray(np.sum(theta.weights * weights))
        return Parameters(A, b, theta.gamma * weights, along_gamma, theta.gamma * C)

    def _tangent(self, A: Array, C: Array, v: Array) -> Array:
        self._check(v)
        return self.field._engine(self.u, v).tangent(self.field.bank, A, C, self.d, v)

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
    def energy(self) -> Array:
        """R(u), one value for each image, E2."""
        return self.field.energy(self.u)

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
