"""Banks: the bilinear map B(A, u) = A u and its two adjoints.

    apply            A u          ⟨A u, z⟩ = ⟨u, Aᵀ z⟩ = ⟨A, B*(u, z)⟩
    adjoint          Aᵀ z
    adjoint_filters  B*(u, z)     linear in u and in z; summed over the images of the batch

One three-way dot test certifies all three. Two banks:

    FilterBank  A (F, C, h, w), odd sizes; (A u)[k] = Σ_c A[k, c] ⋆ pad(u)[c], the valid
                cross-correlation after padding; responses (N, F, H, W)
    DenseBank   A (F, C·H·W); A u = A vec(u); responses (N, F)

Everything is plain NumPy and accepts complex arrays; `refimpl.engine` has filter banks of real
arrays as compiled loops.
"""

import numpy as np

from refimpl.arrays import Array, as_image_shape, count, same_dtype, shown
from refimpl.paper.operators.base import Operator, check_shape, refuse_other_than_arrays
from refimpl.paper.operators.padding import Padding


def correlate(up: Array, A: Array) -> Array:
    """z[n, k, i, j] = Σ_{c, a, b} A[k, c, a, b] up[n, c, i + a, j + b]."""
    return sum(
        np.einsum("kc,ncij->nkij", A[:, :, a, b], up[window]) for (a, b), window in taps(up, A)
    )


def correlate_adjoint(z: Array, A: Array, padded_shape: tuple[int, ...]) -> Array:
    """The adjoint of `correlate` in `up`: every tap adds its share where it read."""
    up = np.zeros(padded_shape, dtype=np.result_type(z, A))
    for (a, b), window in taps(up, A):
        up[window] += np.einsum("kc,nkij->ncij", A[:, :, a, b], z)
    return up


def correlate_adjoint_filters(up: Array, z: Array, A: Array) -> Array:
    """B*: the adjoint of `correlate` in A; of A only the shape is used."""
    gradient = np.empty(A.shape, dtype=np.result_type(up, z))
    for (a, b), window in taps(up, A):
        gradient[:, :, a, b] = np.einsum("nkij,ncij->kc", z, up[window])
    return gradient


def taps(up: Array, A: Array):
    """Each tap (a, b) of the filters with the window of the padded image that it reads."""
    h, w = A.shape[2:]
    H, W = up.shape[2] - h + 1, up.shape[3] - w + 1
    for a, b in np.ndindex(h, w):
        yield (a, b), (slice(None), slice(None), slice(a, a + H), slice(b, b + W))


def is_complex(*arrays: Array) -> bool:
    """Whether any array is complex, so that only the NumPy definition applies."""
    return any(np.iscomplexobj(array) for array in arrays)


def check_coefficients(bank: "FilterBank | DenseBank", A: Array, **array: Array) -> None:
    """Raise unless `A` has the shape that the bank expects and the dtype of the array beside it."""
    if A.shape != bank.coefficients_shape:
        raise ValueError(
            f"{type(bank).__name__}: coefficients are {A.shape}, expected {bank.coefficients_shape}"
        )
    for name, x in array.items():
        if not isinstance(x, np.ndarray):
            refuse_other_than_arrays(x, name)
    if any(x.dtype != A.dtype for x in array.values()) and not is_complex(A, *array.values()):
        same_dtype(A=A, **array)


def check_pair(bank: "FilterBank | DenseBank", u: Array, z: Array) -> None:
    """Raise unless `u` and `z` are images and responses of one batch, of one dtype."""
    check_shape(bank, u, bank.image_shape, "u")
    check_shape(bank, z, bank.response_shape, "z")
    if len(u) != len(z):
        raise ValueError(
            f"{type(bank).__name__}: {len(u)} images but responses of {len(z)}; these must be equal"
        )
    if not is_complex(u, z):
        same_dtype(u=u, z=z)


