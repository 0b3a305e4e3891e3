"""The Jacobian Cᵀ diag(d) A of one channel as a stencil that varies from pixel to pixel.

    (Cᵀ diag(d) A v)[x] = Σ_p S_p[x] v[x + p],    S_p[x] = Σ_k Σ_t C[k, t] A[k, t + p] d_k[x - t],

d = w ⊙ σ′(Au + b) or w ⊙ the safeguarded slopes, t and t + p taps of the filter; in the loops w is
part of C, and d the slopes alone. Filters of h × w have (2h-1)(2w-1) offsets p: 25 multiplications
for 3 × 3, where filter by filter there are 18 F. If C = A the stencil is symmetric,
S_-p[x] = S_p[x - p], and the half with p ≥ 0 is enough.

Pixels x are those of the padded image as one row of Hp Wp values, and p = (p1, p2) is the shift
p1 Wp + p2. Before each S_p stand `margin` zeros, the largest shift, so that S_p[x - p] exists; the
offsets are ordered by (2w-1) p1 + p2.

    stencil          S, Σ d_k over the pixels, and the lines of safeguarded slopes
    stencil_product  v ↦ Σ S_p[x + a] v[x + c] over a list of terms (p, a, c)

Terms (p, 0, p) make the product and (p, -p, -p) that with the transpose; both lists, with the
centre once, make the symmetric product from its half.
"""

import numpy as np

from refimpl.kernels.activations import slope
from refimpl.kernels.blocks import combine
from refimpl.kernels.jit import over_items, row_function, share
from refimpl.kernels.safeguards import no_lines, old_and_new_lines, safeguard
from refimpl.kernels.strips import add_rows, blank, copy, respond, sum_row
from refimpl.kernels.taps import (
    aligned,
    analysis_taps,
    bands_of,
    part_of,
    strips_of,
    tabled,
    weighted,
)

# Values of the product that are worked on at a time, and terms.
PIECE, TERMS = 1024, 5


def stencil(up, safeguarded, lines, A, C, b, weights, code, parameter, half):
    """(S, sums, lines): S (N, offsets, margin + Hp Wp), all offsets or half of them, sums (N, F).

    If `safeguarded`, the slopes and the new lines are those of `safeguarded_slopes`; else the
    slopes are σ′, and the lines None.
    """
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    margin, centre = (h - 1) * Wp + w - 1, (h - 1) * (2 * w - 1) + w - 1
    S = np.zeros((N, centre + 1 if half else 2 * centre + 1, margin + Hp * Wp), up.dtype)
    sums = np.zeros((N, bands_of(Hp, Wp, h)[1], F))
    before, after = old_and_new_lines(up, lines, A) if safeguarded else no_lines()
    arguments = up, before, after, A, weighted(weights, C), b, code, parameter, half, S, sums
    share(_stencil, N * sums.shape[1], up.size * A.size, *arguments)
    return S, weights * sums.sum(axis=1).astype(up.dtype), after if safeguarded else None


@over_items
def _stencil(first, last, up, before, after, A, wC, b, code, parameter, half, S, sums):
    (_, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(Hp, Wp, h)
    margin = S.shape[2] - Hp * Wp
    T_A, shifts_A = analysis_taps(A, Hp, Wp)
    tables = stencil_taps(A, wC, half, length)
    z, d = aligned(F, length, lead, up), aligned(F, length, lead, up)
    work, nothing = aligned(1, length, lead, up)[0], np.zeros(length, np.uint32)
    part = aligned(h * h, length, 0, up)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, Hp)
        x, stop = up[n].reshape(-1), min(H, end)
        for i in range(max(0, begin - h + 1), stop, step):
            rows = min(step, stop - i)
            above = min(max(0, begin - i), rows)  # rows that belong to the band before
            respond(T_A, shifts_A, x[i * Wp :], b, z, lead, rows, Wp)
            if len(after) > 0:
                lines = before, after, nothing
                safeguard(z, d, lines, n, work, lead, i, above, rows, Wp, code, parameter)
            else:
                for k in range(F):
                    slope(z[k, lead : rows * Wp], d[k, lead : rows * Wp], code, parameter)
            blank(d, lead, rows, Wp)
            for k in range(F):
                sums[n, item % bands, k] += sum_row(d[k, lead + above * Wp :])
            add_products(tables, d, part, i, rows, Wp, begin, end, S[n], margin)


@row_function
def add_products(tables, d, part, i, rows, Wp, begin, end, S, margin):
    """Add what the slopes d of a strip, which begins at row i, contribute to S."""
    T, shifts, targets, downs, sizes = tables
    size = rows * Wp
    for g in range(T.shape[0]):
        count, taps = sizes[g]
        part[:count, :size] = 0
        combine(T[g, :count], shifts[g, :taps], d.reshape(-1), part[:count], 0, size)
        for r in range(count):
            out = S[targets[g, r], margin:]
            add_rows(part[r], i + downs[g, r], rows, Wp, begin, end, out)


