"""Compiled loops over images: the only package that imports Numba.

`jit` says how, `rows` has the loops over one row, `activations` the potentials on a row, `banks`
the bilinear map of a filter bank and its adjoints, `experts` the fused field of experts. Every
kernel computes what a definition in plain NumPy elsewhere computes, and is tested against it.

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
from refimpl.kernels.banks import (
    correlate,
    correlate_adjoint,
    correlate_adjoint_filters,
)
from refimpl.kernels.experts import energy, field, parameters, responses, tangent
from refimpl.kernels.safeguards import safeguarded_slopes

__all__ = [
    "HALF_SQUARED_RELU",
    "HUBER",
    "LOG_COSH",
    "LORENTZIAN",
    "QUADRATIC",
    "SMOOTHED_L1",
    "SOFT_SHRINKAGE",
    "correlate",
    "correlate_adjoint",
    "correlate_adjoint_filters",
    "energy",
    "field",
    "parameters",
    "responses",
    "safeguarded_slopes",
    "tangent",
]
