"""Slopes of responses for a Hessian: σ′, or the safeguarded ones of Newton's method.

    NEWTON       σ′(z)
    MAJORIZING   σ(z)/z
    BLENDED      ρ σ′(z) + (1 - ρ) σ(z)/z,  ρ = (σ(z⁻) + σ′(z⁻)(z - z⁻)) / σ(z) clipped to [0, 1]

`refimpl.fields_of_experts.slopes` is the definition and says why.
"""

import numpy as np

from refimpl.kernels.activations import bend, slope
from refimpl.kernels.jit import formula, over_items, row_function, share
from refimpl.kernels.strips import respond, store
from refimpl.kernels.taps import analysis_taps, bands_of, part_of, strips_of

NEWTON, MAJORIZING, BLENDED = range(3)
TINY = 1e-30


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


@row_function
def model_slope(z, before, work, d, rule, code, parameter):
    """Write the slopes at z to the row d; z⁻ = `before` and `work` are overwritten."""
    if rule == NEWTON:
        slope(z, d, code, parameter)
        return
    if rule == BLENDED:
        for j in range(z.size):
            d[j] = z[j] - before[j]
        bend(before, work, code, parameter)
        for j in range(z.size):
            before[j] += work[j] * d[j]
    else:
        before[:] = 0
    work[:] = z
    bend(work, d, code, parameter)
    zero, one, tiny = z.dtype.type(0), z.dtype.type(1), z.dtype.type(TINY)
    for j in range(z.size):
        d[j] = blend(z[j], work[j], d[j], before[j], zero, one, tiny)


def model_slopes(up, previous, A, b, rule, code, parameter):
    """The slopes at all responses of `up`, z⁻ those of `previous`, (N, F, H, W)."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    d = np.empty((N, F, Hp - h + 1, Wp - w + 1), up.dtype)
    items = N * bands_of(Hp - h + 1, Wp, 1)[1]
    share(_model_slopes, items, up.size * A.size, up, previous, A, b, rule, code, parameter, d)
    return d


@over_items
def _model_slopes(first, last, up, previous, A, b, rule, code, parameter, out):
    (_, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    T, shifts = analysis_taps(A, Hp, Wp)
    z, before = np.zeros((F, length), up.dtype), np.zeros((F, length), up.dtype)
    d, work = np.zeros_like(z), np.empty(length, up.dtype)
    for item in range(first, last):
        n, begin, end = part_of(item, bands, high, H)
        x, y = up[n].reshape(-1), previous[n].reshape(-1)
        for i in range(begin, end, step):
            rows = min(step, end - i)
            respond(T, shifts, x[i * Wp :], b, z, lead, rows, Wp)
            if rule == BLENDED:
                respond(T, shifts, y[i * Wp :], b, before, lead, rows, Wp)
            for k in range(F):
                model_slope(z[k], before[k], work, d[k], rule, code, parameter)
            store(d, out[n], lead, i, rows, Wp)
