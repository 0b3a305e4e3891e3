"""Images extended beyond their border, and the adjoint, by index maps of rows and columns.

    pad     z[i, j] = u[r(i), s(j)], 0 where r(i) or s(j) is negative
    fold    out[a, b] = Σ { z[i, j] : r(i) = a, s(j) = b }

The maps `rows` and `columns` are those of `refimpl.paper.operators.padding`: equally many border
entries before and after the image's own, which are in order, so that those are copied or added row
by row.
"""

import numpy as np

from refimpl.kernels.jit import over_items, row_function, share
from refimpl.kernels.strips import add, copy


def pad(u, rows, columns):
    """P u, shape (N, C, rows, columns), of images (N, C, H, W)."""
    N, C, H, W = u.shape
    out = np.empty((N, C, rows.size, columns.size), u.dtype)
    share(_pad, N * C, u.size, u.reshape(N * C, H, W), rows, columns, out.reshape(N * C, -1))
    return out


@over_items
def _pad(first, last, u, rows, columns, out):
    W, Wp = u.shape[2], columns.size
    border = (Wp - W) // 2
    for n in range(first, last):
        for i in range(rows.size):
            z = out[n, i * Wp : (i + 1) * Wp]
            if rows[i] < 0:
                z[:] = 0
                continue
            x = u[n, rows[i]]
            copy(x, z[border:])
            for j in range(border):
                z[j] = taken(x, columns[j])
                z[border + W + j] = taken(x, columns[border + W + j])


@row_function
def taken(x, j):
    """x[j], 0 where j is negative."""
    return x[j] if j >= 0 else x.dtype.type(0)


def fold(z, rows, columns, H, W):
    """Pᵀ z, shape (N, C, H, W)."""
    N, C = z.shape[:2]
    out = np.zeros((N, C, H, W), z.dtype)
    share(_fold, N * C, z.size, z.reshape(N * C, -1), rows, columns, out.reshape(N * C, H, W))
    return out


@over_items
def _fold(first, last, z, rows, columns, out):
    W, Wp = out.shape[2], columns.size
    border = (Wp - W) // 2
    for n in range(first, last):
        for i in range(rows.size):
            if rows[i] < 0:
                continue
            x, total = z[n, i * Wp : (i + 1) * Wp], out[n, rows[i]]
            add(x[border : border + W], total)
            for j in range(border):
                before, after = columns[j], columns[border + W + j]
                if before >= 0:
                    total[before] += x[j]
                if after >= 0:
                    total[after] += x[border + W + j]
