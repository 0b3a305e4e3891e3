"""σ and σ′ of the seven potentials, and dense linear systems, in np.longdouble.

σ is returned in two parts, σ = s + t. s is the value at which σ saturates, ±1 or 0, and t the rest.
Where a pixel is not observed and every σ around it is saturated, the sum of the s vanishes exactly,
and what is left, such as Σ e^(−2χ|z|), is known to all digits although it is far below the rounding
of 1. So a fixed point is found at slopes at which float64 sees none.

Formulas are written again on purpose: those of `refimpl.paper.potentials` are what is judged.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

Array = np.ndarray

LONG = np.longdouble
EPS = float(np.finfo(LONG).eps)


class Sigma(NamedTuple):
    """s, t and σ′ at some responses; σ = s + t."""

    saturated: Array
    rest: Array
    slope: Array

    @property
    def value(self) -> Array:
        """σ."""
        return self.saturated + self.rest

    def slope_size(self) -> Array:
        """|σ′|."""
        return abs(self.slope)


def sigma(potential: Any, z: Array) -> Sigma:
    """σ and σ′ at z, in its precision, of a potential known by its name."""
    return FORMULAS[potential.name](z, z.dtype.type(potential.parameter))


def _quadratic(z: Array, _) -> Sigma:
    return Sigma(0 * z, z, np.ones_like(z))


def _relu(z: Array, _) -> Sigma:
    return Sigma(0 * z, np.where(z > 0, z, 0), (z > 0).astype(z.dtype))


def _shrinkage(z: Array, t: float) -> Sigma:
    outside = abs(z) > t
    return Sigma(0 * z, np.where(outside, z - np.sign(z) * t, 0), outside.astype(z.dtype))


def _log_cosh(z: Array, slope: float) -> Sigma:
    """tanh x = ±(1 − 2e / (1 + e)) with e = exp(−2|x|), x = χz; for small x it is not split."""
    x = slope * z
    e = np.exp(-2 * abs(x))
    far = abs(x) > 1
    s = np.where(far, np.sign(x), 0)
    t = np.where(far, -np.sign(x) * 2 * e / (1 + e), np.tanh(x))
    return Sigma(s, t, slope * 4 * e / (1 + e) ** 2)


def _lorentzian(z: Array, _) -> Sigma:
    square = 1 + z * z
    return Sigma(0 * z, 2 * z / square, 2 * (1 - z) * (1 + z) / square**2)


def _smoothed_l1(z: Array, nu: float) -> Sigma:
    """z / r = ±(1 − ν² / (r (r + |z|))) with r = √(z² + ν²)."""
    r = np.sqrt(z * z + nu * nu)
    far = abs(z) > nu
    s = np.where(far, np.sign(z), 0)
    t = np.where(far, -np.sign(z) * nu * nu / (r * (r + abs(z))), z / r)
    return Sigma(s, t, nu * nu / r**3)


def _huber(z: Array, delta: float) -> Sigma:
    inside = abs(z) < delta
    rest, slope = np.where(inside, z / delta, 0), np.where(inside, 1 / delta, 0)
    return Sigma(np.where(inside, 0, np.sign(z)), rest, slope)


FORMULAS = {
    "quadratic": _quadratic, "half_squared_relu": _relu, "soft_shrinkage": _shrinkage,
    "log_cosh": _log_cosh, "lorentzian": _lorentzian, "smoothed_l1": _smoothed_l1, "huber": _huber,
}  # fmt: skip


class Factors:
    """P R M = L U with rows scaled by R: solutions of M x = b; float64 is left to LAPACK.

    Scaling rows first keeps the digits of equations that are many orders smaller than the others.

    Raises
    ------
    ZeroDivisionError
        If a pivot is exactly 0 or not finite.
    """

    def __init__(self, matrix: Array):
        self.largest = abs(matrix).max(axis=1)
        if not (np.isfinite(self.largest) & (self.largest > 0)).all():
            raise ZeroDivisionError("the matrix is singular")
        scaled = matrix / self.largest[:, None]
        self.lapack = matrix.dtype == np.float64
        if self.lapack:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", scipy.linalg.LinAlgWarning)
                self.lu, self.order = scipy.linalg.lu_factor(scaled, check_finite=False)
        else:
            self.lu, self.order = eliminated(scaled)
        if (np.diag(self.lu) == 0).any():
            raise ZeroDivisionError("the matrix is singular")

    def solve(self, b: Array) -> Array:
        """M⁻¹ b, for a vector or for columns."""
        scaled = (b.T / self.largest).T
        if self.lapack:
            return scipy.linalg.lu_solve((self.lu, self.order), scaled, check_finite=False)
        x = scaled[self.order].reshape(len(b), -1)
        for k in range(len(x)):
            x[k + 1 :] -= self.lu[k + 1 :, k, None] * x[k]
        for k in reversed(range(len(x))):
            x[k] /= self.lu[k, k]
            x[:k] -= self.lu[:k, k, None] * x[k]
        return x.reshape(b.shape)

    def inverse(self) -> Array:
        """M⁻¹."""
        return self.solve(np.eye(len(self.lu), dtype=self.lu.dtype))


def eliminated(matrix: Array) -> tuple[Array, Array]:
    """L and U in one array, and the order of the rows, with partial pivoting."""
    lu, order = matrix, np.arange(len(matrix))
    for k in range(len(lu)):
        pivot = k + int(np.argmax(abs(lu[k:, k])))
        if lu[pivot, k] == 0:
            break
        lu[[k, pivot]], order[[k, pivot]] = lu[[pivot, k]], order[[pivot, k]]
        lu[k + 1 :, k] /= lu[k, k]
        lu[k + 1 :, k + 1 :] -= lu[k + 1 :, k, None] * lu[k, k + 1 :]
    return lu, order


def length(x: Array) -> float:
    """‖x‖ in extended precision, in a range that no square leaves."""
    largest = abs(x).max()
    if not np.isfinite(largest) or largest == 0:
        return largest
    return largest * np.sqrt(np.sum((x / largest) ** 2))


def spectral_norm(matrix: Array) -> float:
    """‖M‖ to the precision of float64, in the range of np.longdouble."""
    largest = abs(matrix).max()
    if not np.isfinite(largest) or largest == 0:
        return largest
    return largest * np.linalg.norm((matrix / largest).astype(np.float64), 2)
