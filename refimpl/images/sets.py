"""A set of images with a stated range of values, and the way from pixels to such a set.

Pixels of a file are integers or floats in an order of its own; everything after this module sees
float64 arrays (N, C, H, W). Integers are divided by the largest value of their type, so that
[0, 255] becomes [0, 1]; another range is reached by the affine map

    u ↦ c + (d − c) (u − a) / (b − a),      [a, b] → [c, d].

Not here: where the pixels come from (`shipped`, `folders`).
"""

from dataclasses import dataclass, replace

import numpy as np

from refimpl.arrays import as_finite, as_images, same_dtype, shown
from refimpl.images.pixels import as_unit_floats

UNIT_RANGE = (0.0, 1.0)
PAPER_RANGE = (-1.0, 1.0)

# Rounding of the affine map: one difference, one quotient, one product, one sum.
RANGE_SLACK = 4


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images to train on and images to test on.

    Attributes
    ----------
    train, test : arrays (N, C, H, W)
        Images of one shape and one dtype, with values in `value_range`.
    value_range : tuple (low, high)
        The values of black and white.
    name : str
        What the set is called in tables and error messages.
    """

    train: np.ndarray
    test: np.ndarray
    value_range: tuple[float, float]
    name: str

    def __post_init__(self) -> None:
        as_images(self.train, f"{self.name} (train)")
        as_images(self.test, f"{self.name} (test)", self.train.shape[1:])
        same_dtype(train=self.train, test=self.test)
        low, high = check_range(self.value_range)
        slack = RANGE_SLACK * np.finfo(self.train.dtype).eps * max(abs(low), abs(high))
        for part in (self.train, self.test):
            _check_values(part, (low, high), self.name, slack)

    def rescaled(self, value_range: tuple[float, float]) -> "ImageSet":
        """The same images with values in another range, for example `PAPER_RANGE`."""
        train, test = (rescale(u, self.value_range, value_range) for u in (self.train, self.test))
        return replace(self, train=train, test=test, value_range=check_range(value_range))

    def subset(self, train: int, test: int) -> "ImageSet":
        """The first `train` training images and the first `test` test images.

        Raises
        ------
        ValueError
            If a number is less than 1 or more than there are.
        """
        for part, wanted, images in (("train", train, self.train), ("test", test, self.test)):
            if not 1 <= wanted <= len(images):
                raise ValueError(
                    f"{self.name}: given {part}={wanted}, expected 1 to {len(images)}, "
                    "the number of images there are; ask for fewer, or for smaller crops"
                )
        return replace(self, train=self.train[:train], test=self.test[:test])


def rescale(u: np.ndarray, source: tuple[float, float], target: tuple[float, float]) -> np.ndarray:
    """Map values affinely from one range to another: u ↦ c + (d − c)(u − a)/(b − a).

    Parameters
    ----------
    u : float array of any shape
        Values outside `source`, such as those of noisy images, map to values outside `target`.
    source, target : tuples (a, b) and (c, d)
        Two finite numbers each, the smaller one first.
    """
    u = as_finite(u, "u")
    (a, b), (c, d) = check_range(source), check_range(target)
    return c + (d - c) * ((u - a) / (b - a))


def check_range(value_range: tuple[float, float]) -> tuple[float, float]:
    """Return (low, high) as floats if both are finite and low < high."""
    try:
        values = np.asarray([] if isinstance(value_range, str) else [float(x) for x in value_range])
    except (TypeError, ValueError):  # no two real numbers
        values = np.empty(0)
    if values.shape != (2,) or not np.isfinite(values).all() or values[0] >= values[1]:
        raise ValueError(
            f"value_range: given {shown(value_range)}, expected (low, high) with low < high; "
            f"use {UNIT_RANGE} or {PAPER_RANGE}"
        )
    return float(values[0]), float(values[1])


def unit_image(
    pixels: np.ndarray, name: str, colour: bool, alpha: np.ndarray | None = None
) -> np.ndarray:
    """One image (C, H, W) in [0, 1] from pixels (H, W) or (H, W, 3).

    Parameters
    ----------
    pixels : array
        As `unit_values` takes them.
    name : str
        What the image is called in error messages.
    colour : bool
        True: C = 3, red, green, blue. False: C = 1, the luminance of a colour image.
    alpha : array (H, W), optional
        Opacity; the image is laid on white.
    """
    import skimage.color

    if colour and pixels.ndim == 2:
        raise ValueError(f"{name}: is grey, expected 3 colour channels; pass colour=False")
    image = np.atleast_3d(unit_values(pixels, name))
    if alpha is not None:
        image = 1 - unit_values(alpha, name)[..., None] * (1 - image)
    if pixels.ndim == 3 and not colour:
        image = np.clip(skimage.color.rgb2gray(image), 0, 1)[..., None]
    return np.ascontiguousarray(np.moveaxis(image, 2, 0))


def unit_values(pixels: np.ndarray, name: str) -> np.ndarray:
    """Pixels as float64 in [0, 1], of any type that `as_unit_floats` takes.

    Raises
    ------
    TypeError, ValueError
        As `as_unit_floats`; also for floats that leave [0, 1].
    """
    values = as_unit_floats(pixels, name).astype(np.float64, copy=False)
    _check_values(values, UNIT_RANGE, name)
    return values


def image_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(h, w) from one or two positive integers."""
    pair = np.broadcast_to(np.asarray(size), 2) if np.size(size) in (1, 2) else np.zeros(2, int)
    if not np.issubdtype(pair.dtype, np.integer) or pair.min() < 1:
        raise ValueError(f"size: given {shown(size)}, expected one or two positive integers (h, w)")
    return int(pair[0]), int(pair[1])


def centre(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The central part of an image (C, H, W); of two middles the upper left."""
    top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def _check_values(
    u: np.ndarray, bounds: tuple[float, float], name: str, slack: float = 0.0
) -> None:
    """Raise ValueError if a value leaves the bounds by more than `slack`."""
    if u.min() < bounds[0] - slack or u.max() > bounds[1] + slack:
        raise ValueError(
            f"{name}: values are from {u.min():.6g} to {u.max():.6g}, expected "
            f"[{bounds[0]:.6g}, {bounds[1]:.6g}]; rescale them, for example with images.rescale"
        )
