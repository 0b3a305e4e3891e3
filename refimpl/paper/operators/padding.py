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

from refimpl.arrays import Array, as_image_shape, shown
from refimpl.paper.operators.base import Operator, check_shape

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

    def __init__(self, image_shape: tuple[int, ...], widths: tuple[int, int], boundary: str):
        if not isinstance(boundary, str) or boundary not in BOUNDARIES:
            raise ValueError(
                f"boundary {shown(boundary)} is unknown; choose one of {', '.join(BOUNDARIES)}"
            )
        C, H, W = as_image_shape(image_shape)
        self.boundary, self.widths = boundary, tuple(widths)
        self.domain_shape = (C, H, W)
        self.range_shape = (C, H + 2 * widths[0], W + 2 * widths[1])
        self.rows = index_map(H, widths[0], boundary)
        self.columns = index_map(W, widths[1], boundary)

    def matvec(self, u: Array) -> Array:
        """P u, shape (N, C, H + 2 rows, W + 2 columns)."""
        check_shape(self, u, self.domain_shape, "u")
        rows, columns = self.widths
        widths = ((0, 0), (0, 0), (rows, rows), (columns, columns))
        return np.pad(u, widths, mode=BOUNDARIES[self.boundary])

    def adjoint(self, z: Array) -> Array:
        """Pᵀ z: every padded row and column is added to the one that it copies."""
        check_shape(self, z, self.range_shape, "z")
        _, H, W = self.domain_shape
        across = fold(z.swapaxes(2, 3), self.columns, W).swapaxes(2, 3)
        return fold(across, self.rows, H)


def fold(z: Array, index: Array, length: int) -> Array:
    """Σ { z[:, :, i] : index[i] = a } for a = 0, …, length − 1."""
    out = np.zeros((*z.shape[:2], length, z.shape[3]), z.dtype)
    inside = index >= 0
    np.add.at(out, (slice(None), slice(None), index[inside]), z[:, :, inside])
    return out
