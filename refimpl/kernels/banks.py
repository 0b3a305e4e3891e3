"""A filter bank and its two adjoints: one bilinear map, three kernels.

Shapes: `up` and padded results (N, C, H+h-1, W+w-1), filters A (F, C, h, w), responses
z (N, F, H, W). The images are padded already; every kernel is valid cross-correlation.

    ⟨correlate(up, A), z⟩ = ⟨up, correlate_adjoint(z, A)⟩ = ⟨A, correlate_adjoint_filters(up, z)⟩

Arrays are C-contiguous and of one dtype, float32 or float64, which is that of the result; sums
are accumulated in float64. Kernels validate nothing.
"""

import numpy as np
from numba import prange

from refimpl.kernels.jit import over_images, row_function
from refimpl.kernels.rows import clear, gather, load, respond, spread, store, sum_columns, sum_row


@over_images
def correlate(up, A):
    """z[n, k, i, j] = Σ_c,di,dj A[k, c, di, dj] up[n, c, i+di, j+dj]."""
    N, F = up.shape[0], A.shape[0]
    H, W = up.shape[2] - A.shape[2] + 1, up.shape[3] - A.shape[3] + 1
    z = np.empty((N, F, H, W), up.dtype)
    for n in prange(N):
        row = np.empty(W)
        for i in range(H):
            for k in range(F):
                respond(up[n], A, k, i, row, 0.0)
                store(row, z[n, k, i])
    return z


@over_images
def correlate_adjoint(z, A):
    """out[n, c, i+di, j+dj] = Σ_k A[k, c, di, dj] z[n, k, i, j], summed over all i, j, di, dj."""
    N, F, H, W = z.shape
    out = np.empty((N, A.shape[1], H + A.shape[2] - 1, W + A.shape[3] - 1), z.dtype)
    for n in prange(N):
        row = np.empty(W)
        clear(out[n])
        for i in range(H):
            for k in range(F):
                load(z[n, k, i], row)
                spread(row, 1.0, A, k, i, out[n])
    return out


@over_images
def correlate_adjoint_filters(up, z):
    """out[k, c, di, dj] = Σ_n,i,j z[n, k, i, j] up[n, c, i+di, j+dj]."""
    N, F, H, W = z.shape
    C, h, w = up.shape[1], up.shape[2] - H + 1, up.shape[3] - W + 1
    per_image = np.empty((N, F, C, h, w))
    for n in prange(N):
        for k in range(F):
            gradient_of_filter(up[n], z[n, k], per_image[n, k])
    return sum_images(per_image, np.empty((F, C, h, w), up.dtype))


@row_function
def gradient_of_filter(x, z, out):
    """out[c, di, dj] = Σ_i,j z[i, j] x[c, i+di, j+dj], summed over the rows i first."""
    row = np.empty(z.shape[1])
    columns = np.zeros(out.shape + row.shape)
    for i in range(z.shape[0]):
        load(z[i], row)
        gather(row, x, i, columns)
    sum_columns(columns, out)


@row_function
def sum_images(per_image, out):
    """out = Σ_n per_image[n], added in the order of the images."""
    terms, total = per_image.reshape(per_image.shape[0], -1), out.reshape(-1)
    for j in range(total.size):
        total[j] = sum_row(terms[:, j])
    return out
