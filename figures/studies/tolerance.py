"""What a residual tolerance buys: errors of state and hypergradient where the iteration stops.

The plain iteration u ← T(u) with the paper's τ runs once; its iterates are those that any
tolerance would return. At each the adjoint system is solved to rounding errors, so that what
remains is the error that the unconverged state causes. Certificates are those of E12.
"""

from pathlib import Path

import numpy as np

from figures.studies.trained import (
    load_tasks,
    recording,
    relative_errors,
    relative_residuals,
    solution,
)
from figures.task import Task, distance, filters_vector
from refimpl import certify, reconstruct
from refimpl.arrays import Array
from refimpl.equilibrium import solve_adjoint
from refimpl.equilibrium.certificates import proved_monotonicity
from refimpl.kernels.vectors import norm

TOLERANCES = 10.0 ** -np.arange(2, 13)
CERTIFIED = slice(1, None, 4)  # certificates take longer than hypergradients, and follow a line
ADJOINT_TOLERANCE = 1e-13


def compute(runs: Path) -> dict[str, np.ndarray]:
    """The arrays of `measure` as "model/errors" and "model/bounds", and "model/monotonicity"."""
    arrays = {}
    for model, problem in load_tasks(runs).items():
        mu = proved_monotonicity(problem.step)
        errors, bounds = measure(problem, TOLERANCES, mu)
        arrays |= {f"{model}/errors": errors, f"{model}/bounds": bounds}
        arrays[f"{model}/monotonicity"] = np.array(mu)
    return arrays


def measure(problem: Task, tolerances: Array, mu: float) -> tuple[Array, Array]:
    """Relative residual, error of the state and of the hypergradient, and the same for bounds.

    Shapes (3, tolerances) and (3, certified); both errors are relative to ‖u*‖ and ‖dℓ/dθ‖, and
    bounds are infinite where μ ≤ 0.
    """
    star = solution(problem.step).x
    exact, _ = hypergradient_at(problem, star)
    states, residuals = stopped(problem, tolerances)
    solved = [hypergradient_at(problem, u[None]) for u in states]
    errors = [distance(gradient, exact) for gradient, _ in solved]
    pairs = zip(states[CERTIFIED], solved[CERTIFIED])
    rows = [certificates(problem, u[None], q, mu) for u, (_, q) in pairs]
    bounds = np.array(rows) / (norm(star)[0], np.linalg.norm(exact))
    return (
        np.stack([residuals, relative_errors(states, star), errors]),
        np.vstack([residuals[CERTIFIED], bounds.T]),
    )


def certificates(problem: Task, u: Array, q: Array, mu: float) -> tuple[float, float]:
    """Bounds on ‖u − u*‖ and on the error of dℓ/d(A, C), E12."""
    bound = certify(problem.step, u, q, problem.loss_gradient(u), mu=mu)
    filters = [value for name, value in bound.gradient.items() if name in ("A", "C")]
    return float(bound.state[0]), float(np.linalg.norm(filters))


def stopped(problem: Task, tolerances: Array) -> tuple[Array, Array]:
    """The iterate at which each tolerance that is reached stops the iteration, and its residual."""
    step, record = recording(problem.step)
    reconstruct(step, method="picard", residual_tol=tolerances.min(), max_iterations=5_000)
    states = np.concatenate([u for _, u in record.visits])
    residuals = relative_residuals(problem.step, states)
    first = [int(np.argmax(residuals <= tol)) for tol in tolerances if residuals.min() <= tol]
    return states[first], residuals[first]


def hypergradient_at(problem: Task, u: Array) -> tuple[Array, Array]:
    """dℓ/d(A, C) at u, and the adjoint state, solved to rounding errors."""
    lin = problem.step.linearize(u)
    q = solve_adjoint(
        lin,
        problem.loss_gradient(u),
        residual_tol=ADJOINT_TOLERANCE,
        max_iterations=3_000,
    ).x
    return filters_vector(lin.params_vjp(q)), q
