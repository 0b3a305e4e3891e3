"""Comparisons that the identities share: two arrays that must agree, to rounding or to a bound."""

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.operators.base import length, rounding_bound
from refimpl.paper.parameters import Parameters
from refimpl.results import Check
from refimpl.verification.checks.dot_tests import ratio

SOLVED = 1e-9  # what linear and nonlinear solves by different methods must agree to


def agree(name: str, given: Array, expected: Array, bound: float | None = None) -> Check:
    """‖given − expected‖ / ‖expected‖, by default to rounding: 64 eps √n."""
    given, expected = np.asarray(given), np.asarray(expected)
    if given.shape != expected.shape:
        return Check(f"{name}: shape {given.shape}, expected {expected.shape}", np.inf, 0.0)
    bound = rounding_bound(expected) if bound is None else bound
    return Check(name, ratio(length(given - expected), length(expected)), bound)


def agree_each(
    name: str, given: Parameters, expected: Parameters, bound: float | None = None
) -> list[Check]:
    """One comparison for each parameter."""
    reference = dict(expected.items())
    return [agree(f"{name}, in {key}", x, reference[key], bound) for key, x in given.items()]


def at_most(name: str, measured: float, bound: float) -> Check:
    """`measured` as a fraction of `bound`, which must not exceed 1."""
    return Check(name, ratio(float(measured), float(bound)), 1.0)
