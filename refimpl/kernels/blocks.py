"""Sums of shifted copies of one row of values: what every filter bank consists of.

The padded images (C, Hp, Wp) lie in memory as one row x of values, in which tap (c, di, dj) of a
filter reads with the shift s = (c Hp + di) Wp + dj. A bank is then a matrix T of taps, and

    combine    out[r, j] += Σ_t T[r, t] x[s_t + j]
    contract   out[r, t] += Σ_j y[r, j] x[s_t + j]     the adjoint in T

Blocks of three rows and nine taps keep 27 taps, or 27 sums, in registers: the nine values of x that
are loaded serve three rows at once. Tables of taps have a multiple of nine columns
(`refimpl.kernels.taps`); rows beyond a multiple of three are worked on one by one.

Not here: which shifts and taps a bank has, and parallelism.
"""

from refimpl.kernels.jit import reduction, row_function

ROWS, TAPS = 3, 9


@row_function
def combine(T, shifts, x, out, begin, size):
    """out[r, begin + j] += Σ_t T[r, t] x[shifts[t] + j] for j < size."""
    rows = out.shape[0]
    for t in range(0, shifts.size, TAPS):
        for r in range(0, rows - ROWS + 1, ROWS):
            three_rows(T, r, t, shifts, x, out, begin, size)
        for r in range(rows // ROWS * ROWS, rows):
            one_row(T[r], t, shifts, x, out[r, begin : begin + size])


@row_function
def three_rows(T, r, t, shifts, x, out, begin, size):
    """Rows r to r + 2 of `combine` by taps t to t + 8."""
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = nine(T[r], t)
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = nine(T[r + 1], t)
    c0, c1, c2, c3, c4, c5, c6, c7, c8 = nine(T[r + 2], t)
    x0, x1, x2, x3, x4, x5, x6, x7, x8 = nine_rows(x, shifts, t, size)
    p = out[r, begin : begin + size]
    q = out[r + 1, begin : begin + size]
    s = out[r + 2, begin : begin + size]
    for j in range(size):
        y0, y1, y2, y3, y4 = x0[j], x1[j], x2[j], x3[j], x4[j]
        y5, y6, y7, y8 = x5[j], x6[j], x7[j], x8[j]
        p[j] += (
            a0 * y0 + a1 * y1 + a2 * y2 + a3 * y3 + a4 * y4 + a5 * y5 + a6 * y6 + a7 * y7 + a8 * y8
        )
        q[j] += (
            b0 * y0 + b1 * y1 + b2 * y2 + b3 * y3 + b4 * y4 + b5 * y5 + b6 * y6 + b7 * y7 + b8 * y8
        )
        s[j] += (
            c0 * y0 + c1 * y1 + c2 * y2 + c3 * y3 + c4 * y4 + c5 * y5 + c6 * y6 + c7 * y7 + c8 * y8
        )


@row_function
def one_row(T, t, shifts, x, out):
    """One row of `combine` by taps t to t + 8."""
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = nine(T, t)
    x0, x1, x2, x3, x4, x5, x6, x7, x8 = nine_rows(x, shifts, t, out.size)
    for j in range(out.size):
        left = a0 * x0[j] + a1 * x1[j] + a2 * x2[j] + a3 * x3[j]
        out[j] += left + a4 * x4[j] + a5 * x5[j] + a6 * x6[j] + a7 * x7[j] + a8 * x8[j]


@row_function
def contract(y, begin, size, shifts, x, out):
    """out[r, t] += Σ_j y[r, begin + j] x[shifts[t] + j] for j < size."""
    rows = y.shape[0]
    for t in range(0, shifts.size, TAPS):
        for r in range(0, rows - ROWS + 1, ROWS):
            three_sums(y, r, t, begin, size, shifts, x, out)
        for r in range(rows // ROWS * ROWS, rows):
            one_sum(y[r, begin : begin + size], t, shifts, x, out[r])


@reduction
def three_sums(y, r, t, begin, size, shifts, x, out):
    """Rows r to r + 2 of `contract` by taps t to t + 8."""
    p = y[r, begin : begin + size]
    q = y[r + 1, begin : begin + size]
    s = y[r + 2, begin : begin + size]
    x0, x1, x2, x3, x4, x5, x6, x7, x8 = nine_rows(x, shifts, t, size)
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = x.dtype.type(0)
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = b8 = x.dtype.type(0)
    c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = c8 = x.dtype.type(0)
    for j in range(size):
        u, v, w = p[j], q[j], s[j]
        y0, y1, y2, y3, y4 = x0[j], x1[j], x2[j], x3[j], x4[j]
        y5, y6, y7, y8 = x5[j], x6[j], x7[j], x8[j]
        a0, a1, a2, a3, a4 = a0 + u * y0, a1 + u * y1, a2 + u * y2, a3 + u * y3, a4 + u * y4
        a5, a6, a7, a8 = a5 + u * y5, a6 + u * y6, a7 + u * y7, a8 + u * y8
        b0, b1, b2, b3, b4 = b0 + v * y0, b1 + v * y1, b2 + v * y2, b3 + v * y3, b4 + v * y4
        b5, b6, b7, b8 = b5 + v * y5, b6 + v * y6, b7 + v * y7, b8 + v * y8
        c0, c1, c2, c3, c4 = c0 + w * y0, c1 + w * y1, c2 + w * y2, c3 + w * y3, c4 + w * y4
        c5, c6, c7, c8 = c5 + w * y5, c6 + w * y6, c7 + w * y7, c8 + w * y8
    add_nine(out[r], t, (a0, a1, a2, a3, a4, a5, a6, a7, a8))
    add_nine(out[r + 1], t, (b0, b1, b2, b3, b4, b5, b6, b7, b8))
    add_nine(out[r + 2], t, (c0, c1, c2, c3, c4, c5, c6, c7, c8))


@reduction
def one_sum(y, t, shifts, x, out):
    """One row of `contract` by taps t to t + 8."""
    x0, x1, x2, x3, x4, x5, x6, x7, x8 = nine_rows(x, shifts, t, y.size)
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = x.dtype.type(0)
    for j in range(y.size):
        u = y[j]
        a0, a1, a2 = a0 + u * x0[j], a1 + u * x1[j], a2 + u * x2[j]
        a3, a4, a5 = a3 + u * x3[j], a4 + u * x4[j], a5 + u * x5[j]
        a6, a7, a8 = a6 + u * x6[j], a7 + u * x7[j], a8 + u * x8[j]
    add_nine(out, t, (a0, a1, a2, a3, a4, a5, a6, a7, a8))


@row_function
def nine(T, t):
    """T[t], …, T[t + 8]."""
    return T[t], T[t + 1], T[t + 2], T[t + 3], T[t + 4], T[t + 5], T[t + 6], T[t + 7], T[t + 8]


@row_function
def nine_rows(x, shifts, t, size):
    """The nine parts of x that taps t to t + 8 read, each of this size."""
    s0, s1, s2, s3, s4, s5, s6, s7, s8 = nine(shifts, t)
    return (
        x[s0 : s0 + size],
        x[s1 : s1 + size],
        x[s2 : s2 + size],
        x[s3 : s3 + size],
        x[s4 : s4 + size],
        x[s5 : s5 + size],
        x[s6 : s6 + size],
        x[s7 : s7 + size],
        x[s8 : s8 + size],
    )


@row_function
def add_nine(out, t, values):
    """out[t : t + 9] += values."""
    for i, value in enumerate(values):
        out[t + i] += value
