"""How far rounding moves what is computed from a case.

    in norms     ρ_G = eps √n ( λ ‖K‖ (‖K‖ ‖u‖ + ‖y‖) + … ), what a solve may leave of ‖G(u)‖
    measured     outputs of the case computed again with every number of it moved by eps

The first is of the size of rounding, not a bound of it (`refimpl.equilibrium.proved` has that), and
judges what a solve leaves; it takes norms of operators, for products in every direction. The second
tells how outputs answer, and knows their conditioning. Outputs of one evaluation are judged beside
it by the absolute sums of their terms (`refimpl.verification.crosscheck.sizes`): smaller than
products of norms where terms are few.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import Step, StepLinearization, slope_bound
from refimpl.equilibrium.norms import bank_norms, operator_norm
from refimpl.kernels.vectors import norm
from refimpl.paper import equations
from refimpl.paper.problem import FieldOfExperts, Problem

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


def kink_distances(kinks: Iterable[float], z: Array) -> Array:
    """The distance of every response from the nearest kink of σ; infinite without kinks."""
    nearest = np.full(z.shape, np.inf)
    for kink in kinks:
        nearest = np.minimum(nearest, np.abs(z - kink))
    return nearest


def furthest_from_kinks(
    p: FieldOfExperts | Problem, kinks: Sequence[float], candidates: list[Array]
) -> tuple[Array, float]:
    """The candidate u whose responses stay furthest from all kinks, and that distance."""
    if len(kinks) == 0:
        return candidates[0], np.inf
    near = [kink_distances(kinks, equations.responses(p, u)).min() for u in candidates]
    best = int(np.argmax(near))
    return candidates[best], float(near[best])


def shortened(p: FieldOfExperts | Problem, v: Array, reach: float) -> Array:
    """`v`, scaled down so that no response to u + v moves by more than `reach`."""
    return v * min(1.0, reach / np.abs(p.bank.apply(p.theta.A, v)).max())
