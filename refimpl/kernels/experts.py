"""The field of experts and its derivatives, fused: what E2 to E6 need, without γ.

    field       Cᵀ( w ⊙ σ(Au + b) ), and Σ_k w_k Σ φ((Au + b)_k)    E3, E2
    responses   σ(Au + b), σ′(Au + b)
    tangent     Cᵀ( d ⊙ Av )                                        E4, E5 (with A and C exchanged)
    parameters  the four gradients in A, C, b, w                    E6

Shapes: `up`, `vp`, `qp` and padded results (N, C, H+h-1, W+w-1); filters A, C (F, C, h, w);
b, weights (F,); s, d (N, F, H, W). Each strip of responses is computed, used and forgotten, so no
array of the size of all responses is made unless it is the result. `code` and `parameter` name
the potential. Arrays are C-contiguous and of one dtype, float32 or float64; energies and gradients
of parameters are summed in float64. Kernels validate nothing.
"""

import numpy as np
from numba import prange

from refimpl.kernels.activations import activate, activate_and_measure, slope
from refimpl.kernels.banks import filters_of
from refimpl.kernels.blocks import contract
from refimpl.kernels.jit import over_bands
from refimpl.kernels.strips import (
    blank,
    load,
    multiply,
    respond,
    spread,
    store,
    sum_items,
    sum_row,
    weigh,
)
from refimpl.kernels.taps import analysis_taps, bands_of, part_of, strips_of, synthesis_taps


