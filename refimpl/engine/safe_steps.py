"""A step size that is safe: τ = 1/L, L ≥ ‖J(u)‖ for every u, from one product with each operator.

    L = λ ‖K‖² + γ max|w| sup|σ′| ‖A‖ ‖C‖,    ‖M‖² ≤ ‖M‖₁ ‖M‖_∞

‖M‖_∞ and ‖M‖₁ are the largest row and column sums of |M|, largest values of |M| 1 and |M|ᵀ 1. Norms
to more digits take iterations (`refimpl.equilibrium.norms`). Of an operator or a bank of one's own
the norm is estimated, and so is sup|σ′| where a potential does not state it, at the responses of
Kᵀy.
"""

import numpy as np

from refimpl.arrays import Array
from refimpl.engine.twins import compiled, is_known
from refimpl.paper import equations
from refimpl.paper.operators.banks import Analysis, DenseBank, FilterBank
from refimpl.paper.operators.base import Composition, LinearOperator, Multiple, Sum
from refimpl.paper.operators.convolution import Convolution
from refimpl.paper.operators.pointwise import Identity, Mask, Matrix
from refimpl.paper.operators.sampling import Downsample
from refimpl.paper.potentials import trait
from refimpl.paper.problem import Problem

# Products of the power iteration for an operator that shows no coefficients, and what it may miss.
PRODUCTS, MARGIN = 30, 1.5


def safe_tau(problem: Problem) -> float:
    """τ = 1/L: for a tied convex energy, u ← T(u) converges, as for every τ < 2/L; 1 where J = 0.

    Raises
    ------
    ValueError
        If no finite L is found.
    """
    theta = problem.theta
    norm_A, norm_C = (bank_norm_bound(problem.bank, x) for x in (theta.A, theta.synthesis))
    with np.errstate(over="ignore"):
        data = problem.lam * norm_bound(problem.operator, problem.dtype) ** 2
        largest = data + strength(problem) * steepest(problem) * norm_A * norm_C
    if not np.isfinite(largest):
        raise ValueError(
            f"tau: no safe step is found, for ‖J‖ is bounded by {largest}; pass one, "
            "make_step(problem, tau)"
        )
    return 1 / largest if largest > 0 else 1.0


def slope_bound(problem: Problem) -> float:
    """|γ| max|w| sup|σ′|."""
    return strength(problem) * trait(problem.potential, "sup_second")


def strength(problem: Problem) -> float:
    """|γ| max|w|."""
    return float(abs(problem.theta.gamma) * abs(problem.theta.weights).max())


def bank_norm_bound(bank, A: Array) -> float:
    """‖A‖ ≤ √(‖A‖₁ ‖A‖_∞) of a whole bank; of a bank of one's own an estimate with a margin."""
    if not is_known(bank, (FilterBank, DenseBank)):
        return MARGIN * power_estimate(Analysis(bank, A), A.dtype)
    bank = compiled(bank if is_known(bank, (DenseBank,)) else _shrunk(bank))
    rows = bank.apply(abs(A), np.ones((1, *bank.image_shape), A.dtype)).max()
    columns = bank.adjoint(abs(A), np.ones((1, *bank.response_shape), A.dtype)).max()
    return float(np.sqrt(float(rows) * float(columns)))


def _shrunk(bank: FilterBank) -> FilterBank:
    """The bank on an image of at most three filters a side, which has the same sums.

    A border changes sums of rows and columns within one filter of it, and the others are equal.
    """
    F, channels, *sides = bank.coefficients_shape
    size = (min(n, 3 * side) for n, side in zip(bank.image_shape[1:], sides, strict=True))
    return FilterBank((channels, *size), (F, *sides), bank.boundary)


def norm_bound(K: LinearOperator, dtype: np.dtype) -> float:
    """‖K‖, or more; for an operator that shows no coefficients an estimate with a margin."""
    if is_known(K, (Identity, Mask, Downsample)):
        return 1.0
    if is_known(K, (Matrix,)):
        sizes = abs(K.matrix)
        return float(np.sqrt(sizes.sum(axis=0).max() * sizes.sum(axis=1).max()))
    if is_known(K, (Convolution,)):
        K = compiled(Convolution(abs(K.kernel), K.domain_shape, K.boundary))
        ones = np.ones((1, *K.domain_shape), K.kernel.dtype)
        return float(np.sqrt(K.matvec(ones).max() * K.adjoint(ones).max()))
    if is_known(K, (Composition,)):
        return norm_bound(K.outer, dtype) * norm_bound(K.inner, dtype)
    if is_known(K, (Sum,)):
        return norm_bound(K.left, dtype) + norm_bound(K.right, dtype)
    if is_known(K, (Multiple,)):
        return abs(K.factor) * norm_bound(K.operator, dtype)
    return MARGIN * power_estimate(K, dtype)


def power_estimate(K: LinearOperator, dtype: np.dtype) -> float:
    """‖K‖ from below, by x ← KᵀK x / ‖KᵀK x‖ from a random image."""
    x, size = np.random.default_rng(0).standard_normal((1, *K.domain_shape)).astype(dtype), 1.0
    for _ in range(PRODUCTS):
        size = float(np.linalg.norm(x))
        if size == 0:
            return 0.0
        x = K.adjoint(K.matvec(x / np.asarray(size, dtype)))
    return float(np.sqrt(np.linalg.norm(x)))


def steepest(problem: Problem) -> float:
    """sup |σ′| as the potential states it, else the largest near the responses of Kᵀy."""
    stated = trait(problem.potential, "sup_second")
    if stated < np.inf:
        return float(stated)
    z = equations.responses(problem, problem.operator.adjoint(problem.y))
    half = np.geomspace(1e-8, max(2 * float(abs(z).max()), 1.0), 2001)
    z = np.concatenate([-half, [0.0], half]).astype(problem.dtype)
    return float(np.abs(problem.potential.second_derivative(z)).max())
