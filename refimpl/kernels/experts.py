"""The field of experts and its derivatives, fused: what E2 to E6 need, γ being part of w.

    field       Cᵀ( w ⊙ σ(Au + b) ), and Σ_k w_k Σ φ((Au + b)_k)    E3, E2
    tangent     Cᵀ( d ⊙ Av )                                        E4, E5 (with A and C exchanged)
    parameters  the four gradients in A, C, b, w                    E6

Shapes: `up`, `vp`, `qp` and padded results (N, C, H+h-1, W+w-1); filters A, C (F, C, h, w);
b, weights (F,); d (N, F, H, W). Each strip of responses is computed, used and forgotten, so no
array of the size of all responses is made unless it is the result. In the loops there is no w:
Cᵀ( w ⊙ s ) = (wC)ᵀ s, and sums over responses are weighted afterwards. `code` and `parameter` name
the potential. Arrays are C-contiguous and of one dtype, float32 or float64; energies and gradients
of parameters are summed in it along a strip, and in float64 over the strips. Kernels validate
nothing.
"""

import numpy as np

from refimpl.kernels.activations import activate, bend, measure
from refimpl.kernels.blocks import contract
from refimpl.kernels.correlations import filters_of
from refimpl.kernels.jit import over_items, share
from refimpl.kernels.strips import blank, load, multiply, respond, spread, sum_row
from refimpl.kernels.taps import (
    aligned,
    analysis_taps,
    bands_of,
    part_of,
    strips_of,
    synthesis_taps,
    tabled,
    weighted,
)


def field(up, A, C, b, weights, code, parameter, measured):
    """(Cᵀ( w ⊙ σ(Au + b) ), Σ_k w_k Σ_ij φ((Au + b)_k)): E3 on the padded images, and the second
    term of E2, shape (N,), which is 0 unless `measured`."""
    bands = bands_of(up.shape[2], up.shape[3], A.shape[2])[1]
    out, sums = np.zeros_like(up), np.zeros((len(up), bands, len(A)))
    arguments = up, A, weighted(weights, C), b, code, parameter, measured, out, sums
    share(_field, len(up) * bands, up.size * A.size, *arguments)
    return out, (weights * sums.sum(axis=1)).sum(axis=1).astype(up.dtype)


@over_items
def _field(first, last, up, A, wC, b, code, parameter, measured, out, sums):
    (N, channels, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(Hp, Wp, h)
    T_A, shifts_A = analysis_taps(A, Hp, Wp)
    T_C, shifts_C = synthesis_taps(wC, length)
    S, phi = aligned(F, length, lead, up), aligned(F if measured else 0, length, lead, up)
    part, out = aligned(channels * h, length, 0, up), out.reshape(N, channels, Hp * Wp)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, Hp)
        x, stop = up[n].reshape(-1), min(H, end)
        for i in range(max(0, begin - h + 1), stop, step):
            rows = min(step, stop - i)
            respond(T_A, shifts_A, x[i * Wp :], b, S, lead, rows, Wp)
            if measured:
                above = min(max(0, begin - i), rows)  # rows that belong to the band before
                for k in range(F):
                    s, energies = S[k, lead : rows * Wp], phi[k, lead : rows * Wp]
                    measure(s, energies, code, parameter)
                blank(phi, lead, rows, Wp)
                for k in range(F):
                    sums[n, item % bands, k] += sum_row(phi[k, lead + above * Wp :])
            else:
                for k in range(F):
                    activate(S[k, lead : rows * Wp], code, parameter)
            blank(S, lead, rows, Wp)
            spread(T_C, shifts_C, S, part, i, rows, Wp, begin, end, out[n])


def tangent(vp, A, C, d):
    """Cᵀ( d ⊙ Av ): E4 with d = w ⊙ σ′(Au + b), and E5 with A and C exchanged."""
    out, items = np.zeros_like(vp), len(vp) * bands_of(vp.shape[2], vp.shape[3], A.shape[2])[1]
    share(_tangent, items, vp.size * A.size, vp, A, C, d, out)
    return out


@over_items
def _tangent(first, last, vp, A, C, d, out):
    (N, channels, Hp, Wp), (F, _, h, w) = vp.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(Hp, Wp, h)
    T_A, shifts_A = analysis_taps(A, Hp, Wp)
    T_C, shifts_C = synthesis_taps(C, length)
    S, D = aligned(F, length, lead, vp), aligned(F, length, lead, vp)
    part, out = aligned(channels * h, length, 0, vp), out.reshape(N, channels, Hp * Wp)
    zero = np.zeros(F, vp.dtype)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, Hp)
        x, stop = vp[n].reshape(-1), min(H, end)
        for i in range(max(0, begin - h + 1), stop, step):
            rows = min(step, stop - i)
            respond(T_A, shifts_A, x[i * Wp :], zero, S, lead, rows, Wp)
            load(d[n], D, lead, i, rows, Wp)
            multiply(S, D)
            spread(T_C, shifts_C, S, part, i, rows, Wp, begin, end, out[n])


def parameters(up, qp, A, C, b, weights, code, parameter):
    """(g_A, g_C, g_b, g_w), E6.

    With r = σ′ ⊙ Cq: g_A = w B*(u, r), g_C = w B*(q, σ), g_b = w Σ r, g_w = Σ σ ⊙ Cq.
    """
    items, F = len(up) * bands_of(up.shape[2] - A.shape[2] + 1, up.shape[3], 1)[1], len(A)
    filters = np.zeros((2, items, F, tabled(A[0].size)))
    scalars = np.zeros((2, items, F))
    arguments = up, qp, A, C, b, code, parameter, *filters, *scalars
    share(_parameters, items, up.size * A.size, *arguments)
    g_A, g_C = (weighted(weights, filters_of(sums, A.shape, up.dtype)) for sums in filters)
    g_b, g_w = scalars.sum(axis=1).astype(up.dtype)
    return g_A, g_C, weights * g_b, g_w


@over_items
def _parameters(first, last, up, qp, A, C, b, code, parameter, sums_A, sums_C, sums_b, sums_w):
    (_, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    (T_A, shifts), (T_C, _) = analysis_taps(A, Hp, Wp), analysis_taps(C, Hp, Wp)
    S, Q = aligned(F, length, lead, up), aligned(F, length, lead, up)
    R, zero = aligned(F, length, lead, up), np.zeros(F, up.dtype)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, H)
        x, q = up[n].reshape(-1), qp[n].reshape(-1)
        for i in range(begin, end, step):
            rows = min(step, end - i)
            respond(T_A, shifts, x[i * Wp :], b, S, lead, rows, Wp)
            respond(T_C, shifts, q[i * Wp :], zero, Q, lead, rows, Wp)
            for k in range(F):
                bend(S[k, lead : rows * Wp], R[k, lead : rows * Wp], code, parameter)
            blank(Q, lead, rows, Wp)
            blank(S, lead, rows, Wp)
            multiply(R, Q)  # σ′ ⊙ Cq
            multiply(Q, S)  # σ ⊙ Cq
            size = rows * Wp - lead
            contract(R, lead, size, shifts, x[i * Wp :], sums_A[item])
            contract(S, lead, size, shifts, q[i * Wp :], sums_C[item])
            for k in range(F):
                sums_b[item, k] += sum_row(R[k])
                sums_w[item, k] += sum_row(Q[k])
