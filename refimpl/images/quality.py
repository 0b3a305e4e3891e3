"""Noise on images, and how far an image is from the truth; everything per image, shape (N,).

    y = K u† + ε n,  n ~ N(0, I)                                        E1
    PSNR = 20 log10( L √(C H W) / ‖u − u†‖ ),  L = high − low
    SSIM = mean over windows of (2μμ' + c₁)(2s + c₂) / ((μ² + μ'² + c₁)(v + v' + c₂))

Both measures need the range of values [low, high], because L and the constants c₁ = (0.01 L)²,
c₂ = (0.03 L)² are made of it; an image in [-1, 1] has L = 2.

References
----------
Z. Wang, A. Bovik, H. Sheikh and E. Simoncelli, "Image quality assessment: from error visibility
to structural similarity", IEEE Transactions on Image Processing 13(4):600-612, 2004.
"""

import numpy as np

from refimpl.arrays import as_finite, as_images, same_dtype
from refimpl.images.sets import check_range


def add_noise(u: np.ndarray, noise_level: float, rng: np.random.Generator) -> np.ndarray:
    """Data with Gaussian noise, y = u + ε n with n ~ N(0, I) (E1).

    Parameters
    ----------
    u : float array (N, ...)
        Noise-free data K u†, one entry of the first axis per image.
    noise_level : float
        ε ≥ 0, the standard deviation, in the unit of `u`; for 0 the result equals `u`.
    rng : np.random.Generator
        Spawns one stream per image and is otherwise left alone: the next call spawns others.

    Returns
    -------
    array (N, ...), dtype of `u`

    Notes
    -----
    Image n of the first call with a fresh generator depends on its seed, on n and on u_n only,
    not on N. float32 data receive the float64 noise rounded.
    """
    u = as_finite(u, "u")
    if u.ndim < 2:
        raise ValueError(f"add_noise: u has shape {u.shape}, expected (N, ...); add the image axis")
    if not (np.isscalar(noise_level) and np.isfinite(noise_level) and noise_level >= 0):
        raise ValueError(f"noise_level: given {noise_level!r}, expected a finite number, 0 or more")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng: given {type(rng).__name__}, expected np.random.Generator; "
            "pass np.random.default_rng(seed)"
        )
    noise = np.stack([stream.standard_normal(u.shape[1:]) for stream in rng.spawn(len(u))])
    return u + (noise_level * noise).astype(u.dtype)


def psnr(u: np.ndarray, reference: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Peak signal-to-noise ratio of each image, 20 log10( L √(C H W) / ‖u − u†‖ ), in decibels.

    Parameters
    ----------
    u, reference : arrays (N, C, H, W) of one dtype
    value_range : tuple (low, high)
        L = high − low, for example 2 for the paper's [-1, 1].

    Returns
    -------
    array (N,), dtype of `u`
        Infinite where the images are equal.
    """
    from refimpl.vectors import norm  # compiled loops, which reading images does without

    span = _check_pair(u, reference, value_range)
    with np.errstate(divide="ignore"):
        ratio = span * np.sqrt(u[0].size) / norm(u - reference)
    return (20 * np.log10(ratio)).astype(u.dtype)


def ssim(
    u: np.ndarray, reference: np.ndarray, value_range: tuple[float, float], *, window: int = 7
) -> np.ndarray:
    """Structural similarity of each image, by `skimage.metrics.structural_similarity`.

    Parameters
    ----------
    u, reference : arrays (N, C, H, W) of one dtype
    value_range : tuple (low, high)
    window : int
        Side of the uniform window, odd, at least 3, at most min(H, W). Windows that cross the
        boundary do not count.

    Returns
    -------
    array (N,), dtype of `u`
        At most 1, reached by equal images; the mean over channels.
    """
    from skimage.metrics import structural_similarity

    span = _check_pair(u, reference, value_range)
    if window % 2 != 1 or not 3 <= window <= min(u.shape[2:]):
        raise ValueError(
            f"ssim: window is {window}, images are {u.shape[2:]}, expected an odd window of at "
            "least 3 that fits into the image; pass window=3 or larger images"
        )
    values = [
        structural_similarity(image, truth, win_size=window, data_range=span, channel_axis=0)
        for image, truth in zip(u, reference, strict=True)
    ]
    return np.array(values, dtype=u.dtype)


def _check_pair(u: np.ndarray, reference: np.ndarray, value_range: tuple[float, float]) -> float:
    """Length of the range, if the two batches can be compared image by image."""
    as_images(u, "u")
    as_images(reference, "reference")
    if u.shape != reference.shape:
        raise ValueError(
            f"u has shape {u.shape}, reference has shape {reference.shape}; "
            "pass two batches of the same images"
        )
    same_dtype(u=u, reference=reference)
    low, high = check_range(value_range)
    return high - low
