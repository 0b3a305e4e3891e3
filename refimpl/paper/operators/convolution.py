"""Convolution with a point-spread function: blur.

    (K u)[c, i, j] = Σ_{a, b} k[a, b] pad(u)[c, i − a, j − b],  a and b counted from the centre

This is true convolution, the convention of scipy.ndimage.convolve: correlation with the
flipped kernel, the same for every channel. The adjoint is the adjoint of that correlation and
of the padding, and therefore a correlation with k only where the border has no part.
"""

import numpy as np

from refimpl.arrays import Array, as_finite, as_image_shape
from refimpl.paper.operators.banks import FilterBank
from refimpl.paper.operators.base import Operator, check_dtype, check_shape


class Convolution(Operator):
    """K u = k * u for each channel, image size unchanged.

    Parameters
    ----------
    kernel : array (h, w), odd sizes
    image_shape : tuple (C, H, W)
    boundary : str
        One of `refimpl.paper.operators.BOUNDARIES`.

    Raises
    ------
    ValueError
        If the kernel is not two-dimensional, has an even side, or is not finite; or for images
        that are not (C, H, W).
    """

    def __init__(
        self, kernel: Array, image_shape: tuple[int, ...], boundary: str = "symmetric"
    ):
        kernel = as_finite(kernel, "Convolution kernel").copy()
        kernel.flags.writeable = False  # what is made of it would not change with it
        if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
            raise ValueError(
                f"Convolution: kernel is {kernel.shape}, expected two odd sides; "
                "pad it with a row or column of zeros on the side away from its centre"
            )
        C, H, W = as_image_shape(image_shape)
        self.kernel, self.boundary = kernel, boundary
        self.domain_shape = self.range_shape = (C, H, W)
        self._bank = FilterBank((1, H, W), (1, *kernel.shape), boundary)
        self._filters = np.array(kernel[::-1, ::-1], order="C")[None, None]

    def __setstate__(self, state: dict) -> None:
        """Pickles and copies keep the kernel from being changed, too."""
        self.__dict__.update(state)
        self.kernel.flags.writeable = False

    def __repr__(self) -> str:
        h, w = self.kernel.shape
        return f"Convolution({self.domain_shape}, kernel of {h} × {w}, {self.boundary})"

    @property
    def coefficients(self) -> tuple[Array, ...]:
        """The arrays of real numbers that K consists of."""
        return (self.kernel,)

    def astype(self, dtype: np.dtype) -> "Convolution":
        """The same with a kernel of another precision."""
        return Convolution(self.kernel.astype(dtype), self.domain_shape, self.boundary)

    def matvec(self, u: Array) -> Array:
        """k * u."""
        check_shape(self, u, self.domain_shape, "u")
        return self._channelwise(self._bank.apply, u)

    def adjoint(self, z: Array) -> Array:
        """Kᵀ z."""
        check_shape(self, z, self.range_shape, "z")
        return self._channelwise(self._bank.adjoint, z)

    def symbol(self) -> Array:
        """k̂(ω) on the grid of the image: K's eigenvalues under periodic boundary."""
        return np.fft.fft2(wrap(self.kernel, self.domain_shape[1:]))

    def _channelwise(self, function, x: Array) -> Array:
        check_dtype(self, x, self.kernel)
        N, C, H, W = x.shape
        return function(self._filters, x.reshape(N * C, 1, H, W)).reshape(N, C, H, W)


def wrap(kernel: Array, image_size: tuple[int, int]) -> Array:
    """The kernel (..., h, w) on a grid (..., H, W): centre at the origin, the rest wrapped."""
    grid = np.zeros((*kernel.shape[:-2], *image_size), dtype=kernel.dtype)
    h, w = kernel.shape[-2:]
    for a, b in np.ndindex(h, w):
        grid[..., (a - h // 2) % image_size[0], (b - w // 2) % image_size[1]] += kernel[..., a, b]
    return grid


def diagonal_kernel(length: int, dtype: np.dtype = np.float64) -> Array:
    """Motion blur along the main diagonal: `length` (odd) equal weights that add up to 1."""
    if length < 1 or length % 2 == 0:
        raise ValueError(f"diagonal_kernel: length is {length}, expected an odd number of pixels")
    return np.eye(length, dtype=dtype) / length
