"""Inner products, norms and sums of batches of images, each image a vector of its own.

    dot    ⟨x_n, y_n⟩          norm   ‖x_n‖          plus   y_n + a_n x_n

Images are independent, so inner products and norms have shape (N,), and what belongs to one image
does not depend on the others, bit for bit. The loops are in `refimpl.kernels`.
"""

import numpy as np

from refimpl import kernels
from refimpl.arrays import Array, per_image

EPS, TINY, MAX = (float(getattr(np.finfo(np.float64), name)) for name in ("eps", "tiny", "max"))


def dot(x: Array, y: Array) -> Array:
    """Inner product of each image, shape (N,): ⟨x_n, y_n⟩ without conjugation.

    Real numbers are added in float64, those of one image in an order that no other image changes.
    """
    if np.iscomplexobj(x) or np.iscomplexobj(y):
        return (x * y).reshape(x.shape[0], -1).sum(axis=1)
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    return kernels.dot(x, y).astype(np.result_type(x, y))


def plus(y: Array, a: Array, x: Array) -> Array:
    """y_n + a_n x_n of each image, for real arrays of one dtype and numbers a, shape (N,)."""
    y, x = np.ascontiguousarray(y), np.ascontiguousarray(x)
    return kernels.plus(y, a.astype(x.dtype), x)


def norm(x: Array) -> Array:
    """Euclidean norm of each image, shape (N,), safe from overflow and underflow.

    √⟨x, x⟩ where that sum is far from where squares overflow or vanish, else, with the largest
    magnitude m of the image, ‖x‖ = m ‖x / m‖.
    """
    x = np.ascontiguousarray(x)
    squares = kernels.dot(x, x)
    # Squares that vanish are below n · tiny together, which must not count beside their sum.
    safe = (squares * EPS >= x[0].size * TINY) & (squares <= MAX)
    if safe.all():
        return np.sqrt(squares).astype(x.dtype)
    return np.where(safe, np.sqrt(squares), _scaled_norm(x)).astype(x.dtype)


def _scaled_norm(x: Array) -> Array:
    """m ‖x / m‖ with m the largest magnitude of the image."""
    largest = np.abs(x.reshape(x.shape[0], -1)).max(axis=1)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1).astype(largest.dtype)
    scaled = x / per_image(scale, x)
    return scale * np.sqrt(kernels.dot(scaled, scaled))


def unit_and_size(r: Array, precision: np.dtype | None) -> tuple[Array, Array]:
    """r / ‖r‖ in this precision, which holds it whatever the size of r, and ‖r‖."""
    size = norm(r)
    unit = r / per_image(np.where(size > 0, size, 1).astype(r.dtype), r)
    return unit.astype(r.dtype if precision is None else precision, copy=False), size
