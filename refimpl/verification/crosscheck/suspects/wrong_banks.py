"""Banks as wrong programs have them, with the interface of `FilterBank`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.operators import FilterBank
from refimpl.verification.builders import make_bank


def flip(A: Array) -> Array:
    """Filters turned by 180°."""
    return np.ascontiguousarray(A[..., ::-1, ::-1])


def flip_rows(A: Array) -> Array:
    """Filters upside down."""
    return np.ascontiguousarray(A[..., ::-1, :])


def flip_columns(A: Array) -> Array:
    """Filters mirrored."""
    return np.ascontiguousarray(A[..., ::-1])


def reverse_channels(A: Array) -> Array:
    """Filters (F, C, h, w) with the last channel first."""
    return np.ascontiguousarray(A[:, ::-1])


def transpose(A: Array) -> Array:
    """Filters with rows and columns exchanged."""
    return np.ascontiguousarray(A.swapaxes(-1, -2))


@dataclass(frozen=True)
class Wrapped:
    """What a wrong bank shares with the right one."""

    bank: Any

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.bank.image_shape

    @property
    def response_shape(self) -> tuple[int, ...]:
        """(F, H, W)."""
        return self.bank.response_shape

    def per_filter(self, b: Array) -> Array:
        """Values (F,) shaped to broadcast against responses."""
        return self.bank.per_filter(b)

    def sum_per_filter(self, z: Array) -> Array:
        """Adjoint of `per_filter`."""
        return self.bank.sum_per_filter(z)


@dataclass(frozen=True)
class Rearranged(Wrapped):
    """A bank that rearranges its coefficients first; `change` is its own inverse and adjoint."""

    change: Callable[[Array], Array]

    def apply(self, A: Array, u: Array) -> Array:
        """A u with the changed A."""
        return self.bank.apply(self.change(A), u)

    def adjoint(self, A: Array, z: Array) -> Array:
        """Aᵀ z with the changed A."""
        return self.bank.adjoint(self.change(A), z)

    def adjoint_filters(self, u: Array, z: Array) -> Array:
        """B*(u, z), changed back."""
        return self.change(self.bank.adjoint_filters(u, z))


@dataclass(frozen=True)
class InsideOnly(Wrapped):
    """A bank without the responses of its outermost rows and columns."""

    rows: int
    columns: int

    def _kept(self, z: Array) -> Array:
        kept, (rows, columns) = np.zeros_like(z), (self.rows, self.columns)
        inside = np.s_[..., rows : z.shape[-2] - rows, columns : z.shape[-1] - columns]
        kept[inside] = z[inside]
        return kept

    def apply(self, A: Array, u: Array) -> Array:
        """A u inside, else 0."""
        return self._kept(self.bank.apply(A, u))

    def adjoint(self, A: Array, z: Array) -> Array:
        """The transpose of `apply`."""
        return self.bank.adjoint(A, self._kept(z))

    def adjoint_filters(self, u: Array, z: Array) -> Array:
        """The gradient of ⟨apply(A, u), z⟩ in A."""
        return self.bank.adjoint_filters(u, self._kept(z))


@dataclass(frozen=True)
class PaddedResponses(Wrapped):
    """A bank whose adjoint pads the responses and correlates: no adjoint of the padding.

    `turned` tells whether the filters are flipped, as they must be away from the border.
    """

    boundary: str
    turned: bool

    @cached_property
    def inner(self) -> FilterBank:
        """From responses to images."""
        F, C, *window = self.bank.coefficients_shape
        return make_bank((F, *self.image_shape[1:]), (C, F, *window), self.boundary)

    def _inner(self, A: Array) -> Array:
        A = np.ascontiguousarray(A.swapaxes(0, 1))
        return flip(A) if self.turned else A

    def apply(self, A: Array, u: Array) -> Array:
        """The transpose of `adjoint`."""
        return self.inner.adjoint(self._inner(A), u)

    def adjoint(self, A: Array, z: Array) -> Array:
        """Correlate pad(z) with the filters."""
        return self.inner.apply(self._inner(A), z)

    def adjoint_filters(self, u: Array, z: Array) -> Array:
        """The gradient of ⟨adjoint(A, z), u⟩ in A."""
        return self._inner(self.inner.adjoint_filters(z, u))
