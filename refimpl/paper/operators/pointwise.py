"""Forward operators without spatial coupling of their own: identity, masks, dense matrices.

    identity  K u = u
    mask      K u = m ⊙ u      self-adjoint; m is 0 (missing) or 1 (observed)
    matrix    K u = M vec(u)   vec flattens (C, H, W) in row-major order

Builders of masks return arrays (H, W), which `Mask` takes.
"""

import numpy as np

from refimpl.arrays import Array, as_array, as_finite, as_image_shape
from refimpl.paper.operators.base import Operator, check_dtype, check_shape


class Identity(Operator):
    """K u = u on images of shape (C, H, W): denoising."""

    coefficients = ()

    def __init__(self, image_shape: tuple[int, ...]):
        self.domain_shape = self.range_shape = as_image_shape(image_shape)

    def __repr__(self) -> str:
        return f"Identity({self.domain_shape})"

    def astype(self, dtype: np.dtype) -> "Identity":
        """This: it has no coefficients."""
        return self

    def matvec(self, u: Array) -> Array:
        """K u = u, the same array."""
        check_shape(self, u, self.domain_shape, "u")
        return u

    def adjoint(self, z: Array) -> Array:
        """Kᵀ z = z, the same array."""
        check_shape(self, z, self.range_shape, "z")
        return z


class Mask(Operator):
    """K u = m ⊙ u: inpainting, with zeros where pixels are missing.

    Parameters
    ----------
    mask : array (H, W) or (C, H, W), bool or zeros and ones
        1 where a pixel is observed.
    image_shape : tuple (C, H, W), optional
        Left out: that of the mask.

    Raises
    ------
    ValueError
        If the mask has another shape, values other than 0 and 1, or observes nothing.
    """

    coefficients = ()

    def __init__(self, mask: Array, image_shape: tuple[int, ...] | None = None):
        mask = as_array(mask, "Mask: mask")
        image_shape = as_image_shape(mask.shape if image_shape is None else image_shape)
        if mask.shape not in (image_shape, image_shape[1:]):
            raise ValueError(
                f"Mask: image is {image_shape}, mask is {mask.shape}; "
                f"pass a mask of shape {image_shape[1:]} or {image_shape}"
            )
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(
                "Mask: values other than 0 and 1; pass a boolean array, True = observed"
            )
        if not mask.any():
            raise ValueError("Mask: no pixel is observed; at least one value must be 1")
        self.mask = mask.astype(bool)
        self.domain_shape = self.range_shape = image_shape

    def __repr__(self) -> str:
        return f"Mask({self.domain_shape}, {1 - self.mask.mean():.1%} missing)"

    def astype(self, dtype: np.dtype) -> "Mask":
        """This: it has no coefficients."""
        return self

    def matvec(self, u: Array) -> Array:
        """m ⊙ u."""
        check_shape(self, u, self.domain_shape, "u")
        return u * self.mask

    def adjoint(self, z: Array) -> Array:
        """m ⊙ z."""
        check_shape(self, z, self.range_shape, "z")
        return z * self.mask


class Matrix(Operator):
    """K u = M vec(u), with M of shape (M, C·H·W).

    Raises
    ------
    ValueError
        If the columns of M do not count the pixels of an image.

    Notes
    -----
    Products are those of BLAS: their last digits may depend on its threads and on the batch.
    """

    def __init__(self, matrix: Array, image_shape: tuple[int, ...]):
        matrix, image_shape = as_finite(matrix, "Matrix"), as_image_shape(image_shape)
        if matrix.ndim != 2 or matrix.shape[1] != np.prod(image_shape):
            raise ValueError(
                f"Matrix: given shape {matrix.shape}, images {image_shape} "
                f"need (M, {int(np.prod(image_shape))})"
            )
        self.matrix = matrix
        self.domain_shape, self.range_shape = image_shape, (matrix.shape[0],)

    def __repr__(self) -> str:
        return f"Matrix({self.matrix.shape}, images {self.domain_shape})"

    @property
    def coefficients(self) -> tuple[Array, ...]:
        """The arrays of real numbers that K consists of."""
        return (self.matrix,)

    def astype(self, dtype: np.dtype) -> "Matrix":
        """The same with coefficients of another precision."""
        return Matrix(self.matrix.astype(dtype), self.domain_shape)

    def matvec(self, u: Array) -> Array:
        """M vec(u), shape (N, M)."""
        check_shape(self, u, self.domain_shape, "u")
        check_dtype(self, u, self.matrix)
        return u.reshape(u.shape[0], -1) @ self.matrix.T

    def adjoint(self, z: Array) -> Array:
        """Mᵀ z, shape (N, C, H, W)."""
        check_shape(self, z, self.range_shape, "z")
        check_dtype(self, z, self.matrix)
        return (z @ self.matrix).reshape(z.shape[0], *self.domain_shape)


def row_mask(image_size: tuple[int, int], fraction: float = 1 / 3) -> Array:
    """Mask (H, W) whose first round(fraction · H) rows are missing."""
    mask = np.ones(image_size, dtype=bool)
    mask[: round(_fraction(fraction) * image_size[0])] = False
    return mask


def block_mask(image_size: tuple[int, int], fraction: float = 1 / 3) -> Array:
    """Mask (H, W) whose central block, `fraction` of each side, is missing."""
    H, W = image_size
    h, w = round(_fraction(fraction) * H), round(fraction * W)
    mask = np.ones(image_size, dtype=bool)
    mask[(H - h) // 2 : (H - h) // 2 + h, (W - w) // 2 : (W - w) // 2 + w] = False
    return mask


def random_mask(image_size: tuple[int, int], fraction: float, rng: np.random.Generator) -> Array:
    """Mask (H, W) that misses exactly round(fraction · H · W) pixels, drawn without replacement."""
    mask = np.ones(image_size, dtype=bool)
    missing = rng.choice(mask.size, size=round(_fraction(fraction) * mask.size), replace=False)
    mask.flat[missing] = False
    return mask


def _fraction(fraction: float) -> float:
    if not 0 <= fraction < 1:
        raise ValueError(f"mask: the missing fraction is {fraction!r}, expected 0 <= fraction < 1")
    return fraction
