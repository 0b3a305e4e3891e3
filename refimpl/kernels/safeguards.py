"""Safeguarded slopes of responses, the compiled form of `refimpl.fields_of_experts.safeguard`."""

import numpy as np
from numba import prange

from refimpl.kernels.activations import activate, slope
from refimpl.kernels.jit import formula, over_images


@formula
def blend(z, s, d, predicted, trusted):
    """ρ d + (1 - ρ) s/z with ρ = predicted / s in [0, trusted]; d where s or z is 0."""
    if s == 0.0 or z == 0.0:
        return d
    rho = max(min(predicted / s, trusted), 0.0)
    return rho * d + (1.0 - rho) * (s / z)


@over_images
def safeguarded_slopes(z, before, trusted, code, parameter):
    """ρ σ′(z) + (1 - ρ) σ(z)/z, ρ = (σ(z⁻) + σ′(z⁻)(z - z⁻)) / σ(z) in [0, trusted]."""
    N, F, H, W = z.shape
    out = np.empty(z.shape, z.dtype)
    for n in prange(N):
        s, d, old, old_d = np.empty(W), np.empty(W), np.empty(W), np.empty(W)
        for k in range(F):
            for i in range(H):
                for j in range(W):
                    s[j], old[j] = z[n, k, i, j], before[n, k, i, j]
                slope(s, d, code, parameter)
                slope(old, old_d, code, parameter)
                activate(s, code, parameter)
                activate(old, code, parameter)
                for j in range(W):
                    moved = np.float64(z[n, k, i, j]) - before[n, k, i, j]
                    predicted = old[j] + old_d[j] * moved
                    here = np.float64(z[n, k, i, j])
                    out[n, k, i, j] = blend(here, s[j], d[j], predicted, trusted)
    return out
