"""The gradient with the spectral norm frozen against the exact one, where training begins.

    A = s Â / ‖Â‖,  ℓ = ℓ(u*(A)),  s = √8

The loss depends on Â through the norm too. Freezing ‖Â‖ when differentiating, as the authors do,
drops that part. Directional derivatives ⟨g, d⟩ of both gradients are compared with central
differences of the loss itself, along random directions, along Â (where scale invariance makes the
derivative 0), along the gradient of the norm, and along the frozen gradient.

Convolutional denoising of one crop of `SIZE` × `SIZE`, for which norms by Lanczos are cheap.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from refimpl.arrays import Array
from refimpl.equilibrium.norms import leading_triplet
from refimpl.experiments import Experiment, Setup, get_experiment, set_up
from refimpl.experiments.setup import TOTAL_VARIATION_NORM
from refimpl.paper.operators.banks import Analysis
from refimpl.training.normalization import Normalization
from refimpl.training.objective import Objective, SolverSettings

PRESETS = {
    f"conv-denoising-{size}-{start}": (f"conv-denoising-{size}", start)
    for size in ("3x3", "11x11")
    for start in ("random", "total_variation")
}
SIZE = 32
RANDOM = 3
STEP = 2e-5  # of the difference quotient, for unit directions; ‖Â‖ itself is at least 1
SOLVERS = SolverSettings(
    forward_tol=1e-12,
    adjoint_tol=1e-12,
    forward_max_iterations=200,
    adjoint_max_iterations=2_000,
    preconditioner="circulant",
)


def compute(runs: Path) -> dict[str, np.ndarray]:
    """For each start, keys "START-WHAT": gradients' difference, cosine, and slopes by direction."""
    arrays = {"presets": np.array(list(PRESETS)), "directions": np.array(list(direction_names()))}
    for name, (preset, start) in PRESETS.items():
        compared = compare(replace(get_experiment(preset), start=start))
        arrays |= {f"{name}-{what}": x for what, x in compared.items()}
    return arrays


def compare(experiment: Experiment) -> dict[str, np.ndarray]:
    """Both gradients at the start of one preset, and slopes (directions, 3).

    Slopes are those of the frozen gradient, of the exact one, and of the loss by differences.
    """
    setup = set_up(replace(experiment, image_size=SIZE, train_images=1, test_images=1))
    base = objective(setup, "exact").gradient(setup.start)
    exact = base.gradient.A
    frozen = objective(setup, "frozen").gradient(setup.start, base.state.x).gradient.A

    def loss(A: Array) -> float:
        theta = replace(setup.start, A=A)
        return objective(setup, "exact").loss(theta, base.state.x).loss

    directions = unit_directions(setup, frozen)
    slopes = [
        (np.vdot(frozen, d), np.vdot(exact, d), difference_quotient(loss, setup.start.A, d))
        for d in directions
    ]
    size = np.linalg.norm
    return {
        "difference": np.array(size(frozen - exact) / size(exact)),
        "cosine": np.array(np.vdot(frozen, exact) / (size(frozen) * size(exact))),
        "size": np.array(size(exact)),
        "slopes": np.array(slopes),
    }


def objective(setup: Setup, derivative: str) -> Objective:
    """The loss of the training image as a function of Â, differentiated in one of two ways."""
    normalization = Normalization(setup.model.bank, derivative, norm=TOTAL_VARIATION_NORM)
    P = setup.model.parametrisation
    model = replace(setup.model, parametrisation=replace(P, filters=normalization))
    return Objective(model, setup.images.train, setup.y, SOLVERS)


def direction_names() -> tuple[str, ...]:
    """What each direction is, in the order of `unit_directions`."""
    return (*["random"] * RANDOM, "A", "norm", "frozen")


def unit_directions(setup: Setup, frozen: Array) -> list[Array]:
    """Random directions, Â, ∇‖Â‖ = B*(q, p) with the singular vectors, and the frozen gradient."""
    rng, A = np.random.default_rng(0), setup.start.A
    _, left, right, _ = leading_triplet(Analysis(setup.model.bank, A))
    random = [rng.standard_normal(A.shape) for _ in range(RANDOM)]
    chosen = [*random, A, setup.model.bank.adjoint_filters(right, left), frozen]
    return [d / np.linalg.norm(d) for d in chosen]


def difference_quotient(function: Callable[[Array], float], x: Array, d: Array) -> float:
    """f′(x) d by central differences, (f(x + h d) − f(x − h d)) / 2h."""
    return (function(x + STEP * d) - function(x - STEP * d)) / (2 * STEP)
