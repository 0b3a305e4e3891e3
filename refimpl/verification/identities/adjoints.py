"""Fixed points, adjoint states (E9), hypergradients (E10): every method against dense matrices.

    the fixed point by every solver               = that of dense Newton steps
    q by cg, neumann, anderson, gmres, bicgstab   = the dense solution of (I − ∂_u T)ᵀ q = ∇ℓ
    dℓ/dθ                                         = dense matrices and unit vectors
    unrolled through many steps                   → the implicit gradient

Bounds are 1e-9 relative: solves end at residuals of 1e-12, and conditioning takes the rest.
"""

from collections.abc import Iterator

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import StepLinearization
from refimpl.equilibrium.adjoint import ADJOINT_METHODS, solve_adjoint
from refimpl.equilibrium.implicit import hypergradient, unrolled_hypergradient
from refimpl.equilibrium.state import ANY_MODEL, TIED_ONLY, reconstruct
from refimpl.paper.loss import squared_loss, squared_loss_gradient
from refimpl.paper.parameters import Parameters
from refimpl.results import Check, SolverResult
from refimpl.verification.cases.case import build_model, raw_parameters
from refimpl.verification.cases.evaluation import local_outputs
from refimpl.verification.cases.given import Given
from refimpl.verification.checks import dense_matrix
from refimpl.verification.identities.agreement import SOLVED, agree, agree_each
from refimpl.verification.identities.known_problems import KnownProblem, problems

TOL = 1e-12
UNROLLED = ("soft_shrinkage", "log_cosh")


def checks(seed: int) -> Iterator[Check]:
    """All identities of fixed points, adjoint states and hypergradients."""
    for name, problem in problems(seed):
        expected = problem.outputs()
        star = solve(problem)
        yield from _local_checks(name, problem, expected)
        yield from _fixed_point_checks(name, problem, expected["fixed_point"])
        yield from _adjoint_checks(name, problem, star)
        yield from _hypergradient_checks(name, problem, star, expected)
        if problem.case.potential in UNROLLED:
            yield from _unrolled_checks(name, problem, star)


def solve(problem: KnownProblem) -> SolverResult:
    """The fixed point to rounding."""
    return reconstruct(problem.step, method="newton_krylov", residual_tol=TOL)


def _local_checks(name: str, problem: KnownProblem, expected: dict[str, Array]) -> Iterator[Check]:
    given = Given(build_model(problem.case), raw_parameters(problem.case))
    for key, value in local_outputs(problem.step, given, problem.inputs).items():
        yield agree(f"dense oracle, {key}: {name}", value, expected[key], SOLVED)


def _fixed_point_checks(name: str, problem: KnownProblem, expected: Array) -> Iterator[Check]:
    methods = ANY_MODEL + (TIED_ONLY if problem.step.problem.theta.tied else ())
    for method in methods:
        # SciPy's line search compares energies and stalls at √eps of the gradient.
        tol, bound = (1e-7, 1e-4) if method == "lbfgs" else (TOL, SOLVED)
        x = reconstruct(problem.step, method=method, residual_tol=tol).x
        yield agree(f"fixed point by {method}: {name}", x, expected, bound)


def _adjoint_checks(name: str, problem: KnownProblem, star: SolverResult) -> Iterator[Check]:
    lin = problem.step.linearize(star.x)
    gradient = squared_loss_gradient(star.x, problem.target)
    expected = dense_adjoint_state(lin, gradient)
    for method in ADJOINT_METHODS:
        if method == "jacobian_free" or (method == "cg" and not problem.step.problem.theta.tied):
            continue
        q = solve_adjoint(lin, gradient, method=method, residual_tol=TOL).x
        yield agree(f"E9 by {method}: {name}", q, expected, SOLVED)
    for preconditioner in preconditioners(problem):
        q = solve_adjoint(lin, gradient, preconditioner=preconditioner, residual_tol=TOL).x
        yield agree(f"E9 with {preconditioner} preconditioner: {name}", q, expected, SOLVED)


def preconditioners(problem: KnownProblem) -> tuple[str, ...]:
    """Those that the model has: a dense bank has no convolution to approximate."""
    return ("jacobi",) if problem.case.analysis == "dense" else ("jacobi", "circulant")


def dense_adjoint_state(lin: StepLinearization, gradient: Array) -> Array:
    """q from the dense matrix of ∂_u T over the whole batch; of the vjp nothing is used."""
    jacobian = dense_matrix(lin.jvp, lin.u.shape)
    q = np.linalg.solve(np.eye(len(jacobian)) - jacobian.T, gradient.ravel())
    return q.reshape(gradient.shape)


def _hypergradient_checks(
    name: str, problem: KnownProblem, star: SolverResult, expected: dict[str, Array]
) -> Iterator[Check]:
    loss = squared_loss(star.x, problem.target)
    yield agree(f"E11: {name}", loss, expected["loss"], SOLVED)
    given = implicit_gradient(problem, star)
    for key, value in given.items():
        if key != "gamma":
            check = f"E10 in {key} against dense matrices: {name}"
            yield agree(check, value, expected[f"hypergradient_{key}"], SOLVED)
    # γ multiplies all weights, so γ dℓ/dγ = Σ_k w_k dℓ/dw_k.
    theta = problem.step.problem.theta
    weighted = np.sum(theta.weights * given.weights) / theta.gamma
    yield agree(f"E10 in gamma against weights: {name}", given.gamma, weighted, SOLVED)


def implicit_gradient(problem: KnownProblem, star: SolverResult) -> Parameters:
    """dℓ/dθ by the method that "auto" chooses."""
    gradient = squared_loss_gradient(star.x, problem.target)
    return hypergradient(problem.step, star, gradient, residual_tol=TOL).gradient


def _unrolled_checks(name: str, problem: KnownProblem, star: SolverResult) -> Iterator[Check]:
    """Reverse mode through twice the steps that bring u to 1e-12: its error is k ρᵏ, not ρᵏ."""
    start = np.zeros_like(star.x)
    found = reconstruct(problem.step, start, method="picard", residual_tol=TOL)
    count = 2 * int(found.iterations.max())
    _, unrolled = unrolled_hypergradient(
        problem.step, start, lambda u: squared_loss_gradient(u, problem.target), count
    )
    expected = implicit_gradient(problem, star)
    yield from agree_each(f"E10, unrolled against implicit: {name}", unrolled, expected, SOLVED)
