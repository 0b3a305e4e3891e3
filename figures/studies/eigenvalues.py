"""Eigenvalues of ∂_u T at the fixed point, before training, and after it for every method.

    ∂_u T = I − τ J,   J = λ KᵀK + ∂F

Tied, J is a Hessian: symmetric, with real eigenvalues. Untied, J need not be symmetric, and
‖J − Jᵀ‖ / ‖J‖ (Frobenius) says how far it is from being the Hessian of any energy. The matrix of J
is formed column by column: for one face of 25 × 25 (dense model), and for one crop of
`CROP` × `CROP` with the filters learned on larger ones (convolutional model).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from figures.train import run_path
from refimpl import reconstruct
from refimpl.engine import Step
from refimpl.experiments import EXPERIMENTS, METHODS, Experiment, load_run, set_up
from refimpl.results import BreakdownError
from refimpl.verification.checks import dense_matrix

PRESETS = {
    (model, problem): f"{prefix}-{problem}-{suffix}"
    for model, prefix, suffix in (
        ("dense", "dense", "tanh"),
        ("convolutional", "conv", "3x3"),
    )
    for problem in ("denoising", "inpainting", "deconvolution")
}
START = "start"
CROP = 20
TOLERANCE = 1e-12  # of the forward solve, far below the accuracy that a plot shows
MAX_ITERATIONS = 200


def compute(runs: Path) -> dict[str, np.ndarray]:
    """For each saved run: eigenvalues of ∂_u T, asymmetry of J, residual of the fixed point.

    Keys are "MODEL-PROBLEM-METHOD-WHAT" with WHAT one of eigenvalues, asymmetry, residual.
    """
    arrays = {}
    for (model, problem), name in PRESETS.items():
        paths = {method: run_path(EXPERIMENTS[name], method, runs) for method in METHODS}
        there = {method: path for method, path in paths.items() if path.exists()}
        for method in (START, *there) if there else ():
            theta = load_run(there[method]).parameters if method in there else None
            spectrum = spectrum_at_fixed_point(*trained_step(EXPERIMENTS[name], theta))
            arrays |= {f"{model}-{problem}-{method}-{what}": x for what, x in spectrum.items()}
    return arrays


def trained_step(experiment: Experiment, theta) -> tuple[Step, np.ndarray]:
    """T for the first test image, cropped for the convolutional model, and a start Kᵀy.

    `theta` is θ̂; None: that of the preset's start, with the γ that is best for one image.
    """
    size = experiment.image_size if experiment.model == "dense" else CROP
    setup = set_up(replace(experiment, image_size=size, train_images=1, test_images=1))
    step = setup.model.step(setup.start if theta is None else theta, setup.y_test)
    return step, setup.model.operator.adjoint(setup.y_test)


def spectrum_at_fixed_point(step: Step, start: np.ndarray) -> dict[str, np.ndarray]:
    """Eigenvalues of ∂_u T at u*, computed alike for symmetric and other matrices.

    Only the residual where no fixed point is found, nan where the solver broke down.
    """
    try:
        state = reconstruct(
            step, start, method="newton_krylov", residual_tol=TOLERANCE,
            max_iterations=MAX_ITERATIONS,
        )
    except BreakdownError:
        return {"residual": np.array([np.nan])}
    if not state.all_converged:
        return {"residual": state.residuals}
    J = dense_matrix(step.linearize(state.x).direction_jvp, state.x.shape)
    return {
        "eigenvalues": 1 - step.tau * np.linalg.eigvals(J),
        "asymmetry": np.array(np.linalg.norm(J - J.T) / np.linalg.norm(J)),
        "residual": state.residuals,
    }
