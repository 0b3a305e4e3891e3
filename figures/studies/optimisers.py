"""The loss of one preset against time and images seen: L-BFGS, Barzilai and Borwein, Adam.

All start at the same θ̂ and train the same parameters of the tied model. Adam takes minibatches, at
each of the rates `RATES`; the loss over all images at the end of its epochs is not counted as time
of its own, since `run_epochs` always computes it.
"""

import time
from pathlib import Path

import numpy as np

from refimpl.arrays import Array
from refimpl.experiments import get_experiment, set_up
from refimpl.experiments.setup import objectives
from refimpl.training import TrainingSettings, run_epochs, train_lbfgs

PRESET = "noise-denoising-0.1"
STEPS = 60
RATES = (0.003, 0.01, 0.03)
EPOCHS, BATCH = 25, 4


def compute(runs: Path) -> dict[str, np.ndarray]:
    """Rows images seen, seconds, loss under the name of each method."""
    experiment = get_experiment(PRESET)
    setup = set_up(experiment)
    objective, _ = objectives(experiment, setup, tied=True)
    trained = experiment.training.trained
    curves = {
        "L-BFGS": by_lbfgs(objective, setup.start, trained, 20),
        "Barzilai-Borwein": by_lbfgs(objective, setup.start, trained, 0),
    }
    for rate in RATES:
        curves[f"Adam, rate {rate:g}"] = by_adam(objective, setup.start, trained, rate)
    return curves


def by_lbfgs(objective, start, trained: tuple[str, ...], memory: int) -> Array:
    """Images seen, seconds, loss of every step."""
    rows, begin = [], time.perf_counter()

    def keep(progress) -> None:
        seen = progress.evaluations * len(objective.truth)
        rows.append((seen, time.perf_counter() - begin, progress.loss))

    train_lbfgs(
        objective, start, trained=trained, max_iterations=STEPS, memory=memory, callback=keep
    )
    return np.array(rows).T


def by_adam(objective, start, trained: tuple[str, ...], rate: float) -> Array:
    """The same of every epoch."""
    settings = TrainingSettings(
        EPOCHS, rate, rate / 20, batch_size=BATCH, trained=trained, schedule="cosine"
    )
    few = objective.subset(np.arange(1))  # run_epochs looks at test images, which this does not
    records = run_epochs(objective, few, start, settings).records
    seen = len(objective.truth) * np.array([record["epoch"] for record in records])
    seconds = np.cumsum([record["seconds"] for record in records])
    return np.array([seen, seconds, [record["loss_train"] for record in records]])
