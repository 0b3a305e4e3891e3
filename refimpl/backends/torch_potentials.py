"""The seven potentials φ with σ = φ′ in torch, as plain formulas for autodiff.

At a kink of σ, autodiff of these forms gives σ′ = 0, the derivative from the flat side. The
formulas are those of textbooks; `refimpl.potentials` has forms that also survive overflow.
"""

import math

import torch
from torch import Tensor


def shrink(z: Tensor, threshold: float) -> Tensor:
    """sign(z) max(|z| − t, 0)."""
    return torch.where(z.abs() > threshold, z - threshold * z.sign(), 0.0 * z)


def relu(z: Tensor) -> Tensor:
    """max(z, 0)."""
    return torch.where(z > 0, z, 0.0 * z)


def log_cosh(z: Tensor, slope: float) -> Tensor:
    """log cosh(x) / χ with x = χ z: log(1 + 2 sinh²(x/2)), or |x| + log(1 + e^−2|x|) − log 2.

    The first keeps the digits of φ and σ near 0, the second does not overflow.
    """
    x = slope * z
    near = torch.abs(x) < 1
    small, large = torch.where(near, x, 0 * x), torch.where(near, 1 + 0 * x, torch.abs(x))
    inner = torch.log1p(2 * torch.sinh(small / 2) ** 2)
    outer = large + torch.log1p(torch.exp(-2 * large)) - math.log(2)
    return torch.where(near, inner, outer) / slope


def huber(z: Tensor, delta: float) -> Tensor:
    """z²/(2δ) for |z| < δ, else |z| − δ/2."""
    return torch.where(z.abs() < delta, z**2 / (2 * delta), z.abs() - delta / 2)


def clip(z: Tensor, delta: float) -> Tensor:
    """z/δ, at most 1 in size."""
    return torch.where(z.abs() < delta, z / delta, z.sign())


def smoothed_l1(z: Tensor, nu: float) -> Tensor:
    """√(z² + ν²)."""
    return torch.sqrt(z**2 + nu**2)


POTENTIALS = {
    "quadratic": lambda z: z**2 / 2,
    "half_squared_relu": lambda z: relu(z) ** 2 / 2,
    "soft_shrinkage": lambda z, threshold: shrink(z, threshold) ** 2 / 2,
    "log_cosh": log_cosh,
    "lorentzian": lambda z: torch.log1p(z**2),
    "smoothed_l1": smoothed_l1,
    "huber": huber,
}

ACTIVATIONS = {
    "quadratic": lambda z: z,
    "half_squared_relu": relu,
    "soft_shrinkage": shrink,
    "log_cosh": lambda z, slope: torch.tanh(slope * z),
    "lorentzian": lambda z: 2 * z / (1 + z**2),
    "smoothed_l1": lambda z, nu: z / smoothed_l1(z, nu),
    "huber": clip,
}
