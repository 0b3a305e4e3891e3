"""Inner products, norms and sums of batches of images, each image a vector of its own.

    dot    ⟨x_n, y_n⟩          norm   ‖x_n‖          plus   y_n + a_n x_n
    unit_and_size              x_n / ‖x_n‖ and ‖x_n‖

Images are independent, so inner products and norms have shape (N,), and what belongs to one image
does not depend on the others, bit for bit. The loops pass once over memory, where NumPy would take
two passes and one more array, and a wait for the interpreter's lock after each. Images are cut into
pieces of one size, so that results do not depend on threads.
"""

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.kernels.jit import over_items, reduction, row_function, share

FLOAT64 = np.finfo(np.float64)
PIECE = 65536


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
    return sums_of_products(x, y).astype(dtype or np.result_type(x, y), copy=False)


def plus(y: Array, a: Array, x: Array) -> Array:
    """y_n + a_n x_n of each image, for real arrays of one dtype and numbers a, shape (N,).

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    check_shapes(x, y)
    y, x = np.ascontiguousarray(y), np.ascontiguousarray(x)
    out, rows = np.empty_like(y), as_rows(x)
    items = len(rows) * pieces_of(rows)
    share(_plus, items, x.size, as_rows(y), a.astype(x.dtype), rows, as_rows(out))
    return out


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
    squares, dtype = sums_of_products(x, x), np.result_type(x, np.float32)
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
    return scale * np.sqrt(sums_of_products(scaled, scaled))


def unit_and_size(r: Array, precision: np.dtype | None) -> tuple[Array, Array]:
    """r / ‖r‖ in this precision, which holds it whatever the size of r, and ‖r‖."""
    size = norm(r)
    return unit(r, size).astype(r.dtype if precision is None else precision, copy=False), size


def unit(r: Array, size: Array) -> Array:
    """r / ‖r‖ with `size` = ‖r‖, and 0 where that is 0."""
    return r / per_image(np.where(size > 0, size, 1).astype(r.dtype), r)


def sums_of_products(x, y):
    """Σ_j x_j y_j of each image of contiguous batches of one dtype, (N,), in float64."""
    x, y = as_rows(x), as_rows(y)
    sums = np.zeros((len(x), pieces_of(x)))
    share(_dot, sums.size, x.size, x, y, sums)
    return sums.sum(axis=1)


@over_items
def _dot(first, last, x, y, sums):
    pieces = sums.shape[1]
    for item in range(first, last):
        n, begin = item // pieces, item % pieces * PIECE
        end = begin + PIECE
        sums[n, item % pieces] = sum_products(x[n, begin:end], y[n, begin:end])


@reduction
def sum_products(x, y):
    """Σ_j x_j y_j, in float64."""
    total = 0.0
    for j in range(x.size):
        total += np.float64(x[j]) * np.float64(y[j])
    return total


@over_items
def _plus(first, last, y, a, x, out):
    pieces = pieces_of(x)
    for item in range(first, last):
        n, begin = item // pieces, item % pieces * PIECE
        end = begin + PIECE
        add_multiple(y[n, begin:end], a[n], x[n, begin:end], out[n, begin:end])


@row_function
def add_multiple(y, a, x, out):
    """out[j] = y[j] + a x[j]."""
    for j in range(x.size):
        out[j] = y[j] + a * x[j]


@row_function
def pieces_of(rows):
    """How many pieces one image is cut into."""
    return -(-rows.shape[1] // PIECE)


def as_rows(x):
    """One row of values for each image."""
    return x.reshape(len(x), -1)
