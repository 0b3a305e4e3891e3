"""Inner products, norms and sums of batches of images, each image a vector of its own.

    dot    ⟨x_n, y_n⟩          norm   ‖x_n‖          plus   y_n + a_n x_n
    unit_and_size              x_n / ‖x_n‖ and ‖x_n‖

Images are independent, so inner products and norms have shape (N,), and what belongs to one image
does not depend on the others, bit for bit. The loops are in `refimpl.kernels`.
"""

import numpy as np

from refimpl import kernels
from refimpl.arrays import Array, per_image

FLOAT64 = np.finfo(np.float64)


def dot(x: Array, y: Array, *, dtype: np.dtype | None = None) -> Array:
    """Inner product of each image, shape (N,): ⟨x_n, y_n⟩ without conjugation.

    Real numbers are added in float64, those of one image in an order that no other image changes;
    the sums are returned in `dtype`, by default that of the images.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    check_shapes(x, y)
    if np.iscomplexobj(x) or np.iscomplexobj(y):
        return (x * y).reshape(x.shape[0], -1).sum(axis=1)
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    return kernels.dot(x, y).astype(dtype or np.result_type(x, y), copy=False)


def plus(y: Array, a: Array, x: Array) -> Array:
    """y_n + a_n x_n of each image, for real arrays of one dtype and numbers a, shape (N,).

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    check_shapes(x, y)
    y, x = np.ascontiguousarray(y), np.ascontiguousarray(x)
    return kernels.plus(y, a.astype(x.dtype), x)


def check_shapes(x: Array, y: Array) -> None:
    """Raise unless both are batches of the same shape: loops over them check nothing."""
    if x.shape != y.shape:
        raise ValueError(f"vectors: shapes are {x.shape} and {y.shape}, expected the same twice")


def norm(x: Array) -> Array:
    """Euclidean norm of each image, shape (N,), safe from overflow and underflow.

    √⟨x, x⟩ where that sum is far from where squares overflow or vanish, else, with the largest
    magnitude m of the image, ‖x‖ = m ‖x / m‖.
    """
    x = np.ascontiguousarray(x)
    squares, dtype = kernels.dot(x, x), np.result_type(x, np.float32)
    # Squares that vanish are below n · tiny together, which must not count beside their sum.
    safe = (squares * FLOAT64.eps >= x[0].size * FLOAT64.tiny) & (squares <= FLOAT64.max)
    if safe.all():
        return np.sqrt(squares).astype(dtype)
    return np.where(safe, np.sqrt(squares), _scaled_norm(x)).astype(dtype)


def _scaled_norm(x: Array) -> Array:
    """m ‖x / m‖ with m the largest magnitude of the image."""
    largest = np.abs(x.reshape(x.shape[0], -1)).max(axis=1)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1).astype(largest.dtype)
    scaled = x / per_image(scale, x)
    return scale * np.sqrt(kernels.dot(scaled, scaled))


def unit_and_size(r: Array, precision: np.dtype | None) -> tuple[Array, Array]:
    """r / ‖r‖ in this precision, which holds it whatever the size of r, and ‖r‖."""
    size = norm(r)
    return unit(r, size).astype(r.dtype if precision is None else precision, copy=False), size


def unit(r: Array, size: Array) -> Array:
    """r / ‖r‖ with `size` = ‖r‖, and 0 where that is 0."""
    return r / per_image(np.where(size > 0, size, 1).astype(r.dtype), r)
