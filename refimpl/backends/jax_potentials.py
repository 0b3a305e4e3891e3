"""The seven potentials φ with σ = φ′ in JAX, as plain formulas for autodiff.

At a kink of σ, autodiff of these forms gives σ′ = 0, the derivative from the flat side. The
formulas are those of textbooks; `refimpl.potentials` has forms that also survive overflow.
"""

import math

import jax.numpy as jnp
from jax import Array


def shrink(z: Array, threshold: float) -> Array:
    """sign(z) max(|z| − t, 0)."""
    return jnp.where(jnp.abs(z) > threshold, z - threshold * jnp.sign(z), 0.0 * z)


def relu(z: Array) -> Array:
    """max(z, 0)."""
    return jnp.where(z > 0, z, 0.0 * z)


def log_cosh(z: Array, slope: float) -> Array:
    """log cosh(x) / χ with x = χ z: log(1 + 2 sinh²(x/2)), or |x| + log(1 + e^−2|x|) − log 2.

    The first keeps the digits of φ and σ near 0, the second does not overflow.
    """
    x = slope * z
    near = jnp.abs(x) < 1
    small, large = jnp.where(near, x, 0 * x), jnp.where(near, 1 + 0 * x, jnp.abs(x))
    inner = jnp.log1p(2 * jnp.sinh(small / 2) ** 2)
    outer = large + jnp.log1p(jnp.exp(-2 * large)) - math.log(2)
    return jnp.where(near, inner, outer) / slope


def huber(z: Array, delta: float) -> Array:
    """z²/(2δ) for |z| < δ, else |z| − δ/2."""
    return jnp.where(jnp.abs(z) < delta, z**2 / (2 * delta), jnp.abs(z) - delta / 2)


def clip(z: Array, delta: float) -> Array:
    """z/δ, at most 1 in size."""
    return jnp.where(jnp.abs(z) < delta, z / delta, jnp.sign(z))


def smoothed_l1(z: Array, nu: float) -> Array:
    """√(z² + ν²)."""
    return jnp.sqrt(z**2 + nu**2)


POTENTIALS = {
    "quadratic": lambda z: z**2 / 2,
    "half_squared_relu": lambda z: relu(z) ** 2 / 2,
    "soft_shrinkage": lambda z, threshold: shrink(z, threshold) ** 2 / 2,
    "log_cosh": log_cosh,
    "lorentzian": lambda z: jnp.log1p(z**2),
    "smoothed_l1": smoothed_l1,
    "huber": huber,
}

ACTIVATIONS = {
    "quadratic": lambda z: z,
    "half_squared_relu": relu,
    "soft_shrinkage": shrink,
    "log_cosh": lambda z, slope: jnp.tanh(slope * z),
    "lorentzian": lambda z: 2 * z / (1 + z**2),
    "smoothed_l1": lambda z, nu: z / smoothed_l1(z, nu),
    "huber": clip,
}
