"""Preconditioners M ≈ J for the linear systems with J = λ KᵀK + ∂F, or with its transpose.

    jacobi     M = diag(J): the diagonal of λ KᵀK plus Σ_k over taps of A_k C_k d_k
    circulant  M⁻¹ = S⁻¹ Pᵀ Q⁻¹ P S⁻¹: Q the circular convolution by J's answer to a unit impulse,
               with σ′ replaced by its mean over each filter's responses, inverted by the FFT, one
               channel at a time; P pads by zeros to a torus on which opposite borders do not
               touch; S = (diag(J) / its mean)^(1/4) restores half, on a logarithmic scale, of
               what varies over the image. Behind a blur, small entries of Q are lifted the more,
               the more diag(∂F) varies; a mask counts as its mean times the identity
    cholesky   M = λ KᵀK + Bᵀ diag(max(d̄, 0)) B + shift, B = (A + C)/2, d̄ the mean of d over the
               images: one dense factorisation serves all of them; for dense banks

All are approximations that change the number of iterations, never the solution. Each builder
takes a linearisation and returns the map r ↦ M⁻¹ r.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # loads `scipy.fft` when it is first used: that takes as long as this package
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from refimpl.arrays import Array, per_image, shown
from refimpl.engine.step import StepLinearization
from refimpl.engine.twins import is_known
from refimpl.kernels.vectors import unit_and_size
from refimpl.paper.operators import Convolution, DenseBank, FilterBank, Identity, Mask
from refimpl.paper.operators.convolution import wrap
from refimpl.results import BreakdownError

# Smaller entries of a diagonal or symbol, relative to the largest, are lifted to this.
LIFT = 1e-3
CHOLESKY_SHIFT = 1e-6
SCALING = 0.25

# Behind a blur, Q is lifted to this times max|Q_F|, Q_F the symbol of ∂F, times the relative
# spread of diag(∂F). On blurs of 3 to 13 pixels, λ over four decades, 3 × 3 and 11 × 11 filters,
# this saves a third of the products; half or one and a half times it, nearly as many.
DISTRUST = 0.6


def jacobi(linearization: StepLinearization) -> Callable[[Array], Array]:
    """r ↦ r / |diag(J)|, small entries lifted."""
    diagonal = positive_diagonal(linearization)
    return lambda r: r / diagonal


def positive_diagonal(linearization: StepLinearization) -> Array:
    """|diag(J)|, lifted to 1e-3 of its largest entry in each image where it is smaller.

    That of KᵀK is exact for identity and masks; for other K it is ‖K e‖² at the central pixel e of
    the first channel, for all pixels.
    """
    diagonal = linearization.field.diagonal + gram_diagonal(linearization)
    size = np.abs(diagonal)
    largest = size.max(axis=(1, 2, 3), keepdims=True)
    return np.maximum(size, np.where(largest > 0, LIFT * largest, 1)).astype(diagonal.dtype)


def gram_diagonal(linearization: StepLinearization) -> Array | float:
    """The diagonal of λ KᵀK, exact or by the central pixel."""
    problem = linearization.step.problem
    if is_known(problem.operator, (Identity,)):
        return problem.lam
    if is_known(problem.operator, (Mask,)):
        return problem.lam * problem.operator.mask.astype(linearization.u.dtype)
    impulse = central_impulse(linearization.u)
    return float(np.sum(impulse * linearization.step.data_hvp(impulse)[:1]))


def circulant(linearization: StepLinearization) -> Callable[[Array], Array]:
    """r ↦ S⁻¹ Pᵀ Q⁻¹ P S⁻¹ r by the FFT, Q the circulant model of the symmetric part of J.

    Frequencies where Q falls below 1e-3 of its largest magnitude are lifted to that, so that
    Q is positive definite, and with it Pᵀ Q⁻¹ P. Where K is a convolution they are lifted to
    0.6 s max|Q_F| if that is more, Q_F the part of ∂F and s the mean of |diag(∂F) / its mean − 1|:
    under periodic boundary 0 where σ′ is constant, and Q exact. It is of use for convolutions; of a
    mask, Q knows one pixel.

    Under periodic boundary P = I, and the transforms have u's precision. Else they are in float32,
    whose rounding is far below the error of the model: counts of iterations to 1e-12 changed by at
    most three in sixty.

    Raises
    ------
    ValueError
        For a dense bank, whose J is no convolution.
    """
    bank = linearization.step.problem.bank
    if not is_known(bank, (FilterBank,)):
        raise ValueError(
            "circulant: a dense bank has no convolution structure; use 'jacobi' or None"
        )
    torus = torus_size(bank)
    prior = scipy.fft.rfft2(wrap(mean_kernels(linearization), torus)).real
    symbol = prior + gram_symbols(linearization, torus)
    largest = np.abs(symbol).max(axis=(2, 3), keepdims=True)
    largest = np.where(largest > 0, largest, 1)
    diagonal = positive_diagonal(linearization)
    least = np.maximum(LIFT, least_reliable(linearization, prior) / largest)
    model = _Circulant(
        1 / np.maximum(symbol / largest, least),
        (diagonal.mean(axis=(2, 3), keepdims=True) / diagonal) ** SCALING,
        largest.astype(diagonal.dtype),
        torus,
    )
    return model.divide if bank.boundary == "periodic" else model.single().divide


class _Circulant(NamedTuple):
    """max|Q| · Q⁻¹ in frequency, S⁻¹, max|Q| and the size of the torus."""

    inverse: Array
    scaling: Array
    largest: Array
    torus: tuple[int, int]

    def single(self) -> "_Circulant":
        """The same with transforms in float32."""
        inverse, scaling = (x.astype(np.float32) for x in (self.inverse, self.scaling))
        return self._replace(inverse=inverse, scaling=scaling)

    def divide(self, r: Array) -> Array:
        """S⁻¹ Pᵀ Q⁻¹ P S⁻¹ r; r is divided by its norm where the transforms are in float32."""
        if r.dtype == self.scaling.dtype:
            return self._divide(r) / self.largest
        unit, size = unit_and_size(r, self.scaling.dtype)
        return self._divide(unit) * (per_image(size, r) / self.largest)

    def _divide(self, r: Array) -> Array:
        """max|Q| times `divide`, all in one precision."""
        H, W = r.shape[2:]
        padded = np.zeros((*r.shape[:2], *self.torus), r.dtype)
        np.multiply(r, self.scaling, out=padded[:, :, :H, :W])
        spectrum = scipy.fft.rfft2(padded, overwrite_x=True)
        spectrum *= self.inverse
        solved = scipy.fft.irfft2(spectrum, s=self.torus, overwrite_x=True)
        return solved[:, :, :H, :W] * self.scaling


def torus_size(bank: FilterBank) -> tuple[int, int]:
    """The image's size if it is periodic, else one that is fast to transform, a filter larger."""
    (H, W), (h, w) = bank.image_shape[1:], bank.coefficients_shape[2:]
    if bank.boundary == "periodic":
        return H, W
    fast = scipy.fft.next_fast_len
    return fast(H + h - 1, real=True), fast(W + w - 1, real=True)


