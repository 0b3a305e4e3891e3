"""A filter bank and its two adjoints: one bilinear map, three kernels.

Shapes: `up` and padded results (N, C, H+h-1, W+w-1), filters A (F, C, h, w), responses
z (N, F, H, W). The images are padded already; every kernel is valid cross-correlation.

    ⟨correlate(up, A), z⟩ = ⟨up, correlate_adjoint(z, A)⟩ = ⟨A, correlate_adjoint_filters(up, z)⟩

Arrays are C-contiguous and of one dtype, float32 or float64, which is that of the result.
Kernels validate nothing.
"""

import numpy as np
from numba import prange

from refimpl.kernels.blocks import contract
from refimpl.kernels.jit import over_bands, row_function
from refimpl.kernels.strips import load, respond, store, sum_items
from refimpl.kernels.taps import (
    analysis_taps,
    bands_of,
    part_of,
    reading_shifts,
    strips_of,
    without_zeros,
)


@over_bands
def correlate(up, A):
    """z[n, k, i, j] = Σ_c,di,dj A[k, c, di, dj] up[n, c, i+di, j+dj]."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    T, shifts = analysis_taps(A, Hp, Wp)
    T, shifts = without_zeros(T, shifts)
    z, zero = np.empty((N, F, H, Wp - lead), up.dtype), np.zeros(F, up.dtype)
    for item in prange(N * bands):
        n, first, last = part_of(item, bands, high)
        x, S = up[n].reshape(-1), np.zeros((F, length), up.dtype)
        for i in range(first, min(H, last), step):
            rows = min(step, min(H, last) - i)
            respond(T, shifts, x[i * Wp :], zero, S, lead, rows, Wp)
            store(S, z[n], lead, i, rows, Wp)
    return z


def correlate_adjoint(z, A):
    """out[n, c, i+di, j+dj] = Σ_k A[k, c, di, dj] z[n, k, i, j], summed over all i, j, di, dj.

    It is the correlation of z, with h - 1 rows and w - 1 columns of zeros around it, by the filters
    turned by half a circle, in which k and c have changed places.
    """
    h, w = A.shape[2:]
    padded = np.pad(z, ((0, 0), (0, 0), (h - 1, h - 1), (w - 1, w - 1)))
    return correlate(padded, np.ascontiguousarray(A[:, :, ::-1, ::-1].swapaxes(0, 1)))


@over_bands
def correlate_adjoint_filters(up, z):
    """out[k, c, di, dj] = Σ_n,i,j z[n, k, i, j] up[n, c, i+di, j+dj]."""
    (N, C, Hp, Wp), (_, F, H, W) = up.shape, z.shape
    h, w = Hp - H + 1, Wp - W + 1
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    shifts = reading_shifts(C, h, w, Hp, Wp)
    sums = np.zeros((N * bands, F, shifts.size))
    for item in prange(N * bands):
        n, first, last = part_of(item, bands, high)
        x, S = up[n].reshape(-1), np.zeros((F, length), up.dtype)
        for i in range(first, min(H, last), step):
            rows = min(step, min(H, last) - i)
            load(z[n], S, lead, i, rows, Wp)
            contract(S, lead, rows * Wp - lead, shifts, x[i * Wp :], sums[item])
    return filters_of(sums, np.empty((F, C, h, w), up.dtype))


@row_function
def filters_of(sums, out):
    """Gradients of filters (F, C, h, w) from the sums of all items over a table of taps."""
    size = out[0].size
    for k in range(out.shape[0]):
        sum_items(sums[:, k, :size].copy(), out[k])
    return out
