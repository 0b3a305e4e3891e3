"""Noise on images, how much there is, and how far an image is from the truth.

    y = K u† + ε n,  n ~ N(0, I)                                        E1
    ε ≈ median |d| / 0.6745,  d the finest diagonal wavelet coefficients of y
    PSNR = 20 log10( L √(C H W) / ‖u − u†‖ ),  L = high − low
    SSIM = mean over windows of (2μμ' + c₁)(2s + c₂) / ((μ² + μ'² + c₁)(v + v' + c₂))

Both measures need the length L of the range of values, of which also the constants c₁ = (0.01 L)²,
c₂ = (0.03 L)² are made; an image in [-1, 1] has L = 2. An image (H, W), with colour (H, W, C) or
(C, H, W), gives one number; a batch (N, C, H, W) one for each of its images.

References
----------
D. Donoho and I. Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika
81(3):425-455, 1994.
Z. Wang, A. Bovik, H. Sheikh and E. Simoncelli, "Image quality assessment: from error visibility
to structural similarity", IEEE Transactions on Image Processing 13(4):600-612, 2004.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from refimpl.arrays import FLOATS, NUMBERS, Array, as_images, same_dtype, shown
from refimpl.images.pixels import as_batch_of_images, as_numbers, as_pixels, as_unit_floats
from refimpl.images.sets import UNIT_RANGE, check_range

# Median of |n| for n ~ N(0, 1).
NORMAL_MEDIAN = 0.6744897501960817

# High-pass filters of norm 1: Daubechies' of two vanishing moments, and Haar's.
DAUBECHIES = np.array([1 - 3**0.5, 3**0.5 - 3, 3 + 3**0.5, -1 - 3**0.5]) / (4 * 2**0.5)
HAAR = np.array([1, -1]) / 2**0.5

# Noise levels and ranges beyond this are mistakes, and their squares overflow.
LARGEST = 1e100

# Windows without a missing pixel that an estimate needs, and that make the better filter worth it.
LEAST_WINDOWS, GOOD_WINDOWS = 16, 1000


def add_noise(
    image: Array, noise_level: float, rng: np.random.Generator | int | None = None
) -> Array:
    """Data with Gaussian noise, y = u + ε n with n ~ N(0, I) (E1).

    Parameters
    ----------
    image : array (H, W), (H, W, C), (C, H, W), or a batch (N, ...) of four axes or more
        Noise-free data K u†. Integers become floats in [0, 1] first.
    noise_level : float
        ε ≥ 0, the standard deviation, in the unit of floats; for 0 the result equals `image`.
    rng : np.random.Generator, seed or None
        A generator spawns one stream per image and is otherwise left alone: the next call spawns
        others. None: fresh noise on every call.

    Returns
    -------
    array of the shape of `image`
        float32 or float64 as given, float64 for integers; not clipped.

    Notes
    -----
    Image n of the first call with a fresh generator depends on its seed, on n and on u_n only,
    not on N. float32 data receive the float64 noise rounded.
    """
    u = as_unit_floats(image, "image")
    if u.ndim < 2:
        raise ValueError(
            f"image: shape is {u.shape}, expected (H, W), with channels or a batch (N, ...); "
            "add the missing axes, for example image[None]"
        )
    if not (isinstance(noise_level, NUMBERS) and 0 <= noise_level <= LARGEST):
        given = shown(noise_level)
        raise ValueError(f"noise_level: given {given}, expected a finite number, 0 or more")
    if noise_level > 1 and np.asarray(image).dtype.kind in "iu":
        raise ValueError(
            f"noise_level: given {noise_level!r} for integers, which become floats with white at "
            "1; divide that of 8-bit pixels by 255"
        )
    batch = u if u.ndim > 3 else u[None]
    streams = _generator(rng).spawn(len(batch))
    noise = np.stack([stream.standard_normal(batch.shape[1:]) for stream in streams])
    return u + (noise_level * noise).astype(u.dtype).reshape(u.shape)


def _generator(rng: np.random.Generator | int | None) -> np.random.Generator:
    """The generator itself, or one of that seed."""
    if isinstance(rng, bool) or not isinstance(
        rng, (np.random.Generator, int, np.integer, type(None))
    ):
        raise TypeError(
            f"rng: given {type(rng).__name__}, expected None, a seed or np.random.Generator; "
            "pass np.random.default_rng(seed)"
        )
    if isinstance(rng, (int, np.integer)) and rng < 0:
        raise ValueError(f"rng: given {rng}, expected a seed of 0 or more")
    return np.random.default_rng(rng)


def estimate_noise(
    image: Array, *, channel_axis: int | None = None, mask: Array | None = None
) -> float:
    """The standard deviation ε of white Gaussian noise in an image: median |d| / 0.6745.

    Parameters
    ----------
    image : array (H, W), or with channels along `channel_axis`
        Integers become floats in [0, 1] first.
    channel_axis : int, optional
        Where the channels are, whose estimates are averaged; left out: the image is grey.
    mask : array (H, W), bool or zeros and ones, optional
        True or 1 where pixels are missing; windows with such pixels do not count.

    Returns
    -------
    float
        ε, where white is 1. Of images without noise it is what their texture looks like: 0.01 on
        average over photographs.

    Raises
    ------
    ValueError
        For images, or gaps between missing pixels, too small for 16 windows of 2 × 2.

    Notes
    -----
    d are the coefficients of the finest diagonal details under Daubechies' wavelet of four taps, at
    every shift, or where pixels are missing and leave fewer than 1000, Haar's of two taps. d = 0
    does not count, as in `skimage.restoration.estimate_sigma` (which needs PyWavelets, and agrees
    to 1 % on noise of 5 to 75 of 255).
    """
    batch, _ = as_batch_of_images(image, channel_axis, finite=mask is None)
    missing = None if mask is None else check_missing(mask, batch.shape[2:])
    for taps, enough in ((DAUBECHIES, GOOD_WINDOWS), (HAAR, LEAST_WINDOWS)):
        whole = _whole_windows(batch.shape[2:], missing, len(taps))
        if np.count_nonzero(whole) >= (enough if missing is not None else LEAST_WINDOWS):
            return float(np.mean([_noise(channel, taps, whole) for channel in batch[0]]))
    raise ValueError(
        f"noise_level: cannot be estimated from {np.count_nonzero(whole)} windows of 2 x 2 pixels, "
        f"expected at least {LEAST_WINDOWS}; pass noise_level"
    )


def check_missing(mask: Array, size: tuple[int, int]) -> Array:
    """The mask (H, W) as bool, if it has that size, is of zeros and ones, and misses not all."""
    missing = as_numbers(mask, "mask")
    if missing.shape != tuple(size):
        raise ValueError(
            f"mask: shape is {missing.shape}, the image is {tuple(size)}; pass a mask of that "
            "shape, one for all channels"
        )
    if not np.isin(missing, (0, 1)).all():
        raise ValueError(
            f"mask: values are from {missing.min():.6g} to {missing.max():.6g}, expected bool or "
            "zeros and ones, True where pixels are missing; pass for example mask > 0"
        )
    if missing.all():
        raise ValueError("mask: every pixel is missing; leave at least one False or 0")
    return missing.astype(bool)


def _whole_windows(size: tuple[int, int], missing: Array | None, side: int) -> Array:
    """Which windows of side × side pixels miss none, one entry for each place of a window."""
    if min(size) < side:
        return np.zeros((0, 0), bool)
    if missing is None:
        return np.ones((size[0] - side + 1, size[1] - side + 1), bool)
    return ~sliding_window_view(missing, (side, side)).any(axis=(2, 3))


def _noise(channel: Array, taps: Array, whole: Array) -> float:
    """median |d| / 0.6745 of one channel, over whole windows with d ≠ 0; 0 where there are none."""
    d = channel.astype(np.float64)
    for axis in (0, 1):
        d = sliding_window_view(d, len(taps), axis=axis) @ taps
    sizes = np.abs(d[whole & (d != 0)])
    return float(np.median(sizes)) / NORMAL_MEDIAN if sizes.size else 0.0


def psnr(
    image: Array, reference: Array, data_range: float | tuple[float, float] | None = None
) -> float | Array:
    """Peak signal-to-noise ratio 20 log10( L √(C H W) / ‖u − u†‖ ), in decibels.

    Parameters
    ----------
    image, reference : arrays of one shape
        u and u†: images (H, W), with channels anywhere, or batches (N, C, H, W) of one dtype.
    data_range : float or tuple (low, high), optional
        L = high − low in the unit of the arrays, for example 255, or (-1, 1). Left out: 1, after
        integers were divided by the largest value of their type.

    Returns
    -------
    float, or for batches an array (N,) of their dtype
        Infinite where the images are equal.
    """
    from refimpl.kernels.vectors import norm  # compiled loops, which reading images does without

    u, truth, span = _check_pair(image, reference, data_range)
    batches = (u, truth) if u.ndim == 4 else (u[None], truth[None])
    with np.errstate(divide="ignore"):
        ratio = np.sqrt(batches[0][0].size) / norm(batches[0] - batches[1])
        values = (20 * (np.log10(span) + np.log10(ratio))).astype(u.dtype)
    return values if u.ndim == 4 else float(values[0])


def ssim(
    image: Array,
    reference: Array,
    data_range: float | tuple[float, float] | None = None,
    *,
    channel_axis: int | None = None,
    window: int = 7,
) -> float | Array:
    """Structural similarity, by `skimage.metrics.structural_similarity`.

    Parameters
    ----------
    image, reference, data_range
        As for `psnr`.
    channel_axis : int, optional
        Where the channels of images (not of batches) are; left out: the images are grey.
    window : int
        Side of the uniform window, odd, at least 3, at most min(H, W). Windows that cross the
        boundary do not count.

    Returns
    -------
    float, or for batches an array (N,) of their dtype
        At most 1, reached by equal images; the mean over channels.
    """
    from skimage.metrics import structural_similarity

    u, truth, span = _check_pair(image, reference, data_range)
    single = u.ndim != 4
    if single:
        (u, _), (truth, _) = (as_batch_of_images(x, channel_axis) for x in (u, truth))
    elif channel_axis is not None:
        raise ValueError(
            f"channel_axis: given {channel_axis} with a batch {u.shape}, whose channels are axis "
            "1; leave channel_axis out"
        )
    odd = isinstance(window, (int, np.integer)) and window % 2 == 1
    if not odd or not 3 <= window <= min(u.shape[2:]):
        raise ValueError(
            f"ssim: window is {shown(window)}, images are {u.shape[2:]}, expected an odd window of "
            "at least 3 that fits into the image; pass window=3 or larger images"
        )
    values = [
        structural_similarity(one, other, win_size=window, data_range=span, channel_axis=0)
        for one, other in zip(u, truth, strict=True)
    ]
    return float(values[0]) if single else np.array(values, dtype=u.dtype)


def _check_pair(
    image: Array, reference: Array, data_range: float | tuple[float, float] | None
) -> tuple[Array, Array, float]:
    """Both as floats of one dtype, if they can be compared, and the length L of their range."""
    u, truth = as_pixels(image, "image"), as_pixels(reference, "reference")
    if u.shape != truth.shape:
        raise ValueError(
            f"image has shape {u.shape}, reference has shape {truth.shape}; "
            "pass two of the same images"
        )
    if u.ndim not in (2, 3, 4):
        raise ValueError(
            f"image: shape is {u.shape}, expected (H, W), with channels, or a batch (N, C, H, W)"
        )
    if data_range is None:
        u, truth = as_unit_floats(u, "image"), as_unit_floats(truth, "reference")
        low, high = float(truth.min()), float(truth.max())
        if low < UNIT_RANGE[0] or high > UNIT_RANGE[1]:
            raise ValueError(
                f"data_range: not given, and reference has values from {low:.6g} to {high:.6g}, "
                "expected [0, 1]; pass data_range, the value of white less that of black"
            )
    if u.ndim == 4 or data_range is not None:
        same_dtype(image=u, reference=truth)
    dtype = np.result_type(u, truth)
    dtype = dtype if dtype in FLOATS else np.float64
    u, truth = u.astype(dtype, copy=False), truth.astype(dtype, copy=False)
    if u.ndim == 4:
        as_images(u, "image")
    return u, truth, _span(data_range)


def _span(data_range: float | tuple[float, float] | None) -> float:
    """L of a number, of (low, high), or 1."""
    if data_range is None:
        return 1.0
    if isinstance(data_range, (tuple, list, np.ndarray)):
        low, high = check_range(data_range)
        return high - low
    real = isinstance(data_range, NUMBERS)
    if not real or isinstance(data_range, bool) or not 0 < data_range <= LARGEST:
        raise ValueError(
            f"data_range: given {shown(data_range)}, expected a finite number greater than 0, or "
            "(low, high); pass 255 for 8-bit pixels, 1 for floats in [0, 1]"
        )
    return float(data_range)
