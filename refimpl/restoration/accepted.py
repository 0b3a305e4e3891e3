"""What the functions on pictures accept beside an image: a noise level, and a psf."""

import logging

import numpy as np

from refimpl.arrays import NUMBERS, Array, as_finite, shown
from refimpl.images.pixels import as_numbers
from refimpl.images.quality import estimate_noise

# Noise below this is taken as this, so that λ stays bounded: half a step of 8-bit pixels.
LEAST_NOISE = 2e-3
MOST_NOISE = 1.0

# Values beyond this, noise apart, are those of another scale than [0, 1].
LARGEST = 10.0


def accepted_noise(y: Array, given: float | None, missing: Array | None = None) -> float:
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


def accepted_psf(psf: Array, size: tuple[int, int]) -> Array:
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
