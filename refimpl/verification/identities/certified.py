"""Certificates (E12): the true errors stay below their bounds, μ is a bound, and so is L here.

    μ ≤ λ_min((J + Jᵀ)/2)      ‖J‖ ≤ L
    ‖u − u*‖, ‖p − p*‖ and ‖dℓ/dθ − (dℓ/dθ)*‖ ≤ certificate, at an early state u

γ is chosen so that the regulariser uses up at most half of the data term's monotonicity: then
μ > 0 and the bounds say something.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import Step, StepLinearization, make_step
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.equilibrium.certificates import certify, state_bound
from refimpl.equilibrium.norms import lipschitz_bound
from refimpl.equilibrium.proved import proved_monotonicity, smallest_eigenvalue
from refimpl.equilibrium.state import reconstruct
from refimpl.kernels.vectors import norm
from refimpl.paper.loss import squared_loss_gradient
from refimpl.paper.parameters import Parameters
from refimpl.results import Check
from refimpl.verification.checks import dense_matrix
from refimpl.verification.identities.adjoints import dense_adjoint_state
from refimpl.verification.identities.agreement import at_most
from refimpl.verification.identities.known_problems import KnownProblem, problems, with_safe_step

EARLY_STEPS = 5
ADJOINT_TOL = 1e-2
ROUNDING = 1 + 1e-9  # what the constants are computed to, with room


class Truth(NamedTuple):
    """u*, p* = τ q* and dℓ/dθ at the fixed point, to rounding."""

    u: Array
    p: Array
    gradient: Parameters


def checks(seed: int) -> Iterator[Check]:
    """All identities of certificates."""
    for name, problem in problems(seed):
        if smallest_eigenvalue(problem.step.problem.operator) == 0:
            continue
        step = monotone(problem.step)
        start = np.zeros_like(problem.target)
        early = reconstruct(
            step, start, method="picard", residual_tol=1e-15, max_iterations=EARLY_STEPS
        ).x
        lin, truth = step.linearize(early), solved(step, problem)
        yield from _constant_checks(name, lin)
        error = norm(early - truth.u)
        yield from _each(f"E12 state bound: {name}", error, state_bound(step, early))
        if step.problem.potential.smooth:
            yield from _certificate_checks(name, lin, problem, truth)


def monotone(step: Step) -> Step:
    """The step with γ lowered until μ is at least half of λ λ_min(KᵀK), and τ = 1/L."""
    data = step.problem.lam * smallest_eigenvalue(step.problem.operator)
    spent, theta = data - proved_monotonicity(step), step.problem.theta
    gamma = theta.gamma * min(1.0, data / (2 * spent)) if spent > 0 else theta.gamma
    theta = replace(theta, gamma=np.asarray(gamma))
    return with_safe_step(make_step(step.problem.with_theta(theta), step.tau))


def solved(step: Step, problem: KnownProblem) -> Truth:
    """The fixed point by Newton's method, the adjoint state by dense matrices."""
    u = reconstruct(step, method="newton_krylov", residual_tol=1e-13).x
    lin = step.linearize(u)
    q = dense_adjoint_state(lin, squared_loss_gradient(u, problem.target))
    return Truth(u, step.tau * q, lin.params_vjp(q))


def _constant_checks(name: str, lin: StepLinearization) -> Iterator[Check]:
    J = dense_matrix(lin.direction_jvp, lin.u.shape)
    lowest = np.linalg.eigvalsh((J + J.T) / 2)[0]
    mu = proved_monotonicity(lin.step)
    yield at_most(f"E12, μ > 0 for the bounds to hold: {name}", 0.0 if mu > 0 else np.inf, 1.0)
    yield at_most(f"E12, μ below the lowest eigenvalue: {name}", mu, lowest * ROUNDING)
    L = lipschitz_bound(lin.step)
    yield at_most(f"E12, ‖J‖ below L: {name}", np.linalg.norm(J, 2), L * ROUNDING)


def _certificate_checks(
    name: str, lin: StepLinearization, problem: KnownProblem, truth: Truth
) -> Iterator[Check]:
    gradient = squared_loss_gradient(lin.u, problem.target)
    q = solve_adjoint(lin, gradient, method="gmres", residual_tol=ADJOINT_TOL).x
    bounds = certify(lin.step, lin.u, q, gradient)
    yield from _each(f"E12 adjoint bound: {name}", norm(lin.step.tau * q - truth.p), bounds.adjoint)
    given, expected = dict(lin.params_vjp(q).items()), dict(truth.gradient.items())
    for key, bound in bounds.gradient.items():
        error = np.linalg.norm(given[key] - expected[key])
        yield at_most(f"E12 bound of E10 in {key}: {name}", error, bound)


def _each(name: str, errors: Array, bounds: Array) -> Iterator[Check]:
    """The image whose error comes closest to its bound."""
    yield max((at_most(name, e, b) for e, b in zip(errors, bounds)), key=lambda c: c.measured)
