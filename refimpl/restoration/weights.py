"""The weight λ of total variation for one image: a rule measured on photographs.

Not here: what is minimised with it (`refimpl.restoration.priors`).
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array

# Root mean square of differences below which an image is flat.
FLAT = 0.02


class Rule(NamedTuple):
    """λ = a g^q / (ε^p κ^r), the slope χ of log cosh, and the tolerance of a solve.

    ε is the noise level, at least `LEAST_NOISE`; g² = mean (D y)² − 2ε², at least `FLAT`², how
    rough the data are below the noise; κ = ‖k‖², what a blur leaves of the variance of white noise.

    Notes
    -----
    Measured on crops of photographs of BSDS300 (its 200 training images; the last 40 by name, kept
    for the test, had no part in the fit): by how many dB, on average, the PSNR of the rule is below
    that of the λ that is best for each single image and noise level.

    ==========  ==================================================  ====  ====
    problem     data                                                fit   test
    ==========  ==================================================  ====  ====
    denoise     ε = 5 to 75 of 255; 20 grey crops, 40 in the test    0.06  0.07
    denoise     the same; 10 crops in colour, 10 in the test         0.07  0.06
    inpaint     10 to 70 % at random or text missing, ε = 1 to 30
                of 255; 16 crops, 14 in the test                     0.05  0.05
    deconvolve  11 psfs (Gaussians of 0.7 to 2.3, motion of 5 to
                11, discs), ε = 0.01 to 0.05; 8 crops, 7 in test     0.11  0.16
    ==========  ==================================================  ====  ====

    The best rule of ε alone is 0.19 (test 0.23) below in denoising. There χ = 30, 60 and 150
    instead of 100 give 0.26 and 0.07 dB less and 0.02 more, in 0.8, 0.9 and 1.1 of the time.

    `tol` bounds ‖T(u) − u‖ / ‖u‖ with τ = 1/(8χ); there the PSNR of photographs has settled to
    0.01 dB. A steep φ leaves single missing pixels between edges undetermined: at χ = 15 images at
    1e-7 are those at 1e-10 to 0.13 of 255 (root mean square), at 1e-4 to 0.7; at χ = 8 to 0.01 and
    0.2, but with up to 0.8 dB less.
    """

    a: float
    q: float
    p: float
    slope: float
    tol: float
    r: float = 0.0

    def lam(self, noise_level: float, rough: float, blur: float = 1.0) -> float:
        """λ of ε, g and κ."""
        return self.a * rough**self.q / (noise_level**self.p * blur**self.r)


RULES = {
    "denoise": Rule(a=3.0, q=0.5, p=4 / 3, slope=100.0, tol=1e-5),
    "inpaint": Rule(a=6.0, q=0.8, p=4 / 3, slope=15.0, tol=1e-7),
    "deconvolve": Rule(a=1.1, q=0.5, p=1.6, slope=30.0, tol=1e-4, r=0.6),
}


def roughness(y: Array, noise_level: float, missing: Array | None = None) -> float:
    """g with g² = mean (D y)² − 2ε² over pairs of neighbours that are there, at least `FLAT`².

    Differences of independent noise have the variance 2ε², which is taken off.
    """
    there = np.ones(y.shape[2:], bool) if missing is None else ~missing
    squares, pairs = 0.0, 0
    for both, d in (
        (there[1:] & there[:-1], np.diff(y, axis=2)),
        (there[:, 1:] & there[:, :-1], np.diff(y, axis=3)),
    ):
        squares += float(np.sum(d**2, where=both))
        pairs += np.count_nonzero(both) * y.shape[1]
    return float(np.sqrt(max(squares / max(pairs, 1) - 2 * noise_level**2, FLAT**2)))
