"""How far rounding moves what is computed from a case.

    in norms     ρ_G = eps √n ( λ ‖K‖ (‖K‖ ‖u‖ + ‖y‖) + … ), what a solve may leave of ‖G(u)‖
    measured     outputs of the case computed again with every number of it moved by eps

The first bounds residuals and enters certificates, so it takes norms of operators, which bound
products in every direction. The second tells how outputs answer, and knows their conditioning.
Outputs of one evaluation are judged beside it by the absolute sums of their terms
(`refimpl.verification.crosscheck.sizes`): smaller than products of norms where terms are few.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.engine import Step, StepLinearization, slope_bound
from refimpl.equilibrium.norms import bank_norms, operator_norm
from refimpl.kernels.vectors import norm
from refimpl.paper.potentials import Potential
from refimpl.verification.cases.case import BATCHED, Case, all_parameters

# Norms enter rounding levels only; two digits of them are plenty.
NORM_TOL = 1e-2


class OperatorNorms(NamedTuple):
    """‖K‖, ‖A‖, ‖C‖ of one step, to two digits."""

    K: float
    A: float
    C: float

    @classmethod
    def of(cls, step: Step) -> "OperatorNorms":
        """Norms by Lanczos iteration."""
        dtype = step.problem.y.dtype
        K = operator_norm(step.problem.operator, tol=NORM_TOL, dtype=dtype)
        return cls(K, *bank_norms(step, tol=NORM_TOL))

    def lipschitz(self, step: Step) -> float:
        """L = λ ‖K‖² + γ w̄ s̄ ‖A‖ ‖C‖ ≥ ‖J(u)‖ for every u; 1 if that is 0."""
        return step.problem.lam * self.K**2 + slope_bound(step.problem) * self.A * self.C or 1.0


class Magnitudes(NamedTuple):
    """Sizes of the terms that G(u) and Jᵀp sum, from which their rounding follows.

    Attributes
    ----------
    eps : float
        Unit roundoff times √n, n the values of one image.
    direction : array (N,)
        λ ‖K‖ (‖K‖ ‖u‖ + ‖y‖) + ‖C‖ ( γ ‖w σ‖ + max|d| (‖A‖ ‖u‖ + ‖b‖) ), d = γ w σ′.
    jacobian : array (N,)
        λ ‖K‖² + max|d| ‖A‖ ‖C‖ ≥ ‖J(u)‖.
    """

    eps: float
    direction: Array
    jacobian: Array

    @classmethod
    def of(cls, lin: StepLinearization, norms: OperatorNorms) -> "Magnitudes":
        """Magnitudes at one linearisation."""
        theta, bank = lin.step.problem.theta, lin.step.problem.bank
        lam, (K, A, C) = lin.step.problem.lam, norms
        s, d = lin.field.responses
        slope = np.abs(d.reshape(len(lin.u), -1)).max(axis=1)
        bias = np.sqrt(np.prod(bank.response_shape[1:])) * np.linalg.norm(theta.b)
        values = norm(theta.gamma * bank.per_filter(theta.weights) * s)
        data = lam * K * (K * norm(lin.u) + norm(lin.step.problem.y))
        experts = C * (values + slope * (A * norm(lin.u) + bias))
        eps = np.finfo(lin.u.dtype).eps * np.sqrt(lin.u[0].size)
        return cls(float(eps), data + experts, lam * K**2 + slope * A * C)

    def of_direction(self) -> Array:
        """Rounding error ρ_G of G(u), shape (N,)."""
        return self.eps * self.direction

    def of_adjoint(self, p: Array, loss_gradient: Array) -> Array:
        """Rounding error ρ_p of ∇ℓ − Jᵀp, shape (N,)."""
        return self.eps * (self.jacobian * norm(p) + norm(loss_gradient))


def kink_distances(potential: Potential, z: Array) -> Array:
    """The distance of every response from the nearest kink of σ; infinite without kinks."""
    nearest = np.full(z.shape, np.inf)
    for kink in potential.kinks:
        nearest = np.minimum(nearest, np.abs(z - kink))
    return nearest


def perturbed(
    case: Case,
    eps: float,
    rng: np.random.Generator,
    *,
    by_image: bool = False,
    parameters: bool = True,
) -> Case:
    """The case with every number moved by at most eps, relatively.

    Parameters
    ----------
    case : Case
    eps : float
    rng : Generator
    by_image : bool
        Whether the pixels of images move relative to the largest of them, as in an FFT.
    parameters : bool
        Whether those of the potential move too.
    """

    def move(x):
        factor = 1 + eps * rng.uniform(-1, 1, np.shape(x))
        return x * np.asarray(factor, getattr(x, "dtype", None))

    def moved(name, x):
        if name == "mask":
            return x
        if not (by_image and name in BATCHED):
            return move(x)
        largest = per_image(abs(x).reshape(len(x), -1).max(axis=1), x)
        return x + eps * largest * rng.uniform(-1, 1, x.shape)

    arrays = {name: moved(name, x) for name, x in case.arrays.items()}
    numbers = {name: getattr(case, name) for name in ("tau", "lam", "gamma", "norm")}
    numbers = {name: float(move(x)) for name, x in numbers.items() if x is not None}
    if parameters:
        moved_parameters = {k: float(move(x)) for k, x in all_parameters(case).items()}
        numbers["potential_parameters"] = moved_parameters
    return replace(case, arrays=arrays, **numbers)
