"""Constants of a problem that are proved in floating point: μ, norms, and the rounding of G(u).

    proved_monotonicity     μ ≤ λ_min((J + Jᵀ)/2) at every u
    proved_bank_norm        ‖A‖, or more
    smallest_eigenvalue     λ_min(KᵀK), or less
    rounding_of_direction   ‖computed G(u) − G(u)‖, or more
    rounding_of_adjoint     the same for ∇ℓ − Jᵀp

A sum of n terms, in any order, each rounded at most n times, errs by at most γ_n times the sum of
their magnitudes; γ_n = n u / (1 − n u), u the unit roundoff (N. J. Higham, Accuracy and Stability
of Numerical Algorithms, 2nd edition, Lemma 3.1 and (3.5)). A computed sum of magnitudes is
at least 1 − γ_n of the true one, so that γ_n S ≤ `grown(n)` Ŝ, grown(n) = n u / (1 − 2 n u).

Assumed: arithmetic rounds to nearest, nothing underflows, products of matrices are sums of
products (not Strassen's), σ(z) is computed to `ACTIVATION` u s̄ |z| and σ′(z) to `ACTIVATION` u s̄
(measured: 8), sine and cosine to 2 u. Of an operator, a bank or a potential of one's own no
rounding is known, and of the first two no norm: nothing is proved of them. Lanczos iteration proves
no norm either, for it may miss the largest one; `refimpl.equilibrium.norms` has its estimates.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import (
    Step,
    StepLinearization,
    TiedStep,
    bank_norm_bound,
    is_known,
    make_step,
    slope_bound,
)
from refimpl.kernels.vectors import norm
from refimpl.paper.operators import (
    Convolution,
    DenseBank,
    Downsample,
    FilterBank,
    Identity,
    LinearOperator,
    Mask,
    Matrix,
    Padding,
)
from refimpl.paper.operators.base import Composition, Multiple, Sum
from refimpl.paper.potentials import POTENTIALS, Quadratic, trait
from refimpl.paper.problem import FieldOfExperts, Problem

UNIT = float(np.finfo(np.float64).eps) / 2

# Roundings in σ and σ′, in units of the unit roundoff.
ACTIVATION = 16

# Covers the arithmetic of a bound, some hundred operations on numbers of one sign and sums of up to
# 1e9 of them, in float64; and in float32 some hundred operations.
UP, UP_SINGLE = 1 + 1e-6, 1 + 1e-4

# Columns of a matrix up to which its smallest eigenvalue is no work beside a solve.
COLUMNS = 1024


def grown(roundings: float, dtype: np.dtype = np.float64) -> float:
    """n u / (1 − 2 n u); infinite where n u ≥ 1/2."""
    nu = roundings * float(np.finfo(dtype).eps) / 2
    return nu / (1 - 2 * nu) if nu < 0.5 else np.inf


def proved_monotonicity(step: Step, *, columns: float = COLUMNS) -> float:
    """μ with ⟨G(u) − G(v), u − v⟩ ≥ μ ‖u − v‖² for all u and v; ≤ 0 proves nothing.

        μ = λ λ_min(KᵀK) − γ w̄ s̄ ‖A‖ ‖C − A‖      (φ convex, γ w ≥ 0)
        μ = λ λ_min(KᵀK) − γ w̄ s̄ ‖A‖ ‖C‖          (otherwise)

    with w̄ = max|w|, s̄ = sup|σ′|: for convex φ, vᵀAᵀDA v ≥ 0 with D = diag(γ w σ′), and what
    remains of vᵀCᵀDA v is at most the product shown. The rounding of the products is taken off.
    Tied with convex φ, it costs no product with A, else a few.

    Parameters
    ----------
    step : Step
        What a potential of one's own states, convexity and sup|σ′|, is believed.
    columns : float
        Of a matrix K of more columns nothing is proved, for its smallest eigenvalue takes long.
    """
    problem, theta = step.problem, step.problem.theta
    data = problem.lam * smallest_eigenvalue(problem.operator, columns=columns)
    positive = (np.sign(theta.gamma) * theta.weights >= 0).all()
    convex, spent = trait(problem.potential, "convex") and bool(positive), 0.0
    if not (convex and theta.tied):
        apart = theta.synthesis - theta.A if convex else theta.synthesis
        norms = (proved_bank_norm(problem.bank, x) for x in (theta.A, apart))
        with np.errstate(invalid="ignore"):
            spent = slope_bound(problem) * np.prod([*norms])
    rounding = 8 * float(np.finfo(problem.dtype).eps) * (data + spent)
    return float(data - spent - rounding) if np.isfinite(spent) else -np.inf


def proved_bank_norm(bank: FilterBank | DenseBank, A: Array) -> float:
    """‖A‖, or more; infinite for a bank of one's own.

    Dense: min( √(‖A‖₁ ‖A‖_∞), ‖A‖_F ). Filters: min( √(‖A‖₁ ‖A‖_∞), ‖P‖ max_ω ‖Â(ω)‖_F ). The
    responses are some of those on a torus that holds the padded image P u, where the Fourier
    transform makes the bank block diagonal with blocks Â(ω), F × C, and ‖·‖₂ ≤ ‖·‖_F, with
    equality for C = 1. PᵀP is diagonal and counts copies of pixels. A periodic image is a torus
    already, P = I, and for C = 1 the norm is exact.
    """
    if not is_known(bank, (FilterBank, DenseBank)):
        return np.inf
    A = A.astype(np.float64)
    sums = bank_norm_bound(bank, A)
    if is_known(bank, (DenseBank,)):
        return UP * min(sums, float(np.linalg.norm(A)))
    periodic, padding = bank.boundary == "periodic", bank.padding
    size = bank.image_shape[1:] if periodic else padding.range_shape[1:]
    copies = 1 if periodic else most_copies(padding)
    return UP * min(sums, float(np.sqrt(copies)) * largest_block(A, size))


def largest_block(A: Array, size: tuple[int, int]) -> float:
    """max_ω ‖Â(ω)‖_F on the grid (H, W), or more: entries of `symbol`, and their errors."""
    filters = A.reshape(-1, *A.shape[2:])
    squares = sum(x.real**2 + x.imag**2 for x in symbol(filters, size))
    return float(np.sqrt(squares.max()) + np.linalg.norm(symbol_error(filters)))


def most_copies(padding: Padding) -> int:
    """How often P repeats the pixel that it repeats most: ‖P‖²."""
    axes = (index[index >= 0] for index in (padding.rows, padding.columns))
    return int(np.prod([np.bincount(index).max() for index in axes]))


def symbol(filters: Array, size: tuple[int, int]) -> Iterator[Array]:
    """Σ_{a, b} k[a, b] e^(−2πi (j a / H + l b / W)) of each filter k, but for `symbol_error`.

    On the grid (H, W), of which rows j ≤ H/2 suffice: the others are conjugates of these.
    """
    rows, columns = (waves(n, m) for n, m in zip(size, filters.shape[1:], strict=True))
    for partial in rows[: size[0] // 2 + 1] @ filters:
        yield partial @ columns.T


def waves(n: int, m: int) -> Array:
    """e^(−2πi j a / n), j < n, a < m; j a is taken modulo n, so that no angle is large."""
    return np.exp(-2j * np.pi / n * (np.outer(np.arange(n), np.arange(m)) % n))


def symbol_error(filters: Array) -> Array:
    """Bound on the error of each entry of `symbol`, for each filter.

    An angle of at most 2π errs by 6π u, its sine and cosine by 2 u more: each of two factors
    errs by less than 32 u, and the sums over h and w complex products by γ_2h and γ_2w in each
    part, √2 together.
    """
    return grown(3 * sum(filters.shape[1:]) + 96) * abs(filters).sum(axis=(1, 2))


def smallest_eigenvalue(K: LinearOperator, *, columns: float = np.inf) -> float:
    """λ_min(KᵀK), or less: identity, full mask, periodic convolution, tall matrix; else 0."""
    if is_known(K, (Identity,)) or (is_known(K, (Mask,)) and K.mask.all()):
        return 1.0
    if is_known(K, (Convolution,)) and K.boundary == "periodic":
        kernel = K.kernel.astype(np.float64)[None]
        (values,) = symbol(kernel, K.domain_shape[1:])
        smallest = abs(values).min() - symbol_error(kernel)[0]
        return float(max(smallest, 0) ** 2) * (1 - 8 * UNIT)
    if is_known(K, (Matrix,)) and columns >= K.matrix.shape[1] <= K.matrix.shape[0]:
        return smallest_of_gram(K.matrix.astype(np.float64))
    return 0.0


def smallest_of_gram(M: Array) -> float:
    """λ_min(MᵀM), or less, for M of m rows and n columns.

    With s below the computed smallest eigenvalue of the computed B = MᵀM: if Cholesky's
    factorisation of B − s I runs through, its factor R has RᵀR = B − s I + Δ with
    ‖Δ‖ ≤ γ_{n+2} tr(B) / (1 − γ_{n+2}) (S. M. Rump, BIT 46, 2006; n + 2 in place of n + 1, for
    divisions by the diagonal may be products with its reciprocal), so that λ_min(B) ≥ s − ‖Δ‖.
    The rounding of B is at most γ_m ‖M‖_F², that of its diagonal minus s at most u tr(B), and
    tr(B) ≤ (1 + γ_m) ‖M‖_F².
    """
    m, n = M.shape
    error = grown(m + 2 * n + 8) * float(np.vdot(M, M))
    B = M.T @ M
    with np.errstate(invalid="ignore"):
        s = (np.linalg.eigvalsh(B)[0] - error) if np.isfinite(B).all() else 0.0
    if not s > error:
        return 0.0
    try:
        np.linalg.cholesky(B - s * np.eye(n))
    except np.linalg.LinAlgError:
        return 0.0
    return float(s - error)


def rounding_of_direction(linearization: StepLinearization) -> Array:
    """Bound on ‖computed G(u) − G(u)‖ of each image, (N,); infinite where a part is one's own.

    With |·| for magnitudes, t = |A||u| + |b| those of the terms of z = A u + b, and
    |σ(z)| ≤ s̄ |z|, since σ(0) = 0:

        γ_n λ |K|ᵀ( |K||u| + |y| ) + γ_m s̄ γ |C|ᵀ( |w| t ),

    n and m the most roundings that a term passes through: in K, in K u − y, in Kᵀ; in A u + b,
    in σ, in Cᵀ. Both are maps of `magnitudes` at |u|: the cost is one G with a quadratic φ.
    """
    step, x = linearization.step, abs(linearization.u)
    data, field = data_roundings(step), field_roundings(step)
    if not np.isfinite(data + field):
        return np.full(len(x), np.inf)
    sizes = magnitudes(step)
    with np.errstate(over="ignore", invalid="ignore"):
        terms = sizes.data_gradient(x), sizes.field.value(x)
    return _weighted(step, terms, (data, field), x.dtype)


def rounding_of_adjoint(linearization: StepLinearization, p: Array, gradient: Array) -> Array:
    """Bound on the rounding of ∇ℓ − Jᵀp at each image but for that of z in σ′(z); as for G.

        γ_n λ |K|ᵀ|K||p| + γ_m s̄ γ |A|ᵀ( |w| |C||p| ) + 4 u |∇ℓ|
    """
    step, x, dtype = linearization.step, abs(p), p.dtype
    data, field = data_roundings(step), field_roundings(step)
    if not np.isfinite(data + field):
        return np.full(len(x), np.inf)
    sizes = magnitudes(step)
    with np.errstate(over="ignore", invalid="ignore"):
        terms = sizes.data_hvp(x), sizes.field.linearize(x).vjp(x), gradient
    return _weighted(step, terms, (data, field, 4), dtype)


def _weighted(step: Step, terms, roundings, dtype: np.dtype) -> Array:
    """Σ γ_n ‖term‖ of each image, the second term times s̄; infinite where that overflows."""
    steepest = trait(step.problem.potential, "sup_second")
    factors = [grown(n, dtype) for n in roundings]
    factors[1] *= steepest
    with np.errstate(over="ignore", invalid="ignore"):
        bound = sum(f * norm(x).astype(float) for f, x in zip(factors, terms, strict=True))
    bound[np.isnan(bound)] = np.inf
    return bound * (UP_SINGLE if dtype == np.float32 else UP)


def magnitudes(step: Step) -> Step:
    """The step of |K|, −|y|, |θ| and the quadratic potential: its G(|u|) adds up all magnitudes."""
    problem, theta = step.problem, step.problem.theta
    theta = replace(theta, **{name: abs(array) for name, array in theta.items()})
    experts = FieldOfExperts(problem.bank, Quadratic(), theta)
    K = absolute(problem.operator)
    return make_step(Problem(K, -abs(problem.y), experts, problem.lam), tau=1.0)


def absolute(K: LinearOperator) -> LinearOperator:
    """|K|, or what has no smaller entries, for an operator that `operator_roundings` knows."""
    if isinstance(K, Matrix):
        return Matrix(abs(K.matrix), K.domain_shape)
    if isinstance(K, Convolution):
        return Convolution(abs(K.kernel), K.domain_shape, K.boundary)
    if isinstance(K, Composition):
        return Composition(absolute(K.outer), absolute(K.inner))
    if isinstance(K, Sum):
        return Sum(absolute(K.left), absolute(K.right))
    if isinstance(K, Multiple):
        return Multiple(abs(K.factor), absolute(K.operator))
    return K


def data_roundings(step: Step) -> float:
    """Most roundings of a term of λ Kᵀ(K u − y): K and Kᵀ, − y, λ and its product, + F(u)."""
    return operator_roundings(step.problem.operator) + 4


def operator_roundings(K: LinearOperator) -> float:
    """Most roundings that a number goes through in K and Kᵀ together; infinite if not known."""
    if is_known(K, (Identity, Mask, Downsample)):
        return 0
    if is_known(K, (Matrix,)):
        return sum(K.matrix.shape)
    if is_known(K, (Convolution,)):
        widths = K.kernel.shape[0] // 2, K.kernel.shape[1] // 2
        return 2 * K.kernel.size + most_copies(Padding(K.domain_shape, widths, K.boundary))
    if is_known(K, (Composition,)):
        return operator_roundings(K.outer) + operator_roundings(K.inner)
    if is_known(K, (Sum,)):
        return max(operator_roundings(K.left), operator_roundings(K.right)) + 2
    if is_known(K, (Multiple,)):
        return operator_roundings(K.operator) + 4
    return np.inf


def field_roundings(step: Step) -> float:
    """Most roundings of a term of F(u): A u, Cᵀ, + b, in σ, γ w, its product, G's sum."""
    problem = step.problem
    known = is_known(step, (Step, TiedStep)) and is_known(problem.potential, POTENTIALS.values())
    return bank_roundings(problem.bank) + ACTIVATION + 6 if known else np.inf


def bank_roundings(bank: FilterBank | DenseBank) -> float:
    """Most roundings that a number goes through in A and Cᵀ together; infinite if not known.

    Filters as the stencil of Cᵀ D A: sums over F h w products, then over (2h − 1)(2w − 1).
    """
    if is_known(bank, (DenseBank,)):
        return sum(bank.coefficients_shape)
    if not is_known(bank, (FilterBank,)):
        return np.inf
    F, channels, h, w = bank.coefficients_shape
    return (F + channels + 4) * h * w + most_copies(bank.padding)
