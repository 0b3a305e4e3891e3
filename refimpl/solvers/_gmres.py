"""One cycle of GMRES, preconditioned from the right.

Arnoldi's method gives an orthonormal basis V and M P V_j = V_{j+1} H_j with H_j of Hessenberg
form. The cycle minimises ‖r − M P V y‖ = ‖‖r‖ e_1 − H y‖: Givens rotations turn H into R, and
the part of ‖r‖ e_1 that they rotate below R is the residual norm, known at every step.

Reference: Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed. (2003), section 6.5.
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.kernels.vectors import dot, norm, plus, unit
from refimpl.solvers._systems import System


class _Hessenberg(NamedTuple):
    """R y = g from the rotated Hessenberg matrices; |tail| is the residual norm left over."""

    R: Array
    g: Array
    cosines: Array
    sines: Array
    tail: Array


def gmres_sweep(system: System, r: Array, restart: int) -> tuple[Array, Array]:
    """One cycle: P V y that minimises ‖r − M P V y‖ over the Krylov basis V.

    Also the smallest singular value of H for each image, which approaches that of M P from above.
    """
    swept = system.progress.running
    beta = norm(r)
    basis = [unit(r, beta)]
    small = _empty_hessenberg(beta, restart)
    for j in range(restart):
        if not system.progress.running.any():
            break
        w = system.matvec(system.precondition(basis[j]))
        column, w = _orthogonalize(w, basis)
        size = norm(w)
        small, singular = _append(small, j, column, size, system.progress.running)
        system.record(np.abs(small.tail))
        system.progress.pause(singular)
        basis.append(unit(w, size))
    y = np.linalg.solve(small.R, small.g[..., None])[..., 0]
    correction = system.precondition(_combine(basis, y))
    return np.where(per_image(swept, r), correction, 0), _smallest_singular_values(small)


def _smallest_singular_values(small: _Hessenberg) -> Array:
    """Those of R, and so of H; infinite for an image that never ran."""
    smallest = np.full(len(small.R), np.inf)
    for n, columns in enumerate(np.count_nonzero(small.cosines**2 + small.sines**2, axis=1)):
        if columns:
            smallest[n] = np.linalg.svd(small.R[n, :columns, :columns], compute_uv=False)[-1]
    return smallest


def _orthogonalize(w: Array, basis: list[Array]) -> tuple[Array, Array]:
    """Coefficients of w in the basis, (N, j + 1), and the rest of w, by modified Gram-Schmidt."""
    column = np.empty((len(w), len(basis)), dtype=w.dtype)
    for i, v in enumerate(basis):
        column[:, i] = dot(v, w)
        w = plus(w, -column[:, i], v)
    return column, w


def _empty_hessenberg(beta: Array, restart: int) -> _Hessenberg:
    images, dtype = len(beta), beta.dtype
    R = np.broadcast_to(np.eye(restart, dtype=dtype), (images, restart, restart)).copy()
    zeros = np.zeros((images, restart), dtype=dtype)
    return _Hessenberg(R, zeros, zeros.copy(), zeros.copy(), beta)


def _append(
    small: _Hessenberg, j: int, column: Array, below: Array, running: Array
) -> tuple[_Hessenberg, Array]:
    """Append the column (h_0, …, h_j, below), rotate `below` away; also where M P is singular.

    It is where the rotated column vanishes to working precision: v_j then adds nothing. There,
    and where images do not run, R_jj = 1 and g_j = 0 leave y_j = 0.
    """
    size = np.sqrt(dot(column, column) + below**2)
    column = _past_rotations(small, j, column)
    length = np.hypot(column[:, j], below)
    usable = running & (length > 10 * np.finfo(length.dtype).eps * size)
    safe = np.where(usable, length, 1).astype(length.dtype)
    cosine, sine = np.where(usable, column[:, j] / safe, 0), np.where(usable, below / safe, 0)
    R, g, cosines, sines = (a.copy() for a in small[:4])
    column[:, j] = length
    R[:, : j + 1, j] = np.where(usable[:, None], column, R[:, : j + 1, j])
    g[:, j], cosines[:, j], sines[:, j] = cosine * small.tail, cosine, sine
    tail = np.where(usable, -sine * small.tail, small.tail)
    return _Hessenberg(R, g, cosines, sines, tail), running & ~usable


def _past_rotations(small: _Hessenberg, j: int, column: Array) -> Array:
    """The column after the j rotations that made the earlier columns triangular."""
    column = column.copy()
    for i in range(j):
        c, s = small.cosines[:, i], small.sines[:, i]
        upper, lower = column[:, i].copy(), column[:, i + 1].copy()
        column[:, i], column[:, i + 1] = c * upper + s * lower, c * lower - s * upper
    return column


def _combine(basis: list[Array], y: Array) -> Array:
    """Σ_j y_j v_j."""
    total = np.zeros_like(basis[0])
    for v, weight in zip(basis, y.T, strict=False):
        total = plus(total, weight, v)
    return total
