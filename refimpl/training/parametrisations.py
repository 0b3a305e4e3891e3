"""Parametrisations θ = P(θ̂): training moves θ̂ freely, and θ stays where it should be.

    ZeroMean      A = Â − mean Â                    flat images have no response
    Cosines       A = Σ_k Â_k B_k                   B the cosine basis but for the constant
    Scaled        A = s Â                           of size 1, whatever the size of A
    Exponential   w = exp ŵ, γ = exp γ̂              positive, and moved by factors
    Chain         P = outer ∘ inner

Every map has `apply`, its derivative `jvp`: d ↦ DP(θ̂) d, the adjoint of that `vjp`: g ↦ DP(θ̂)ᵀ g,
which turns dℓ/dθ into dℓ/dθ̂, and `inverse`, which finds the θ̂ to start from. A `Parametrisation`
has one map for each parameter.

λ has none: a reconstruction depends on λ and γ by their ratio alone, and γ is trained.

Not here: A = s Â / ‖Â‖ (`refimpl.training.normalization`).
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.filters import cosine_filters
from refimpl.paper.parameters import Parameters


class Map(Protocol):
    """One parameter θ from its free form θ̂."""

    def apply(self, raw: Array) -> Array:
        """P(θ̂)."""

    def jvp(self, raw: Array, d: Array) -> Array:
        """DP(θ̂) d."""

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """DP(θ̂)ᵀ g."""

    def inverse(self, value: Array) -> Array:
        """A θ̂ with P(θ̂) = θ, or, where θ is not in the range of P, nearest to it."""


class ZeroMean:
    """A = Â less the mean of each filter in each channel, an orthogonal projection."""

    def apply(self, raw: Array) -> Array:
        """Â − mean Â."""
        return raw - raw.mean(axis=(2, 3), keepdims=True)

    def jvp(self, raw: Array, d: Array) -> Array:
        """P d: P is linear."""
        return self.apply(d)

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """P g: P is symmetric."""
        return self.apply(gradient)

    def inverse(self, value: Array) -> Array:
        """The filters themselves, their means removed."""
        return self.apply(value)


@dataclass(frozen=True)
class Cosines:
    """A = Σ_k Â_k B_k with (B_k) the cosine basis of h × w but for the constant, orthonormal.

    Â is (F, C, h w − 1). Filters have mean zero, and the steps of Adam, which have one size in
    every coordinate of Â, are along cosines in place of pixels.

    Attributes
    ----------
    size : tuple (h, w)
    """

    size: tuple[int, int]

    def apply(self, raw: Array) -> Array:
        """Σ_k Â_k B_k."""
        return (raw @ self._basis(raw.dtype)).reshape(*raw.shape[:2], *self.size)

    def jvp(self, raw: Array, d: Array) -> Array:
        """Σ_k d_k B_k."""
        return self.apply(d)

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """⟨g, B_k⟩ for every k."""
        return gradient.reshape(*gradient.shape[:2], -1) @ self._basis(gradient.dtype).T

    def inverse(self, value: Array) -> Array:
        """⟨A, B_k⟩: the basis is orthonormal."""
        return self.vjp(value, value)

    def _basis(self, dtype: np.dtype) -> Array:
        h, w = self.size
        return cosine_filters((h, w)).reshape(h * w - 1, h * w).astype(dtype, copy=False)


@dataclass(frozen=True)
class Scaled:
    """A = s Â: steps of one size are in proportion to s.

    Attributes
    ----------
    scale : float
        s > 0.
    """

    scale: float

    def apply(self, raw: Array) -> Array:
        """s Â."""
        return self.scale * raw

    def jvp(self, raw: Array, d: Array) -> Array:
        """s d."""
        return self.scale * d

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """s g."""
        return self.scale * gradient

    def inverse(self, value: Array) -> Array:
        """A / s."""
        return value / self.scale


class Exponential:
    """θ = exp θ̂ > 0, entry by entry."""

    def apply(self, raw: Array) -> Array:
        """exp θ̂."""
        return np.exp(raw)

    def jvp(self, raw: Array, d: Array) -> Array:
        """exp(θ̂) d."""
        return np.exp(raw) * d

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """exp(θ̂) g: the derivative is diagonal."""
        return np.exp(raw) * gradient

    def inverse(self, value: Array) -> Array:
        """log θ.

        Raises
        ------
        ValueError
            If an entry of θ is not positive.
        """
        if not (value > 0).all():
            raise ValueError(
                f"Exponential: the smallest entry is {value.min():g}, expected positive ones; "
                "start with positive weights and gamma"
            )
        return np.log(value)


@dataclass(frozen=True)
class Chain:
    """P(θ̂) = outer(inner(θ̂)), with D(P) = D(outer) D(inner).

    Attributes
    ----------
    inner, outer : Map
    """

    inner: Map
    outer: Map

    def apply(self, raw: Array) -> Array:
        """outer(inner(θ̂))."""
        return self.outer.apply(self.inner.apply(raw))

    def jvp(self, raw: Array, d: Array) -> Array:
        """The inner derivative, then the outer one."""
        return self.outer.jvp(self.inner.apply(raw), self.inner.jvp(raw, d))

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """The outer adjoint, then the inner one."""
        return self.inner.vjp(raw, self.outer.vjp(self.inner.apply(raw), gradient))

    def inverse(self, value: Array) -> Array:
        """The inner inverse of the outer one."""
        return self.inner.inverse(self.outer.inverse(value))


@dataclass(frozen=True)
class Parametrisation:
    """θ = P(θ̂), parameter by parameter; b is always itself.

    Attributes
    ----------
    filters : Map or None
        Of A and C; None: A = Â.
    weights, gamma : Map or None
    """

    filters: Map | None = None
    weights: Map | None = None
    gamma: Map | None = None

    def apply(self, raw: Parameters) -> Parameters:
        """θ from θ̂."""
        changed = {name: P.apply(x) for name, P, x in self._maps(raw)}
        return replace(raw, **changed) if changed else raw

    def jvp(self, raw: Parameters, d: Parameters) -> Parameters:
        """dθ from dθ̂."""
        changed = {name: P.jvp(x, getattr(d, name)) for name, P, x in self._maps(raw)}
        return replace(d, **changed)

    def vjp(self, raw: Parameters, gradient: Parameters) -> Parameters:
        """dℓ/dθ̂ from dℓ/dθ."""
        changed = {name: P.vjp(x, getattr(gradient, name)) for name, P, x in self._maps(raw)}
        return replace(gradient, **changed)

    def inverse(self, theta: Parameters) -> Parameters:
        """A θ̂ with P(θ̂) = θ."""
        return replace(theta, **{name: P.inverse(x) for name, P, x in self._maps(theta)})

    def _maps(self, theta: Parameters):
        """The parameters that have a map: name, map, array."""
        maps = {"A": self.filters, "C": self.filters, "weights": self.weights, "gamma": self.gamma}
        return [(name, maps[name], x) for name, x in theta.items() if maps.get(name) is not None]
