"""Stage one: train every preset, tied and untied, two presets at a time.

Total variation with its best weight is one more run of each. A run already saved with the same
settings is left alone.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from figures.workers import run_side_by_side
from refimpl.experiments import (
    BASELINE,
    EXPERIMENTS,
    METHODS,
    Experiment,
    run,
    run_total_variation,
    save_run,
    summarize,
)
from refimpl.experiments.runs import FORMAT
from refimpl.storage import write_file
from refimpl.training.loop import nan_last

RUNS = (*METHODS, BASELINE)
SWEPT = ("noise", "sigma")
QUICK = {
    "conv-denoising-3x3": 3,
    "conv-inpainting-3x3": 3,
    "conv-deconvolution-3x3": 3,
    "dense-inpainting-tanh": 3,
    "noise-denoising-0.1": 4,
    "noise-denoising-0.3": 4,
    "sigma-inpainting-tanh": 3,
}


def presets(quick: bool) -> list[Experiment]:
    """All presets, the slowest first; or, quick, seven of them for a few steps."""
    if quick:
        return [_shortened(EXPERIMENTS[name], steps) for name, steps in QUICK.items()]
    order = ("conv", "dense", "noise", "seed", "sigma")
    return sorted(EXPERIMENTS.values(), key=lambda e: order.index(e.name.split("-")[0]))


def methods(experiment: Experiment) -> tuple[str, ...]:
    """All of `RUNS`; in sweeps without the untied model from the preset's own start."""
    swept = experiment.name.startswith(SWEPT) and experiment.name != "noise-denoising-0.1"
    return tuple(method for method in RUNS if not (swept and method == "deq"))


def _shortened(experiment: Experiment, steps: int) -> Experiment:
    return replace(experiment, training=replace(experiment.training, max_iterations=steps))


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
    small = replace(EXPERIMENTS["conv-denoising-3x3"], train_images=1, test_images=1)
    small = _shortened(replace(small, image_size=8), 1)
    for method in METHODS[:2]:
        run(small, method)


def train_preset(experiment: Experiment, folder: Path) -> str:
    """Every way of one preset, and what to say of it: test PSNR, and training losses above TV's."""
    baseline = run_total_variation(experiment)
    save_run(run_path(experiment, BASELINE, folder), baseline)
    limit, tied = baseline.records[0]["loss_train"], None
    said = [f"{BASELINE} {baseline.psnr.mean():.2f} dB"]
    for method in methods(experiment)[:-1]:
        start = tied if method == "deq_from_bilevel" else None
        result = run(experiment, method, start=start)
        tied = result.parameters if method == "bilevel" else tied
        summary = summarize(experiment, method, result)
        save_run(run_path(experiment, method, folder), summary)
        loss = min(nan_last(record["loss_train"]) for record in result.records)
        above = "" if loss < limit else ", a training loss above that of total variation"
        said.append(f"{method} {summary.psnr.mean():.2f} dB{above} ({result.ended})")
    write_file(stamp_path(experiment, folder), stamp(experiment))
    return "; ".join(said)


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
