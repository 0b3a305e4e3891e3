"""Compiled loops over images: the only package that imports Numba.

`jit` says how loops are compiled and shared among threads, `blocks` has sums of shifted rows,
`taps` and `strips` how images are cut and what is done with a strip, `activations` the potentials
on a row, `borders` pads images and folds them back, `correlations` is the map of a filter
bank with its adjoints, `experts` the fused field, `safeguards` the slopes of Newton's method,
`stencils` the Jacobian as a varying stencil, `elementwise` a potential by scalar functions,
`vectors` inner products and sums, and `threads` how work is shared. Every kernel computes what a
definition in plain NumPy computes, and is tested against it.

Kernels validate nothing: callers pass padded C-contiguous arrays of one dtype, float32 or float64.
Other layouts and read-only arrays are accepted, at the price of another compilation.
Results are bit-identical for every number of threads.
"""

from refimpl.kernels.activations import (
    HALF_SQUARED_RELU,
    HUBER,
    LOG_COSH,
    LORENTZIAN,
    QUADRATIC,
    SMOOTHED_L1,
    SOFT_SHRINKAGE,
)
from refimpl.kernels.borders import fold, pad
from refimpl.kernels.correlations import (
    correlate,
    correlate_adjoint,
    correlate_adjoint_filters,
)
from refimpl.kernels.elementwise import Elementwise
from refimpl.kernels.experts import field, parameters, tangent
from refimpl.kernels.safeguards import safeguarded_slopes, slopes
from refimpl.kernels.stencils import stencil, stencil_product

__all__ = [
    "HALF_SQUARED_RELU",
    "HUBER",
    "LOG_COSH",
    "LORENTZIAN",
    "QUADRATIC",
    "Elementwise",
    "SMOOTHED_L1",
    "SOFT_SHRINKAGE",
    "correlate",
    "correlate_adjoint",
    "correlate_adjoint_filters",
    "field",
    "fold",
    "pad",
    "parameters",
    "safeguarded_slopes",
    "slopes",
    "stencil",
    "stencil_product",
    "tangent",
]
