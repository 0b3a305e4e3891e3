"""The linear maps of a small problem as dense matrices.

`dense_matrix` applies any linear callable to unit vectors. The builders below do not call the
operators that they are compared with: they write each entry of

    (A u)[k, i, j] = Σ_{c, d, e} A[k, c, d, e] u[c, i + d − h//2, j + e − w//2]    (bank)
    (K u)[c, i, j] = Σ_{d, e} k[d, e] u[c, i + h//2 − d, j + w//2 − e]             (blur)

where it belongs, and let `np.pad` say which pixel an index outside the image stands for.

Not here: the formulas that use the matrices (`refimpl.verification.checks.oracle`). Matrices are
built for images of at most a few hundred pixels; nothing is sparse.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray

NUMPY_PAD_MODES = {
    "zero": "constant",
    "periodic": "wrap",
    "symmetric": "symmetric",
    "reflect": "reflect",
    "replicate": "edge",
}


def dense_matrix(
    matvec: Callable[[Array], Array], shape: tuple[int, ...], dtype: Any = np.float64
) -> Array:
    """The matrix of a linear map, one column for each unit vector.

    Parameters
    ----------
    matvec : callable
        Linear map of arrays of the given shape.
    shape : tuple
        Shape of the argument, batch axis included, for example (1, C, H, W).
    dtype : dtype
        Precision of the unit vectors.

    Returns
    -------
    array (m, n)
        n = the product of `shape`, m = the size of the result; both in row-major order.
    """
    size = int(np.prod(shape))
    units = np.eye(size, dtype=dtype).reshape(size, *shape)
    return np.stack([np.ravel(matvec(unit)) for unit in units], axis=1)


def singular_values(bank: Any, A: Array) -> Array:
    """All singular values of u ↦ `bank.apply(A, u)` on whole images, the largest first."""
    matrix = dense_matrix(lambda u: bank.apply(A, u), (1, *bank.image_shape))
    return np.linalg.svd(matrix, compute_uv=False)


def singular_gap(bank: Any, A: Array) -> float:
    """1 − s₂/s₁ of the two largest; 1 for a single one, 0 where A vanishes."""
    first, second, *_ = *singular_values(bank, A), 0.0
    return float(1 - second / first) if first > 0 else 0.0


def source_indices(length: int, pad: int, boundary: str) -> Array:
    """Which pixel of a row of `length` each pixel of the padded row copies; −1 stands for zero."""
    if boundary not in NUMPY_PAD_MODES:
        raise ValueError(f"boundary: given {boundary!r}, expected one of {list(NUMPY_PAD_MODES)}")
    options = {"constant_values": -1} if boundary == "zero" else {}
    return np.pad(np.arange(length), pad, mode=NUMPY_PAD_MODES[boundary], **options)


def correlation_matrix(filters: Array, image_shape: tuple[int, int, int], boundary: str) -> Array:
    """Cross-correlation with a bank of filters of odd size, as a matrix.

    Parameters
    ----------
    filters : array (F, C, h, w)
    image_shape : tuple (C, H, W)
    boundary : str
        A key of `NUMPY_PAD_MODES`.

    Returns
    -------
    array (F·H·W, C·H·W)
    """
    _, height, width = image_shape
    count, _, h, w = filters.shape
    matrix = np.zeros((count, height, width, *image_shape), dtype=filters.dtype)
    rows = source_indices(height, h // 2, boundary)
    columns = source_indices(width, w // 2, boundary)
    for k, c, d, e in zip(*np.nonzero(filters)):
        shift = _Shift(rows[d:][:height], columns[e:][:width])
        matrix[k, shift.i, shift.j, c, shift.row, shift.column] += filters[k, c, d, e]
    return matrix.reshape(count * height * width, -1)


def convolution_matrix(kernel: Array, image_shape: tuple[int, int, int], boundary: str) -> Array:
    """True convolution of each channel with a kernel whose centre is at (h//2, w//2).

    Parameters
    ----------
    kernel : array (h, w)
    image_shape : tuple (C, H, W)
    boundary : str
        A key of `NUMPY_PAD_MODES`.

    Returns
    -------
    array (C·H·W, C·H·W)
    """
    channels, height, width = image_shape
    h, w = kernel.shape
    matrix = np.zeros((*image_shape, *image_shape), dtype=kernel.dtype)
    rows, columns = (source_indices(n, s, boundary) for n, s in ((height, h), (width, w)))
    for (d, e), value in np.ndenumerate(kernel):
        # The padded row starts at −h, so pixel i + h//2 − d is found at i + h + h//2 − d.
        shift = _Shift(rows[h + h // 2 - d :][:height], columns[w + w // 2 - e :][:width])
        for c in range(channels):
            matrix[c, shift.i, shift.j, c, shift.row, shift.column] += value
    return matrix.reshape(channels * height * width, -1)


class _Shift:
    """Pairs of a pixel (i, j) and the pixel (row, column) that it reads; zeros left out."""

    def __init__(self, rows: Array, columns: Array) -> None:
        self.i, self.j = np.nonzero((rows[:, None] >= 0) & (columns[None, :] >= 0))
        self.row, self.column = rows[self.i], columns[self.j]


def operator_matrix(
    description: Mapping[str, Any], inputs: Mapping[str, Array], image_shape: tuple[int, int, int]
) -> Array:
    """The forward operator K of a portable case, (M, C·H·W)."""
    kind = description["operator"]
    if kind == "identity":
        return np.eye(int(np.prod(image_shape)))
    if kind == "mask":
        return np.diag(np.broadcast_to(inputs["mask"], image_shape).ravel().astype(float))
    if kind == "convolution":
        return convolution_matrix(inputs["kernel"], image_shape, description["operator_boundary"])
    if kind == "matrix":
        return inputs["matrix"]
    raise ValueError(
        f"operator: given {kind!r}, expected 'identity', 'mask', 'convolution' or 'matrix'"
    )


def analysis_matrix(
    description: Mapping[str, Any], filters: Array, image_shape: tuple[int, int, int]
) -> Array:
    """The analysis operator A or C of a portable case, (F·H·W, C·H·W), or (F, C·H·W) if dense."""
    if description["analysis"] == "dense":
        return filters
    if description["analysis"] == "convolution":
        return correlation_matrix(filters, image_shape, description["boundary"])
    raise ValueError(
        f"analysis: given {description['analysis']!r}, expected 'convolution' or 'dense'"
    )