def least_reliable(linearization: StepLinearization, prior: Array) -> Array | float:
    """The size of Q, for each image and channel, below which a blur leaves it unreliable, or 0."""
    if not is_known(linearization.step.problem.operator, (Convolution,)):
        return 0.0
    diagonal = linearization.field.diagonal
    mean = diagonal.mean(axis=(2, 3), keepdims=True)
    spread = np.abs(diagonal - mean).mean(axis=(2, 3), keepdims=True)
    size = np.maximum(np.abs(mean), spread)  # where entries of both signs cancel, s is 1
    relative = np.divide(spread, size, out=np.zeros_like(size), where=size > 0)
    return DISTRUST * relative * np.abs(prior).max(axis=(2, 3), keepdims=True)


def gram_symbols(linearization: StepLinearization, torus: tuple[int, int]) -> Array:
    """Real Fourier symbols (1, C, ...) of λ KᵀK's answers to an impulse in each channel."""
    u, (H, W) = linearization.u, linearization.u.shape[2:]
    answers = np.zeros((1, u.shape[1], *torus))
    for c in range(u.shape[1]):
        answers[0, c, :H, :W] = gram_impulse(linearization, central_impulse(u, c))[0, c]
    return scipy.fft.rfft2(np.roll(answers, (-(H // 2), -(W // 2)), axis=(2, 3))).real


def gram_impulse(linearization: StepLinearization, impulse: Array) -> Array:
    """λ KᵀK applied to a unit impulse; a mask counts as its mean times the identity."""
    problem = linearization.step.problem
    if is_known(problem.operator, (Mask,)):  # one pixel says nothing of the others
        return problem.lam * float(problem.operator.mask.mean()) * impulse
    return linearization.step.data_hvp(impulse)


def mean_kernels(linearization: StepLinearization) -> Array:
    """Σ_k d̄_k C_k ⋆ A_k of each image and channel, (N, C, 2h − 1, 2w − 1), shift 0 in the middle.

    d̄ is the mean of γ w ⊙ σ′ over the responses of a filter. The correlations are products of
    spectra that the filters have on a grid where they do not wrap.
    """
    theta, bank = linearization.step.problem.theta, linearization.step.problem.bank
    grid = tuple(2 * side - 1 for side in bank.coefficients_shape[2:])
    spectra = np.conj(scipy.fft.rfft2(theta.synthesis, s=grid)) * scipy.fft.rfft2(theta.A, s=grid)
    weighted = np.einsum("nk,kcij->ncij", linearization.field.mean_slopes, spectra)
    return np.fft.fftshift(scipy.fft.irfft2(weighted, s=grid), axes=(2, 3))


def central_impulse(u: Array, channel: int = 0) -> Array:
    """One image (1, C, H, W) that is 1 at the central pixel of one channel, else 0."""
    impulse = np.zeros((1, *u.shape[1:]), dtype=u.dtype)
    impulse[0, channel, u.shape[2] // 2, u.shape[3] // 2] = 1
    return impulse


def cholesky(linearization: StepLinearization) -> Callable[[Array], Array]:
    """r ↦ M⁻¹ r with M = λ KᵀK + Bᵀ diag(max(d̄, 0)) B + shift, by Cholesky's factors.

    B = (A + C)/2 and d̄, the mean of d over the images, make M symmetric and the same for every
    image; it is J itself, up to the shift, for a tied model whose σ′ does not depend on the
    image. The shift keeps M definite where a mask hides pixels that no response reads: 1e-6 of
    the largest diagonal entry, or what rounding needs, or 1 where M = 0.

    Raises
    ------
    BreakdownError
        If M is not finite.
    ValueError
        For a filter bank, whose J is better not formed as a matrix.
    """
    theta, bank = linearization.step.problem.theta, linearization.step.problem.bank
    if not is_known(bank, (DenseBank,)):
        raise ValueError("cholesky: only a dense bank has a dense J; use 'circulant' or 'jacobi'")
    weights = np.maximum(linearization.field.mean_slopes.mean(axis=0), 0)
    B = theta.A if theta.tied else (theta.A + theta.C) / 2
    rooted = np.sqrt(weights)[:, None] * B  # XᵀX costs half of what XᵀY does
    M = rooted.T @ rooted + gram_matrix(linearization)
    rounding = float(sum(B.shape) * np.finfo(M.dtype).eps)
    M[np.diag_indices_from(M)] += max(CHOLESKY_SHIFT, rounding) * np.diag(M).max() or 1
    try:
        factors = cho_factor(M, overwrite_a=True)
    except (LinAlgError, ValueError) as error:
        raise BreakdownError(f"cholesky: {error}; use the preconditioner 'jacobi'") from error

    def divide(r: Array) -> Array:
        # What is not finite comes out so, and the solver says where.
        return cho_solve(factors, r.reshape(len(r), -1).T, check_finite=False).T.reshape(r.shape)

    return divide


def gram_matrix(linearization: StepLinearization) -> Array:
    """λ KᵀK as a matrix (n, n), n the values of one image."""
    n = linearization.u[0].size
    impulses = np.eye(n, dtype=linearization.u.dtype).reshape(n, *linearization.u.shape[1:])
    return linearization.step.data_hvp(impulses).reshape(n, n)


PRECONDITIONERS = {"jacobi": jacobi, "circulant": circulant, "cholesky": cholesky}

# Building one of these costs as much as many products: one serves a whole Newton solve.
FACTORED = ("cholesky",)


def find_preconditioner(name: str) -> Callable[[StepLinearization], Callable[[Array], Array]]:
    """The builder called `name`.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if not isinstance(name, str) or name not in PRECONDITIONERS:
        known = ", ".join(PRECONDITIONERS)
        raise ValueError(f"preconditioner {shown(name)} is unknown; choose one of {known}")
    return PRECONDITIONERS[name]