@over_bands
def field(up, A, C, b, weights, code, parameter, measured):
    """(Cᵀ( w ⊙ σ(Au + b) ), Σ_k w_k Σ_ij φ((Au + b)_k)): E3 on the padded images, and the second
    term of E2, shape (N,), both without γ; the second is 0 unless `measured`."""
    (N, channels, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(Hp, Wp, h)
    T_A, shifts_A = analysis_taps(A, Hp, Wp)
    T_C, shifts_C = synthesis_taps(C, length)
    out, sums = np.zeros((N, channels, Hp * Wp), up.dtype), np.zeros((bands, N))
    for item in prange(N * bands):
        n, first, last = part_of(item, bands, high)
        x, S = up[n].reshape(-1), np.zeros((F, length), up.dtype)
        phi, part = np.zeros_like(S), np.empty((channels * h, step * Wp), up.dtype)
        for i in range(max(0, first - h + 1), min(H, last), step):
            rows = min(step, min(H, last) - i)
            respond(T_A, shifts_A, x[i * Wp :], b, S, lead, rows, Wp)
            if measured:
                for k in range(F):
                    activate_and_measure(S[k], phi[k], code, parameter)
                blank(phi, lead, rows, Wp)
                above = min(max(0, first - i), rows)  # rows that belong to the band before
                for k in range(F):
                    own = sum_row(phi[k, lead + above * Wp :])
                    sums[item % bands, n] += np.float64(weights[k]) * own
            else:
                for k in range(F):
                    activate(S[k], code, parameter)
            weigh(S, weights)
            blank(S, lead, rows, Wp)
            spread(T_C, shifts_C, S, part, i, rows, Wp, first, last, out[n])
    return out.reshape(up.shape), sum_items(sums, np.empty(N, up.dtype))


def responses(up, A, b, code, parameter):
    """(σ(Au + b), σ′(Au + b)), each (N, F, H, W)."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    s, d = np.empty((2, N, F, Hp - h + 1, Wp - w + 1), up.dtype)
    fill_responses(up, A, b, code, parameter, s, d)
    return s, d


@over_bands
def fill_responses(up, A, b, code, parameter, s, d):
    """Write `responses` to s and d."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    T, shifts = analysis_taps(A, Hp, Wp)
    for item in prange(N * bands):
        n, first, last = part_of(item, bands, high)
        x, S = up[n].reshape(-1), np.zeros((F, length), up.dtype)
        D = np.zeros_like(S)
        for i in range(first, min(H, last), step):
            rows = min(step, min(H, last) - i)
            respond(T, shifts, x[i * Wp :], b, S, lead, rows, Wp)
            for k in range(F):
                slope(S[k], D[k], code, parameter)
                activate(S[k], code, parameter)
            store(S, s[n], lead, i, rows, Wp)
            store(D, d[n], lead, i, rows, Wp)


@over_bands
def tangent(vp, A, C, d):
    """Cᵀ( d ⊙ Av ): E4 with d = w ⊙ σ′(Au + b), and E5 with A and C exchanged."""
    (N, channels, Hp, Wp), (F, _, h, w) = vp.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(Hp, Wp, h)
    T_A, shifts_A = analysis_taps(A, Hp, Wp)
    T_C, shifts_C = synthesis_taps(C, length)
    out, zero = np.zeros((N, channels, Hp * Wp), vp.dtype), np.zeros(F, vp.dtype)
    for item in prange(N * bands):
        n, first, last = part_of(item, bands, high)
        x, S = vp[n].reshape(-1), np.zeros((F, length), vp.dtype)
        D, part = np.zeros_like(S), np.empty((channels * h, step * Wp), vp.dtype)
        for i in range(max(0, first - h + 1), min(H, last), step):
            rows = min(step, min(H, last) - i)
            respond(T_A, shifts_A, x[i * Wp :], zero, S, lead, rows, Wp)
            load(d[n], D, lead, i, rows, Wp)
            multiply(S, D)
            spread(T_C, shifts_C, S, part, i, rows, Wp, first, last, out[n])
    return out.reshape(vp.shape)


@over_bands
def parameters(up, qp, A, C, b, weights, code, parameter):
    """(g_A, g_C, g_b, g_w), E6 without γ.

    g_A = B*(u, r), g_C = B*(q, w ⊙ σ), g_b = Σ r, g_w = Σ σ ⊙ Cq, with r = w ⊙ σ′ ⊙ Cq.
    """
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(2 * F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    (T_A, shifts), (T_C, _) = analysis_taps(A, Hp, Wp), analysis_taps(C, Hp, Wp)
    zero, items, taps = np.zeros(F, up.dtype), N * bands, shifts.size
    sums_A, sums_C = np.zeros((items, F, taps)), np.zeros((items, F, taps))
    sums_b, sums_w = np.zeros((items, F)), np.zeros((items, F))
    for item in prange(items):
        n, first, last = part_of(item, bands, high)
        x, q = up[n].reshape(-1), qp[n].reshape(-1)
        S, Q = np.zeros((F, length), up.dtype), np.zeros((F, length), up.dtype)
        R = np.zeros_like(S)
        for i in range(first, min(H, last), step):
            rows = min(step, min(H, last) - i)
            size = rows * Wp - lead
            respond(T_A, shifts, x[i * Wp :], b, S, lead, rows, Wp)
            respond(T_C, shifts, q[i * Wp :], zero, Q, lead, rows, Wp)
            for k in range(F):
                slope(S[k], R[k], code, parameter)
                activate(S[k], code, parameter)
            blank(Q, lead, rows, Wp)
            blank(S, lead, rows, Wp)
            multiply(R, Q)  # σ′ ⊙ Cq
            multiply(Q, S)  # σ ⊙ Cq
            weigh(R, weights)
            weigh(S, weights)
            contract(R, lead, size, shifts, x[i * Wp :], sums_A[item])
            contract(S, lead, size, shifts, q[i * Wp :], sums_C[item])
            for k in range(F):
                sums_b[item, k] += sum_row(R[k])
                sums_w[item, k] += sum_row(Q[k])
    return (
        filters_of(sums_A, np.empty(A.shape, up.dtype)),
        filters_of(sums_C, np.empty(A.shape, up.dtype)),
        sum_items(sums_b, np.empty(F, up.dtype)),
        sum_items(sums_w, np.empty(F, up.dtype)),
    )
