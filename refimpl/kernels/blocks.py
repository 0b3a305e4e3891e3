"""Sums of shifted copies of one row of values: what every filter bank consists of.

The padded images (C, Hp, Wp) lie in memory as one row x of values, in which tap (c, di, dj) of a
filter reads with the shift s = (c Hp + di) Wp + dj. A bank is then a matrix T of taps, and

    combine    out[r, j] += Σ_t T[r, t] x[s_t + j]
    contract   out[r, t] += Σ_j y[r, j] x[s_t + j]     the adjoint in T

Blocks of rows and taps use what they load more than once: seven values of x serve four rows of
`combine`, or two of `contract`, whose fourteen sums stay in registers. A value of `combine` is a
chain of multiply-adds in the order of the taps. Tables of taps have a multiple of seven columns
(`refimpl.kernels.taps`); rows beyond whole blocks are worked on one by one.

Not here: which shifts and taps a bank has, and parallelism.
"""

from refimpl.kernels.jit import formula, reduction, row_function

TAPS = 7


@row_function
def combine(T, shifts, x, out, begin, size):
    """out[r, begin + j] += Σ_t T[r, t] x[shifts[t] + j] for j < size."""
    rows = out.shape[0]
    for r in range(0, rows - 3, 4):
        for t in range(0, shifts.size, TAPS):
            four_rows(T, r, t, shifts, x, out, begin, size)
    for r in range(rows // 4 * 4, rows):
        for t in range(0, shifts.size, TAPS):
            one_row(T[r], t, shifts, x, out[r, begin : begin + size])


@row_function
def four_rows(T, r, t, shifts, x, out, begin, size):
    """Rows r to r + 3 of `combine` by taps t to t + 6."""
    a, b, c, d = seven(T[r], t), seven(T[r + 1], t), seven(T[r + 2], t), seven(T[r + 3], t)
    parts = seven_parts(x, shifts, t, size)
    p, q = out[r, begin : begin + size], out[r + 1, begin : begin + size]
    s, u = out[r + 2, begin : begin + size], out[r + 3, begin : begin + size]
    for j in range(size):
        y = values(parts, j)
        p[j] = chain(p[j], a, y)
        q[j] = chain(q[j], b, y)
        s[j] = chain(s[j], c, y)
        u[j] = chain(u[j], d, y)


@row_function
def one_row(T, t, shifts, x, out):
    """One row of `combine` by taps t to t + 6."""
    a, parts = seven(T, t), seven_parts(x, shifts, t, out.size)
    for j in range(out.size):
        out[j] = chain(out[j], a, values(parts, j))


@formula
def chain(p, a, y):
    """p + Σ_t a_t y_t, from left to right."""
    p = p + a[0] * y[0] + a[1] * y[1] + a[2] * y[2] + a[3] * y[3]
    return p + a[4] * y[4] + a[5] * y[5] + a[6] * y[6]


@row_function
def contract(y, begin, size, shifts, x, out):
    """out[r, t] += Σ_j y[r, begin + j] x[shifts[t] + j] for j < size."""
    rows = y.shape[0]
    for r in range(0, rows - 1, 2):
        for t in range(0, shifts.size, TAPS):
            two_sums(y, r, t, begin, size, shifts, x, out)
    if rows % 2:
        for t in range(0, shifts.size, TAPS):
            one_sum(y[rows - 1, begin : begin + size], t, shifts, x, out[rows - 1])


@reduction
def two_sums(y, r, t, begin, size, shifts, x, out):
    """Rows r and r + 1 of `contract` by taps t to t + 6."""
    p, q = y[r, begin : begin + size], y[r + 1, begin : begin + size]
    parts = seven_parts(x, shifts, t, size)
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = x.dtype.type(0)
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = x.dtype.type(0)
    for j in range(size):
        u, v = p[j], q[j]
        y0, y1, y2, y3, y4, y5, y6 = values(parts, j)
        a0, a1, a2, a3 = a0 + u * y0, a1 + u * y1, a2 + u * y2, a3 + u * y3
        b0, b1, b2, b3 = b0 + v * y0, b1 + v * y1, b2 + v * y2, b3 + v * y3
        a4, a5, a6 = a4 + u * y4, a5 + u * y5, a6 + u * y6
        b4, b5, b6 = b4 + v * y4, b5 + v * y5, b6 + v * y6
    add_seven(out[r], t, (a0, a1, a2, a3, a4, a5, a6))
    add_seven(out[r + 1], t, (b0, b1, b2, b3, b4, b5, b6))


@reduction
def one_sum(y, t, shifts, x, out):
    """One row of `contract` by taps t to t + 6."""
    parts = seven_parts(x, shifts, t, y.size)
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = x.dtype.type(0)
    for j in range(y.size):
        u = y[j]
        y0, y1, y2, y3, y4, y5, y6 = values(parts, j)
        a0, a1, a2, a3 = a0 + u * y0, a1 + u * y1, a2 + u * y2, a3 + u * y3
        a4, a5, a6 = a4 + u * y4, a5 + u * y5, a6 + u * y6
    add_seven(out, t, (a0, a1, a2, a3, a4, a5, a6))


@row_function
def add_seven(out, t, sums):
    """out[t : t + 7] += sums."""
    for k in range(TAPS):
        out[t + k] += sums[k]


@formula
def values(parts, j):
    """Value j of each of seven parts."""
    a, b, c, d, e, f, g = parts
    return a[j], b[j], c[j], d[j], e[j], f[j], g[j]


@formula
def seven(T, t):
    """T[t] to T[t + 6]."""
    return T[t], T[t + 1], T[t + 2], T[t + 3], T[t + 4], T[t + 5], T[t + 6]


@formula
def seven_parts(x, shifts, t, size):
    """The parts of x that taps t to t + 6 read, each of this size."""
    a, b, c, d, e, f, g = seven(shifts, t)
    return (
        x[a : a + size], x[b : b + size], x[c : c + size], x[d : d + size],
        x[e : e + size], x[f : f + size], x[g : g + size],
    )  # fmt: skip
