"""Denoising, inpainting and deconvolution of one image, by name of what is wrong with it."""

import numpy as np

from refimpl.arrays import Array, as_finite
from refimpl.images.pixels import as_batch_of_images
from refimpl.images.quality import check_missing
from refimpl.restoration.accepted import accepted_noise, accepted_psf
from refimpl.restoration.degraded import Model, blurred, incomplete, noisy


def denoise(
    image: Array,
    noise_level: float | None = None,
    *,
    model: Model = None,
    channel_axis: int | None = None,
) -> Array:
    """Remove Gaussian noise: u* of λ/2 ‖u − y‖² + R(u).

    Parameters
    ----------
    image : array (H, W), or with channels along `channel_axis`
        y, of bool, uint8, uint16 or floats with white at 1, any strides and byte order. Integers
        are divided by the largest value of their type, as `skimage.util.img_as_float` does.
    noise_level : float, optional
        ε, the standard deviation of the noise where white is 1: for 8-bit pixels that of the
        pixels over 255. Left out: estimated by `estimate_noise`, which the logger "refimpl" says.
    model : name, path or TrainedModel, optional
        R: "tv" for total variation, the name of a family or of a model that ships
        (`refimpl models` lists them), the file of a model, or one that was trained. Left out:
        "tied" if there are such models, else "tv". It is scaled to the noise level
        (`TrainedModel.at`). A model of grey images takes a colour image as luminance and two
        differences of channels, each an image of its own.
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
        If u* is not found to the tolerance at which the PSNR of photographs has settled to
        0.01 dB (`refimpl.restoration.priors` says which).

    Notes
    -----
    Large images are solved in tiles that overlap, which changes no pixel by more than 1e-3.
    """
    y, restore = as_batch_of_images(image, channel_axis)
    return restore(noisy(y, accepted_noise(y, noise_level)).restored(model))


def inpaint(
    image: Array,
    mask: Array,
    noise_level: float | None = None,
    *,
    model: Model = None,
    channel_axis: int | None = None,
) -> Array:
    """Fill in missing pixels, and remove noise from the others.

    u* of λ/2 ‖m ⊙ (u − y)‖² + R(u), m = 0 where pixels are missing.

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
    model, channel_axis : optional
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
    noise_level = accepted_noise(y, noise_level, missing)
    return restore(incomplete(y, missing, noise_level).restored(model))


def deconvolve(
    image: Array,
    psf: Array,
    noise_level: float | None = None,
    *,
    model: Model = None,
    channel_axis: int | None = None,
) -> Array:
    """Remove a known blur, and noise: u* of λ/2 ‖k * u − y‖² + R(u).

    Parameters
    ----------
    image : array
        y, as `denoise` takes it.
    psf : array (h, w) with odd sides, no larger than the image
        The point-spread function k, of sum 1, the same for every channel. k * u is a true
        convolution, with the image mirrored at its borders.
    noise_level, model, channel_axis : optional
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
    kernel = accepted_psf(psf, y.shape[2:])
    noise_level = accepted_noise(y, noise_level)
    return restore(blurred(y, kernel, noise_level).restored(model))
