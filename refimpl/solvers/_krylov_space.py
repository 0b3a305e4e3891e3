"""A Krylov space of one operator that grows by one product and can be cut to its best part.

    M V = V S + r eᵀ,    VᵀV = I,  Vᵀr = 0

S = VᵀMV is the compression of M to the space; its eigenpairs (θ, y) give Ritz pairs (θ, V y) with
residual M V y − θ V y = r (eᵀy). Replacing V by V Q, where Q spans an invariant subspace of S,
keeps the relation with e replaced by Qᵀe: that is the Krylov-Schur restart, and the same code
serves symmetric operators (eigenvectors Q) and others (Schur vectors Q).

Not here: which part to keep and when to stop (`refimpl.solvers.spectral`).
"""

from collections.abc import Callable

import numpy as np

from refimpl.arrays import Array, as_finite
from refimpl.results import BreakdownError
from refimpl.solvers._progress import like
from refimpl.vectors import dot, norm

Matvec = Callable[[Array], Array]


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
        """V ← V Q for orthonormal Q whose columns span an invariant subspace of S."""
        self.basis = [self.lift(q) for q in Q.T]
        self.projected, self.coupling = Q.T @ self.projected @ Q, self.coupling @ Q

    def lift(self, y: Array) -> Array:
        """V y."""
        return sum(v.dtype.type(weight) * v for weight, v in zip(y, self.basis, strict=True))


class Product:
    """Counts products and checks what they return."""

    def __init__(self, matvec: Matvec, solver: str):
        self.matvec, self.solver, self.calls = matvec, solver, 0

    def __call__(self, x: Array) -> Array:
        self.calls += 1
        value = like(self.matvec(x), x, f"{self.solver}: matvec")
        bad = value[~np.isfinite(value)]
        if bad.size:
            raise BreakdownError(
                f"{self.solver}: iteration {self.calls}: the product has {bad.size} entries "
                f"such as {bad[0]}, expected finite numbers; check the operator"
            )
        return value


def unit(x0: Array, solver: str) -> Array:
    """x0 / ‖x0‖."""
    x0 = as_finite(x0, f"{solver}: x0")
    if x0.size == 0 or not x0.any():
        raise ValueError(f"{solver}: x0 is zero or empty, expected a nonzero start; draw one")
    return x0 / length(x0)


def inner(x: Array, y: Array) -> float:
    """⟨x, y⟩."""
    return dot(x[None], y[None])[0]


def length(x: Array) -> float:
    """‖x‖."""
    return norm(x[None])[0]
