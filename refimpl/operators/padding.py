"""Padding: the linear operator that extends an image beyond its border.

    (P u)[i, j] = u[r(i), s(j)]        (P u)[i, j] = 0 where r(i) or s(j) says "outside"
    (Pᵀ z)[a, b] = Σ { z[i, j] : r(i) = a, s(j) = b }

r and s are index maps, one for each axis, read off `np.pad`, which defines the five boundaries:

    refimpl    np.pad     scipy.ndimage  torch.nn.functional.pad
    zero       constant   constant       constant
    periodic   wrap       grid-wrap      circular
    symmetric  symmetric  reflect        (none)
    reflect    reflect    mirror         reflect
    replicate  edge       nearest        replicate

Images smaller than the padding are extended again and again, as np.pad does. Real images go through
`refimpl.kernels`, which compute the same.
"""

import numpy as np

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.operators.base import Operator, check_shape

BOUNDARIES = {
    "zero": "constant",
    "periodic": "wrap",
    "symmetric": "symmetric",
    "reflect": "reflect",
    "replicate": "edge",
}


def index_map(length: int, width: int, boundary: str) -> Array:
    """The index map r of one axis: source index of each padded position, −1 outside."""
    options = {"constant_values": -1} if boundary == "zero" else {}
    return np.pad(np.arange(length), width, mode=BOUNDARIES[boundary], **options)


class Padding(Operator):
    """Extend each axis of images (C, H, W) by `widths` = (rows, columns) on both sides.

    Raises
    ------
    ValueError
        If the boundary is unknown.
    """

    def __init__(self, image_shape: tuple[int, int, int], widths: tuple[int, int], boundary: str):
        if boundary not in BOUNDARIES:
            raise ValueError(
                f"boundary {boundary!r} is unknown; choose one of {', '.join(BOUNDARIES)}"
            )
        C, H, W = image_shape
        self.boundary, self.widths = boundary, tuple(widths)
        self.domain_shape = (C, H, W)
        self.range_shape = (C, H + 2 * widths[0], W + 2 * widths[1])
        self.rows = index_map(H, widths[0], boundary)
        self.columns = index_map(W, widths[1], boundary)

    def matvec(self, u: Array) -> Array:
        """P u, shape (N, C, H + 2 rows, W + 2 columns)."""
        check_shape(self, u, self.domain_shape, "u")
        if not np.iscomplexobj(u):
            return kernels.pad(np.ascontiguousarray(u), self.rows, self.columns)
        if self.boundary != "zero":
            return u.take(self.rows, axis=2).take(self.columns, axis=3)
        padded = np.zeros((u.shape[0], *self.range_shape), dtype=u.dtype)
        padded[self._inside] = u
        return padded

    def adjoint(self, z: Array) -> Array:
        """Pᵀ z: crop, then add every border row and column to the row and column it copies."""
        check_shape(self, z, self.range_shape, "z")
        if not np.iscomplexobj(z):
            sides = self.domain_shape[1:]
            return kernels.fold(np.ascontiguousarray(z), self.rows, self.columns, *sides)
        if self.boundary == "zero":
            return z[self._inside].copy()
        return fold(fold(z, self.rows, self.widths[0], 2), self.columns, self.widths[1], 3)

    @property
    def _inside(self) -> tuple[slice, ...]:
        (_, H, W), (p, q) = self.domain_shape, self.widths
        return (slice(None), slice(None), slice(p, p + H), slice(q, q + W))


def fold(z: Array, index: Array, width: int, axis: int) -> Array:
    """Adjoint of extending one axis: crop it, then add each border slice where it came from."""
    z = z.swapaxes(0, axis)
    length = len(index) - 2 * width
    folded = z[width : width + length].copy(order="K")  # the order in memory stays that of images
    for position in [*range(width), *range(width + length, len(index))]:
        folded[index[position]] += z[position]
    return np.ascontiguousarray(folded.swapaxes(0, axis))
