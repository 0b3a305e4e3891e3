"""Reconstructions from data with a noise level that the model was not trained on.

The models trained at noise level 0.1 denoise the same test images at other levels. The noise is
one realisation n for each image, scaled: y = u† + ε n, so that curves over ε are not themselves
noisy.
"""

from pathlib import Path

import numpy as np

from figures.train import run_path
from refimpl.arrays import Array
from refimpl.experiments import EXPERIMENTS, METHODS, Experiment, Run, load_run, set_up
from refimpl.images import psnr
from refimpl.results import BreakdownError
from refimpl.training.objective import Objective

PRESETS = {"dense": "dense-denoising-relu-0.1", "convolutional": "conv-denoising-3x3-tv"}
NOISE_LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


def compute(runs: Path) -> dict[str, np.ndarray]:
    """Mean PSNR in dB of data and reconstructions at each level, keys "MODEL-METHOD".

    NaN where some test image has no fixed point that the preset's solver finds.
    """
    arrays = {"noise_levels": np.array(NOISE_LEVELS)}
    for model, name in PRESETS.items():
        for method in METHODS:
            path = run_path(EXPERIMENTS[name], method, runs)
            if path.exists():
                run = load_run(path)
                arrays[f"{model}-data"] = np.array([mean_psnr(run, y) for y in noisy_data(run)])
                arrays[f"{model}-{method}"] = qualities(EXPERIMENTS[name], run, method)
    return arrays


def noisy_data(run: Run) -> list[Array]:
    """y = u† + ε n at each level, with the n of the saved data of the same images."""
    noise = (run.y - run.truth) / run.settings["noise_level"]
    return [run.truth + level * noise for level in NOISE_LEVELS]


def qualities(experiment: Experiment, run: Run, method: str) -> Array:
    """Mean PSNR of the reconstructions at each level, each started at the last one's."""
    tied = method == "bilevel"
    solvers = experiment.tied_solvers if tied else experiment.untied_solvers
    model, start, values = set_up(experiment).model, None, []
    for y in noisy_data(run):
        try:
            state = Objective(model, run.truth, y, solvers).loss(run.parameters, start).state
        except BreakdownError:
            values.append(np.nan)
            continue
        values.append(mean_psnr(run, state.x) if state.all_converged else np.nan)
        start = state.x if state.all_converged else None
    return np.array(values)


def mean_psnr(run: Run, u: Array) -> float:
    """Mean over the test images, in dB."""
    return float(psnr(u, run.truth, tuple(run.settings["value_range"])).mean())
