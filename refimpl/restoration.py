"""Noise, gaps and blur removed from one image, as `skimage.restoration` takes it.

    denoise       K = I                inpaint       K = mask                deconvolve    K = blur

Each minimises E(u) = λ/2 ‖K u − y‖² + Σ φ(D u) (E2) over the image u, with D the differences
down and across in each channel under symmetric boundary and φ(z) = log cosh(χz) / χ, which for
steep χ is total variation Σ |D u|. The weight λ follows from the noise level ε by a rule that is
measured on photographs (`Rule` says on which, and how far it is from the best). An image is in
[0, 1]; one of another scale must be divided by the value of its white first.

Not here: data and models of one's own (`refimpl.equilibrium`), and learned regularisers
(`refimpl.training`).

References
----------
L. Rudin, S. Osher and E. Fatemi, "Nonlinear total variation based noise removal algorithms",
Physica D 60:259-268, 1992.
"""

import logging
from typing import NamedTuple

import numpy as np
import scipy.ndimage

from refimpl.arrays import NUMBERS, Array, as_finite, shown
from refimpl.engine import make_step
from refimpl.equilibrium import reconstruct
from refimpl.images.pixels import as_batch_of_images, as_numbers
from refimpl.images.quality import check_missing, estimate_noise
from refimpl.paper.filters import total_variation
from refimpl.paper.operators import Convolution, Identity, LinearOperator, Mask
from refimpl.paper.problem import Problem
from refimpl.results import NotConvergedError

# Noise below this is taken as this, so that λ stays bounded: half a step of 8-bit pixels.
LEAST_NOISE = 2e-3
MOST_NOISE = 1.0

# Root mean square of differences below which an image is flat.
FLAT = 0.02

# Values beyond this, noise apart, are those of another scale than [0, 1].
LARGEST = 10.0


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


def denoise(
    image: Array, noise_level: float | None = None, *, channel_axis: int | None = None
) -> Array:
    """Remove Gaussian noise: the minimiser of λ/2 ‖u − y‖² + Σ φ(D u).

    Parameters
    ----------
    image : array (H, W), or with channels along `channel_axis`
        y, of bool, uint8, uint16 or floats with white at 1, any strides and byte order. Integers
        are divided by the largest value of their type, as `skimage.util.img_as_float` does.
    noise_level : float, optional
        ε, the standard deviation of the noise where white is 1: for 8-bit pixels that of the
        pixels over 255. Left out: estimated by `estimate_noise`, which the logger "refimpl" says.
    channel_axis : int, optional
        Where the channels of a colour image are; left out: the image is grey.

    Returns
    -------
    array of the shape of `image`
        float32 for float16 and float32, else float64; not clipped to [0, 1].

    Raises
    ------
    TypeError, ValueError
        For anything else, with what was expected and what to change.
    NotConvergedError
        If the minimiser is not found to the tolerance of its `Rule`.
    """
    y, restore = as_batch_of_images(image, channel_axis)
    noise_level = _noise_level(y, noise_level)
    lam = RULES["denoise"].lam(noise_level, roughness(y, noise_level))
    return restore(_minimise("denoise", Identity(y.shape[1:]), y, lam))


def inpaint(
    image: Array,
    mask: Array,
    noise_level: float | None = None,
    *,
    channel_axis: int | None = None,
) -> Array:
    """Fill in missing pixels, and remove noise from the others.

    The minimiser of λ/2 ‖m ⊙ (u − y)‖² + Σ φ(D u), m = 0 where pixels are missing.

    Parameters
    ----------
    image : array
        y, as `denoise` takes it; of missing pixels nothing is used, so that they may be NaN.
    mask : array (H, W), bool or zeros and ones
        True or 1 where pixels are missing, in every channel: the convention of
        `skimage.restoration.inpaint_biharmonic`. (`refimpl.paper.operators.Mask` is the opposite.)
    noise_level : float, optional
        As for `denoise`; left out: estimated from the pixels that are there. For data without
        noise pass 0.
    channel_axis : int, optional
        As for `denoise`.

    Returns
    -------
    array, as `denoise` returns it

    Raises
    ------
    TypeError, ValueError, NotConvergedError
        As `denoise`; also for a mask of another shape or with other values, and where every pixel
        is missing.
    """
    y, restore = as_batch_of_images(image, channel_axis, finite=False)
    missing = check_missing(mask, y.shape[2:])
    if not y[..., ~missing].any() and np.nan_to_num(y).any():
        raise ValueError(
            "mask: every pixel that is not missing is 0; True stands for missing, pass ~mask"
        )
    y = as_finite(np.where(missing, 0, y), "image (where it is not missing)")
    noise_level = _noise_level(y, noise_level, missing)
    # Each missing pixel starts as the nearest that is there.
    _, nearest = scipy.ndimage.distance_transform_edt(missing, return_indices=True)
    lam = RULES["inpaint"].lam(noise_level, roughness(y, noise_level, missing))
    return restore(_minimise("inpaint", Mask(~missing, y.shape[1:]), y, lam, y[:, :, *nearest]))


