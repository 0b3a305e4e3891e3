"""Test loss and PSNR against the noise level that the dense models were trained and tested with."""

from pathlib import Path

import numpy as np

from figures.saved import kept, saved_runs
from figures.style import METHOD_STYLES, plt, save
from refimpl.experiments import NOISE_LEVELS, PROBLEMS, Run
from refimpl.images import psnr

ACTIVATIONS = {"relu": "ReLU", "softshrink": "soft-shrinkage", "identity": "identity"}
METHODS = ("bilevel", "deq")


def draw(output: Path) -> None:
    """Save noise_levels (loss) and noise_levels_psnr."""
    runs = {
        (problem, activation, level): saved_runs(output, f"dense-{problem}-{activation}-{level:g}")
        for problem in PROBLEMS
        for activation in ACTIVATIONS
        for level in NOISE_LEVELS
    }
    draw_grid(output, "noise_levels", runs, test_loss, "test loss")
    draw_grid(output, "noise_levels_psnr", runs, mean_psnr, "test PSNR [dB]")


def test_loss(run: Run) -> float:
    """Of the parameters kept; nan where some test image has no fixed point."""
    return kept(run)["loss_test"]


def mean_psnr(run: Run) -> float:
    """Mean over the test images in dB; nan where one has no fixed point."""
    return float(run.psnr.mean())


def draw_grid(output: Path, name: str, runs: dict, measure, label: str) -> None:
    """Problems down, activations across; noise levels at equal distances."""
    figure, panels = plt.subplots(3, 3, figsize=(8.4, 6.6), sharex=True, sharey="row")
    for problem, row in zip(PROBLEMS, panels):
        for activation, axes in zip(ACTIVATIONS, row):
            cells = [runs[problem, activation, level] for level in NOISE_LEVELS]
            for method in METHODS:
                values = [measure(cell[method]) if method in cell else np.nan for cell in cells]
                axes.plot(values, **METHOD_STYLES[method])
            if measure is mean_psnr:
                axes.plot([data_psnr(cell) for cell in cells], "k-.", linewidth=0.8, label="data")
            else:
                axes.set_yscale("log")
            axes.set_title(f"{problem}, {ACTIVATIONS[activation]}")
            if not any(cells):
                axes.text(0.5, 0.5, "not trained", ha="center", transform=axes.transAxes)
        row[0].set_ylabel(label)
    for axes in panels[-1]:
        axes.set_xlabel("noise level (equally spaced)")
        axes.set_xticks(range(len(NOISE_LEVELS)), [f"{level:g}" for level in NOISE_LEVELS])
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save(figure, output, name)


def data_psnr(cell: dict[str, Run]) -> float:
    """Mean PSNR of the data, which have the shape of images; nan when not trained or no noise."""
    if not cell:
        return np.nan
    run = next(iter(cell.values()))
    values = psnr(run.y, run.truth, tuple(run.settings["value_range"]))
    return float(values.mean()) if np.isfinite(values).all() else np.nan
