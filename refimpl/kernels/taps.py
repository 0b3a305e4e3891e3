"""How images are cut into bands and strips, and the tables of taps that act on a strip.

A strip is a few whole rows of a padded image, taken as one row of adjacent values (see
`refimpl.kernels.blocks`). A response has a value at W = Wp - w + 1 columns of each row; what stands
in the w - 1 columns after them is blanked, and as many zeros, the `lead`, stand before each strip:

    analysis    z[k, j] = Σ_t T[k, t] x[s_t + j],               t = (c, di, dj), T = A
    synthesis   part[r, j] = Σ_t T[r, t] z[s_t + j],            t = (k, dj), r = (c, di), T = C

and part[(c, di)] belongs to channel c, di rows further down. After a strip there is room, so that
every row begins a cache line. A band is a number of strips that one thread works on. Both sizes
depend on the image alone, so that results do not depend on threads.
"""

import numpy as np

from refimpl.kernels.blocks import TAPS
from refimpl.kernels.jit import row_function

# Values in one row of a strip, in all F rows of it, and in a band: long inner loops, all in cache.
STRIP, RESPONSES, BAND = 2048, 65536, 32768

# Bytes of a cache line: rows of strips whose first value begins a line are stored faster.
LINE = 64

# A band reads h - 1 rows of responses above it too, which may be one part in HALO of its own.
HALO = 8


@row_function
def strips_of(F, h, w, Hp, Wp):
    """(H, lead, step, length): rows of responses, zeros before a strip, rows of the image in it,
    and the length of one of its F rows, a whole number of cache lines."""
    H = Hp - h + 1
    step = max(1, min(min(STRIP, RESPONSES // F) // Wp, H))
    step = -(-H // -(-H // step))  # strips of about equal height
    line = LINE // 4  # values of float32, or half as many of float64
    return H, w - 1, step, -(-(w - 1 + step * Wp) // line) * line


@row_function
def aligned(rows, length, lead, x):
    """Zeros of x's type, (rows, length); in each row, column `lead` begins a cache line.

    `length` is one of `strips_of`.
    """
    line = LINE // x.itemsize
    zeros = np.zeros(rows * length + line, x.dtype)
    first = -(zeros.ctypes.data // x.itemsize + lead) % line
    return zeros[first : first + rows * length].reshape(rows, length)


@row_function
def bands_of(rows, Wp, h):
    """(high, bands): rows of an image in one band, and how many bands it takes."""
    high = max(BAND // Wp, HALO * (h - 1), 1)
    bands = max(1, (rows + high // 2) // high)
    high = -(-rows // bands)
    return high, -(-rows // high)


@row_function
def part_of(item, bands, high, rows):
    """(n, begin, end): the image of an item of work, and the rows of its band."""
    begin = item % bands * high
    return item // bands, begin, min(begin + high, rows)


@row_function
def tabled(count):
    """Columns of a table for so many taps: the next multiple of seven."""
    return -(-count // TAPS) * TAPS


@row_function
def reading_shifts(C, h, w, Hp, Wp):
    """Where the taps (c, di, dj) read; the columns that only fill the table read at 0."""
    shifts, t = np.zeros(tabled(C * h * w), np.int64), 0
    for c in range(C):
        for di in range(h):
            for dj in range(w):
                shifts[t] = (c * Hp + di) * Wp + dj
                t += 1
    return shifts


@row_function
def analysis_taps(A, Hp, Wp):
    """(T, shifts) of the analysis by A."""
    F, C, h, w = A.shape
    shifts = reading_shifts(C, h, w, Hp, Wp)
    T = np.zeros((F, shifts.size), A.dtype)
    for k in range(F):
        T[k, : C * h * w] = A[k].copy().reshape(-1)
    return T, shifts


@row_function
def synthesis_taps(C, length):
    """(T, shifts) of the synthesis by C, from rows of responses of this length, lead included."""
    F, channels, h, w = C.shape
    shifts = np.zeros(tabled(F * w), np.int64)
    T = np.zeros((channels * h, shifts.size), C.dtype)
    for k in range(F):
        for dj in range(w):
            shifts[k * w + dj] = k * length + (w - 1) - dj
            for c in range(channels):
                for di in range(h):
                    T[c * h + di, k * w + dj] = C[k, c, di, dj]
    return T, shifts


@row_function
def without_zeros(T, shifts):
    """The table without taps that are zero in every row: a blur along a line has few others."""
    used = np.zeros(shifts.size, np.int64)
    count = 0
    for t in range(shifts.size):
        if np.any(T[:, t] != 0):
            used[count] = t
            count += 1
    size = max(TAPS, tabled(count))
    fewer, kept = np.zeros((T.shape[0], size), T.dtype), np.zeros(size, np.int64)
    for t in range(count):
        fewer[:, t], kept[t] = T[:, used[t]], shifts[used[t]]
    return fewer, kept


def weighted(weights, filters):
    """w_k times filter k, (F, C, h, w), in NumPy: few taps instead of all responses in loops."""
    return weights[:, None, None, None] * filters
