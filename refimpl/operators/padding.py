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

Images smaller than the padding are extended again and again, as np.pad does.
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
        if np.iscomplexobj(u):
            return self.matvec(u.real) + 1j * self.matvec(u.imag)
        return kernels.pad(np.ascontiguousarray(u), self.rows, self.columns)

    def adjoint(self, z: Array) -> Array:
        """Pᵀ z: crop, then add every border row and column to the row and column it copies."""
        check_shape(self, z, self.range_shape, "z")
        if np.iscomplexobj(z):
            return self.adjoint(z.real) + 1j * self.adjoint(z.imag)
        sides = self.domain_shape[1:]
        return kernels.fold(np.ascontiguousarray(z), self.rows, self.columns, *sides)
