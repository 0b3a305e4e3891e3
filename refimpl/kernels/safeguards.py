"""Slopes of responses for a Hessian: σ′, or the safeguarded ones of Newton's method.

    NEWTON       σ′(z)
    MAJORIZING   σ(z)/z
    BLENDED      ρ σ′(z) + (1 - ρ) σ(z)/z,  ρ = (σ(z⁻) + σ′(z⁻)(z - z⁻)) / σ(z) clipped to [0, 1]

`refimpl.fields_of_experts.slopes` is the definition and says why.
"""

import numpy as np
from numba import prange

from refimpl.kernels.activations import activate, slope
from refimpl.kernels.jit import formula, over_bands, row_function
from refimpl.kernels.strips import respond, store
from refimpl.kernels.taps import analysis_taps, bands_of, part_of, strips_of

NEWTON, MAJORIZING, BLENDED = range(3)


@formula
def blend(z, s, d, predicted):
    """ρ d + (1 - ρ) s/z with ρ = predicted / s in [0, 1]; d where s or z is 0."""
    if s == 0.0 or z == 0.0:
        return d
    rho = max(min(predicted / s, 1.0), 0.0)
    return rho * d + (1.0 - rho) * (s / z)


@row_function
def model_slope(z, before, work, d, rule, code, parameter):
    """Write the slopes at z to the row d; z⁻ = `before` and `work` are overwritten."""
    slope(z, d, code, parameter)
    if rule == NEWTON:
        return
    if rule == BLENDED:
        slope(before, work, code, parameter)
        for j in range(z.size):
            work[j] *= z[j] - before[j]
        activate(before, code, parameter)
        for j in range(z.size):
            before[j] += work[j]
    else:
        before[:] = 0
    work[:] = z
    activate(work, code, parameter)
    for j in range(z.size):
        d[j] = blend(z[j], work[j], d[j], before[j])


def model_slopes(up, previous, A, b, rule, code, parameter):
    """The slopes at all responses of `up`, z⁻ those of `previous`, (N, F, H, W)."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    d = np.empty((N, F, Hp - h + 1, Wp - w + 1), up.dtype)
    fill_model_slopes(up, A, previous, b, rule, code, parameter, d)
    return d


@over_bands
def fill_model_slopes(up, A, previous, b, rule, code, parameter, out):
    """Write `model_slopes` to `out`."""
    (N, _, Hp, Wp), (F, _, h, w) = up.shape, A.shape
    H, lead, step, length = strips_of(2 * F, h, w, Hp, Wp)
    high, bands = bands_of(H, Wp, 1)
    T, shifts = analysis_taps(A, Hp, Wp)
    for item in prange(N * bands):
        n, first, last = part_of(item, bands, high)
        x, y = up[n].reshape(-1), previous[n].reshape(-1)
        z, before = np.zeros((F, length), up.dtype), np.zeros((F, length), up.dtype)
        d, work = np.zeros_like(z), np.empty(length, up.dtype)
        for i in range(first, min(H, last), step):
            rows = min(step, min(H, last) - i)
            respond(T, shifts, x[i * Wp :], b, z, lead, rows, Wp)
            if rule == BLENDED:
                respond(T, shifts, y[i * Wp :], b, before, lead, rows, Wp)
            for k in range(F):
                model_slope(z[k], before[k], work, d[k], rule, code, parameter)
            store(d, out[n], lead, i, rows, Wp)
