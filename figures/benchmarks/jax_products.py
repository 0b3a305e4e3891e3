"""J v = λ KᵀK v + Cᵀ( d ⊙ Av ) in JAX, three ways, on grey images (N, H, W) in float64.

    convolution   lax.conv_general_dilated for A and Cᵀ; what a network library offers
    shifts        a loop over filters, each a sum of shifted images, which XLA fuses
    stencil       the spatially varying stencil of Cᵀ diag(d) A, assembled once for each d

With t, t′ the taps of the filters and p = t′ − t, on the padded image

    ( Cᵀ diag(d) A v )(x) = Σ_p S_p(x) v(x + p),   S_p(x) = Σ_k Σ_t C_k[t] A_k[t + p] d_k(x − t);

25 offsets p for 3 × 3 filters. Tied, S_{−p}(x) = S_p(x − p), and 13 of them suffice.

Not here: the solvers that use the products (`jax_solvers`).
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
PRODUCTS = ("convolution", "shifts", "stencil")


class Linearization(NamedTuple):
    """v ↦ J v and q ↦ Jᵀ q for given responses d."""

    jvp: Callable[[Array], Array]
    vjp: Callable[[Array], Array]


class JaxBank(NamedTuple):
    """Filters (F, h, w) and the way to apply them, a name in `PRODUCTS`."""

    taps: Array
    product: str

    def analyse(self, u: Array) -> Array:
        """A u, (N, F, H, W), on images under the symmetric boundary."""
        h, w = self.taps.shape[1:]
        padded = pad(u, (h // 2, w // 2))
        if self.product == "convolution":
            return lax.conv_general_dilated(padded[:, None], self.taps[:, None], (1, 1), "VALID")
        windows = enumerate(shifted(padded, (h, w), u.shape[1:]))
        flat = self.taps.reshape(len(self.taps), -1)
        return sum(flat[:, k, None, None] * window[:, None] for k, window in windows)

    def synthesise(self, z: Array) -> Array:
        """Cᵀ z, the adjoint of `analyse`."""
        h, w = self.taps.shape[1:]
        if self.product == "convolution":
            flipped = jnp.flip(self.taps, (1, 2))[None]
            full = lax.conv_general_dilated(z, flipped, (1, 1), [(h - 1, h - 1), (w - 1, w - 1)])
            return fold(full[:, 0], (h // 2, w // 2), z.shape[2:])
        start = jnp.zeros((len(z), z.shape[2] + h - 1, z.shape[3] + w - 1), z.dtype)
        padded = lax.fori_loop(
            0, len(self.taps), lambda k, out: out + spread(z[:, k], self.taps[k]), start
        )
        return fold(padded, (h // 2, w // 2), z.shape[2:])


def pad(u: Array, widths: tuple[int, int]) -> Array:
    """Half-sample symmetric extension."""
    return jnp.pad(u, ((0, 0), (widths[0],) * 2, (widths[1],) * 2), mode="symmetric")


def fold(x: Array, widths: tuple[int, int], size: tuple[int, int]) -> Array:
    """The adjoint of `pad`."""
    image = jax.ShapeDtypeStruct((len(x), *size), x.dtype)
    return jax.linear_transpose(lambda u: pad(u, widths), image)(x)[0]


def shifted(padded: Array, window: tuple[int, int], size: tuple[int, int]) -> list[Array]:
    """The padded image as every tap of a window sees it."""
    H, W = size
    return [padded[:, a : a + H, b : b + W] for a, b in product(*map(range, window))]


def spread(z: Array, taps: Array) -> Array:
    """One filter's responses put back where its taps read: the padded image."""
    h, w = taps.shape
    size = z.shape[1] + h - 1, z.shape[2] + w - 1
    wide = jnp.pad(z, ((0, 0), (h - 1,) * 2, (w - 1,) * 2))
    windows = shifted(wide, (h, w), size)[::-1]
    return sum(tap * window for tap, window in zip(taps.ravel(), windows, strict=True))


