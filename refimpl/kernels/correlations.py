"""A filter bank and its two adjoints: one bilinear map, three kernels.

Shapes: `up` and padded results (N, C, H+h-1, W+w-1), filters A (F, C, h, w), responses
z (N, F, H, W). The images are padded already; every kernel is valid cross-correlation.

    ⟨correlate(up, A), z⟩ = ⟨up, correlate_adjoint(z, A)⟩ = ⟨A, correlate_adjoint_filters(up, z)⟩

Arrays are C-contiguous and of one dtype, float32 or float64, which is that of the result.
Kernels validate nothing.
"""

import numpy as np

from refimpl.kernels.blocks import contract
from refimpl.kernels.jit import over_items, share
from refimpl.kernels.strips import load, respond, store
from refimpl.kernels.taps import (
    aligned,
    analysis_taps,
    bands_of,
    part_of,
    reading_shifts,
    strips_of,
    tabled,
    without_zeros,
)


def correlate(up, A):
    """z[n, k, i, j] = Σ_c,di,dj A[k, c, di, dj] up[n, c, i+di, j+dj]."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    z = np.empty((N, F, Hp - h + 1, Wp - w + 1), up.dtype)
    bands = bands_of(z.shape[2], Wp, 1)[1]
    share(_correlate, N * bands, up.size * A.size, up, A, z)
    return z


@over_items
def _correlate(first, last, up, A, z):
    (_, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    T, shifts = analysis_taps(A, Hp, Wp)
    T, shifts = without_zeros(T, shifts)
    S, zero = aligned(F, length, lead, up), np.zeros(F, up.dtype)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, H)
        x = up[n].reshape(-1)
        for i in range(begin, end, step):
            rows = min(step, end - i)
            respond(T, shifts, x[i * Wp :], zero, S, lead, rows, Wp)
            store(S, z[n], lead, i, rows, Wp)


def correlate_adjoint(z, A):
    """out[n, c, i+di, j+dj] = Σ_k A[k, c, di, dj] z[n, k, i, j], summed over all i, j, di, dj.

    It is the correlation of z, with h - 1 rows and w - 1 columns of zeros around it, by the filters
    turned by half a circle, in which k and c have changed places.
    """
    (N, F, H, W), (h, w) = z.shape, A.shape[2:]
    # np.pad takes as long as the correlation by a blur.
    padded = np.zeros((N, F, H + 2 * (h - 1), W + 2 * (w - 1)), z.dtype)
    padded[:, :, h - 1 : h - 1 + H, w - 1 : w - 1 + W] = z
    return correlate(padded, np.ascontiguousarray(A[:, :, ::-1, ::-1].swapaxes(0, 1)))


def correlate_adjoint_filters(up, z):
    """out[k, c, di, dj] = Σ_n,i,j z[n, k, i, j] up[n, c, i+di, j+dj]."""
    (N, C, Hp, Wp), (_, F, H, W) = up.shape, z.shape
    filters = (F, C, Hp - H + 1, Wp - W + 1)
    items = N * bands_of(H, Wp, 1)[1]
    sums = np.zeros((items, F, tabled(C * filters[2] * filters[3])))
    share(_correlate_adjoint_filters, items, z.size * sums.shape[2], up, z, sums)
    return filters_of(sums, filters, up.dtype)


@over_items
def _correlate_adjoint_filters(first, last, up, z, sums):
    (_, C, Hp, Wp), (_, F, H, W) = up.shape, z.shape
    h, w = Hp - H + 1, Wp - W + 1
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    shifts, S = reading_shifts(C, h, w, Hp, Wp), aligned(F, length, lead, up)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, H)
        x = up[n].reshape(-1)
        for i in range(begin, end, step):
            rows = min(step, end - i)
            load(z[n], S, lead, i, rows, Wp)
            contract(S, lead, rows * Wp - lead, shifts, x[i * Wp :], sums[item])


def filters_of(sums, shape, dtype):
    """Gradients of filters (F, C, h, w) from the sums of all items over a table of taps."""
    total = sums.sum(axis=0)[:, : np.prod(shape[1:])]
    return total.reshape(shape).astype(dtype)
