"""The seven potentials φ with σ = φ′ as plain formulas for autodiff, in torch or `jax.numpy`.

At a kink of σ, autodiff of these forms gives σ′ = 0, the derivative from the flat side. The
formulas are those of textbooks; `refimpl.paper.potentials` has forms that also survive overflow.
Each takes the framework, `xp`, before z.
"""

import math
from typing import Any


def shrink(xp: Any, z: Any, threshold: float) -> Any:
    """sign(z) max(|z| − t, 0)."""
    return xp.where(xp.abs(z) > threshold, z - threshold * xp.sign(z), 0.0 * z)


def relu(xp: Any, z: Any) -> Any:
    """max(z, 0)."""
    return xp.where(z > 0, z, 0.0 * z)


def log_cosh(xp: Any, z: Any, slope: float) -> Any:
    """log cosh(x) / χ with x = χ z: log(1 + 2 sinh²(x/2)), or |x| + log(1 + e^−2|x|) − log 2.

    The first keeps the digits of φ and σ near 0, the second does not overflow.
    """
    x = slope * z
    near = xp.abs(x) < 1
    small, large = xp.where(near, x, 0 * x), xp.where(near, 1 + 0 * x, xp.abs(x))
    inner = xp.log1p(2 * xp.sinh(small / 2) ** 2)
    outer = large + xp.log1p(xp.exp(-2 * large)) - math.log(2)
    return xp.where(near, inner, outer) / slope


def huber(xp: Any, z: Any, delta: float) -> Any:
    """z²/(2δ) for |z| < δ, else |z| − δ/2."""
    return xp.where(xp.abs(z) < delta, z**2 / (2 * delta), xp.abs(z) - delta / 2)


def clip(xp: Any, z: Any, delta: float) -> Any:
    """z/δ, at most 1 in size."""
    return xp.where(xp.abs(z) < delta, z / delta, xp.sign(z))


def smoothed_l1(xp: Any, z: Any, nu: float) -> Any:
    """√(z² + ν²)."""
    return xp.sqrt(z**2 + nu**2)


POTENTIALS = {
    "quadratic": lambda xp, z: z**2 / 2,
    "half_squared_relu": lambda xp, z: relu(xp, z) ** 2 / 2,
    "soft_shrinkage": lambda xp, z, threshold: shrink(xp, z, threshold) ** 2 / 2,
    "log_cosh": log_cosh,
    "lorentzian": lambda xp, z: xp.log1p(z**2),
    "smoothed_l1": smoothed_l1,
    "huber": huber,
}

ACTIVATIONS = {
    "quadratic": lambda xp, z: z,
    "half_squared_relu": relu,
    "soft_shrinkage": shrink,
    "log_cosh": lambda xp, z, slope: xp.tanh(slope * z),
    "lorentzian": lambda xp, z: 2 * z / (1 + z**2),
    "smoothed_l1": lambda xp, z, nu: z / smoothed_l1(xp, z, nu),
    "huber": clip,
}
