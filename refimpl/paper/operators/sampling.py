"""Fewer pixels than there are: every f-th row and column.

    (K u)[c, i, j] = u[c, i₀ + f i, j₀ + f j]
    (Kᵀ z)[c, i₀ + f i, j₀ + f j] = z[c, i, j], and 0 between

A camera with larger pixels takes means of blocks: `Downsample(f, shape, offset) @ Convolution(…)`
with a box of f × f for odd f, or any other blur.
"""

import numpy as np

from refimpl.arrays import Array, as_image_shape, count, shown
from refimpl.paper.operators.base import Operator, check_shape


class Downsample(Operator):
    """K u = u at every f-th row and column.

    Parameters
    ----------
    factor : int or (int, int)
        f, of rows and of columns.
    image_shape : tuple (C, H, W) or (H, W)
        Of the images u, before.
    offset : int or (int, int)
        The first row and the first column that are kept, from 0 to f − 1.

    Raises
    ------
    ValueError
        For a factor that is no positive integer, an offset beyond it, or nothing that is left.
    """

    coefficients = ()

    def __init__(
        self,
        factor: int | tuple[int, int],
        image_shape: tuple[int, ...],
        offset: int | tuple[int, int] = 0,
    ):
        shape = as_image_shape(image_shape)
        self.factor = _pair(factor, "Downsample: factor", least=1)
        self.offset = _pair(offset, "Downsample: offset", least=0)
        limits = [min(f, n) for f, n in zip(self.factor, shape[1:], strict=True)]
        if any(first >= limit for first, limit in zip(self.offset, limits, strict=True)):
            raise ValueError(
                f"Downsample: offset is {self.offset}, expected below the factor {self.factor} and "
                f"inside of images {shape[1:]}"
            )
        steps = zip(shape[1:], self.factor, self.offset, strict=True)
        size = tuple(-(-(length - first) // f) for length, f, first in steps)
        self.domain_shape, self.range_shape = shape, (shape[0], *size)

    def __repr__(self) -> str:
        return f"Downsample({self.factor}, {self.domain_shape}, {self.offset})"

    @property
    def _kept(self) -> tuple:
        (f, g), (i, j) = self.factor, self.offset
        return np.s_[:, :, i::f, j::g]

    def astype(self, dtype: np.dtype) -> "Downsample":
        """This: it has no coefficients."""
        return self

    def matvec(self, u: Array) -> Array:
        """The pixels that are kept."""
        check_shape(self, u, self.domain_shape, "u")
        return np.ascontiguousarray(u[self._kept])

    def adjoint(self, z: Array) -> Array:
        """The same pixels in their places, with zeros between."""
        check_shape(self, z, self.range_shape, "z")
        u = np.zeros((len(z), *self.domain_shape), z.dtype)
        u[self._kept] = z
        return u


def _pair(given: int | tuple[int, int], name: str, least: int) -> tuple[int, int]:
    """Two integers from one or two."""
    pair = given if isinstance(given, (tuple, list)) else (given, given)
    if len(pair) != 2:
        raise ValueError(f"{name}: given {shown(given)}, expected one integer or two")
    return count(pair[0], name, least=least), count(pair[1], name, least=least)
