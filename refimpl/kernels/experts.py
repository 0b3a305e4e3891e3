"""The field of experts and its derivatives, fused: what E2 to E6 need, without γ.

    field       Cᵀ( w ⊙ σ(Au + b) )                     E3
    energy      Σ_k w_k Σ φ((Au + b)_k)                 E2
    responses   σ(Au + b), σ′(Au + b)
    tangent     Cᵀ( d ⊙ Av )                            E4, E5 (with A and C exchanged)
    parameters  the four gradients in A, C, b, w        E6

Shapes: `up`, `vp`, `qp` and padded results (N, C, H+h-1, W+w-1); filters A, C (F, C, h, w);
b, weights (F,); s, d (N, F, H, W). Each row of responses is computed, used and forgotten, so no
array of the size of all responses is made unless it is the result. `code` and `parameter` name
the potential. Arrays are C-contiguous and of one dtype, float32 or float64; rows and sums are
float64. Kernels validate nothing.
"""

import numpy as np
from numba import prange

from refimpl.kernels.activations import activate, potential, slope
from refimpl.kernels.banks import sum_images
from refimpl.kernels.jit import over_images, row_function
from refimpl.kernels.rows import (
    add_product,
    add_scaled,
    clear,
    gather,
    load,
    multiply,
    respond,
    scale,
    spread,
    store,
    sum_columns,
    sum_row,
)


@over_images
def field(up, A, C, b, weights, code, parameter):
    """Cᵀ( w ⊙ σ(Au + b) ), E3 without γ, on the padded images."""
    H, W = up.shape[2] - A.shape[2] + 1, up.shape[3] - A.shape[3] + 1
    out = np.empty(up.shape, up.dtype)
    for n in prange(up.shape[0]):
        row = np.empty(W)
        clear(out[n])
        for i in range(H):
            for k in range(A.shape[0]):
                respond(up[n], A, k, i, row, b[k])
                activate(row, code, parameter)
                spread(row, weights[k], C, k, i, out[n])
    return out


@over_images
def energy(up, A, b, weights, code, parameter):
    """Σ_k w_k Σ_ij φ((Au + b)_k), the second term of E2 without γ, shape (N,)."""
    H, W = up.shape[2] - A.shape[2] + 1, up.shape[3] - A.shape[3] + 1
    out = np.empty(up.shape[0], up.dtype)
    for n in prange(up.shape[0]):
        row = np.empty(W)
        columns = np.empty(W)
        clear(columns)
        for i in range(H):
            for k in range(A.shape[0]):
                respond(up[n], A, k, i, row, b[k])
                potential(row, code, parameter)
                add_scaled(columns, weights[k], row)
        out[n] = sum_row(columns)
    return out


@over_images
def responses(up, A, b, code, parameter):
    """(σ(Au + b), σ′(Au + b)), each (N, F, H, W)."""
    N, F = up.shape[0], A.shape[0]
    H, W = up.shape[2] - A.shape[2] + 1, up.shape[3] - A.shape[3] + 1
    s, d = np.empty((N, F, H, W), up.dtype), np.empty((N, F, H, W), up.dtype)
    for n in prange(N):
        row, slopes = np.empty(W), np.empty(W)
        for i in range(H):
            for k in range(F):
                respond(up[n], A, k, i, row, b[k])
                slope(row, slopes, code, parameter)
                activate(row, code, parameter)
                store(row, s[n, k, i])
                store(slopes, d[n, k, i])
    return s, d


@over_images
def tangent(vp, A, C, d):
    """Cᵀ( d ⊙ Av ): E4 with d = w ⊙ σ′(Au + b), and E5 with A and C exchanged."""
    N, F, H, W = d.shape
    out = np.empty(vp.shape, vp.dtype)
    for n in prange(N):
        row = np.empty(W)
        clear(out[n])
        for i in range(H):
            for k in range(F):
                respond(vp[n], A, k, i, row, 0.0)
                multiply(row, d[n, k, i])
                spread(row, 1.0, C, k, i, out[n])
    return out


@over_images
def parameters(up, qp, A, C, s, d, weights):
    """(g_A, g_C, g_b, g_w), E6, with s = σ(Au + b) and d = γ w ⊙ σ′(Au + b).

    g_A = B*(u, d ⊙ Cq), g_C = B*(q, w ⊙ s), g_b = Σ d ⊙ Cq, g_w = Σ s ⊙ Cq; those of C and w
    lack the factor γ.
    """
    N, F = s.shape[0], s.shape[1]
    filters, scalars = (N, F, A.shape[1], A.shape[2], A.shape[3]), (N, F)
    g_A, g_C, g_b, g_w = (
        np.empty(filters),
        np.empty(filters),
        np.empty(scalars),
        np.empty(scalars),
    )
    for n in prange(N):
        for k in range(F):
            g_b[n, k], g_w[n, k] = gradients_of_filter(
                up[n], qp[n], C, k, s[n, k], d[n, k], weights[k], g_A[n, k], g_C[n, k]
            )
    return (
        sum_images(g_A, np.empty(A.shape, up.dtype)),
        sum_images(g_C, np.empty(A.shape, up.dtype)),
        sum_images(g_b, np.empty(F, up.dtype)),
        sum_images(g_w, np.empty(F, up.dtype)),
    )


@row_function
def gradients_of_filter(x, q, C, k, s, d, weight, g_A, g_C):
    """E6 for filter k of one image: write g_A and g_C, return g_b and g_w.

    Sums run over the rows first and over the columns last, as in `gather`.
    """
    H, W = s.shape
    columns_A, columns_C = np.zeros(g_A.shape + (W,)), np.zeros(g_C.shape + (W,))
    columns_b, columns_w, row, other = (
        np.zeros(W),
        np.zeros(W),
        np.empty(W),
        np.empty(W),
    )
    for i in range(H):
        respond(q, C, k, i, row, 0.0)
        load(s[i], other)
        add_product(columns_w, row, other)
        scale(other, weight)
        gather(other, q, i, columns_C)
        multiply(row, d[i])
        add_scaled(columns_b, 1.0, row)
        gather(row, x, i, columns_A)
    sum_columns(columns_A, g_A)
    sum_columns(columns_C, g_C)
    return sum_row(columns_b), sum_row(columns_w)