@row_function
def stencil_taps(A, wC, half, length):
    """Tables that make S from d, one for each column offset p2, shared by all p1.

    Row r of table g = p2 + w - 1 stands for a row offset p1 and a row di of the filter: with the
    taps (k, dj) it sums w_k C[k, di, dj] A[k, di + p1, dj + p2] d_k, which belongs to
    S_p, p = `targets[g, r]`, `downs[g, r]` = di rows further down. `sizes[g]` are the rows and
    the taps that are used.
    """
    F, _, h, w = A.shape
    groups, centre = 2 * w - 1, 0 if half else (h - 1) * (2 * w - 1) + w - 1
    T, shifts = np.zeros((groups, h * h, tabled(F * w)), A.dtype), np.zeros((groups, tabled(F * w)))
    targets, downs = np.zeros((groups, h * h), np.int64), np.zeros((groups, h * h), np.int64)
    sizes = np.zeros((groups, 2), np.int64)
    for g in range(groups):
        p2, rows = g - (w - 1), 0
        for p1 in range(1 - h, h):
            for di in range(max(0, -p1), min(h, h - p1)):
                if half and (p1 < 0 or (p1 == 0 and p2 < 0)):
                    continue
                targets[g, rows], downs[g, rows] = (2 * w - 1) * p1 + p2 + centre, di
                taps = 0
                for k in range(F):
                    for dj in range(max(0, -p2), min(w, w - p2)):
                        T[g, rows, taps] = wC[k, 0, di, dj] * A[k, 0, di + p1, dj + p2]
                        shifts[g, taps] = k * length + (w - 1) - dj
                        taps += 1
                rows, sizes[g, 1] = rows + 1, tabled(taps)
        sizes[g, 0] = rows
    return T, shifts.astype(np.int64), targets, downs, sizes


def stencil_product(vp, terms, S, margin):
    """out[x] = Σ S[p, x + a] v[x + c] over rows (p, a, c) of `terms`, in their order."""
    out, items = np.zeros_like(vp), len(vp) * bands_of(vp.shape[2], vp.shape[3], 1)[1]
    share(_stencil_product, items, vp.size * len(terms), vp, terms, S, margin, out)
    return out


@over_items
def _stencil_product(first, last, vp, terms, S, margin, out):
    N, _, Hp, Wp = vp.shape
    high, bands = bands_of(Hp, Wp, 1)
    out = out.reshape(N, Hp * Wp)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, Hp)
        begin, end = begin * Wp, end * Wp
        v = with_margins(vp[n].reshape(-1), begin, end, margin)
        for i in range(begin, end, PIECE):
            piece = out[n, i : min(i + PIECE, end)]
            add_terms(S[n], terms, margin, i, v[i - begin :], piece)


@row_function
def with_margins(v, begin, end, margin):
    """v[begin - margin : end + margin], 0 where v ends."""
    values = np.zeros(end - begin + 2 * margin, v.dtype)
    low, high = max(0, begin - margin), min(v.size, end + margin)
    copy(v[low:high], values[low - begin + margin :])
    return values


@row_function
def add_terms(S, terms, margin, begin, v, out):
    """out[j] += Σ S[p, begin + j + a] v[j + c]; S and v begin `margin` before 0."""
    size, at = out.size, margin + begin
    width, S = S.shape[1], S.reshape(-1)  # S_p may end with the zeros before S_(p + 1)
    for t in range(0, terms.shape[0] - TERMS + 1, TERMS):
        (p0, a0, c0), (p1, a1, c1), (p2, a2, c2) = terms[t], terms[t + 1], terms[t + 2]
        (p3, a3, c3), (p4, a4, c4) = terms[t + 3], terms[t + 4]
        S0, v0 = S[p0 * width + at + a0 :][:size], v[margin + c0 :][:size]
        S1, v1 = S[p1 * width + at + a1 :][:size], v[margin + c1 :][:size]
        S2, v2 = S[p2 * width + at + a2 :][:size], v[margin + c2 :][:size]
        S3, v3 = S[p3 * width + at + a3 :][:size], v[margin + c3 :][:size]
        S4, v4 = S[p4 * width + at + a4 :][:size], v[margin + c4 :][:size]
        for j in range(size):
            left = S0[j] * v0[j] + S1[j] * v1[j] + S2[j] * v2[j]
            out[j] += left + S3[j] * v3[j] + S4[j] * v4[j]
    for t in range(terms.shape[0] // TERMS * TERMS, terms.shape[0]):
        p, a, c = terms[t]
        S0, v0 = S[p * width + at + a :][:size], v[margin + c :][:size]
        for j in range(size):
            out[j] += S0[j] * v0[j]
