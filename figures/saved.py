"""Reading what training saved, for scripts and studies."""

from pathlib import Path

from figures.train import run_path
from refimpl.experiments import EXPERIMENTS, METHODS, Run, load_run
from refimpl.training.loop import nan_last


def saved_runs(output: Path, name: str, *, parameters: bool = False) -> dict[str, Run]:
    """The runs of one preset that are there, by method; without parameters unless asked for."""
    paths = {method: run_path(EXPERIMENTS[name], method, output / "runs") for method in METHODS}
    there = {method: path for method, path in paths.items() if path.exists()}
    return {method: load_run(path, parameters=parameters) for method, path in there.items()}


def kept(run: Run) -> dict:
    """The record of the parameters that the run kept."""
    return min(run.records, key=lambda record: nan_last(record["loss_train"]))
