"""All of float32: the step in float32 where that is near enough for directions and corrections.

Products with J in float32 take half the time. Where J is mild, their rounding is far below what a
direction of Newton's method, or a correction of a Krylov method, needs; residuals and results keep
float64 (`refimpl.solvers.krylov`, `model`).
"""

from dataclasses import replace
from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.engine.safe_steps import slope_bound
from refimpl.engine.twins import is_known
from refimpl.paper.operators.banks import FilterBank
from refimpl.paper.operators.convolution import Convolution
from refimpl.paper.operators.pointwise import Identity, Mask, Matrix
from refimpl.paper.operators.sampling import Downsample
from refimpl.paper.problem import Problem

# ‖∂F‖ / λ up to which float32 is near enough for corrections.
MILD = 1e5
CONVERTIBLE = (Identity, Mask, Downsample, Convolution, Matrix)


def in_single(problem: Problem) -> Problem | None:
    """The problem in float32 where that is near enough for directions and corrections, else None.

    Near enough: ‖∂F‖ is mild, λ, K and θ are of the size of float32's numbers, the bank is one of
    filters and K one of `CONVERTIBLE`. Its data are 0: products with J need none.
    """
    theta, K = problem.theta, problem.operator
    convertible = is_known(problem.bank, (FilterBank,)) and is_known(K, CONVERTIBLE)
    if problem.dtype == np.float32 or not (convertible and is_mild(problem)):
        return None
    if not all(map(fits_single, (problem.lam, *K.coefficients, *(x for _, x in theta.items())))):
        return None
    single = np.dtype(np.float32)
    experts = problem.experts.with_theta(theta.astype(single))
    zeros = np.zeros_like(problem.y, dtype=single)
    return replace(problem, operator=K.astype(single), y=zeros, experts=experts)


def is_mild(problem: Problem) -> bool:
    """Whether ‖∂F‖ ≤ 1e5 λ for every u, so that float32 rounds ∂F by less than λ/100.

    A bank of h × w filters has at most √(h w) times the norm of its coefficients, but for pixels
    that a boundary repeats.
    """
    theta, sides = problem.theta, problem.bank.coefficients_shape[2:]
    size = np.linalg.norm(theta.A) * np.linalg.norm(theta.synthesis) * np.prod(sides)
    return bool(slope_bound(problem) * size <= MILD * problem.lam)


def fits_single(x: Array | Any) -> bool:
    """Whether the largest magnitude of `x` is 0 or far from where float32 ends."""
    largest = np.abs(x).max()
    return bool(largest == 0 or 1e-6 <= largest <= 1e6)
