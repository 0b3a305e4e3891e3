"""Test images of the three problems: truth, data, bilevel and DEQ, one figure for each model."""

from pathlib import Path

import numpy as np

from figures.saved import saved_runs
from figures.style import plt, save
from refimpl.experiments import PROBLEMS, Run
from refimpl.images import psnr, ssim

PRESETS = {"dense": "dense-{}-relu-0.1", "conv": "conv-{}-3x3-tv"}
COLUMNS = ("truth", "data", "bilevel", "deq")
LABELS = {"truth": "truth", "data": "data", "bilevel": "bilevel (tied)", "deq": "DEQ (untied)"}
IMAGE = 1  # of the test set, the same in every row


def draw(output: Path) -> None:
    """Save reconstructions_dense and reconstructions_conv."""
    for model, preset in PRESETS.items():
        figure, panels = plt.subplots(len(PROBLEMS), len(COLUMNS), figsize=(6.4, 5.6))
        for problem, row in zip(PROBLEMS, panels):
            draw_problem(row, problem, saved_runs(output, preset.format(problem)))
        for axes in panels.ravel():
            axes.grid(False)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        save(figure, output, f"reconstructions_{model}")


def draw_problem(row, problem: str, runs: dict[str, Run]) -> None:
    """Four images, titles with PSNR and SSIM against the truth."""
    level = f"\nnoise {next(iter(runs.values())).settings['noise_level']:g}" if runs else ""
    row[0].set_ylabel(problem + level)
    for axes, column in zip(row, COLUMNS):
        run = runs.get(column, runs.get("bilevel"))
        if run is None or (column == "deq" and column not in runs):
            axes.set_title(f"{LABELS[column]}\nnot trained")
            continue
        low, high = run.settings["value_range"]
        axes.imshow(
            picture(run, column)[0], cmap="gray", vmin=low, vmax=high, interpolation="nearest"
        )
        axes.set_title(f"{LABELS[column]}\n{quality(run, column)}")


def picture(run: Run, column: str) -> np.ndarray:
    """The image of one column, (1, H, W)."""
    arrays = {"truth": run.truth, "data": run.y}
    return arrays.get(column, run.reconstruction)[IMAGE]


def quality(run: Run, column: str) -> str:
    """PSNR and SSIM of the image shown, or that no fixed point was found."""
    if column == "truth":
        return "(PSNR, SSIM)"
    if column != "data" and not run.converged[IMAGE]:
        return "no fixed point found"
    pair = picture(run, column)[None], run.truth[IMAGE, None], tuple(run.settings["value_range"])
    return f"{psnr(*pair)[0]:.2f} dB, {ssim(*pair)[0]:.3f}"
