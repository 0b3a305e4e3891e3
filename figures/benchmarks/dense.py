"""The dense model, 100 faces of 25 × 25, 1250 rows, ReLU: refimpl against the paper's Anderson.

The paper's solver is Anderson's method with memory 5 in torch, forward and for the adjoint state,
with the ridge and the bordered system of the deep-equilibrium tutorial in float32; here also in
float64, where float32 does not reach the target. Both are tightened until ‖u − u*‖ / ‖u*‖ and the
error of dℓ/dA are at most 5e-6.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from figures.benchmarks.problems import Exact
from figures.benchmarks.tasks import Fitted, fit, timed
from figures.benchmarks.variants import ADJOINT_FACTOR, Outcome, make_refimpl
from figures.task import Task, distance
from refimpl.experiments import set_up
from refimpl.experiments.presets import dense_experiment
from refimpl.images import PAPER_RANGE, add_noise, faces
from refimpl.results import BreakdownError, NotConvergedError

EXPERIMENT, IMAGES, TARGET = dense_experiment("denoising", "relu", 0.1), 100, 5e-6
FIRST, ITERATIONS = 1e-6, 200
TAU = 0.6  # J lies between 1 and 2.2; the norm of a dense A is only proved to be far larger
MEMORY, RIDGES, MOST = 5, (1e-4, 1e-10), 5_000


def make_problem(images: int = IMAGES) -> Task:
    """The experiment's model and start on all the faces there are."""
    setup, both = set_up(EXPERIMENT), faces().rescaled(PAPER_RANGE)
    truth = np.concatenate([both.train, both.test])[:images]
    rng = np.random.default_rng(EXPERIMENT.seed)
    y = add_noise(setup.model.operator.matvec(truth), EXPERIMENT.noise_level, rng)
    return Task(EXPERIMENT.name, replace(setup.model, tau=TAU).step(setup.start, y), truth)


def reference(problem: Task) -> Exact:
    """By refimpl to 1e-14, and again by plain Anderson in torch to 1e-13."""
    found = make_refimpl(problem, ITERATIONS)(1e-14)
    second = solve_torch(problem, torch.float64, RIDGES[1], 1e-13)
    return Exact(
        found.state, found.gradient, distance(second.state, found.state),
        distance(second.gradient, found.gradient),
    )


@torch.no_grad()
def solve_torch(problem: Task, dtype: torch.dtype, ridge: float, tol: float) -> Outcome:
    """Anderson's method on T, then on q ← ∇ℓ + (∂_u T)ᵀ q, the identity as forward operator."""
    step, theta = problem.step, problem.step.problem.theta
    arrays = step.problem.y, problem.truth, theta.A, theta.b
    y, truth, A, b = (torch.tensor(x, dtype=dtype).flatten(1 if x.ndim > 2 else 0) for x in arrays)
    A, gamma, lam, tau = A.view(theta.A.shape), float(theta.gamma), step.problem.lam, step.tau

    def field(z: Tensor) -> Tensor:
        return gamma * torch.relu(z) @ A

    def apply(u: Tensor) -> Tensor:
        return u - tau * (lam * (u - y) + field(torch.addmm(b, u, A.T)))

    u, evaluations = anderson(apply, y, ridge, tol, 1 + 0 * y)
    z = torch.addmm(b, u, A.T)
    slopes, loss = gamma * (z > 0).to(dtype), 2 / u.numel() * (u - truth)

    def adjoint(q: Tensor) -> Tensor:
        return loss + q - tau * (lam * q + (slopes * (q @ A.T)) @ A)

    q, products = anderson(adjoint, loss, ridge, ADJOINT_FACTOR * tol, loss)
    r = slopes * (q @ A.T)
    gradient = -tau * (r.T @ u + gamma * torch.relu(z).T @ q)
    return Outcome(
        u.double().numpy().ravel(), gradient.double().numpy().ravel(), evaluations, 0, products
    )


def anderson(apply, x: Tensor, ridge: float, tol: float, scale: Tensor) -> tuple[Tensor, int]:
    """α from the bordered system (0 1ᵀ; 1 FFᵀ + ridge I)(·; α) = (1; 0), u ← Σ α_i T(u_i)."""
    scale, values, residuals = torch.maximum(scale.norm(dim=1), x.norm(dim=1)), [], []
    for k in range(1, MOST + 1):
        value = apply(x)
        values, residuals = [*values, value][-MEMORY:], [*residuals, value - x][-MEMORY:]
        if (residuals[-1].norm(dim=1) <= tol * scale).all():
            return x, k
        F, n = torch.stack(residuals, 1), len(values)
        system = torch.ones(len(x), n + 1, n + 1, dtype=x.dtype)
        system[:, 0, 0] = 0
        system[:, 1:, 1:] = F @ F.mT + ridge * torch.eye(n, dtype=x.dtype)
        right = torch.zeros(len(x), n + 1, 1, dtype=x.dtype)
        right[:, 0] = 1
        alpha = torch.linalg.solve(system, right)[:, 1:]
        x = (alpha * torch.stack(values, 1)).sum(1)
    return x, MOST


def compare(problem: Task, say) -> dict:
    """Rows of refimpl and of every setting of Anderson's method that reaches the target."""
    goal = reference(problem)
    solves = {"refimpl": make_refimpl(problem, ITERATIONS)}
    for dtype in (torch.float32, torch.float64):
        for ridge in RIDGES:
            name = f"torch anderson {str(dtype)[6:]} ridge {ridge:g}"
            solves[name] = partial(solve_torch, problem, dtype, ridge)
    rows, fitted = {}, {}
    for name, solve in solves.items():
        try:
            fitted[name] = Fitted(solve, 1.0, *fit(solve, goal, TARGET, FIRST))
        except (NotConvergedError, BreakdownError, torch.linalg.LinAlgError) as error:
            rows[name] = {"failed": str(error).splitlines()[0]}
        say(f"  {name}: {rows.get(name, {}).get('failed', 'tolerance found')}")
    return {"rows": rows | timed(fitted), "target": TARGET, "cross_check": list(goal[2:])}
