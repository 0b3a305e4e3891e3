"""Denoising, inpainting and deconvolution of one image."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.ndimage

from refimpl.arrays import Array, as_finite
from refimpl.engine import Step
from refimpl.equilibrium import reconstruct
from refimpl.images.pixels import as_batch_of_images
from refimpl.images.quality import check_missing
from refimpl.images.sets import UNIT_RANGE, rescale
from refimpl.paper.operators import Convolution, Identity, LinearOperator, Mask
from refimpl.restoration.accepted import accepted_noise, accepted_psf
from refimpl.restoration.mosaic import by_tiles
from refimpl.restoration.priors import Prior, find_prior, smooth_total_variation, trained
from refimpl.restoration.weights import RULES, roughness
from refimpl.results import NotConvergedError, SolverResult
from refimpl.training import TrainedModel

# Sides of a psf that tiles overlap by besides.
BLURS = 3
# Of Newton's method: photographs take 5 to 20, white noise with a fifth missing up to 114.
ITERATIONS = 500

Model = str | Path | TrainedModel | None
Place = tuple[slice, slice]


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
        (`TrainedModel.at`). A model of grey images takes a colour image
        as luminance and two differences of channels, each an image of its own.
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
    noise_level = accepted_noise(y, noise_level)
    prior = _prior("denoise", model, y, noise_level)
    return restore(restored("denoise", prior, y, lambda shape, place: Identity(shape)))


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
    prior = _prior("inpaint", model, y, noise_level, missing)
    # A tile reaches beyond the largest gap.
    gap = int(np.ceil(scipy.ndimage.distance_transform_edt(missing).max()))

    def mask(shape: tuple[int, int, int], place: Place) -> Mask:
        return Mask(~missing[place], shape)

    def start(part: Array, place: Place) -> Array:
        """Each missing pixel is first the nearest that is there."""
        edt = scipy.ndimage.distance_transform_edt
        _, nearest = edt(missing[place], return_indices=True)
        return part[:, :, *nearest]

    return restore(restored("inpaint", prior, y, mask, start, reach=gap))


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
    prior = _prior("deconvolve", model, y, noise_level, blur=float(np.sum(kernel**2)))

    def blur(shape: tuple[int, int, int], place: Place) -> Convolution:
        return Convolution(kernel, shape)

    return restore(restored("deconvolve", prior, y, blur, reach=BLURS * max(kernel.shape)))


def _prior(
    task: str,
    model: Model,
    y: Array,
    noise_level: float,
    missing: Array | None = None,
    blur: float = 1.0,
) -> Prior:
    """R for the image, as `model` says."""
    found = find_prior(model, y.shape[1], noise_level)
    if found is not None:
        logging.getLogger("refimpl").info("%s with %r", task, found)
        return trained(found, task, noise_level)
    rule = RULES[task]
    return smooth_total_variation(
        rule, rule.lam(noise_level, roughness(y, noise_level, missing), blur)
    )


def restored(
    task: str,
    prior: Prior,
    y: Array,
    operator: Callable[[tuple[int, int, int], Place], LinearOperator],
    start: Callable[[Array, Place], Array] | None = None,
    reach: int = 0,
) -> Array:
    """u*, computed in float64, tile by tile where the image is large.

    `operator` makes K for images of a shape at a place, `start` the start from the data there.
    """
    low, high = prior.value_range

    def found(step: Step, first: Array) -> SolverResult:
        return reconstruct(
            step, first, residual_tol=prior.residual_tol(step), max_iterations=ITERATIONS
        )

    def solve(place: Place) -> Array:
        part = y[:, :, *place].astype(np.float64)
        if prior.apart:
            part = scipy.fft.dct(part, axis=1, norm="ortho").swapaxes(0, 1)
        K = operator(part.shape[1:], place)
        first = rescale(part if start is None else start(part, place), UNIT_RANGE, (low, high))
        offset = low * K.matvec(np.ones_like(part[:1]))
        data = offset + (high - low) * part
        if prior.near is not None:
            first = found(prior.near(K, data), first).x
        star = found(prior.step(K, data), first)
        if not star.all_converged:
            raise NotConvergedError(
                f"{task}: {star.message}; pass a larger noise_level, which makes the problem easier"
            )
        u = rescale(star.x, (low, high), UNIT_RANGE)
        return scipy.fft.idct(u.swapaxes(0, 1), axis=1, norm="ortho") if prior.apart else u

    return by_tiles(solve, y, prior.side, prior.overlap + reach)
