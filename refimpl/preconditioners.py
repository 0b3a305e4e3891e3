"""Preconditioners M ≈ J for the linear systems with J = λ KᵀK + ∂F, or with its transpose.

    jacobi     M = diag(J): the diagonal of λ KᵀK plus Σ_k over taps of A_k C_k d_k
    circulant  M = S Q S: Q the circular convolution by J's answer to a unit impulse at the
               centre, with σ′ replaced by its mean over each filter's responses, inverted by the
               FFT, one channel at a time; S = (diag(J) / its mean)^(1/4) restores half, on a
               logarithmic scale, of what varies over the image
    cholesky   M = λ KᵀK + Bᵀ diag(max(d̄, 0)) B + shift, B = (A + C)/2, d̄ the mean of d over the
               images: one dense factorisation serves all of them; for dense banks

All are approximations that change the number of iterations, never the solution. Each builder
takes a linearisation and returns the map r ↦ M⁻¹ r.
"""

from collections.abc import Callable

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from refimpl.arrays import Array
from refimpl.maps import StepLinearization
from refimpl.operators import DenseBank, Identity, Mask
from refimpl.results import BreakdownError

# Smaller entries of a diagonal or symbol, relative to the largest, are lifted to this.
LIFT = 1e-3
CHOLESKY_SHIFT = 1e-6


def jacobi(linearization: StepLinearization) -> Callable[[Array], Array]:
    """r ↦ r / |diag(J)|, small entries lifted."""
    diagonal = positive_diagonal(linearization)
    return lambda r: r / diagonal


def positive_diagonal(linearization: StepLinearization) -> Array:
    """|diag(J)|, lifted to 1e-3 of its largest entry in each image where it is smaller.

    That of KᵀK is exact for identity and
    masks; for other K it is ‖K e‖² at the central pixel e of the first channel, for all pixels.
    """
    diagonal = linearization.field.diagonal + gram_diagonal(linearization)
    size = np.abs(diagonal)
    largest = size.max(axis=(1, 2, 3), keepdims=True)
    return np.maximum(size, np.where(largest > 0, LIFT * largest, 1)).astype(diagonal.dtype)


def gram_diagonal(linearization: StepLinearization) -> Array | float:
    """The diagonal of λ KᵀK, exact or by the central pixel."""
    datafit = linearization.step.datafit
    if isinstance(datafit.operator, Identity):
        return datafit.lam
    if isinstance(datafit.operator, Mask):
        return datafit.lam * datafit.operator.mask.astype(linearization.u.dtype)
    impulse = central_impulse(linearization.u)
    return float(np.sum(impulse * datafit.hvp(impulse)[:1]))


def circulant(linearization: StepLinearization) -> Callable[[Array], Array]:
    """r ↦ S⁻¹ Q⁻¹ S⁻¹ r by the FFT, Q the circulant model of the symmetric part of J.

    Frequencies where Q falls below 1e-3 of its largest magnitude are lifted to that, so that
    M is positive definite.

    Raises
    ------
    ValueError
        For a dense bank, whose J is no convolution.
    """
    bank = linearization.field.field.bank
    if isinstance(bank, DenseBank):
        raise ValueError(
            "circulant: a dense bank has no convolution structure; use 'jacobi' or None"
        )
    symbol = _symbols(linearization)
    symbol = np.maximum(symbol, LIFT * np.abs(symbol).max(axis=(2, 3), keepdims=True))
    size = bank.image_shape[1:]
    diagonal = positive_diagonal(linearization)
    scaling = (diagonal / diagonal.mean(axis=(2, 3), keepdims=True)) ** 0.25
    return lambda r: (
        np.fft.irfft2(np.fft.rfft2(r / scaling) / symbol, s=size).astype(r.dtype) / scaling
    )


def _symbols(linearization: StepLinearization) -> Array:
    """Real Fourier symbols of the circulant model, one for each image and channel."""
    theta, bank = linearization.field.field.parameters, linearization.field.field.bank
    H, W = bank.image_shape[1:]
    N, C = linearization.u.shape[:2]
    means = linearization.field.mean_slopes
    symbol = np.empty((N, C, H, W // 2 + 1))
    for c in range(C):
        impulse = central_impulse(linearization.u, c)
        data = gram_impulse(linearization, impulse)[:, c]
        response = bank.apply(theta.A, impulse)
        prior = bank.adjoint(theta.synthesis, means[:, :, None, None] * response)[:, c]
        centred = np.roll(data + prior, (-(H // 2), -(W // 2)), axis=(1, 2))
        symbol[:, c] = np.fft.rfft2(centred).real
    return symbol


def gram_impulse(linearization: StepLinearization, impulse: Array) -> Array:
    """λ KᵀK applied to a unit impulse; a mask counts as its mean times the identity."""
    datafit = linearization.step.datafit
    if isinstance(datafit.operator, Mask):
        return datafit.lam * float(datafit.operator.mask.mean()) * impulse
    return datafit.hvp(impulse)


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
    theta, bank = linearization.field.field.parameters, linearization.field.field.bank
    if not isinstance(bank, DenseBank):
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
    return lambda r: cho_solve(factors, r.reshape(len(r), -1).T).T.reshape(r.shape)


def gram_matrix(linearization: StepLinearization) -> Array:
    """λ KᵀK as a matrix (n, n), n the values of one image."""
    n = linearization.u[0].size
    impulses = np.eye(n, dtype=linearization.u.dtype).reshape(n, *linearization.u.shape[1:])
    return linearization.step.datafit.hvp(impulses).reshape(n, n)


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
    if name not in PRECONDITIONERS:
        known = ", ".join(PRECONDITIONERS)
        raise ValueError(f"preconditioner {name!r} is unknown; choose one of {known}")
    return PRECONDITIONERS[name]
