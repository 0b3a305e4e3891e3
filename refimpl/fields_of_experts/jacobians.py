"""The Jacobian ∂F = Cᵀ diag(d) A at one u, d = γ w ⊙ σ′(A u + b) or other `slopes`: two forms.

    ResponseJacobian    holds d; a product filters, multiplies and filters back (E4, E5)
    StencilJacobian     holds the sums over filters, S_p[x] (`refimpl.kernels.stencils`); a product
                        is one weighted sum of 25 neighbours for filters of 3 × 3

Both offer `matvec` (E4), `adjoint` (E5), `mean_slopes`, `diagonal`, and `lines`, (a, d) of the
safeguarded slopes, which foretell σ at the next iterate (None for σ′). The stencil is taken where
it holds no more numbers than d does: one channel, and at least as many filters as offsets (13 for
tied filters of 3 × 3, 25 for untied ones).
"""

from functools import cached_property

import numpy as np

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.fields_of_experts import fused
from refimpl.fields_of_experts.slopes import Slopes
from refimpl.parameters import Parameters


class ResponseJacobian:
    """∂F by its responses.

    Parameters
    ----------
    engine : module `definition` or `fused`
    bank : FilterBank or DenseBank
    theta : Parameters
    d : array of responses
    lines : array (N, ...), optional
    """

    def __init__(self, engine, bank, theta: Parameters, d: Array, lines: Array | None = None):
        self.engine, self.bank, self.theta, self.d, self.lines = engine, bank, theta, d, lines

    def matvec(self, v: Array) -> Array:
        """Cᵀ( d ⊙ A v ), E4."""
        return self.engine.tangent(self.bank, self.theta.A, self.theta.synthesis, self.d, v)

    def adjoint(self, q: Array) -> Array:
        """Aᵀ( d ⊙ C q ), E5."""
        return self.engine.tangent(self.bank, self.theta.synthesis, self.theta.A, self.d, q)

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
        theta, d = self.theta.astype(dtype), self.d.astype(dtype)
        return ResponseJacobian(self.engine, self.bank, theta, d)


class StencilJacobian:
    """∂F by its stencil S.

    Parameters
    ----------
    bank : FilterBank
        Of one channel.
    tied : bool
    S : array (N, offsets, margin + Hp·Wp)
        All offsets, or half of them when tied.
    mean_slopes : array (N, F)
        Mean of d over the responses of each filter.
    lines : array (N, ...), optional
    """

    def __init__(self, bank, tied: bool, S: Array, mean_slopes: Array, lines: Array | None = None):
        self.bank, self.tied, self.S, self.mean_slopes = bank, tied, S, mean_slopes
        self.lines, self.margin = lines, S.shape[2] - int(np.prod(bank.padding.range_shape))

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
        S, mean_slopes = self.S.astype(dtype), self.mean_slopes.astype(dtype)
        return StencilJacobian(self.bank, self.tied, S, mean_slopes)

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


def stencil_offsets(filter_shape: tuple[int, int], tied: bool) -> int:
    """How many S_p the stencil of filters of h × w has."""
    h, w = filter_shape
    both = (2 * h - 1) * (2 * w - 1)
    return (both + 1) // 2 if tied else both


def make_stencil(bank, potential, theta: Parameters, slopes: Slopes) -> StencilJacobian:
    """∂F at the u of `slopes` as a stencil."""
    up, weights = bank.padding.matvec(slopes.u), theta.gamma * theta.weights
    arrays = slopes.lines, theta.A, theta.synthesis, theta.b, weights
    settings = potential.code, potential.parameter, theta.tied
    S, sums, lines = kernels.stencil(up, slopes.safeguarded, *arrays, *settings)
    mean_slopes = sums / sums.dtype.type(np.prod(bank.image_shape[1:]))
    return StencilJacobian(bank, theta.tied, S, mean_slopes, lines)


def make_jacobian(engine, bank, potential, theta: Parameters, slopes: Slopes):
    """∂F, as a stencil where that is the smaller of the two."""
    if engine is fused and bank.image_shape[0] == 1:
        F, _, *sides = bank.coefficients_shape
        if stencil_offsets(sides, theta.tied) <= F:
            return make_stencil(bank, potential, theta, slopes)
    d, lines = engine.model_slopes(bank, potential, theta, slopes)
    d = bank.per_filter(theta.gamma * theta.weights) * d
    return ResponseJacobian(engine, bank, theta, d, lines)
