"""Spectral norms ‖M‖ = max ‖M u‖ / ‖u‖ of whole operators, to many digits, estimated.

A norm depends on the boundary and on the image size, so it is taken of the operator that is
used, never of a small patch. For a filter bank under periodic boundary, the Fourier transform
makes A block diagonal and the norm is exact:

    ‖A‖ = max_ω ‖Â(ω)‖₂,   Â(ω) the (F, C) matrix of the filters' transforms.

Everything else goes through Golub-Kahan-Lanczos iteration: within its error bound of a singular
value, which is the largest unless the start has no part along its vector. That is good for advice
and for normalisation, and proves nothing: certificates take norms of `refimpl.equilibrium.proved`.
"""

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import Step, compiled, is_known, slope_bound
from refimpl.paper.operators.banks import Analysis, DenseBank, FilterBank
from refimpl.paper.operators.base import LinearOperator
from refimpl.paper.operators.convolution import wrap
from refimpl.solvers import singular_triplet
from refimpl.solvers.spectral import SingularTriplet


def leading_triplet(
    operator: LinearOperator, *, tol: float = 1e-12, dtype: np.dtype = np.float64
) -> SingularTriplet:
    """Largest singular value and its singular vectors, to a relative accuracy `tol`.

    `tol` is not taken below 64 times the unit roundoff of `dtype`, which no iteration reaches.
    """
    tol = max(tol, 64 * float(np.finfo(dtype).eps))
    operator, start = compiled(operator), random_start(operator, dtype)
    return singular_triplet(operator.matvec, operator.adjoint, start, tol=tol)


def random_start(operator: LinearOperator, dtype: np.dtype) -> Array:
    """Random with a fixed seed: a smooth start could be orthogonal to the vector sought."""
    return np.random.default_rng(0).standard_normal((1, *operator.domain_shape)).astype(dtype)


def operator_norm(
    operator: LinearOperator, *, tol: float = 1e-12, dtype: np.dtype = np.float64
) -> float:
    """Estimate of any operator's spectral norm by Lanczos iteration, to a relative accuracy `tol`.

    Lanczos iteration approaches a singular value from below; its error bound is added, so that it
    errs on the safe side where `tol` was not reached, but not where it missed the largest one.
    `dtype` is that of the operator's coefficients. One that maps a random image to zero is zero.
    """
    if not operator.matvec(random_start(operator, dtype)).any():
        return 0.0
    result = leading_triplet(operator, tol=tol, dtype=dtype)
    return float(result.value + result.error_bound)


def bank_norm(bank: FilterBank | DenseBank, A: Array, *, tol: float = 1e-12) -> float:
    """‖A‖: exact for dense banks and under periodic boundary, else by Lanczos to `tol`."""
    if is_known(bank, (DenseBank,)):
        return float(np.linalg.norm(A, 2))
    if is_known(bank, (FilterBank,)) and bank.boundary == "periodic":
        return periodic_norm(A, bank.image_shape[1:])
    return operator_norm(Analysis(bank, A), tol=tol, dtype=A.dtype)


def periodic_norm(A: Array, image_size: tuple[int, int]) -> float:
    """max_ω ‖Â(ω)‖₂ over the frequencies of an (H, W) grid.

    A filter larger than the image wraps around it: its taps are summed modulo (H, W).
    """
    symbol = np.fft.fft2(wrap(A, image_size)).reshape(*A.shape[:2], -1)
    return float(np.linalg.norm(np.moveaxis(symbol, 2, 0), 2, axis=(1, 2)).max())


def lipschitz_bound(step: Step) -> float:
    """L = λ ‖K‖² + γ max|w| sup|σ′| ‖A‖ ‖C‖ ≥ ‖J(u)‖ for every u, as far as its norms are right.

    They are estimates: L is for advice. The τ that `make_step` takes has bounds of norms.
    """
    norm_A, norm_C = bank_norms(step)
    norm_K = operator_norm(step.problem.operator, dtype=step.dtype)
    return step.problem.lam * norm_K**2 + slope_bound(step.problem) * norm_A * norm_C


def bank_norms(step: Step, *, tol: float = 1e-12) -> tuple[float, float]:
    """‖A‖ and ‖C‖, which are one computation when tied."""
    theta, bank = step.problem.theta, step.problem.bank
    norm_A = bank_norm(bank, theta.A, tol=tol)
    return norm_A, norm_A if theta.tied else bank_norm(bank, theta.C, tol=tol)


def largest_safe_step(step: Step) -> float:
    """2 / L: for a tied convex energy, u ← T(u) converges for every τ below it; as L, advice."""
    return 2 / lipschitz_bound(step)
