"""Slopes of responses for a Hessian: σ′(z), or the safeguarded ones of Newton's method.

    d = ρ σ′(z) + (1 - ρ) σ(z)/z,    ρ = (a⁻ + d⁻ z) / σ(z) clipped to [0, 1],    a = σ(z) - d z

The line x ↦ a + d x of each response is the model of σ that a Newton step goes by; a⁻, d⁻ are those
of the step that led to z. `refimpl.engine.slopes` is the definition and says why.

ρ counts as 1 above `NEAR`. Lines are words of 32 bits, (N, F, H, Wp): a in the upper half, d in the
lower, each a float32 rounded to its upper half, whose 8 binary digits are what NEAR allows for.
They are all that Newton's method keeps of each response; in full, they would take longer to read
and write than to compute. Rows are as wide as those of the padded image, so that a strip of them is
one piece of memory; the last w - 1 columns are not used.
"""

import numpy as np

from refimpl.kernels.activations import bend, slope
from refimpl.kernels.jit import formula, over_items, row_function, share
from refimpl.kernels.strips import copy, respond, store
from refimpl.kernels.taps import aligned, analysis_taps, bands_of, part_of, strips_of

TINY, NEAR = 1e-30, 1 - 2**-7

# The upper half of a word, and half a unit of it.
UPPER, ROUND = np.uint32(0xFFFF0000), np.uint32(0x8000)
HALF_WORD = np.uint32(16)


def slopes(up, A, b, code, parameter):
    """σ′(z) at all responses z = Au + b of `up`, (N, F, H, W)."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    d = np.empty((N, F, Hp - h + 1, Wp - w + 1), up.dtype)
    compute(up, *no_lines(), A, b, code, parameter, d)
    return d


def safeguarded_slopes(up, lines, A, b, code, parameter):
    """(d, lines) at all responses of `up`; the first time, `lines` is None and they are 0."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    d = np.empty((N, F, Hp - h + 1, Wp - w + 1), up.dtype)
    before, after = old_and_new_lines(up, lines, A)
    compute(up, before, after, A, b, code, parameter, d)
    return d, after


def old_and_new_lines(up, lines, A):
    """The lines before, none the first time, and memory for the next."""
    (N, _, Hp, Wp), (F, _, h, _) = up.shape, A.shape
    after = np.empty((N, F, Hp - h + 1, Wp), np.uint32)
    return no_lines()[0] if lines is None else lines, after


def no_lines():
    """The same for slopes that need none."""
    nothing = np.empty((0, 0, 0, 0), np.uint32)
    return nothing, nothing


def compute(up, before, after, A, *arguments):
    """Share `_model_slopes` among threads."""
    items = len(up) * bands_of(up.shape[2] - A.shape[2] + 1, up.shape[3], 1)[1]
    share(_model_slopes, items, up.size * A.size, up, before, after, A, *arguments)


@over_items
def _model_slopes(first, last, up, before, after, A, b, code, parameter, out):
    (_, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    T, shifts = analysis_taps(A, Hp, Wp)
    z, d = aligned(F, length, lead, up), aligned(F, length, lead, up)
    work, nothing = aligned(1, length, lead, up)[0], np.zeros(length, np.uint32)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, H)
        x = up[n].reshape(-1)
        for i in range(begin, end, step):
            rows = min(step, end - i)
            respond(T, shifts, x[i * Wp :], b, z, lead, rows, Wp)
            if len(after) > 0:
                lines = before, after, nothing
                safeguard(z, d, lines, n, work, lead, i, 0, rows, Wp, code, parameter)
            else:
                for k in range(F):
                    slope(z[k, lead : rows * Wp], d[k, lead : rows * Wp], code, parameter)
            store(d, out[n], lead, i, rows, Wp)


@row_function
def safeguard(z, d, lines, n, work, lead, i, above, rows, Wp, code, parameter):
    """Write the safeguarded slopes at the responses z of a strip to d, and their lines.

    `lines` are those before, which may be empty, those after, and a row of zeros. The strip begins
    at row i of image n; of its first `above` rows no lines are written. `work` is written to.
    """
    (before, after, old), (size, begin, own) = lines, (rows * Wp - lead, i * Wp, above * Wp)
    for k in range(z.shape[0]):
        x, s, t = z[k, lead : lead + size], work[lead : lead + size], d[k, lead : lead + size]
        copy(x, s)
        bend(s, t, code, parameter)
        if len(before) > 0:
            old = before[n, k].reshape(-1)[begin : begin + size]
        next_slopes(x, s, t, old)
        new = after[n, k].reshape(-1)[begin + own : begin + size]
        next_lines(x[own:], s[own:], t[own:], new)


@row_function
def next_slopes(z, s, d, lines):
    """Replace σ′(z) in d by the safeguarded slopes, from σ(z) in s and the lines before."""
    zero, one, tiny = z.dtype.type(0), z.dtype.type(1), z.dtype.type(TINY)
    near = z.dtype.type(NEAR)
    for j in range(z.size):
        a_before = np.uint32(lines[j] & UPPER).view(np.float32)
        d_before = np.uint32(lines[j] << HALF_WORD).view(np.float32)
        predicted = z.dtype.type(a_before) + z.dtype.type(d_before) * z[j]
        d[j] = blend(z[j], s[j], d[j], predicted, zero, one, tiny, near)


@row_function
def next_lines(z, s, d, lines):
    """Pack a = s - d z and d, rounded to 16 bits each."""
    for j in range(z.size):
        upper = np.float32(s[j] - d[j] * z[j]).view(np.uint32) + ROUND
        lower = np.float32(d[j]).view(np.uint32) + ROUND
        lines[j] = (upper & UPPER) | (lower >> HALF_WORD)


@formula
def blend(z, s, d, predicted, zero, one, tiny, near):
    """ρ d + (1 - ρ) s/z with ρ = predicted / s in [0, 1], 1 above `near`.

    Where s z is tiny, d = s/z to rounding. One division, 1/(s z), serves both quotients; a choice
    in place of a branch vectorises. The constants have z's precision, in which the loop then stays.
    """
    usable = abs(s * z) > tiny
    q = one / (s * z if usable else one)
    rho = max(min(predicted * (q * z), one), zero)
    rho = one if rho > near else rho
    return rho * d + (one - rho) * (s * (q * s)) if usable else d
