"""Linear operators: the forward operators K, and the banks behind the analysis operators A and C.

Every operator knows its `domain_shape` and `range_shape` (of one image, without the batch
axis), its forward map `matvec` and its `adjoint`, both on batches. One dot test,
⟨Ku, z⟩ = ⟨u, Kᵀz⟩, certifies each of them. Products, sums and multiples of operators are
operators.
"""

from refimpl.paper.operators.banks import DenseBank, FilterBank
from refimpl.paper.operators.base import FromScipy, LinearOperator, Operator
from refimpl.paper.operators.convolution import Convolution
from refimpl.paper.operators.padding import BOUNDARIES, Padding
from refimpl.paper.operators.pointwise import (
    Identity,
    Mask,
    Matrix,
    block_mask,
    random_mask,
    row_mask,
)
from refimpl.paper.operators.sampling import Downsample

__all__ = [
    "BOUNDARIES",
    "Convolution",
    "DenseBank",
    "Downsample",
    "FilterBank",
    "FromScipy",
    "Identity",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Operator",
    "Padding",
    "block_mask",
    "random_mask",
    "row_mask",
]
