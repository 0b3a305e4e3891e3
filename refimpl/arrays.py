"""The image contract: what an array must be before any formula sees it.

Images are arrays u of shape (N, C, H, W): N images, C channels, H rows, W columns, in
float64 (the reference) or float32. The two are never mixed and never converted in silence; only
the corrections of Newton's and of Krylov methods (`refimpl.engine.single`) may be computed in
float32 inside a float64 solve, whose residuals and results are float64. Images in a batch are
independent.

Not here: inner products and norms (`refimpl.kernels.vectors`), and single images of any
pixel type (`refimpl.images.pixels`).
"""

import operator

import numpy as np

Array = np.ndarray
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
NUMBERS = (int, float, np.integer, np.floating)

# More channels than `MANY` beside a last axis of at most `FEW`: the axes are in another order.
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
    refuse_channels_last(u.shape[1:], f"{name}: shape is {u.shape}")
    if shape is not None and u.shape[1:] != tuple(shape):
        raise ValueError(f"{name}: images are {u.shape[1:]}, expected {tuple(shape)}")
    return u


def as_image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) from itself or, for grey images, from (H, W).

    Raises
    ------
    ValueError
        If it is neither, not of positive integers, or has the channels last.
    """
    try:
        sides = tuple(operator.index(n) for n in shape)
    except TypeError:
        sides = ()
    if len(sides) not in (2, 3) or min(sides) < 1:
        raise ValueError(
            f"image_shape: given {shown(shape)}, expected (H, W) or (C, H, W) of positive integers"
            ", for example image.shape"
        )
    if len(sides) == 2:
        return (1, *sides)
    refuse_channels_last(sides, f"image_shape: given {shape}")
    return sides


def refuse_channels_last(shape: tuple[int, int, int], given: str) -> None:
    """Raise ValueError for a shape (C, H, W) that looks like (H, W, C).

    Narrow images of many channels can still be had, with rows and columns exchanged.
    """
    C, H, W = shape
    if C > MANY and H > FEW and W <= FEW:
        raise ValueError(
            f"{given}, which as (C, H, W) is {C} channels of {H} x {W} pixels; put the channels "
            "first, an image u by np.moveaxis(u, -1, 0), a batch by np.moveaxis(u, -1, 1) (or "
            f"exchange rows and columns, if there are {C} channels)"
        )


def as_finite(x: Array, name: str) -> Array:
    """Return `x` if it is a float32 or float64 array without NaN or infinity, and not masked."""
    refuse_masked(x, name)
    x = as_array(x, name)
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


def as_array(x: Array, name: str) -> Array:
    """Return `x` as an array; TypeError where its rows have several lengths."""
    try:
        return np.asarray(x)
    except ValueError as error:
        raise TypeError(f"{name}: given {shown(x)}, expected an array of numbers") from error


def refuse_masked(x: Array, name: str) -> None:
    """Raise TypeError for a masked array."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: given a masked array, whose mask would be lost; pass its .data"
            + (" and a Mask operator for what is missing" if name == "y" else "")
        )


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
    try:
        number = float(value) if isinstance(value, NUMBERS) else np.nan
    except OverflowError:  # an integer beyond all floats
        number = np.inf
    if not 0 < number < np.inf:
        raise ValueError(f"{name}: given {shown(value)}, expected a finite number greater than 0")
    return number


def count(value: int, name: str, *, least: int = 1) -> int:
    """Return `value` if it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: given {shown(value)}, expected an integer of at least {least}")
    return int(value)


def shown(value: object) -> str:
    """What was given, for a message: one line, an array by its shape."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of an object of one's own
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:79] + "…"


def per_image(values: Array, x: Array) -> Array:
    """Reshape values of shape (N,) to (N, 1, ..., 1) so that they broadcast against `x`."""
    return np.asarray(values).reshape((-1,) + (1,) * (x.ndim - 1))