def deconvolve(
    image: Array,
    psf: Array,
    noise_level: float | None = None,
    *,
    channel_axis: int | None = None,
) -> Array:
    """Remove a known blur, and noise: the minimiser of λ/2 ‖k * u − y‖² + Σ φ(D u).

    Parameters
    ----------
    image : array
        y, as `denoise` takes it.
    psf : array (h, w) with odd sides, no larger than the image
        The point-spread function k, of sum 1, the same for every channel. k * u is a true
        convolution, with the image mirrored at its borders.
    noise_level : float, optional
    channel_axis : int, optional
        As for `denoise`.

    Returns
    -------
    array, as `denoise` returns it

    Raises
    ------
    TypeError, ValueError, NotConvergedError
        As `denoise`; also for a psf that is not as described.
    """
    y, restore = as_batch_of_images(image, channel_axis)
    kernel = _check_psf(psf, y.shape[2:])
    noise_level = _noise_level(y, noise_level)
    blur = float(np.sum(kernel**2))
    lam = RULES["deconvolve"].lam(noise_level, roughness(y, noise_level), blur)
    return restore(_minimise("deconvolve", Convolution(kernel, y.shape[1:]), y, lam))


def _minimise(task: str, K: LinearOperator, y: Array, lam: float, start: Array | None = None):
    """The minimiser of E, computed in float64 from `start` (left out: from y)."""
    y, start = (x.astype(np.float64, copy=False) for x in (y, y if start is None else start))
    slope, tol = RULES[task].slope, RULES[task].tol
    experts = total_variation(y.shape[1:], slope=slope)
    step = make_step(Problem(K, y, experts, lam), tau=1 / (8 * slope))
    star = reconstruct(step, start, residual_tol=tol)
    if not star.all_converged:
        raise NotConvergedError(
            f"{task}: {star.message}; lambda is {lam:.3g}: pass a larger noise_level, which makes "
            "it smaller"
        )
    return star.x


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


def _noise_level(y: Array, given: float | None, missing: Array | None = None) -> float:
    """ε, checked or estimated, and at least `LEAST_NOISE`; with it the scale of the image."""
    level = estimate_noise(y[0], channel_axis=0, mask=missing) if given is None else given
    number = isinstance(level, NUMBERS) and level is not True
    if not (number and 0 <= level <= MOST_NOISE):
        origin = f"estimated {level:g}" if given is None else f"given {shown(level)}"
        raise ValueError(
            f"noise_level: {origin}, expected None or 0 to {MOST_NOISE:g}, the standard "
            "deviation where white is 1; divide that of 8-bit pixels (and such an image) by 255"
        )
    largest = float(np.abs(y).max())
    if largest > LARGEST + 10 * level:
        raise ValueError(
            f"image: values are from {y.min():.6g} to {y.max():.6g}, expected about 0 to 1; "
            "divide floats by the value of white, for 8-bit pixels 255"
        )
    if given is None:
        logging.getLogger("refimpl").info(
            "noise_level is estimated as %.4g (%.3g of 255)", level, 255 * level
        )
    return max(float(level), LEAST_NOISE)


def _check_psf(psf: Array, size: tuple[int, int]) -> Array:
    """The psf in float64, if it is a blur that fits the image."""
    kernel = as_finite(as_numbers(psf, "psf").astype(np.float64), "psf")
    if kernel.ndim != 2 or 0 in (kernel.shape[0] % 2, kernel.shape[-1] % 2):
        raise ValueError(
            f"psf: shape is {kernel.shape}, expected (h, w) with odd sides; pad an even side with "
            "a row or column of zeros on the side away from its centre"
        )
    if kernel.shape[0] > size[0] or kernel.shape[1] > size[1]:
        raise ValueError(
            f"psf: shape is {kernel.shape}, the image is {size}, expected a psf no larger than the "
            "image; cut off what is nearly 0"
        )
    if abs(kernel.sum() - 1) > 1e-3:
        remedy = "pass psf / psf.sum()" if kernel.any() else "all its values are 0"
        raise ValueError(f"psf: its sum is {kernel.sum():.6g}, expected 1; {remedy}")
    return kernel
