"""Extremal eigenvalues and singular values of one operator, from products with it.

    power_iteration    x ← M x / ‖M x‖                            symmetric M
    lanczos            Rayleigh-Ritz in a Krylov space            symmetric M
    singular_triplet   lanczos on MᵀM: M v = s u, Mᵀ u = s v      any M
    arnoldi            Ritz values of any M
    spectral_radius    the largest of them in modulus, to a stated residual

These act on one vector of any shape: there is no batch axis, an array (1, C, H, W) is one image.
For symmetric M, a unit vector x with residual ‖M x − θ x‖ = δ proves an eigenvalue within δ of
θ; that is the error bound returned, up to the rounding of M x. No iteration can prove that the
eigenvalue is the extremal one: a start orthogonal to its eigenvector misses it, so use a random
start. The Krylov spaces are restarted (Krylov-Schur), which bounds their memory.

References: G. W. Stewart, A Krylov-Schur algorithm for large eigenproblems, SIAM J. Matrix
Anal. Appl. 23 (2001).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import scipy.linalg

from refimpl.arrays import Array, count
from refimpl.results import BreakdownError
from refimpl.solvers._krylov_space import KrylovSpace, Product, inner, length, unit
from refimpl.solvers._progress import tolerance

Matvec = Callable[[Array], Array]

# Vectors held by the restarted methods, and Ritz vectors kept at a restart.
BASIS = 40
KEPT = 15


class Eigenpair(NamedTuple):
    """An eigenvalue estimate θ of a symmetric operator.

    Attributes
    ----------
    value : float
    vector : array
        Unit vector, of the shape of the start.
    error_bound : float
        ‖M x − θ x‖, recomputed at the end: an eigenvalue of M lies within it of θ.
    converged : bool
        Whether `error_bound` met the tolerance.
    products : int
    """

    value: float
    vector: Array
    error_bound: float
    converged: bool
    products: int


class SingularTriplet(NamedTuple):
    """A singular value s with M right = s left, Mᵀ left ≈ s right.

    Attributes
    ----------
    value : float
    left, right : array
        Unit vectors of the range and the domain.
    error_bound : float
        ‖Mᵀ left − s right‖: a singular value of M lies within it of s. It exceeds tol · s where
        the iteration did not converge.
    """

    value: float
    left: Array
    right: Array
    error_bound: float


class RitzValues(NamedTuple):
    """Eigenvalues of the compression of M to a Krylov space, the largest in modulus first.

    Attributes
    ----------
    values : complex array (k,)
    residuals : array (k,)
        ‖M x − θ x‖ of each unit Ritz vector; for a nonsymmetric M no bound on the error of θ.
    """

    values: Array
    residuals: Array


class SpectralRadius(NamedTuple):
    """max |θ| over the eigenvalues of M.

    Attributes
    ----------
    value : float
    residual : float
        ‖M x − θ x‖ of the leading unit Ritz vector.
    converged : bool
        Whether residual ≤ tol · value.
    products : int
    """

    value: float
    residual: float
    converged: bool
    products: int


def power_iteration(
    matvec: Matvec, x0: Array, *, tol: float = 1e-6, max_iterations: int = 10_000
) -> Eigenpair:
    """Eigenvalue of largest modulus of a symmetric operator by x ← M x / ‖M x‖.

    θ = ⟨x, M x⟩; the error of θ falls by (θ2/θ1)² in an iteration, its bound by |θ2/θ1|.

    Parameters
    ----------
    matvec : callable
        M, symmetric, from an array of any shape to one of the same shape and dtype.
    x0 : array, float32 or float64
        Start, not zero.
    tol : float
        Stop when ‖M x − θ x‖ ≤ tol · |θ|.
    max_iterations : int
        Most products.

    Returns
    -------
    Eigenpair

    Raises
    ------
    ValueError
        For a zero start.
    BreakdownError
        When M x is NaN or infinite.
    """
    x, product = unit(x0, "power_iteration"), Product(matvec, "power_iteration")
    tol = tolerance(tol, "power_iteration")
    for _ in range(count(max_iterations, "power_iteration: max_iterations")):
        Mx = product(x)
        value = inner(x, Mx)
        bound = length(Mx - value * x)
        if bound <= tol * abs(value):
            return Eigenpair(float(value), x, float(bound), True, product.calls)
        current, x = x, Mx / length(Mx)
    return Eigenpair(float(value), current, float(bound), False, product.calls)


def lanczos(
    matvec: Matvec,
    x0: Array,
    *,
    which: Literal["largest", "smallest"] = "largest",
    tol: float = 1e-10,
    max_iterations: int = 2_000,
) -> Eigenpair:
    """Largest or smallest eigenvalue of a symmetric operator, by restarted Lanczos iteration.

    The basis is orthogonalised in full, so no copies of converged values appear.

    Parameters
    ----------
    matvec : callable
        M, symmetric, from an array of any shape to one of the same shape and dtype.
    x0 : array, float32 or float64
        Start, not zero; random, so that it has a part along the eigenvector sought.
    which : "largest" or "smallest"
        By value, not by modulus.
    tol : float
        Stop when ‖M x − θ x‖ ≤ tol · max|θ_i| over the Ritz values θ_i, an estimate of ‖M‖.
    max_iterations : int
        Most products, but for one at the end that measures the residual.

    Returns
    -------
    Eigenpair

    Raises
    ------
    ValueError
        For a zero start or an unknown `which`.
    BreakdownError
        When M x is NaN or infinite.
    """
    if which not in ("largest", "smallest"):
        raise ValueError(f"lanczos: which is {which!r}, expected 'largest' or 'smallest'")
    tol = tolerance(tol, "lanczos")
    max_iterations = count(max_iterations, "lanczos: max_iterations")
    product, sign = Product(matvec, "lanczos"), 1 if which == "largest" else -1
    space = KrylovSpace(product, unit(x0, "lanczos"))
    while True:
        space.expand()
        values, vectors = np.linalg.eigh(sign * (space.projected + space.projected.T) / 2)
        size = np.abs(values).max()
        estimate = space.residual_norm * abs(vectors[-1, -1])
        if estimate <= tol * size / 2 or space.is_invariant or product.calls >= max_iterations:
            break
        if len(space.basis) == BASIS:
            space.restart(vectors[:, -KEPT:])
    x = space.lift(vectors[:, -1])
    x, value = x / length(x), sign * values[-1]
    bound = length(product(x) - x.dtype.type(value) * x)
    return Eigenpair(float(value), x, float(bound), bool(bound <= tol * size), product.calls)


def singular_triplet(
    matvec: Matvec, adjoint: Matvec, x0: Array, *, tol: float = 1e-12, max_iterations: int = 2_000
) -> SingularTriplet:
    """Largest singular value of an operator with its vectors, by Lanczos iteration on MᵀM.

    Parameters
    ----------
    matvec, adjoint : callable
        M from arrays of the domain's shape to the range's, and Mᵀ.
    x0 : array, float32 or float64
        Start in the domain, not zero; random, so that it has a part along the vector sought.
    tol : float
        Stop when ‖Mᵀ left − s right‖ ≤ tol · s.
    max_iterations : int
        Most products with MᵀM.

    Returns
    -------
    SingularTriplet

    Raises
    ------
    ValueError
        For a zero start.
    BreakdownError
        When M maps the start to zero, or to NaN or infinity.

    Notes
    -----
    s² is the largest eigenvalue of MᵀM, so squaring costs s no digits. With gap g = s − s_2, the
    vectors' error is about ‖Mᵀ left − s right‖ / (2 g): only a separated s has accurate vectors.
    """
    tol = tolerance(tol, "singular_triplet")
    pair = lanczos(lambda x: adjoint(matvec(x)), x0, tol=tol, max_iterations=max_iterations)
    right = pair.vector
    image = matvec(right)
    value = length(image)
    if not value > 0:
        raise BreakdownError(
            f"singular_triplet: iteration {pair.products}: ‖M x‖ is {value}, expected more than 0; "
            "the operator is zero, or the start lies in its null space"
        )
    left = image / value
    bound = length(adjoint(left) - value * right)
    return SingularTriplet(float(value), left, right, float(bound))


def arnoldi(matvec: Matvec, x0: Array, k: int = 20) -> RitzValues:
    """Ritz values of any operator in the Krylov space of x0, Mx0, …, M^(k−1) x0.

    Parameters
    ----------
    matvec : callable
        M, from an array of any shape to one of the same shape and dtype.
    x0 : array, float32 or float64
        Start, not zero.
    k : int
        Dimension of the space: products with M, and vectors held.

    Returns
    -------
    RitzValues
        Fewer than k where the space becomes invariant; they are eigenvalues then.

    Raises
    ------
    ValueError
        For a zero start.
    BreakdownError
        When M x is NaN or infinite.
    """
    space = KrylovSpace(Product(matvec, "arnoldi"), unit(x0, "arnoldi"))
    for _ in range(count(k, "arnoldi: k")):
        space.expand()
        if space.is_invariant:
            break
    return _ritz(space)


def spectral_radius(
    matvec: Matvec, x0: Array, *, tol: float = 1e-8, max_iterations: int = 1_000
) -> SpectralRadius:
    """Largest modulus of the eigenvalues of any operator, by restarted Arnoldi iteration.

    Parameters
    ----------
    matvec : callable
        M, from an array of any shape to one of the same shape and dtype.
    x0 : array, float32 or float64
        Start, not zero; random, so that it has a part along the eigenvector sought.
    tol : float
        Stop when ‖M x − θ x‖ ≤ tol · |θ| for the leading Ritz pair.
    max_iterations : int
        Most products.

    Returns
    -------
    SpectralRadius

    Raises
    ------
    ValueError
        For a zero start.
    BreakdownError
        When M x is NaN or infinite.
    """
    tol = tolerance(tol, "spectral_radius")
    max_iterations = count(max_iterations, "spectral_radius: max_iterations")
    product = Product(matvec, "spectral_radius")
    space = KrylovSpace(product, unit(x0, "spectral_radius"))
    while True:
        space.expand()
        ritz = _ritz(space)
        value, residual = abs(ritz.values[0]), ritz.residuals[0]
        converged = bool(residual <= tol * value or space.is_invariant)
        if converged or product.calls >= max_iterations:
            return SpectralRadius(float(value), float(residual), converged, product.calls)
        if len(space.basis) == BASIS:
            space.restart(_leading_schur_vectors(space.projected))


def _ritz(space: "KrylovSpace") -> RitzValues:
    """Eigenvalues of VᵀMV by decreasing modulus; the residual of V y is ‖r‖ |y_k|, ‖y‖ = 1."""
    values, vectors = np.linalg.eig(space.projected)
    order = np.argsort(-np.abs(values), kind="stable")
    residuals = space.residual_norm * np.abs(vectors[-1, order])
    return RitzValues(values[order].astype(complex), residuals)


def _leading_schur_vectors(projected: Array) -> Array:
    """Orthonormal basis of the invariant subspace of the KEPT largest eigenvalues.

    The threshold is lowered by a little so that conjugate pairs stay whole.
    """
    threshold = np.sort(np.abs(np.linalg.eigvals(projected)))[-KEPT] * (1 - 1e-10)
    _, Q, kept = scipy.linalg.schur(
        projected, output="real", sort=lambda re, im: np.hypot(re, im) >= threshold
    )
    return Q[:, :kept]
