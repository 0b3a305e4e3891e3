"""Sums of shifted copies of one row of values: what every filter bank consists of.

The padded images (C, Hp, Wp) lie in memory as one row x of values, in which tap (c, di, dj) of a
filter reads with the shift s = (c Hp + di) Wp + dj. A bank is then a matrix T of taps, and

    combine    out[r, j] += Σ_t T[r, t] x[s_t + j]
    contract   out[r, t] += Σ_j y[r, j] x[s_t + j]     the adjoint in T

Blocks of three rows and three taps keep nine taps, or nine sums, and what they act on in the 16
registers that processors have at least: three values of x that are loaded serve three rows at once.
Tables of taps have a multiple of three columns (`refimpl.kernels.taps`); rows beyond a multiple of
three are worked on one by one.

Not here: which shifts and taps a bank has, and parallelism.
"""

from refimpl.kernels.jit import reduction, row_function

ROWS, TAPS = 3, 3


@row_function
def combine(T, shifts, x, out, begin, size):
    """out[r, begin + j] += Σ_t T[r, t] x[shifts[t] + j] for j < size."""
    rows = out.shape[0]
    for r in range(0, rows - ROWS + 1, ROWS):
        for t in range(0, shifts.size, TAPS):
            three_rows(T, r, t, shifts, x, out, begin, size)
    for r in range(rows // ROWS * ROWS, rows):
        for t in range(0, shifts.size, TAPS):
            one_row(T[r], t, shifts, x, out[r, begin : begin + size])


@row_function
def three_rows(T, r, t, shifts, x, out, begin, size):
    """Rows r to r + 2 of `combine` by taps t to t + 2."""
    a0, a1, a2 = three(T[r], t)
    b0, b1, b2 = three(T[r + 1], t)
    c0, c1, c2 = three(T[r + 2], t)
    x0, x1, x2 = three_parts(x, shifts, t, size)
    p = out[r, begin : begin + size]
    q = out[r + 1, begin : begin + size]
    s = out[r + 2, begin : begin + size]
    for j in range(size):
        y0, y1, y2 = x0[j], x1[j], x2[j]
        p[j] += a0 * y0 + a1 * y1 + a2 * y2
        q[j] += b0 * y0 + b1 * y1 + b2 * y2
        s[j] += c0 * y0 + c1 * y1 + c2 * y2


@row_function
def one_row(T, t, shifts, x, out):
    """One row of `combine` by taps t to t + 2."""
    a0, a1, a2 = three(T, t)
    x0, x1, x2 = three_parts(x, shifts, t, out.size)
    for j in range(out.size):
        out[j] += a0 * x0[j] + a1 * x1[j] + a2 * x2[j]


@row_function
def contract(y, begin, size, shifts, x, out):
    """out[r, t] += Σ_j y[r, begin + j] x[shifts[t] + j] for j < size."""
    rows = y.shape[0]
    for r in range(0, rows - ROWS + 1, ROWS):
        for t in range(0, shifts.size, TAPS):
            three_sums(y, r, t, begin, size, shifts, x, out)
    for r in range(rows // ROWS * ROWS, rows):
        for t in range(0, shifts.size, TAPS):
            one_sum(y[r, begin : begin + size], t, shifts, x, out[r])


@reduction
def three_sums(y, r, t, begin, size, shifts, x, out):
    """Rows r to r + 2 of `contract` by taps t to t + 2."""
    p = y[r, begin : begin + size]
    q = y[r + 1, begin : begin + size]
    s = y[r + 2, begin : begin + size]
    x0, x1, x2 = three_parts(x, shifts, t, size)
    a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = x.dtype.type(0)
    for j in range(size):
        u, v, w = p[j], q[j], s[j]
        y0, y1, y2 = x0[j], x1[j], x2[j]
        a0, a1, a2 = a0 + u * y0, a1 + u * y1, a2 + u * y2
        b0, b1, b2 = b0 + v * y0, b1 + v * y1, b2 + v * y2
        c0, c1, c2 = c0 + w * y0, c1 + w * y1, c2 + w * y2
    add_three(out[r], t, a0, a1, a2)
    add_three(out[r + 1], t, b0, b1, b2)
    add_three(out[r + 2], t, c0, c1, c2)


@reduction
def one_sum(y, t, shifts, x, out):
    """One row of `contract` by taps t to t + 2."""
    x0, x1, x2 = three_parts(x, shifts, t, y.size)
    a0 = a1 = a2 = x.dtype.type(0)
    for j in range(y.size):
        u = y[j]
        a0, a1, a2 = a0 + u * x0[j], a1 + u * x1[j], a2 + u * x2[j]
    add_three(out, t, a0, a1, a2)


@row_function
def three(T, t):
    """T[t], T[t + 1], T[t + 2]."""
    return T[t], T[t + 1], T[t + 2]


@row_function
def three_parts(x, shifts, t, size):
    """The three parts of x that taps t to t + 2 read, each of this size."""
    s0, s1, s2 = three(shifts, t)
    return x[s0 : s0 + size], x[s1 : s1 + size], x[s2 : s2 + size]


@row_function
def add_three(out, t, a, b, c):
    """out[t : t + 3] += (a, b, c)."""
    out[t] += a
    out[t + 1] += b
    out[t + 2] += c
