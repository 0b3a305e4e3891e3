"""Stage one: train every preset, tied and untied, two presets at a time.

A run already saved with the same settings is left alone.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from figures.workers import run_side_by_side
from refimpl.experiments import (
    EXPERIMENTS,
    METHODS,
    Experiment,
    run,
    save_run,
    summarize,
)
from refimpl.experiments.runs import FORMAT
from refimpl.storage import write_file

QUICK = {
    "dense-denoising-relu-0.1": 3,
    "dense-inpainting-relu-0.1": 3,
    "dense-deconvolution-relu-0.1": 3,
    "conv-denoising-3x3-tv": 2,
    "conv-inpainting-3x3-tv": 2,
    "conv-deconvolution-3x3-tv": 2,
}


def presets(quick: bool) -> list[Experiment]:
    """All presets, the slowest first; or, quick, six of them for a few epochs."""
    if quick:
        return [_shortened(EXPERIMENTS[name], epochs) for name, epochs in QUICK.items()]
    order = ("conv-deconvolution", "conv", "dense-inpainting", "dense")
    return [
        experiment
        for rank, prefix in enumerate(order)
        for experiment in EXPERIMENTS.values()
        if experiment.name.startswith(prefix) and not experiment.name.startswith(order[:rank])
    ]


def methods(experiment: Experiment) -> tuple[str, ...]:
    """Tied and untied; and, but for the sweep over noise levels, untied from the tied solution."""
    swept = experiment.model == "dense" and experiment.noise_level != 0.1
    return METHODS[:2] if swept else METHODS


def _shortened(experiment: Experiment, epochs: int) -> Experiment:
    return replace(experiment, training=replace(experiment.training, epochs=epochs))


def train_all(experiments: Iterable[Experiment], folder: Path, say) -> None:
    """Train what is not yet saved; `say(text)` is called as each preset is done."""
    missing = [experiment for experiment in experiments if not complete(experiment, folder)]
    if not missing:
        return
    compile_kernels()
    calls = [(experiment, folder) for experiment in missing]
    for count, ((experiment, _), losses) in enumerate(run_side_by_side(train_preset, calls), 1):
        say(f"trained {count}/{len(missing)}: {experiment.name}: {losses}")


def compile_kernels() -> None:
    """Call every kernel once, so that the workers find them compiled on disk."""
    small = replace(EXPERIMENTS["conv-denoising-3x3-tv"], train_images=1, test_images=1)
    small = _shortened(replace(small, image_size=8), 1)
    for method in METHODS[:2]:
        run(small, method)


def train_preset(experiment: Experiment, folder: Path) -> str:
    """Every way of one preset, and what to say of it."""
    losses, tied = [], None
    for method in methods(experiment):
        start = tied if method == "deq_from_bilevel" else None
        result = run(experiment, method, start=start)
        tied = result.parameters if method == "bilevel" else tied
        save_run(run_path(experiment, method, folder), summarize(experiment, method, result))
        losses.append(f"{method} {min_loss(result.records):.4g}")
    write_file(stamp_path(experiment, folder), stamp(experiment))
    return ", ".join(losses)


def min_loss(records) -> float:
    """The lowest training loss on record, that of the parameters kept."""
    return min(r["loss_train"] for r in records if r["loss_train"] == r["loss_train"])


def run_path(experiment: Experiment, method: str, folder: Path) -> Path:
    """Where a run is saved."""
    return folder / f"{experiment.name}-{method}.npz"


def stamp_path(experiment: Experiment, folder: Path) -> Path:
    """Where the stamp of a preset is."""
    return folder / f"{experiment.name}.json"


def complete(experiment: Experiment, folder: Path) -> bool:
    """Whether every run is saved, with these very settings."""
    path = stamp_path(experiment, folder)
    runs = [run_path(experiment, method, folder) for method in methods(experiment)]
    saved = path.exists() and all(path.exists() for path in runs)
    return saved and path.read_bytes() == stamp(experiment)


def stamp(experiment: Experiment) -> bytes:
    """What is written once all runs of a preset are saved: their format and settings."""
    return json.dumps({"format": FORMAT, **experiment.settings()}).encode()
