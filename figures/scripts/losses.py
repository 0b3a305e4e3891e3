"""Training and test loss against epoch for the three ways of training, one panel a preset."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from figures.saved import saved_runs
from figures.style import METHOD_STYLES, plt, save
from refimpl.experiments import PROBLEMS, Run

ROWS = {"dense": "dense-{}-relu-0.1", "convolutional": "conv-{}-3x3-tv"}


def draw(output: Path) -> None:
    """Save losses."""
    figure, panels = plt.subplots(len(ROWS), len(PROBLEMS), figsize=(8.4, 5.0))
    for (label, preset), row in zip(ROWS.items(), panels):
        for problem, axes in zip(PROBLEMS, row):
            runs = saved_runs(output, preset.format(problem))
            draw_runs(axes, runs)
            axes.set_title(
                f"{label} {problem}" if runs else f"{label} {problem}: not trained", loc="right"
            )
            axes.set_xlabel("epoch")
        row[0].set_ylabel("loss, mean of (u − u†)²")
    figure.legend(*legend_entries(), loc="outside lower center", ncols=4)
    save(figure, output, "losses")


def draw_runs(axes, runs: dict[str, Run]) -> None:
    """Training losses with filled markers, test losses with hollow ones and thinner lines."""
    for method, run in runs.items():
        style = METHOD_STYLES[method]
        for part, options in appearances(style["color"]).items():
            epochs, losses = curve(run, part)
            axes.plot(epochs, losses, **{**style, **options})
            failed = epochs[~np.isfinite(losses)]
            # An evaluation without a fixed point: a gap in the curve, a cross on the axis.
            axes.plot(
                failed,
                np.full(len(failed), 0.02),
                "x",
                color=style["color"],
                markersize=6,
                transform=axes.get_xaxis_transform(),
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-1, 2), useMathText=True)


def curve(run: Run, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and losses of "train" or "test"; nan where an evaluation failed."""
    epochs = np.array([record["epoch"] for record in run.records])
    return epochs, np.array([record[f"loss_{part}"] for record in run.records])


def appearances(colour: str) -> dict[str, dict]:
    """What tells training from test."""
    return {
        "train": {"markerfacecolor": colour},
        "test": {"markerfacecolor": "white", "linewidth": 0.8},
    }


def legend_entries() -> tuple[list, list[str]]:
    """Handles and labels of every method and part, and of failures."""
    handles, labels = [], []
    for style in METHOD_STYLES.values():
        for part, options in appearances(style["color"]).items():
            handles.append(plt.Line2D([], [], **{**style, **options}))
            labels.append(f"{style['label']}, {'training' if part == 'train' else 'test'}")
    handles.append(plt.Line2D([], [], color="black", linestyle="none", marker="x", markersize=6))
    return handles, [*labels, "no fixed point found"]
