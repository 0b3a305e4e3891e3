"""The same model in torch: eager convolutions, in float32 or float64, by the fastest of its forms.

    conv2d          conv2d and conv_transpose2d on contiguous arrays
    channels_last   the same on arrays whose channels are contiguous
    unfold          all windows as a matrix, then one matrix product, and `fold` back

σ(z) = tanh(χ z), b = 0, w = γ = 1, grey images; tensors are (N, 1, H, W) and (N, F, H, W).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from figures.benchmarks.plain import Plain

LIFT, DISTRUST = 1e-3, 0.6
FORMS = ("conv2d", "channels_last", "unfold")


class TorchBank(NamedTuple):
    """Filters (F, 1, h, w) in one of the `FORMS`."""

    taps: Tensor
    form: str

    def analyse(self, u: Tensor) -> Tensor:
        """A u under the symmetric boundary."""
        (F, _, h, w), (N, _, H, W) = self.taps.shape, u.shape
        padded = pad(u, (h // 2, w // 2))
        if self.form == "unfold":
            windows = functional.unfold(padded, (h, w))
            return torch.matmul(self.taps.reshape(F, h * w), windows).view(N, F, H, W)
        return functional.conv2d(self._in_form(padded), self._in_form(self.taps))

    def synthesise(self, z: Tensor) -> Tensor:
        """Cᵀ z."""
        (F, _, h, w), (N, _, H, W) = self.taps.shape, z.shape
        if self.form == "unfold":
            columns = torch.matmul(self.taps.reshape(F, h * w).T, z.reshape(N, F, H * W))
            full = functional.fold(columns, (H + h - 1, W + w - 1), (h, w))
        else:
            full = functional.conv_transpose2d(self._in_form(z), self._in_form(self.taps))
        return fold(full, (h // 2, w // 2))

    def _in_form(self, x: Tensor) -> Tensor:
        last = self.form == "channels_last"
        return x.to(memory_format=torch.channels_last) if last else x


def pad(u: Tensor, widths: tuple[int, int]) -> Tensor:
    """Half-sample symmetric extension; of width 1 it is torch's "replicate"."""
    p, q = widths
    if p == q == 1:
        return functional.pad(u, (1, 1, 1, 1), mode="replicate")
    if p:
        u = torch.cat([u[..., :p, :].flip(-2), u, u[..., -p:, :].flip(-2)], -2)
    return torch.cat([u[..., :q].flip(-1), u, u[..., -q:].flip(-1)], -1) if q else u


def fold(x: Tensor, widths: tuple[int, int]) -> Tensor:
    """The adjoint of `pad`."""
    p, q = widths
    if p:
        core = x[..., p:-p, :].clone()
        core[..., :p, :] += x[..., :p, :].flip(-2)
        core[..., -p:, :] += x[..., -p:, :].flip(-2)
        x = core
    if not q:
        return x
    core = x[..., q:-q].clone()
    core[..., :q] += x[..., :q].flip(-1)
    core[..., -q:] += x[..., -q:].flip(-1)
    return core


