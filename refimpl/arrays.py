"""The image contract: what an array must be before any formula sees it.

Images are arrays u of shape (N, C, H, W): N images, C channels, H rows, W columns, in
float64 (the reference) or float32. The two are never mixed and never converted in silence; only
the corrections of Newton's and of Krylov methods (`refimpl.engine.single`) may be computed in
float32 inside a float64 solve, whose residuals and results are float64. Images in a batch are
independent.

Whoever has one image as scikit-image takes it, (H, W) or with colour along some axis, of any pixel
type, passes it through `as_batch_of_images`.

Not here: inner products and norms (`refimpl.kernels.vectors`), and reading image files
(`refimpl.images`).
"""

import operator
from collections.abc import Callable

import numpy as np

Array = np.ndarray
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

# More channels than `MANY` beside an axis of at most `FEW` pixels: the axes are in another order.
MANY, FEW = 16, 4


def as_images(u: Array, name: str = "u", shape: tuple[int, ...] | None = None) -> Array:
    """Return `u` if it is a batch of finite real images.

    Parameters
    ----------
    u : array (N, C, H, W), float32 or float64
    name : str
        What the array is called in error messages.
    shape : tuple (C, H, W), optional
        The shape that each image must have.

    Raises
    ------
    TypeError
        If `u` is not a float32 or float64 array.
    ValueError
        If it is not four-dimensional, is empty, has images of another shape, is not finite, or has
        the channels last.
    """
    u = as_finite(u, name)
    if u.ndim != 4 or u.size == 0:
        raise ValueError(
            f"{name}: shape is {u.shape}, expected (N, C, H, W) with no axis of length 0; "
            "add the missing axes, for example image[None, None]"
        )
    if u.shape[1] > MANY and u.shape[3] <= FEW:
        raise ValueError(
            f"{name}: shape is {u.shape}, which as (N, C, H, W) is {u.shape[1]} channels of "
            f"{u.shape[2]} x {u.shape[3]} pixels; put the channels first, for example by "
            "np.moveaxis(u, -1, 1)"
        )
    if shape is not None and u.shape[1:] != tuple(shape):
        raise ValueError(f"{name}: images are {u.shape[1:]}, expected {tuple(shape)}")
    return u


def as_image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) from itself or, for grey images, from (H, W).

    Raises
    ------
    ValueError
        If it is neither, or not of positive integers.
    """
    try:
        sides = tuple(operator.index(n) for n in shape)
    except TypeError:
        sides = ()
    if len(sides) not in (2, 3) or min(sides) < 1:
        raise ValueError(
            f"image_shape: given {shape!r}, expected (H, W) or (C, H, W) of positive integers, "
            "for example image.shape"
        )
    return (1, *sides) if len(sides) == 2 else sides


def as_finite(x: Array, name: str) -> Array:
    """Return `x` if it is a float32 or float64 array without NaN or infinity, and not masked."""
    _refuse_masked(x, name)
    x = np.asarray(x)
    if x.dtype not in FLOATS:
        raise TypeError(
            f"{name}: dtype is {x.dtype}, expected float32 or float64; "
            "convert it, for example with .astype(np.float64) (and divide 8-bit images by 255)"
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"{name}: {np.count_nonzero(~np.isfinite(x))} of {x.size} values are NaN or infinite; "
            "replace them"
            + (" (missing pixels: by any number, with a Mask operator)" if name == "y" else "")
        )
    return x


def _refuse_masked(x: Array, name: str) -> None:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: given a masked array, whose mask would be lost; pass its .data"
            + (" and a Mask operator for what is missing" if name == "y" else "")
        )


def as_numbers(x: Array, name: str) -> Array:
    """Real numbers of any type, bool included, as an array in native byte order.

    Raises
    ------
    TypeError
        For masked arrays, complex numbers, and everything that is no numbers.
    ValueError
        For lists of unequal lengths, or an array without entries.
    """
    _refuse_masked(x, name)
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
        raise TypeError(f"channel_axis: given {axis!r}, expected None or an integer, such as -1")
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


def same_dtype(**arrays: Array | None) -> np.dtype:
    """The one dtype that all arrays share; None entries are passed over.

    Raises
    ------
    TypeError
        If two arrays differ in dtype.
    """
    dtypes = {name: x.dtype for name, x in arrays.items() if x is not None}
    if len(set(dtypes.values())) > 1:
        given = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"mixed precision: {given}; convert all to one dtype with .astype")
    return next(iter(dtypes.values()))


def positive(value: float, name: str) -> float:
    """Return `value` as a float if it is finite and greater than zero."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    number = isinstance(value, (int, float, np.integer, np.floating))
    if not (number and np.isfinite(value) and value > 0):
        raise ValueError(f"{name}: given {value!r}, expected a finite number greater than 0")
    return float(value)


def count(value: int, name: str, *, least: int = 1) -> int:
    """Return `value` if it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: given {value!r}, expected an integer of at least {least}")
    return int(value)


def per_image(values: Array, x: Array) -> Array:
    """Reshape values of shape (N,) to (N, 1, ..., 1) so that they broadcast against `x`."""
    return np.asarray(values).reshape((-1,) + (1,) * (x.ndim - 1))
