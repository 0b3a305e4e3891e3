"""The image contract: what an array must be before any formula sees it.

Images are arrays u of shape (N, C, H, W): N images, C channels, H rows, W columns, in
float64 (the reference) or float32. The two are never mixed and never converted in silence; only
the corrections of Newton's and of Krylov methods may be computed in float32 inside a float64 solve
(`refimpl.maps`), whose residuals and results are float64.
Images in a batch are independent, so inner products and norms are taken per image and have
shape (N,).

Not here: reading image files and adding noise (`refimpl.images`).
"""

import numpy as np

Array = np.ndarray
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


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
        If it is not four-dimensional, is empty, has images of another shape, or is not finite.
    """
    u = as_finite(u, name)
    if u.ndim != 4 or u.size == 0:
        raise ValueError(
            f"{name}: shape is {u.shape}, expected (N, C, H, W) with no axis of length 0; "
            "add the missing axes, for example image[None, None]"
        )
    if shape is not None and u.shape[1:] != tuple(shape):
        raise ValueError(f"{name}: images are {u.shape[1:]}, expected {tuple(shape)}")
    return u


def as_finite(x: Array, name: str) -> Array:
    """Return `x` if it is a float32 or float64 array without NaN or infinity."""
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
    number = np.isscalar(value) and not isinstance(value, (str, bytes))
    if not (number and np.isfinite(value) and value > 0):
        raise ValueError(f"{name}: given {value!r}, expected a finite number greater than 0")
    return float(value)


def per_image(values: Array, x: Array) -> Array:
    """Reshape values of shape (N,) to (N, 1, ..., 1) so that they broadcast against `x`."""
    return np.asarray(values).reshape((-1,) + (1,) * (x.ndim - 1))


def dot(x: Array, y: Array) -> Array:
    """Inner product of each image, shape (N,): ⟨x_n, y_n⟩ without conjugation.

    The sum over the last axis of a contiguous array runs within each row, so that the value
    of one image does not depend on the others (that of an einsum over long rows does).
    """
    return (x * y).reshape(x.shape[0], -1).sum(axis=1)


def norm(x: Array) -> Array:
    """Euclidean norm of each image, shape (N,), safe from overflow and underflow.

    √⟨x, x⟩ where that sum is far from where squares overflow or vanish, else, with the largest
    magnitude m of the image, ‖x‖ = m ‖x / m‖.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = dot(x, x)
    limits = np.finfo(squares.dtype)
    # Squares that vanish are below n · tiny together, which must not count beside their sum.
    safe = (squares * limits.eps >= x[0].size * limits.tiny) & (squares <= limits.max)
    if safe.all():
        return np.sqrt(squares)
    return np.where(safe, np.sqrt(squares), _scaled_norm(x))


def _scaled_norm(x: Array) -> Array:
    """m ‖x / m‖ with m the largest magnitude of the image."""
    largest = np.abs(x.reshape(x.shape[0], -1)).max(axis=1)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1).astype(largest.dtype)
    scaled = x / per_image(scale, x)
    return scale * np.sqrt(dot(scaled, scaled))
