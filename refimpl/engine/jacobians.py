"""The Jacobian ∂F = Cᵀ diag(d) A at one u, d = w ⊙ σ′(A u + b) or other `slopes`: two forms.

    ResponseJacobian    holds d; a product filters, multiplies and filters back (E4, E5)
    StencilJacobian     holds the sums over filters, S_p[x] (`refimpl.kernels.stencils`); a product
                        is one weighted sum of 25 neighbours for filters of 3 × 3

γ is part of w. Both offer `matvec` (E4), `adjoint` (E5), `mean_slopes`,
`diagonal`, `lines`, (a, d) of the safeguarded slopes, which foretell σ at the next iterate (None
for σ′), and `astype`, for the adjoint solve, which refines in float32. The stencil is taken where
it holds no more numbers than d does: one channel, and at least as many filters as offsets (13 for
tied filters of 3 × 3, 25 for untied ones).
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.engine.twins import CompiledBank
from refimpl.paper.operators import DenseBank, FilterBank
from refimpl.paper.parameters import Parameters


@dataclass(frozen=True, eq=False)
class ResponseJacobian:
    """∂F by its responses.

    Attributes
    ----------
    bank : CompiledBank, or any other
    theta : Parameters
    d : array of responses
    lines : array (N, ...) or None
        Those of `Slopes`.
    """

    bank: FilterBank | DenseBank
    theta: Parameters
    d: Array
    lines: Array | None = None

    def matvec(self, v: Array) -> Array:
        """Cᵀ( d ⊙ A v ), E4."""
        return self._product(self.theta.A, self.theta.synthesis, v)

    def adjoint(self, q: Array) -> Array:
        """Aᵀ( d ⊙ C q ), E5."""
        return self._product(self.theta.synthesis, self.theta.A, q)

    def _product(self, A: Array, C: Array, v: Array) -> Array:
        bank = self.bank
        if type(bank) is not CompiledBank:
            return bank.adjoint(C, self.d * bank.apply(A, v))
        return bank.padding.adjoint(kernels.tangent(bank.padding.matvec(v), A, C, self.d))

    @cached_property
    def mean_slopes(self) -> Array:
        """Mean of d over the responses of each filter, (N, F)."""
        return self.d.reshape(*self.d.shape[:2], -1).mean(axis=2)

    @cached_property
    def diagonal(self) -> Array:
        """The diagonal, (N, C, H, W): the adjoint of the bank A ⊙ C applied to d.

        Exact where no padded pixel repeats one inside the same filter window.
        """
        return self.bank.adjoint(self.theta.A * self.theta.synthesis, self.d)

    def astype(self, dtype: np.dtype) -> "ResponseJacobian":
        """This rounded to another precision, without lines."""
        return replace(self, theta=self.theta.astype(dtype), d=rounded(self.d, dtype), lines=None)


@dataclass(frozen=True, eq=False)
class StencilJacobian:
    """∂F by its stencil S.

    Attributes
    ----------
    bank : FilterBank
        Of one channel.
    tied : bool
    S : array (N, offsets, margin + Hp·Wp)
        All offsets, or half of them when tied, each after `margin` zeros.
    mean_slopes : array (N, F)
        Mean of d over the responses of each filter.
    lines : array (N, ...) or None
        Those of `Slopes`.
    """

    bank: FilterBank
    tied: bool
    S: Array
    mean_slopes: Array
    lines: Array | None = None

    def matvec(self, v: Array) -> Array:
        """Cᵀ( d ⊙ A v ), E4."""
        return self._product(v, self._both if self.tied else self._forward)

    def adjoint(self, q: Array) -> Array:
        """Aᵀ( d ⊙ C q ), E5."""
        return self._product(q, self._both if self.tied else self._backward)

    @cached_property
    def diagonal(self) -> Array:
        """S_0, (N, 1, H, W); exact where no padded pixel repeats one inside the same window."""
        rows = self.bank.padding.range_shape
        centre = self.S[:, self._centre, self.margin :].reshape(len(self.S), *rows)
        return self.bank.padding.adjoint(centre)

    def astype(self, dtype: np.dtype) -> "StencilJacobian":
        """This rounded to another precision, without lines."""
        S, mean_slopes = rounded(self.S, dtype), self.mean_slopes.astype(dtype)
        return replace(self, S=S, mean_slopes=mean_slopes, lines=None)

    @cached_property
    def margin(self) -> int:
        """Zeros before each offset."""
        return self.S.shape[2] - math.prod(self.bank.padding.range_shape)

    def _product(self, v: Array, terms: Array) -> Array:
        vp = self.bank.padding.matvec(v)
        return self.bank.padding.adjoint(kernels.stencil_product(vp, terms, self.S, self.margin))

    @property
    def _centre(self) -> int:
        """The row of S whose offset is 0."""
        return 0 if self.tied else self.S.shape[1] // 2

    @cached_property
    def _forward(self) -> Array:
        """Terms (p, 0, shift of p), for which out[x] = Σ S_p[x] v[x + p]."""
        h, w = self.bank.coefficients_shape[2:]
        Wp = self.bank.padding.range_shape[2]
        rows = np.arange(self.S.shape[1])
        p1, p2 = np.divmod(rows - self._centre + w - 1, 2 * w - 1)
        return np.stack([rows, 0 * rows, p1 * Wp + p2 - (w - 1)], axis=1)

    @cached_property
    def _backward(self) -> Array:
        """Terms (p, −p, −p): the transpose, out[x] = Σ S_p[x − p] v[x − p]."""
        rows, _, shifts = self._forward.T
        return np.stack([rows, -shifts, -shifts], axis=1)

    @cached_property
    def _both(self) -> Array:
        """Terms of the symmetric stencil: its half, and the transpose of all but the centre."""
        return np.concatenate([self._forward, self._backward[1:]])


Jacobian = ResponseJacobian | StencilJacobian


def rounded(x: Array, dtype: np.dtype) -> Array:
    """x in this precision; what would be subnormal there, and slow, becomes 0.

    Beside tiny / eps, numbers are rounded to multiples of the smallest normal one, tiny.
    """
    x, limits = x.astype(dtype), np.finfo(dtype)
    beside = limits.tiny / limits.eps
    x += beside
    x -= beside
    return x


def stencil_offsets(filter_shape: tuple[int, int], tied: bool) -> int:
    """How many S_p the stencil of filters of h × w has."""
    h, w = filter_shape
    both = (2 * h - 1) * (2 * w - 1)
    return (both + 1) // 2 if tied else both