class TorchModel:
    """G(u) = λ Kᵀ(Ku − y) + Cᵀ tanh(χ Au) in torch.

    Parameters
    ----------
    plain : Plain
    form : str
        One of `FORMS`.
    dtype : torch.dtype
    """

    def __init__(self, plain: Plain, form: str = "conv2d", dtype: torch.dtype = torch.float64):
        def tensor(x: np.ndarray | None) -> Tensor | None:
            return None if x is None else torch.tensor(x, dtype=dtype)

        self.plain, self.lam, self.tau, self.chi = plain, plain.lam, plain.tau, plain.slope
        self.y, self.truth = tensor(plain.y)[:, None], tensor(plain.truth)[:, None]
        self.mask = tensor(plain.mask)
        A = tensor(plain.A)[:, None]
        C = A if plain.tied else tensor(plain.C)[:, None]
        self.A, self.C = TorchBank(A, form), TorchBank(C, form)

    def forward(self, u: Tensor) -> Tensor:
        """K u."""
        if self.mask is not None:
            return self.mask * u
        if not self.plain.taps:
            return u
        (H, W), padded = u.shape[2:], pad(u, self.plain.widths)
        return sum(c * padded[..., a : a + H, b : b + W] for a, b, c in self.plain.taps)

    def adjoint(self, z: Tensor) -> Tensor:
        """Kᵀ z."""
        if self.mask is not None:
            return self.mask * z
        if not self.plain.taps:
            return z
        (N, _, H, W), (p, q) = z.shape, self.plain.widths
        padded = z.new_zeros(N, 1, H + 2 * p, W + 2 * q)
        for a, b, c in self.plain.taps:
            padded[..., a : a + H, b : b + W] += c * z
        return fold(padded, self.plain.widths)

    def gram(self, v: Tensor) -> Tensor:
        """λ KᵀK v."""
        return self.lam * self.adjoint(self.forward(v))

    def direction(self, u: Tensor, s: Tensor | None = None) -> Tensor:
        """G(u), with s = σ(Au) if it is known."""
        s = torch.tanh(self.chi * self.A.analyse(u)) if s is None else s
        return self.lam * self.adjoint(self.forward(u) - self.y) + self.C.synthesise(s)

    def energy(self, u: Tensor, z: Tensor) -> Tensor:
        """λ/2 ‖Ku − y‖² + Σ log cosh(χz)/χ, given z = Au, (N, 1, 1, 1)."""
        x = (self.chi * z).abs_()
        experts = (x + torch.log1p(torch.exp(-2 * x)) - np.log(2)).sum(1, keepdim=True) / self.chi
        data = self.lam / 2 * (self.forward(u) - self.y) ** 2
        return (data + experts).sum((2, 3), keepdim=True)

    def jvp(self, d: Tensor, v: Tensor) -> Tensor:
        """λ KᵀK v + Cᵀ( d ⊙ Av )."""
        return self.gram(v) + self.C.synthesise(d * self.A.analyse(v))

    def vjp(self, d: Tensor, q: Tensor) -> Tensor:
        """λ KᵀK q + Aᵀ( d ⊙ Cq )."""
        return self.gram(q) + self.A.synthesise(d * self.C.analyse(q))

    def preconditioner(self, d: Tensor) -> Callable[[Tensor], Tensor]:
        """As in `jax_model`: circulant with the mean of d, and a diagonal scaling."""
        H, W = d.shape[2:]
        fast = tuple(next_fast_len(n, real=True) for n in (H, W))
        prior, symbol = self._symbols(d.mean((2, 3)), fast)
        own, diagonal = self._diagonals(d)
        least = LIFT * symbol.amax((2, 3), keepdim=True)
        if self.plain.taps:
            spread = (own / own.mean((2, 3), keepdim=True) - 1).abs().mean((2, 3), keepdim=True)
            least = torch.maximum(least, DISTRUST * spread * prior.amax((2, 3), keepdim=True))
        symbol = torch.maximum(symbol, least)
        scaling = (diagonal / diagonal.mean((2, 3), keepdim=True)) ** -0.25

        def apply(r: Tensor) -> Tensor:
            spectrum = torch.fft.rfft2(r * scaling, s=fast) / symbol
            return scaling * torch.fft.irfft2(spectrum, s=fast)[..., :H, :W]

        return apply

    def _symbols(self, means: Tensor, fast: tuple[int, int]) -> tuple[Tensor, Tensor]:
        hats = [torch.fft.rfft2(bank.taps[:, 0], s=fast) for bank in (self.A, self.C)]
        prior = torch.einsum("nk,kxy->nxy", means, (hats[1].conj() * hats[0]).real)[:, None]
        if self.mask is not None:
            return prior, prior + self.lam * self.mask.mean()
        kernel = means.new_zeros(fast)
        for a, b, c in self.plain.taps or [(0, 0, 1.0)]:
            kernel[a, b] += c
        return prior, prior + self.lam * torch.fft.rfft2(kernel).abs() ** 2

    def _diagonals(self, d: Tensor) -> tuple[Tensor, Tensor]:
        weight = sum(c * c for *_, c in self.plain.taps) if self.plain.taps else 1.0
        data = self.lam * (weight if self.mask is None else self.mask)
        squares = TorchBank(self.A.taps * self.C.taps, self.A.form)
        own = squares.synthesise(d)
        size = (own + data).abs()
        return own, torch.maximum(size, LIFT * size.amax((2, 3), keepdim=True))

    def gradients(self, u: Tensor, p: Tensor, s: Tensor, d: Tensor) -> np.ndarray:
        """dℓ/dA, or dℓ/dA and dℓ/dC one after the other, with p = τ q (E6, E10)."""
        r = d * self.C.analyse(p)
        g_A, g_C = (self._filters(*pair) for pair in ((u, r), (p, s)))
        stacked = -(g_A + g_C) if self.plain.tied else -torch.stack([g_A, g_C])
        return stacked.double().numpy()

    def _filters(self, u: Tensor, z: Tensor) -> Tensor:
        """B*(u, z), the adjoint of A ↦ A u, by the backward pass of conv2d."""
        _, _, h, w = shape = self.A.taps.shape
        padded = pad(u, (h // 2, w // 2))
        return torch.nn.grad.conv2d_weight(padded, shape, z)[:, 0]
