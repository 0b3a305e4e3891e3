"""Rows of a filter bank: respond, spread, gather.

The bank's bilinear form for one image x (C, H+h-1, W+w-1) and filter k is

    B(A, x, z) = Σ_ij z[i, j] Σ_c,di,dj A[k, c, di, dj] x[c, i+di, j+dj],

and its three partial gradients, restricted to row i of z, are the three loops of this module:
`respond` (in z), `spread` (in x) and `gather` (in A). Each adds one tap after the other over
a whole row, so that the innermost loop runs over adjacent numbers and vectorises. Rows are
float64 whatever the precision of the images.

Not here: parallelism, and what happens to a row between two of these loops.
"""

import numpy as np

from refimpl.kernels.jit import row_function


@row_function
def respond(x, A, k, i, z, bias):
    """z[j] = bias + Σ_c,di,dj A[k, c, di, dj] x[c, i+di, j+dj]."""
    for j in range(z.size):
        z[j] = bias
    for c in range(A.shape[1]):
        for di in range(A.shape[2]):
            for dj in range(A.shape[3]):
                tap = np.float64(A[k, c, di, dj])
                for j in range(z.size):
                    z[j] += tap * x[c, i + di, j + dj]


@row_function
def spread(z, weight, A, k, i, out):
    """out[c, i+di, j+dj] += weight A[k, c, di, dj] z[j]: adjoint of `respond` in x."""
    for c in range(A.shape[1]):
        for di in range(A.shape[2]):
            for dj in range(A.shape[3]):
                tap = np.float64(weight) * A[k, c, di, dj]
                for j in range(z.size):
                    out[c, i + di, j + dj] += tap * z[j]


@row_function
def gather(z, x, i, columns):
    """columns[c, di, dj, j] += z[j] x[c, i+di, j+dj]: adjoint of `respond` in A, with j kept.

    One sum per column j instead of one for the row keeps the order of additions fixed and the
    loop vectorised; `sum_columns` adds the columns once at the end of the image.
    """
    for c in range(columns.shape[0]):
        for di in range(columns.shape[1]):
            for dj in range(columns.shape[2]):
                for j in range(z.size):
                    columns[c, di, dj, j] += z[j] * x[c, i + di, j + dj]


@row_function
def sum_columns(columns, out):
    """out[c, di, dj] = Σ_j columns[c, di, dj, j]."""
    for c in range(columns.shape[0]):
        for di in range(columns.shape[1]):
            for dj in range(columns.shape[2]):
                out[c, di, dj] = sum_row(columns[c, di, dj])


@row_function
def sum_row(row):
    """Σ_j row[j], from left to right."""
    total = 0.0
    for j in range(row.size):
        total += row[j]
    return total


@row_function
def clear(values):
    """values = 0, for one image or row."""
    flat = values.reshape(-1)
    for j in range(flat.size):
        flat[j] = 0.0


@row_function
def load(values, row):
    """row[j] = values[j] in float64."""
    for j in range(row.size):
        row[j] = values[j]


@row_function
def store(row, values):
    """values[j] = row[j] in the precision of `values`."""
    for j in range(row.size):
        values[j] = row[j]


@row_function
def scale(row, factor):
    """row[j] *= factor."""
    for j in range(row.size):
        row[j] *= np.float64(factor)


@row_function
def multiply(row, values):
    """row[j] *= values[j]."""
    for j in range(row.size):
        row[j] *= values[j]


@row_function
def add_scaled(total, factor, row):
    """total[j] += factor row[j]."""
    for j in range(row.size):
        total[j] += np.float64(factor) * row[j]


@row_function
def add_product(total, row, values):
    """total[j] += row[j] values[j]."""
    for j in range(row.size):
        total[j] += row[j] * values[j]