class FilterBank:
    """Bank of F filters of odd size (h, w) under one boundary.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
    filter_shape : tuple (F, h, w)
    boundary : str
        One of `refimpl.paper.operators.BOUNDARIES`.

    Raises
    ------
    ValueError
        If a filter side is even, or the boundary is unknown.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        filter_shape: tuple[int, int, int],
        boundary: str = "symmetric",
    ):
        image_shape = as_image_shape(image_shape)
        if not isinstance(filter_shape, (tuple, list)) or len(filter_shape) != 3:
            raise ValueError(
                f"FilterBank: filter_shape is {shown(filter_shape)}, expected (F, h, w): F filters "
                "of h rows and w columns"
            )
        F, h, w = (count(n, "filter_shape") for n in filter_shape)
        if h % 2 == 0 or w % 2 == 0 or min(F, h, w) < 1:
            raise ValueError(
                f"FilterBank: {F} filters of size {h} x {w}; both sides must be odd, "
                "so that a filter has a centre"
            )
        self.padding = Padding(image_shape, (h // 2, w // 2), boundary)
        self.boundary, self.image_shape = boundary, image_shape
        self.coefficients_shape = (F, image_shape[0], h, w)
        self.response_shape = (F, *image_shape[1:])

    def __repr__(self) -> str:
        F, _, h, w = self.coefficients_shape
        filters = f"{F} filter{'s' * (F > 1)} of {h} × {w}"
        return f"{type(self).__name__}({self.image_shape}, {filters}, {self.boundary})"

    def apply(self, A: Array, u: Array) -> Array:
        """A u, responses (N, F, H, W)."""
        check_coefficients(self, A, u=u)
        return correlate(self.padding.matvec(u), A)

    def adjoint(self, A: Array, z: Array) -> Array:
        """Aᵀ z, images (N, C, H, W)."""
        check_coefficients(self, A, z=z)
        check_shape(self, z, self.response_shape, "z")
        padded = correlate_adjoint(z, A, (len(z), *self.padding.range_shape))
        return self.padding.adjoint(padded)

    def adjoint_filters(self, u: Array, z: Array) -> Array:
        """B*(u, z), filters (F, C, h, w), summed over the batch."""
        check_pair(self, u, z)
        up = self.padding.matvec(u)
        return correlate_adjoint_filters(up, z, np.empty(self.coefficients_shape))

    def per_filter(self, b: Array) -> Array:
        """Values (F,) shaped to broadcast against responses."""
        return b[:, None, None]

    def sum_per_filter(self, z: Array) -> Array:
        """Adjoint of `per_filter`: sum over images and positions, shape (F,)."""
        return z.sum(axis=(0, 2, 3))


class DenseBank:
    """Bank of F dense rows: A vec(u), with no structure at all.

    Parameters
    ----------
    image_shape : tuple (C, H, W)
    features : int
        F, the number of rows of A.

    Notes
    -----
    Products are those of BLAS, which adds in an order that depends on its threads and on the number
    of images: what belongs to an image may differ in the last digits. Loops of one fixed order took
    as long for one image, but 1.3 to 5 times (A u) and 3 to 20 times (Aᵀ z) as long for 20 to 100.
    """

    def __init__(self, image_shape: tuple[int, ...], features: int):
        image_shape = as_image_shape(image_shape)
        count(features, "DenseBank: features")
        self.image_shape = image_shape
        self.coefficients_shape = (features, int(np.prod(image_shape)))
        self.response_shape = (features,)

    def __repr__(self) -> str:
        return f"DenseBank({self.image_shape}, {self.coefficients_shape[0]} rows)"

    def apply(self, A: Array, u: Array) -> Array:
        """A vec(u), responses (N, F)."""
        check_coefficients(self, A, u=u)
        check_shape(self, u, self.image_shape, "u")
        return u.reshape(u.shape[0], -1) @ A.T

    def adjoint(self, A: Array, z: Array) -> Array:
        """Aᵀ z, images (N, C, H, W)."""
        check_coefficients(self, A, z=z)
        check_shape(self, z, self.response_shape, "z")
        return (z @ A).reshape(z.shape[0], *self.image_shape)

    def adjoint_filters(self, u: Array, z: Array) -> Array:
        """B*(u, z) = Σ_n z_n vec(u_n)ᵀ, shape (F, C·H·W)."""
        check_pair(self, u, z)
        return z.T @ u.reshape(u.shape[0], -1)

    def per_filter(self, b: Array) -> Array:
        """Values (F,) broadcast against responses as they are."""
        return b

    def sum_per_filter(self, z: Array) -> Array:
        """Sum over images, shape (F,)."""
        return z.sum(axis=0)


class Analysis(Operator):
    """The linear operator u ↦ B(A, u) for one choice of coefficients A."""

    def __init__(self, bank: FilterBank | DenseBank, A: Array):
        self.bank, self.A = bank, A
        self.domain_shape, self.range_shape = bank.image_shape, bank.response_shape

    def matvec(self, u: Array) -> Array:
        """A u."""
        return self.bank.apply(self.A, u)

    def adjoint(self, z: Array) -> Array:
        """Aᵀ z."""
        return self.bank.adjoint(self.A, z)
