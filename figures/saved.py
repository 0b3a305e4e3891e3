"""Reading what training saved, for scripts and studies."""

from pathlib import Path

import numpy as np

from figures.train import run_path
from refimpl.experiments import EXPERIMENTS, METHODS, Run, load_run
from refimpl.experiments.runs import ARRAYS
from refimpl.storage import decoded
from refimpl.training.loop import nan_last


def saved_runs(output: Path, name: str, *, parameters: bool = False) -> dict[str, Run]:
    """The runs of one preset that are there, by method; without parameters unless asked for."""
    paths = {method: run_path(EXPERIMENTS[name], method, output / "runs") for method in METHODS}
    read = load_run if parameters else load_summary
    return {method: read(path) for method, path in paths.items() if path.exists()}


def load_summary(path: Path) -> Run:
    """A run without parameters, which take a hundred times longer to read than the rest."""
    with np.load(path, allow_pickle=False) as data:
        text = decoded(data["text"])
        arrays = {name: data[name] for name in ARRAYS}
    return Run(text["settings"], tuple(text["records"]), None, None, **arrays)


def kept(run: Run) -> dict:
    """The record of the parameters that the run kept."""
    return min(run.records, key=lambda record: nan_last(record["loss_train"]))
