"""Slopes of responses for a Hessian: σ′(z), or the safeguarded ones of Newton's method.

    d = ρ σ′(z) + (1 - ρ) σ(z)/z,    ρ = (a⁻ + d⁻ z) / σ(z) clipped to [0, 1],    a = σ(z) - d z

The line x ↦ a + d x of each response is the model of σ that a Newton step goes by; a⁻, d⁻ are those
of the step that led to z. `refimpl.fields_of_experts.slopes` is the definition and says why.
"""

import numpy as np

from refimpl.kernels.activations import bend, slope
from refimpl.kernels.jit import formula, over_items, row_function, share
from refimpl.kernels.strips import load, respond, store
from refimpl.kernels.taps import analysis_taps, bands_of, part_of, strips_of

TINY = 1e-30


def slopes(up, A, b, code, parameter):
    """σ′(z) at all responses z = Au + b of `up`, (N, F, H, W)."""
    return _slopes_and_lines(up, None, A, b, code, parameter)[0]


def safeguarded_lines(up, lines, A, b, code, parameter):
    """(a, d) at all responses z = Au + b of `up`, from (a⁻, d⁻) = `lines`: (2, N, F, H, W)."""
    return _slopes_and_lines(up, lines, A, b, code, parameter)


def _slopes_and_lines(up, lines, A, b, code, parameter):
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    safeguarded = lines is not None
    after = np.empty((1 + safeguarded, N, F, Hp - h + 1, Wp - w + 1), up.dtype)
    items = N * bands_of(Hp - h + 1, Wp, 1)[1]
    before = lines if safeguarded else after
    arguments = up, before, A, b, code, parameter, safeguarded, after
    share(_model_slopes, items, up.size * A.size, *arguments)
    return after


@over_items
def _model_slopes(first, last, up, before, A, b, code, parameter, safeguarded, after):
    (_, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    T, shifts = analysis_taps(A, Hp, Wp)
    z, d = np.zeros((F, length), up.dtype), np.zeros((F, length), up.dtype)
    a, work = np.zeros_like(d), np.empty(length, up.dtype)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, H)
        x = up[n].reshape(-1)
        for i in range(begin, end, step):
            rows = min(step, end - i)
            respond(T, shifts, x[i * Wp :], b, z, lead, rows, Wp)
            if safeguarded:
                load(before[0, n], a, lead, i, rows, Wp)
                load(before[1, n], d, lead, i, rows, Wp)
            for k in range(F):
                model_slope(z[k], a[k], d[k], work, safeguarded, code, parameter)
            if safeguarded:
                store(a, after[0, n], lead, i, rows, Wp)
            store(d, after[-1, n], lead, i, rows, Wp)


@row_function
def model_slope(z, a, d, work, safeguarded, code, parameter):
    """Replace the row d by the slopes at z, and (a, d), if safeguarded, from (a⁻, d⁻)."""
    if not safeguarded:
        slope(z, d, code, parameter)
        return
    for j in range(z.size):
        a[j] += d[j] * z[j]
    work[:] = z
    bend(work, d, code, parameter)
    zero, one, tiny = z.dtype.type(0), z.dtype.type(1), z.dtype.type(TINY)
    for j in range(z.size):
        d[j] = blend(z[j], work[j], d[j], a[j], zero, one, tiny)
        a[j] = work[j] - d[j] * z[j]


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
