"""Test photographs of 128 × 128 reconstructed with filters learned on crops of 64 × 64.

The three problems of the convolutional model: the data, total variation with the weight that is
best for these very photographs, and the models, tied and untied from tied.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from figures.train import run_path
from refimpl.arrays import Array
from refimpl.experiments import EXPERIMENTS, PROBLEMS, Experiment, Setup, load_run, set_up
from refimpl.experiments.setup import objectives, strengthened, total_variation
from refimpl.paper.filters import total_variation_filters
from refimpl.paper.parameters import make_parameters

SIZE = 128
IMAGES = 2  # one from each test photograph
METHODS = ("bilevel", "deq_from_bilevel")


def compute(runs: Path) -> dict[str, np.ndarray]:
    """Keys "PROBLEM-WHAT": truth, data, total_variation and the methods that are trained."""
    arrays = {}
    for problem in PROBLEMS:
        experiment = EXPERIMENTS[f"conv-{problem}-3x3"]
        paths = {method: run_path(experiment, method, runs) for method in METHODS}
        trained = {method: path for method, path in paths.items() if path.exists()}
        if trained:
            larger = replace(experiment, image_size=SIZE, train_images=1, test_images=IMAGES)
            pictures = reconstructed(larger, set_up(larger), trained)
            arrays |= {f"{problem}-{what}": x for what, x in pictures.items()}
    return arrays


def reconstructed(
    experiment: Experiment, setup: Setup, trained: dict[str, Path]
) -> dict[str, Array]:
    """The test images by every method."""
    _, baseline = total_variation(experiment, setup)
    weighted = strengthened(baseline, make_parameters(total_variation_filters((2, 1, 3, 3))))
    pictures = {
        "truth": setup.images.test,
        "data": setup.y_test,
        "total_variation": baseline.loss(weighted).state.x,
    }
    for method, path in trained.items():
        _, test = objectives(experiment, setup, tied=method == "bilevel")
        theta = load_run(path).parameters
        pictures[method] = test.loss(theta, test.nearby(theta)).state.x
    return pictures
