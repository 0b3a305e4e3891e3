"""Slopes of responses for a Hessian: σ′(z), or the safeguarded ones of Newton's method.

    d = ρ σ′(z) + (1 - ρ) σ(z)/z,    ρ = (a⁻ + d⁻ z) / σ(z) clipped to [0, 1],    a = σ(z) - d z

The line x ↦ a + d x of each response is the model of σ that a Newton step goes by; a⁻, d⁻ are those
of the step that led to z. `refimpl.fields_of_experts.slopes` is the definition and says why.

Lines are stored as (N, 2, F, H, Wp), a before d, in rows as wide as those of the padded image, so
that a strip of them is one piece of memory; what stands in the last w - 1 columns is not used.
"""

import numpy as np

from refimpl.kernels.activations import bend, slope
from refimpl.kernels.jit import formula, over_items, row_function, share
from refimpl.kernels.strips import respond, store
from refimpl.kernels.taps import analysis_taps, bands_of, part_of, strips_of

TINY = 1e-30


def slopes(up, A, b, code, parameter):
    """σ′(z) at all responses z = Au + b of `up`, (N, F, H, W)."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    d = np.empty((N, F, Hp - h + 1, Wp - w + 1), up.dtype)
    compute(up, *no_lines(up), A, b, code, parameter, d)
    return d


def safeguarded_slopes(up, lines, A, b, code, parameter):
    """(d, lines) at all responses of `up`; the first time, `lines` is None and they are 0."""
    before, after = old_and_new_lines(up, lines, A)
    compute(up, before, after, A, b, code, parameter, np.empty((0, 0, 0, 0), up.dtype))
    return after[:, 1, :, :, : up.shape[3] - A.shape[3] + 1], after


def old_and_new_lines(up, lines, A):
    """The lines that safeguarded slopes begin with, and memory for the next."""
    (N, _, Hp, Wp), (F, _, h, _) = up.shape, A.shape
    after = np.empty((N, 2, F, Hp - h + 1, Wp), up.dtype)
    return np.zeros_like(after) if lines is None else lines, after


def no_lines(up):
    """The same for slopes that need none."""
    nothing = np.empty((0, 2, 0, 0, 0), up.dtype)
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
    z, d = np.zeros((F, length), up.dtype), np.zeros((F, length), up.dtype)
    work = np.empty(length, up.dtype)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, H)
        x = up[n].reshape(-1)
        for i in range(begin, end, step):
            rows = min(step, end - i)
            respond(T, shifts, x[i * Wp :], b, z, lead, rows, Wp)
            if len(after) > 0:
                safeguard(z, d, before, after, n, work, lead, i, 0, rows, Wp, code, parameter)
            else:
                for k in range(F):
                    slope(z[k], d[k], code, parameter)
                store(d, out[n], lead, i, rows, Wp)


@row_function
def safeguard(z, d, before, after, n, work, lead, i, above, rows, Wp, code, parameter):
    """Write the safeguarded slopes at the responses z of a strip to d, and their lines to `after`.

    The strip begins at row i of image n; of its first `above` rows no lines are written.
    """
    size, begin, own = rows * Wp - lead, i * Wp, above * Wp
    for k in range(z.shape[0]):
        work[:] = z[k]
        bend(work, d[k], code, parameter)
        x, s, t = z[k, lead : lead + size], work[lead : lead + size], d[k, lead : lead + size]
        old = before[n, 0, k].reshape(-1), before[n, 1, k].reshape(-1)
        next_line(x, s, t, old[0][begin : begin + size], old[1][begin : begin + size])
        after[n, 0, k].reshape(-1)[begin + own : begin + size] = s[own:]
        after[n, 1, k].reshape(-1)[begin + own : begin + size] = t[own:]


@row_function
def next_line(z, s, d, a_before, d_before):
    """Replace σ(z) in s by a, and σ′(z) in d by the safeguarded slopes, from the lines before."""
    zero, one, tiny = z.dtype.type(0), z.dtype.type(1), z.dtype.type(TINY)
    for j in range(z.size):
        predicted = a_before[j] + d_before[j] * z[j]
        d[j] = blend(z[j], s[j], d[j], predicted, zero, one, tiny)
        s[j] -= d[j] * z[j]


@formula
def blend(z, s, d, predicted, zero, one, tiny):
    """ρ d + (1 - ρ) s/z with ρ = predicted / s in [0, 1]; d = s/z to rounding where s z is tiny.

    One division, 1/(s z), serves both quotients; a choice in place of a branch vectorises. The
    constants have z's precision, in which the loop then stays.
    """
    usable = abs(s * z) > tiny
    q = one / (s * z if usable else one)
    rho = max(min(predicted * (q * z), one), zero)
    return rho * d + (one - rho) * (s * (q * s)) if usable else d
