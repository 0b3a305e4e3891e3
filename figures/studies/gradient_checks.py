"""Taylor remainders of training loss and energy, and the errors of three numerical derivatives.

    loss     |ℓ(θ + h d) − ℓ(θ) − h ⟨dℓ/dθ, d⟩|, each ℓ at a state solved to rounding errors
    energy   |E(u + h v) − E(u) − h ⟨∇E, v⟩|, and with h²/2 ⟨v, H v⟩ taken off

Both signs of h are combined as in `refimpl.verification.checks.taylor`. All for the trained tied
model; the loss is that of one training image, along a random direction d of A with ‖d‖ = ‖A‖.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from figures.studies.trained import PRESET
from figures.task import distance
from refimpl.arrays import Array
from refimpl.engine import Step, TiedStep
from refimpl.experiments import get_experiment, load_run, set_up
from refimpl.kernels.vectors import dot
from refimpl.paper import equations
from refimpl.paper.parameters import Parameters
from refimpl.training.objective import Objective, SolverSettings
from refimpl.verification.checks import Taylor, taylor

EXACT = SolverSettings(
    forward_tol=1e-15,
    adjoint_tol=1e-13,
    forward_max_iterations=200,
    adjoint_max_iterations=3_000,
    preconditioner="circulant",
)
LOSS_STEPS = 4.0 ** -np.arange(2, 13)
ENERGY_STEPS = 2.0 ** -np.arange(2, 25)
DIFFERENCE_STEPS = 10.0 ** -np.arange(1, 20.1)


def compute(runs: Path) -> dict[str, np.ndarray]:
    """Taylor remainders of "loss", "gradient" and "hessian", and "differences", as NAME/ENTRY."""
    path = runs / f"{PRESET}-bilevel.npz"
    if not path.exists():
        return {}
    theta, setup = load_run(path).parameters, set_up(get_experiment(PRESET))
    objective = Objective(setup.model, setup.images.train[:1], setup.y[:1], EXACT)
    rng = np.random.default_rng(0)
    step = setup.model.step(theta, setup.y[:1])
    gradient, hessian = energy_remainders(step, rng)
    results = {
        "loss": loss_remainders(objective, theta, rng),
        "gradient": gradient,
        "hessian": hessian,
    }
    arrays = {
        f"{name}/{key}": value for name, r in results.items() for key, value in saved(r).items()
    }
    return arrays | difference_errors(step, rng)


def saved(result: Taylor) -> dict[str, np.ndarray]:
    """What the figure needs of a check."""
    names = ("steps", "remainders", "noise", "order")
    return {name: np.asarray(getattr(result, name)) for name in names}


def loss_remainders(objective: Objective, theta: Parameters, rng: np.random.Generator) -> Taylor:
    """θ ↦ ℓ(u*(θ)) along a random direction of A, with its hypergradient."""
    start = objective.gradient(theta)
    direction = rng.standard_normal(theta.A.shape)
    direction *= np.linalg.norm(theta.A) / np.linalg.norm(direction)

    def loss(t: Array) -> float:
        return objective.loss(replace(theta, A=theta.A + t * direction), start.state.x).loss

    slope = np.sum(start.gradient.A * direction)
    return taylor(loss, [slope], np.float64(0), np.float64(1), steps=LOSS_STEPS, name="loss")


def energy_remainders(step: TiedStep, rng: np.random.Generator) -> tuple[Taylor, Taylor]:
    """E along a random direction from the data, with gradient, and with gradient and Hessian."""
    u = step.problem.y
    v = rng.standard_normal(u.shape)
    lin = step.linearize(u)
    terms = [dot(lin.gradient, v), dot(v, lin.hvp(v))]
    checks = [taylor(step.energy, terms[:order], u, v, steps=ENERGY_STEPS) for order in (1, 2)]
    return checks[0], checks[1]


def difference_errors(step: Step, rng: np.random.Generator) -> dict[str, Array]:
    """Relative distance of each numerical derivative of F from ∂F v, E4, for each h."""
    u = step.problem.y
    v, F = rng.standard_normal(u.shape), partial(equations.field, step.problem)
    exact = step.field.linearize(u).jvp(v)
    arrays = {"differences/steps": DIFFERENCE_STEPS}
    for name, derivative in DERIVATIVES.items():
        values = [derivative(F, u, v, h) for h in DIFFERENCE_STEPS]
        arrays[f"differences/{name}"] = np.array([distance(x, exact) for x in values])
    return arrays


DERIVATIVES: dict[str, Callable] = {
    "forward": lambda f, u, v, h: (f(u + h * v) - f(u)) / h,
    "central": lambda f, u, v, h: (f(u + h * v) - f(u - h * v)) / (2 * h),
    "complex": lambda f, u, v, h: f(u + 1j * h * v).imag / h,
}
