"""G(u) = λ Kᵀ(Ku − y) + Cᵀ σ(Au), its linearisation, preconditioner and hypergradient in JAX.

σ(z) = tanh(χ z), b = 0, w = γ = 1, grey images: the problems of this benchmark and no others.
K is the identity, a mask, or a blur under the symmetric boundary; arrays are (N, H, W), float64.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy.fft import next_fast_len

from figures.benchmarks.jax_products import (
    Array,
    JaxBank,
    Linearization,
    pad,
    prior_products,
)
from figures.benchmarks.plain import Plain

LIFT = 1e-3  # smaller entries of a symbol or diagonal, relative to the largest, are raised to this
# Behind a blur, also to this times the largest of ∂F's symbol and the spread of its diagonal.
DISTRUST = 0.6


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrays:
    """What a compiled program takes: data, filters, mask or None, truth."""

    y: Array
    A: Array
    C: Array | None
    mask: Array | None
    truth: Array


@dataclass(frozen=True)
class JaxModel:
    """One problem with one way to multiply, as functions that XLA compiles.

    Attributes
    ----------
    plain : Plain
        Constants and the taps of the blur.
    product : str
        One of `jax_products.PRODUCTS`.
    arrays : Arrays
    """

    plain: Plain
    product: str
    arrays: Arrays

    def forward(self, arrays: Arrays, u: Array) -> Array:
        """K u."""
        if arrays.mask is not None:
            return arrays.mask * u
        if not self.plain.taps:
            return u
        (H, W), padded = u.shape[1:], pad(u, self.plain.widths)
        return sum(c * padded[:, a : a + H, b : b + W] for a, b, c in self.plain.taps)

    def adjoint(self, arrays: Arrays, z: Array) -> Array:
        """Kᵀ z."""
        return jax.linear_transpose(lambda u: self.forward(arrays, u), z)(z)[0]

    def gram(self, arrays: Arrays, v: Array) -> Array:
        """λ KᵀK v."""
        return self.plain.lam * self.adjoint(arrays, self.forward(arrays, v))

    @property
    def way(self) -> str:
        """How the filters are applied outside of products with J."""
        return "shifts" if self.product == "stencil" else self.product

    def analyse(self, arrays: Arrays, u: Array) -> Array:
        """Au."""
        return JaxBank(arrays.A, self.way).analyse(u)

    def direction(self, arrays: Arrays, u: Array, s: Array) -> Array:
        """G(u), given s = σ(Au)."""
        residual = self.forward(arrays, u) - arrays.y
        prior = JaxBank(synthesis(arrays), self.way).synthesise(s)
        return self.plain.lam * self.adjoint(arrays, residual) + prior

    def energy(self, arrays: Arrays, u: Array, z: Array) -> Array:
        """λ/2 ‖Ku − y‖² + Σ log cosh(χz)/χ, given z = Au, (N, 1, 1)."""
        x = jnp.abs(self.plain.slope * z)
        experts = (x + jnp.log1p(jnp.exp(-2 * x)) - jnp.log(2.0)) / self.plain.slope
        data = self.plain.lam / 2 * (self.forward(arrays, u) - arrays.y) ** 2
        return (data + experts.sum(1)).sum((1, 2), keepdims=True)

    def linearize(self, arrays: Arrays, d: Array) -> Linearization:
        """The products for responses d."""
        jvp, vjp = prior_products(d, arrays.A, arrays.C, self.product)
        return Linearization(
            lambda v: self.gram(arrays, v) + jvp(v), lambda q: self.gram(arrays, q) + vjp(q)
        )

    def preconditioner(self, arrays: Arrays, d: Array):
        """r ↦ S⁻¹ Q⁻¹ S⁻¹ r: circulant with the mean of d, and a diagonal scaling, as refimpl has.

        The FFT runs on the next larger sizes that are products of small primes: the image is
        extended by zeros and cropped, which keeps the map symmetric and positive definite.
        """
        size = d.shape[2:]
        fast = tuple(next_fast_len(n, real=True) for n in size)
        prior, symbol = self._symbols(arrays, d, fast)
        own, diagonal = self._diagonals(arrays, d)
        least = LIFT * symbol.max((1, 2), keepdims=True)
        if self.plain.taps:
            spread = jnp.abs(own / own.mean((1, 2), keepdims=True) - 1).mean((1, 2), keepdims=True)
            least = jnp.maximum(least, DISTRUST * spread * prior.max((1, 2), keepdims=True))
        symbol = jnp.maximum(symbol, least)
        scaling = (diagonal / diagonal.mean((1, 2), keepdims=True)) ** -0.25

        def apply(r: Array) -> Array:
            spectrum = jnp.fft.rfft2(r * scaling, s=fast) / symbol
            return scaling * jnp.fft.irfft2(spectrum, s=fast)[:, : size[0], : size[1]]

        return apply

    def _symbols(self, arrays: Arrays, d: Array, fast: tuple[int, int]) -> tuple[Array, Array]:
        """Re Σ_k mean(d_k) conj(Ĉ_k) Â_k, (N, H, W // 2 + 1), and that with λ |K̂|²."""
        hats = [jnp.fft.rfft2(x, s=fast) for x in (arrays.A, synthesis(arrays))]
        prior = jnp.einsum("nk,kxy->nxy", d.mean((2, 3)), (hats[1].conj() * hats[0]).real)
        if arrays.mask is not None:
            return prior, prior + self.plain.lam * arrays.mask.mean()
        kernel = np.zeros(fast)
        for a, b, c in self.plain.taps or [(0, 0, 1.0)]:
            kernel[a, b] += c
        return prior, prior + self.plain.lam * jnp.abs(jnp.fft.rfft2(kernel)) ** 2

    def _diagonals(self, arrays: Arrays, d: Array) -> tuple[Array, Array]:
        """diag(∂F), and diag(J) with that of KᵀK by ‖kernel‖², lifted where small."""
        weight = sum(c * c for *_, c in self.plain.taps) if self.plain.taps else 1.0
        data = self.plain.lam * (weight if arrays.mask is None else arrays.mask)
        own = JaxBank(arrays.A * synthesis(arrays), "shifts").synthesise(d)
        size = jnp.abs(own + data)
        return own, jnp.maximum(size, LIFT * size.max((1, 2), keepdims=True))

    def gradients(self, arrays: Arrays, u: Array, p: Array, s: Array, d: Array) -> Array:
        """dℓ/dA, or dℓ/dA and dℓ/dC one after the other, with p = τ q (E6, E10)."""
        r = d * JaxBank(synthesis(arrays), self.way).analyse(p)
        g_A, g_C = (correlations(*pair, arrays.A.shape) for pair in ((u, r), (p, s)))
        return -(g_A + g_C) if arrays.C is None else -jnp.stack([g_A, g_C])


def synthesis(arrays: Arrays) -> Array:
    """C, which is A when tied."""
    return arrays.A if arrays.C is None else arrays.C


def correlations(u: Array, z: Array, shape: tuple[int, int, int]) -> Array:
    """B*(u, z): the adjoint of A ↦ A u."""
    _, h, w = shape
    (H, W), padded = u.shape[1:], pad(u, (h // 2, w // 2))
    rows = [
        jnp.einsum("nkxy,nxy->k", z, padded[:, a : a + H, b : b + W])
        for a in range(h)
        for b in range(w)
    ]
    return jnp.stack(rows, axis=1).reshape(shape)


def make_model(plain: Plain, product: str) -> JaxModel:
    """The model with its arrays on the device."""
    arrays = (plain.y, plain.A, plain.C, plain.mask, plain.truth)
    arrays = Arrays(*(None if x is None else jnp.asarray(x) for x in arrays))
    return JaxModel(plain, product, arrays)
