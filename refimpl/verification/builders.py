"""K and the banks A and C act by, from the plain values that portable cases hold.

Everything here that computes builds its operators with these two functions, but for the dense
matrices of `refimpl.verification.checks`: they certify the operators, and share nothing with them.
"""

from refimpl.arrays import Array
from refimpl.paper.operators import (
    Convolution,
    DenseBank,
    FilterBank,
    Identity,
    LinearOperator,
    Mask,
    Matrix,
)

Bank = FilterBank | DenseBank

# The array that each operator is made of, by its name in a case.
OPERATORS = {"identity": None, "mask": "mask", "convolution": "kernel", "matrix": "matrix"}


def make_operator(
    kind: str,
    image_shape: tuple[int, int, int],
    array: Array | None = None,
    boundary: str | None = None,
) -> LinearOperator:
    """K by its name in `OPERATORS`, its array, and, for a convolution, its boundary."""
    if kind == "mask":
        return Mask(array, image_shape)
    if kind == "matrix":
        return Matrix(array, image_shape)
    if kind == "convolution":
        return Convolution(array, image_shape, boundary)
    return Identity(image_shape)


def make_bank(
    image_shape: tuple[int, int, int], coefficients: tuple[int, ...], boundary: str | None = None
) -> Bank:
    """The bank for coefficients of shape (F, C, h, w) under a boundary, or (F, C·H·W)."""
    F, *rest = coefficients
    if len(rest) == 1:
        return DenseBank(image_shape, F)
    return FilterBank(image_shape, (F, *rest[1:]), boundary)