def fused(v: Array, d: Array, A: Array, C: Array) -> Array:
    """Cᵀ( d ⊙ Av ), filter by filter, so that no array of all responses is made."""
    h, w = A.shape[1:]
    padded = pad(v, (h // 2, w // 2))

    def add(k, out):
        windows = shifted(padded, (h, w), v.shape[1:])
        response = sum(tap * x for tap, x in zip(A[k].ravel(), windows, strict=True))
        return out + spread(d[:, k] * response, C[k])

    total = lax.fori_loop(0, len(A), add, jnp.zeros_like(padded))
    return fold(total, (h // 2, w // 2), v.shape[1:])


def offsets(window: tuple[int, int], *, half: bool = False) -> list[tuple[int, int]]:
    """All differences of two taps; `half`: 0 and one of p and −p."""
    h, w = window
    every = list(product(range(1 - h, h), range(1 - w, w)))
    return every[len(every) // 2 :] if half else every


def assemble(d: Array, A: Array, C: Array, *, half: bool) -> Array:
    """S_p(x) in the order of `offsets`, (P, N, H + 3 (h − 1), W + 3 (w − 1)).

    The padded image is surrounded by h − 1 rows and w − 1 columns of zeros, so that a product
    needs slices only, which XLA fuses into one loop. Images are assembled one after the other:
    the sum over filters is one matrix product for every pair of taps with the offset p.
    """
    h, w = A.shape[1:]
    pairs = [
        [(t, t_p) for t in product(range(h), range(w)) if inside(t_p := plus(t, p), (h, w))]
        for p in offsets((h, w), half=half)
    ]
    taps = np.array([(*t, *t_p) for row in pairs for t, t_p in row]).T
    coefficients = (C[:, taps[0], taps[1]] * A[:, taps[2], taps[3]]).T

    def one(d: Array) -> Array:
        weighted = iter(jnp.einsum("jk,kxy->jxy", coefficients, d))
        return jnp.stack([sum(placed(next(weighted), t, (h, w)) for t, _ in row) for row in pairs])

    return lax.map(one, d).swapaxes(0, 1)


def plus(t: tuple[int, int], p: tuple[int, int]) -> tuple[int, int]:
    """t + p."""
    return t[0] + p[0], t[1] + p[1]


def inside(t: tuple[int, int], window: tuple[int, int]) -> bool:
    """Whether t is a tap."""
    return all(0 <= a < n for a, n in zip(t, window, strict=True))


def placed(x: Array, t: tuple[int, int], window: tuple[int, int]) -> Array:
    """x(· − t) on the padded image with its zeros."""
    return jnp.pad(x, [(a + n - 1, 2 * (n - 1) - a) for a, n in zip(t, window, strict=True)])


def stencil_product(S: Array, v: Array, window: tuple[int, int], form: str) -> Array:
    """Σ_p S_p(x) v(x + p), folded; `form` is "plain", "transposed" or "symmetric"."""
    h, w = window
    padded = pad(v, (h // 2, w // 2))
    wide = jnp.pad(padded, ((0, 0), (h - 1,) * 2, (w - 1,) * 2))

    def at(x: Array, p: tuple[int, int]) -> Array:
        a, b = p[0] + h - 1, p[1] + w - 1
        return x[:, a : a + padded.shape[1], b : b + padded.shape[2]]

    total = 0
    for s, p in zip(S, offsets(window, half=form == "symmetric"), strict=True):
        minus = -p[0], -p[1]
        if form != "transposed":
            total = total + at(s, (0, 0)) * at(wide, p)
        if form == "transposed" or (form == "symmetric" and p != (0, 0)):
            total = total + at(s, minus) * at(wide, minus)
    return fold(total, (h // 2, w // 2), v.shape[1:])


def prior_products(d: Array, A: Array, C: Array | None, name: str) -> tuple[Callable, Callable]:
    """v ↦ Cᵀ( d ⊙ Av ) and its transpose, one map when tied (C is None)."""
    tied, C = C is None, A if C is None else C
    if name == "stencil":
        S, window = assemble(d, A, C, half=tied), A.shape[1:]
        names = ("symmetric",) * 2 if tied else ("plain", "transposed")
        return tuple(lambda v, n=n: stencil_product(S, v, window, n) for n in names)
    if name == "shifts":
        return lambda v: fused(v, d, A, C), lambda v: fused(v, d, C, A)
    first, second = JaxBank(A, name), JaxBank(C, name)
    return (
        lambda v: second.synthesise(d * first.analyse(v)),
        lambda q: first.synthesise(d * second.analyse(q)),
    )
