"""Error of the hypergradient against work, for every method and one test image.

All but the unrolled method start from u*, whose cost is not counted. Work counts products with
(∂_u T)ᵀ or Jᵀ, and for the unrolled method also its K steps from u0 = Kᵀ y and those that
it computes again. The reference is GMRES in one cycle, to rounding errors.
"""

from pathlib import Path

import numpy as np

from figures.studies.trained import load_tasks, recording, solution
from figures.task import Task, distance, filters_vector
from refimpl.arrays import Array
from refimpl.equilibrium import solve_adjoint
from refimpl.equilibrium.implicit import unrolled_hypergradient

KRYLOV = {"gmres": {"method": "gmres"}, "bicgstab": {"method": "bicgstab"}}
CONJUGATE = {
    "cg": {"method": "cg"},
    "cg (circulant)": {"method": "cg", "preconditioner": "circulant"},
    "cg (jacobi)": {"method": "cg", "preconditioner": "jacobi"},
}
KRYLOV_METHODS = {"tied": CONJUGATE | KRYLOV, "untied": KRYLOV}
KRYLOV_BUDGETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 112)
STATIONARY = {
    "neumann": (0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 767),
    "anderson": (0, 1, 3, 7, 15, 31, 63, 95, 127, 159, 191, 223),
}
UNROLLED_STEPS = (1, 4, 8, 16, 32, 64, 128, 256)
REFERENCE = {"method": "gmres", "preconditioner": "circulant", "options": {"restart": 150}}
TOLERANCE = 1e-13


def compute(runs: Path) -> dict[str, np.ndarray]:
    """Rows work, error, cosine under "model/method", for the models that are trained."""
    arrays = {}
    for model, problem in load_tasks(runs).items():
        curves = curves_of(problem, KRYLOV_METHODS[model])
        arrays |= {f"{model}/{name}": curve for name, curve in curves.items()}
    return arrays


def curves_of(problem: Task, methods: dict[str, dict]) -> dict[str, Array]:
    """Work, error and cosine, shape (3, points), of every method."""
    star = solution(problem.step).x
    _, exact, _ = solved(problem, star, REFERENCE)
    curves = {name: krylov(problem, star, exact, chosen) for name, chosen in methods.items()}
    for name, iterations in STATIONARY.items():
        curves[name] = stationary(problem, star, exact, name, iterations)
    work, gradient, _ = solved(problem, star, {"method": "jacobian_free"})
    curves["jacobian_free"] = np.array([[work, *compared(gradient, exact)]]).T
    curves["unrolled"] = unrolled(problem, exact, UNROLLED_STEPS)
    return curves


def solved(problem: Task, star: Array, chosen: dict) -> tuple[int, Array, bool]:
    """Work, dℓ/d(A, C) and whether the adjoint solve with these arguments converged."""
    step, record = recording(problem.step)
    lin = step.linearize(star)
    result = solve_adjoint(lin, problem.loss_gradient(star), residual_tol=TOLERANCE, **chosen)
    return record.work, filters_vector(lin.params_vjp(result.x)), result.all_converged


def krylov(problem: Task, star: Array, exact: Array, chosen: dict) -> Array:
    """A row after each budget of iterations, until the method has converged."""
    rows = []
    for count in KRYLOV_BUDGETS:
        work, gradient, converged = solved(problem, star, {**chosen, "max_iterations": count})
        rows.append((work, *compared(gradient, exact)))
        if converged:
            break
    return np.array(rows).T


def stationary(
    problem: Task, star: Array, exact: Array, method: str, iterations: tuple[int, ...]
) -> Array:
    """A row after each of the iterations chosen, from one run."""
    step, record = recording(problem.step)
    lin, rows = step.linearize(star), []

    def keep(iteration: int, q: Array, residuals: Array) -> None:
        if iteration in iterations:
            rows.append((record.work, *compared(filters_vector(lin.params_vjp(q)), exact)))

    solve_adjoint(
        lin,
        problem.loss_gradient(star),
        method=method,
        residual_tol=TOLERANCE,
        max_iterations=iterations[-1],
        options={"callback": keep},
    )
    return np.array(rows).T


def unrolled(problem: Task, exact: Array, steps: tuple[int, ...]) -> Array:
    """A row for reverse mode through K steps from u0 = Kᵀ y, for each K."""
    u0 = problem.step.operator.adjoint(problem.step.problem.y)
    rows = []
    for count in steps:
        step, record = recording(problem.step)
        _, gradient = unrolled_hypergradient(step, u0, problem.loss_gradient, count)
        rows.append((record.work, *compared(filters_vector(gradient), exact)))
    return np.array(rows).T


def compared(gradient: Array, exact: Array) -> tuple[float, float]:
    """Relative error ‖g − g*‖ / ‖g*‖, and cosine of the angle between g and g*."""
    cosine = gradient @ exact / (np.linalg.norm(gradient) * np.linalg.norm(exact))
    return distance(gradient, exact), float(cosine)
