"""The maps of a question for a framework with automatic differentiation: every formula, once.

    apply               T(u) = u − τ G(u)                             E8
    energy              E(u) = λ/2 ‖K u − y‖² + γ Σ w φ(A u + b)      E2
    direction, tied     G = ∇E by autodiff
    direction, untied   G = λ Kᵀ(K u − y) + γ Cᵀ(w ⊙ σ(A u + b))     E3; Kᵀ, Cᵀ by autodiff
    jvp, vjp, hvp       the framework's

`p` is a `Question`, θ a dictionary with A, b, weights and, when untied, C, as the question gives
them: `used` normalises A and C if it has a norm. Every method can be overridden by itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from refimpl.verification.backends.textbook import ACTIVATIONS, POTENTIALS
from refimpl.verification.question import Question

Array = Any  # of the framework
Theta = dict[str, Array]
Product = Callable[[Array], Array]


class Maps(ABC):
    """T, its parts and its derivatives.

    Attributes
    ----------
    xp : module
        torch or jax.numpy: where, abs, flip, eye, zeros, concatenate, linalg.norm, …
    derivatives : module
        With grad(f), vjp(f, x) and jvp(f, (x,), (v,)).
    """

    xp: ModuleType
    derivatives: ModuleType

    @abstractmethod
    def pad(self, x: Array, widths: tuple[int, int], boundary: str) -> Array:
        """x (N, C, H, W) extended by `widths` rows and columns on both sides."""

    @abstractmethod
    def correlate(self, x: Array, filters: Array, boundary: str) -> Array:
        """Valid cross-correlation after padding: the image size is unchanged."""

    def forward(self, p: Question, u: Array) -> Array:
        """K u; blur is true convolution, correlation with the flipped kernel."""
        if p.operator == "mask":
            return p.mask * u
        if p.operator == "matrix":
            return u.reshape(len(u), -1) @ p.matrix.T
        if p.operator == "convolution":
            each = u.reshape(-1, 1, *u.shape[2:])
            kernel = self.xp.flip(p.kernel, (0, 1))[None, None]
            return self.correlate(each, kernel, p.operator_boundary).reshape(u.shape)
        return u

    def transpose(self, p: Question, z: Array) -> Array:
        """Kᵀ z."""
        return self._transposed(p, lambda u: self.forward(p, u), z)

    def analyse(self, p: Question, A: Array, u: Array) -> Array:
        """A u: (N, F, H, W), or (N, F) for dense rows."""
        if p.analysis == "dense":
            return u.reshape(len(u), -1) @ A.T
        return self.correlate(u, A, p.boundary)

    def synthesise(self, p: Question, C: Array, z: Array) -> Array:
        """Cᵀ z."""
        return self._transposed(p, lambda u: self.analyse(p, C, u), z)

    def _transposed(self, p: Question, linear: Product, z: Array) -> Array:
        """The transpose of a linear map of images, from its vjp at 0."""
        zero = self.xp.zeros((len(z), *p.target.shape[1:]), dtype=z.dtype)
        return self.derivatives.vjp(linear, zero)[1](z)[0]

    def per_filter(self, p: Question, x: Array) -> Array:
        """Numbers (F,) that broadcast against responses."""
        return x if p.analysis == "dense" else x[:, None, None]

    def norm(self, p: Question, A: Array) -> Array:
        """‖A‖ of the whole operator: as a matrix, whose rows are responses to unit images."""
        shape = tuple(p.target.shape[1:])
        units = self.xp.eye(prod(shape), dtype=A.dtype).reshape(-1, *shape)
        return self.xp.linalg.norm(self.analyse(p, A, units).reshape(len(units), -1), 2)

    def used(self, p: Question, theta: Theta) -> Theta:
        """θ with A and C rescaled to the question's norm, if it has one."""
        if p.norm is None:
            return theta
        banks = {name: x for name, x in theta.items() if name in ("A", "C")}
        return theta | {name: p.norm / self.norm(p, x) * x for name, x in banks.items()}

    def responses(self, p: Question, theta: Theta, u: Array) -> Array:
        """A u + b."""
        return self.analyse(p, theta["A"], u) + self.per_filter(p, theta["b"])

    def potential(self, p: Question, z: Array) -> Array:
        """φ(z)."""
        return POTENTIALS[p.potential](self.xp, z, **p.potential_parameters)

    def activation(self, p: Question, z: Array) -> Array:
        """σ(z) = φ′(z)."""
        return ACTIVATIONS[p.potential](self.xp, z, **p.potential_parameters)

    def data_energy(self, p: Question, u: Array) -> Array:
        """λ/2 ‖K u − y‖² of each image."""
        return p.lam / 2 * ((self.forward(p, u) - p.y) ** 2).reshape(len(u), -1).sum(1)

    def experts_energy(self, p: Question, theta: Theta, u: Array) -> Array:
        """γ Σ w φ(A u + b) of each image."""
        phi = self.potential(p, self.responses(p, theta, u))
        return p.gamma * (self.per_filter(p, theta["weights"]) * phi).reshape(len(u), -1).sum(1)

    def energies(self, p: Question, theta: Theta, u: Array) -> Array:
        """E(u) of each image, E2."""
        return self.data_energy(p, u) + self.experts_energy(p, self.used(p, theta), u)

    def energy_gradient(self, p: Question, theta: Theta, u: Array) -> Array:
        """∇E(u): the gradient of the sum, since images are independent."""
        return self.derivatives.grad(lambda x: self.energies(p, theta, x).sum())(u)

    def data_gradient(self, p: Question, u: Array) -> Array:
        """λ Kᵀ(K u − y)."""
        return p.lam * self.transpose(p, self.forward(p, u) - p.y)

    def field(self, p: Question, theta: Theta, u: Array) -> Array:
        """F(u) = γ Cᵀ(w ⊙ σ(A u + b)), E3, with C = A where θ has no C."""
        sigma = self.activation(p, self.responses(p, theta, u))
        weighted = self.per_filter(p, theta["weights"]) * sigma
        return p.gamma * self.synthesise(p, theta.get("C", theta["A"]), weighted)

    def direction(self, p: Question, theta: Theta, u: Array) -> Array:
        """G(u): ∇E when tied, else λ Kᵀ(K u − y) + F(u)."""
        if p.tied:
            return self.energy_gradient(p, theta, u)
        return self.data_gradient(p, u) + self.field(p, self.used(p, theta), u)

    def step(self, p: Question, theta: Theta, u: Array) -> Array:
        """T(u) = u − τ G(u), E8."""
        return u - p.tau * self.direction(p, theta, u)

    def loss(self, p: Question, u: Array) -> Array:
        """Mean squared difference from the target, E11."""
        return ((u - p.target) ** 2).mean()

    # Derivatives.

    def step_jvp(self, p: Question, theta: Theta, u: Array, v: Array) -> Array:
        """∂_u T v."""
        return self.derivatives.jvp(lambda x: self.step(p, theta, x), (u,), (v,))[1]

    def step_vjp(self, p: Question, theta: Theta, u: Array, w: Array) -> Array:
        """(∂_u T)ᵀ w."""
        return self.derivatives.vjp(lambda x: self.step(p, theta, x), u)[1](w)[0]

    def energy_hvp(self, p: Question, theta: Theta, u: Array, v: Array) -> Array:
        """∇²E(u) v: forward mode over reverse mode."""
        return self.derivatives.jvp(lambda x: self.energy_gradient(p, theta, x), (u,), (v,))[1]

    def step_params_vjp(self, p: Question, theta: Theta, u: Array, w: Array) -> Theta:
        """(∂_θ T)ᵀ w."""
        return self.derivatives.vjp(lambda t: self.step(p, t, u), theta)[1](w)[0]

    def direction_jvp(self, p: Question, theta: Theta, u: Array, v: Array) -> Array:
        """J v with J = ∂_u G."""
        return self.derivatives.jvp(lambda x: self.direction(p, theta, x), (u,), (v,))[1]

    def direction_vjp(self, p: Question, theta: Theta, u: Array, w: Array) -> Array:
        """Jᵀ w."""
        return self.derivatives.vjp(lambda x: self.direction(p, theta, x), u)[1](w)[0]


def sources(length: int, width: int, boundary: str) -> np.ndarray:
    """The pixel that each position −width, …, length + width − 1 stands for.

    symmetric mirrors at the edge of the border pixel (… 1 0 | 0 1 …), reflect at its centre
    (… 2 1 | 0 1 …). Any width will do: patterns go on beyond one image length.
    """
    i = np.arange(-width, length + width)
    if boundary == "periodic":
        return i % length
    if boundary == "replicate":
        return i.clip(0, length - 1)
    if boundary == "symmetric":
        i = i % (2 * length)
        return np.minimum(i, 2 * length - 1 - i)
    if boundary == "reflect":
        period = max(2 * length - 2, 1)
        i = i % period
        return np.minimum(i, period - i) if length > 1 else 0 * i
    raise ValueError(
        f"boundary {boundary!r} is unknown; choose one of periodic, symmetric, reflect, replicate"
    )
