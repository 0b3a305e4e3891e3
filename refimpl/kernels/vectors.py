"""What Krylov methods do with vectors: inner products and sums, one pass over memory each.

    dot    ⟨x, y⟩ of each image, summed in float64
    plus   y + a x, a number a for each image

Arrays are (N, ...), C-contiguous and of one dtype, a (N,). They are cut into pieces of one size, so
that results do not depend on threads. In NumPy each of these would be two passes and one more
array, and a wait for the interpreter's lock after each pass.
"""

import numpy as np

from refimpl.kernels.jit import over_items, reduction, row_function, share

PIECE = 65536


def dot(x, y):
    """Σ_j x_j y_j of each image, (N,), in float64."""
    x, y = as_rows(x), as_rows(y)
    sums = np.zeros((len(x), pieces_of(x)))
    share(_dot, sums.size, x.size, x, y, sums)
    return sums.sum(axis=1)


@over_items
def _dot(first, last, x, y, sums):
    pieces = sums.shape[1]
    for item in range(first, last):
        n, begin = item // pieces, item % pieces * PIECE
        end = begin + PIECE
        sums[n, item % pieces] = sum_products(x[n, begin:end], y[n, begin:end])


@reduction
def sum_products(x, y):
    """Σ_j x_j y_j, in float64."""
    total = 0.0
    for j in range(x.size):
        total += np.float64(x[j]) * np.float64(y[j])
    return total


def plus(y, a, x):
    """y + a x, a new array."""
    out, rows = np.empty_like(y), as_rows(x)
    share(_plus, len(rows) * pieces_of(rows), x.size, as_rows(y), a, rows, as_rows(out))
    return out


@over_items
def _plus(first, last, y, a, x, out):
    pieces = pieces_of(x)
    for item in range(first, last):
        n, begin = item // pieces, item % pieces * PIECE
        end = begin + PIECE
        add_multiple(y[n, begin:end], a[n], x[n, begin:end], out[n, begin:end])


@row_function
def add_multiple(y, a, x, out):
    """out[j] = y[j] + a x[j]."""
    for j in range(x.size):
        out[j] = y[j] + a * x[j]


@row_function
def pieces_of(rows):
    """How many pieces one image is cut into."""
    return -(-rows.shape[1] // PIECE)


def as_rows(x):
    """One row of values for each image."""
    return x.reshape(len(x), -1)
