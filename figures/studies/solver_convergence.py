"""Residual and true error of every forward solver against its work, for one test image.

Work counts evaluations of E, G or T and products with J, one each: two for an energy with its
gradient. FFTs of preconditioners are not counted. The error is ‖u − u*‖ / ‖u*‖ with u* from
Newton's method to rounding errors.
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
from refimpl import reconstruct
from refimpl.arrays import Array
from refimpl.engine import Step

TOLERANCE = 1e-13
ANY_MODEL = {
    "picard": {"method": "picard", "max_iterations": 500},
    "anderson (gram ridge)": {"method": "anderson", "max_iterations": 500},
    "anderson (authors)": {
        "method": "anderson",
        "max_iterations": 500,
        "options": {"ridge": 1e-4, "ridge_scale": "absolute"},
    },
    "newton_krylov": {"method": "newton_krylov"},
}
TIED_ONLY = {
    "nesterov": {"method": "nesterov", "max_iterations": 500},
    "lbfgs": {"method": "lbfgs", "max_iterations": 300},
    "newton": {"method": "newton"},
    "newton (circulant)": {"method": "newton", "preconditioner": "circulant"},
}
SOLVERS = {"tied": ANY_MODEL | TIED_ONLY, "untied": ANY_MODEL}


def compute(runs: Path) -> dict[str, np.ndarray]:
    """Rows work, residual, error under "model/solver", for the models that are trained."""
    arrays = {}
    for model, problem in load_tasks(runs).items():
        star = solution(problem.step).x
        for solver, chosen in SOLVERS[model].items():
            arrays[f"{model}/{solver}"] = trace(problem.step, star, chosen)
    return arrays


def trace(step: Step, star: Array, chosen: dict) -> Array:
    """Work, residual and error, shape (3, visits), of every state at which a solver evaluates G."""
    recorded, record = recording(step)
    reconstruct(recorded, residual_tol=TOLERANCE, **chosen)
    work, states = zip(*record.visits)
    states = np.concatenate(states)
    return np.stack([work, relative_residuals(step, states), relative_errors(states, star)])
