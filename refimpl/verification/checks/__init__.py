"""Checks: each compares two computations of one quantity and returns a `Check`.

    dot_test, bilinear_test       adjoints
    symmetry, jvp_vjp             Hessians and Jacobians
    complex_step, taylor          derivatives of functions
    dense_matrix, dense_outputs   the same problem with dense matrices

A check takes callables and arrays, so it knows nothing of the objects that it certifies.
"""

from refimpl.verification.checks.dense_matrices import dense_matrix
from refimpl.verification.checks.derivatives import Taylor, complex_step, jvp_vjp, symmetry, taylor
from refimpl.verification.checks.dot_tests import bilinear_test, dot_test
from refimpl.verification.checks.oracle import dense_outputs

__all__ = [
    "Taylor",
    "bilinear_test",
    "complex_step",
    "dense_matrix",
    "dense_outputs",
    "dot_test",
    "jvp_vjp",
    "symmetry",
    "taylor",
]
