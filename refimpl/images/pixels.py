"""One image as scikit-image takes it, as a batch of images, and the way back.

    as_numbers          real numbers of any type
    as_pixels           of a type that says what white is: bool, uint8, uint16, floats
    as_unit_floats      as floats, white at 1
    as_batch_of_images  (H, W), or with channels along an axis, as (1, C, H, W)
"""

from collections.abc import Callable

import numpy as np

from refimpl.arrays import FEW, FLOATS, MANY, Array, as_finite, refuse_masked, shown


def as_numbers(x: Array, name: str) -> Array:
    """Real numbers of any type, bool included, as an array in native byte order.

    Raises
    ------
    TypeError
        For masked arrays, complex numbers, and everything that is no numbers.
    ValueError
        For lists of unequal lengths, or an array without entries.
    """
    refuse_masked(x, name)
    try:
        x = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{name}: given lists of unequal lengths, expected one array of numbers"
        ) from error
    if x.dtype.kind not in "biuf":
        given = f"{x.dtype} numbers" if x.dtype.kind == "c" else f"dtype {x.dtype}, no numbers"
        raise TypeError(f"{name}: given {given}, expected an array of real numbers")
    if x.size == 0:
        raise ValueError(f"{name}: shape is {x.shape}, expected no axis of length 0")
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def as_pixels(x: Array, name: str, *, finite: bool = True) -> Array:
    """Numbers of a type that says what white is: bool, uint8, uint16 or floats.

    Parameters
    ----------
    x : array, or nested lists of floats
    name : str
        What the array is called in error messages.
    finite : bool
        Whether NaN and infinity are refused.

    Returns
    -------
    array of bool, uint8, uint16, float32 (from float16 too) or float64, of any shape but empty

    Raises
    ------
    TypeError, ValueError
        As `as_numbers`; also for other integers, NaN and infinity.
    """
    x = as_numbers(x, name)
    if x.dtype in (np.bool_, np.uint8, np.uint16):
        return x
    if x.dtype.kind != "f":
        raise TypeError(
            f"{name}: dtype is {x.dtype}, which does not say what white is, expected bool, uint8, "
            "uint16 or floats; convert it, for example with .astype(np.uint8), or divide by white"
        )
    x = x.astype(np.float32 if x.dtype.itemsize <= 4 else np.float64, copy=False)
    return as_finite(x, name) if finite else x


def as_unit_floats(x: Array, name: str, *, finite: bool = True) -> Array:
    """Pixels as floats: integers over the largest of their type, bool as 0 and 1, floats as given.

    Parameters and errors are those of `as_pixels`. Integers and bool become float64.
    """
    x = as_pixels(x, name, finite=finite)
    if x.dtype in FLOATS:
        return x
    return x / np.float64(1 if x.dtype == np.bool_ else np.iinfo(x.dtype).max)


def as_batch_of_images(
    image: Array, channel_axis: int | None = None, *, name: str = "image", finite: bool = True
) -> tuple[Array, Callable[[Array], Array]]:
    """One image, as `skimage.restoration` takes it, as a batch (1, C, H, W), and the way back.

    Parameters
    ----------
    image : array (H, W), or (H, W) with an axis of channels
        Pixels as `as_unit_floats` takes them: integers become float64 in [0, 1].
    channel_axis : int, optional
        Where the channels are; left out: the image is grey.
    name : str
        What the image is called in error messages.
    finite : bool
        Whether NaN and infinity are refused.

    Returns
    -------
    batch : array (1, C, H, W), float32 or float64
    restore : callable
        From such a batch to an image shaped as the given one, in the precision of `batch`.

    Raises
    ------
    TypeError
        For pixels that `as_pixels` refuses, or a channel axis that is no integer.
    ValueError
        For another number of axes, or where other axes look like the channels.
    """
    pixels = as_unit_floats(image, name, finite=finite)
    axis = _channel_axis(pixels.shape, channel_axis, name)
    batch = (pixels[None] if axis is None else np.moveaxis(pixels, axis, 0))[None]
    batch = np.ascontiguousarray(batch)

    def restore(result: Array) -> Array:
        result = result.astype(pixels.dtype, copy=False)
        return result[0, 0] if axis is None else np.moveaxis(result[0], 0, axis)

    return batch, restore


def _channel_axis(shape: tuple[int, ...], axis: int | None, name: str) -> int | None:
    """The axis of channels, if the shape is that of an image with it, counted from the front."""
    given = f"{name}: shape is {shape}"
    if axis is None:
        if len(shape) != 2:
            colour = len(shape) == 3
            remedy = "for colour say where the channels are, for example channel_axis=-1"
            raise ValueError(
                f"{given}, expected (H, W); {remedy if colour else 'pass one image at a time'}"
            )
        return None
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"channel_axis: given {shown(axis)}, expected None or an integer like -1")
    if len(shape) != 3:
        remedy = "leave channel_axis out" if len(shape) == 2 else "pass one image at a time"
        raise ValueError(f"{given}, expected three axes, one of them channel_axis={axis}; {remedy}")
    if not -3 <= axis < 3:
        raise ValueError(f"channel_axis: given {axis}, expected -3 to 2 for an image {shape}")
    axis = int(axis) % 3
    other = min((n for n in range(3) if n != axis), key=shape.__getitem__)
    if shape[axis] > MANY and shape[other] <= FEW:
        raise ValueError(
            f"{given}, of which channel_axis={axis} makes {shape[axis]} channels; the channels "
            f"seem to be axis {other}: pass channel_axis={other}"
        )
    return axis
