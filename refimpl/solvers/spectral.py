"""The largest eigenvalue or singular value of one operator, from products with it.

    lanczos            Rayleigh-Ritz in a Krylov space            symmetric M
    singular_triplet   lanczos on MᵀM: M v = s u, Mᵀ u = s v      any M

These act on one vector of any shape: there is no batch axis, an array (1, C, H, W) is one image.
A unit vector x with residual ‖M x − θ x‖ = δ proves an eigenvalue within δ of θ; that is the error
bound returned, up to the rounding of M x. No iteration can prove that the eigenvalue is the
largest: a start orthogonal to its eigenvector misses it, so use a random start.

The Krylov space grows by one product at a time, and keeps

    M V = V S + r eᵀ,    VᵀV = I,  Vᵀr = 0.

The eigenpairs (θ, y) of S = VᵀMV give Ritz pairs (θ, V y) with residual r (eᵀy). Replacing V by
V Q, with eigenvectors Q of S, keeps the relation with e replaced by Qᵀe: that is the Krylov-Schur
restart, which bounds memory.

References: G. W. Stewart, A Krylov-Schur algorithm for large eigenproblems, SIAM J. Matrix
Anal. Appl. 23 (2001).
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, as_finite, count, positive
from refimpl.kernels.vectors import dot, norm
from refimpl.results import BreakdownError
from refimpl.solvers._systems import Counted, Matvec

# Vectors held, and Ritz vectors kept at a restart.
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


def lanczos(
    matvec: Matvec, x0: Array, *, tol: float = 1e-10, max_iterations: int = 2_000
) -> Eigenpair:
    """Largest eigenvalue of a symmetric operator, by restarted Lanczos iteration.

    The basis is orthogonalised in full, so no copies of converged values appear.

    Parameters
    ----------
    matvec : callable
        M, symmetric, from an array of any shape to one of the same shape and dtype.
    x0 : array, float32 or float64
        Start, not zero; random, so that it has a part along the eigenvector sought.
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
        For a zero start.
    BreakdownError
        When M x is NaN or infinite.
    """
    tol = positive(tol, "lanczos: tol")
    max_iterations = count(max_iterations, "lanczos: max_iterations")
    product = FiniteProduct(matvec, "lanczos: matvec")
    space = KrylovSpace(product, unit(x0))
    while True:
        space.expand()
        values, vectors = np.linalg.eigh((space.projected + space.projected.T) / 2)
        size = np.abs(values).max()
        estimate = space.residual_norm * abs(vectors[-1, -1])
        if estimate <= tol * size / 2 or space.is_invariant or product.products >= max_iterations:
            break
        if len(space.basis) == BASIS:
            space.restart(vectors[:, -KEPT:])
    x = space.lift(vectors[:, -1])
    x, value = x / length(x), values[-1]
    bound = length(product(x) - x.dtype.type(value) * x)
    return Eigenpair(float(value), x, float(bound), bool(bound <= tol * size), product.products)


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
    tol = positive(tol, "singular_triplet: tol")
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


class KrylovSpace:
    """Orthonormal V with M V = V S + r eᵀ: a Krylov decomposition that grows and can be cut.

    Attributes
    ----------
    basis : list of arrays
        Columns of V.
    projected : array (k, k)
        S = Vᵀ M V.
    residual : array
        r, orthogonal to V; the next column is r / ‖r‖.
    coupling : array (k,)
        e: the last unit vector, or Qᵀ e after a restart with V ← V Q.
    """

    def __init__(self, matvec: Matvec, start: Array):
        self.matvec, self.basis = matvec, []
        self.projected, self.coupling = np.empty((0, 0)), np.empty(0)
        self.residual, self.residual_norm = start, length(start)
        # The largest ‖M v‖ so far, to which a vanishing r is compared.
        self.size = 0.0

    def expand(self) -> None:
        """Append v = r / ‖r‖: S gains the row ‖r‖ eᵀ and the column Vᵀ M v."""
        v, k = self.residual / self.residual_norm, len(self.basis)
        self.basis.append(v)
        w = self.matvec(v)
        self.size = max(length(w), self.size)
        column, self.residual = self._orthogonalize(w)
        projected = np.empty((k + 1, k + 1))
        projected[:k, :k], projected[k, :k] = self.projected, self.residual_norm * self.coupling
        projected[:, k] = column
        self.projected, self.coupling = projected, np.eye(k + 1)[k]
        self.residual_norm = length(self.residual)

    def _orthogonalize(self, w: Array) -> tuple[Array, Array]:
        """Vᵀ w and the rest of w: modified Gram-Schmidt, twice for orthogonality to rounding."""
        column = np.zeros(len(self.basis))
        for _ in range(2):
            for i, v in enumerate(self.basis):
                h = inner(v, w)
                w = w - h * v
                column[i] += h
        return column, w

    @property
    def is_invariant(self) -> bool:
        """Whether M maps the space into itself to rounding."""
        return bool(self.residual_norm <= 10 * np.finfo(self.residual.dtype).eps * self.size)

    def restart(self, Q: Array) -> None:
        """V ← V Q for eigenvectors Q of S."""
        self.basis = [self.lift(q) for q in Q.T]
        self.projected, self.coupling = Q.T @ self.projected @ Q, self.coupling @ Q

    def lift(self, y: Array) -> Array:
        """V y."""
        return sum(v.dtype.type(weight) * v for weight, v in zip(y, self.basis, strict=True))


class FiniteProduct(Counted):
    """Counts products, and checks that they are finite too."""

    def __call__(self, x: Array) -> Array:
        value = super().__call__(x)
        bad = value[~np.isfinite(value)]
        if bad.size:
            raise BreakdownError(
                f"lanczos: iteration {self.products}: the product has {bad.size} entries "
                f"such as {bad[0]}, expected finite numbers; check the operator"
            )
        return value


def unit(x0: Array) -> Array:
    """x0 / ‖x0‖."""
    x0 = as_finite(x0, "lanczos: x0")
    if x0.size == 0 or not x0.any():
        raise ValueError("lanczos: x0 is zero or empty, expected a nonzero start; draw one")
    return x0 / length(x0)


def inner(x: Array, y: Array) -> float:
    """⟨x, y⟩."""
    return dot(x[None], y[None])[0]


def length(x: Array) -> float:
    """‖x‖."""
    return norm(x[None])[0]
