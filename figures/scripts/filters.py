"""Learned filters, A of bilevel, A and C of DEQ, and ‖A − C‖ / ‖A‖ over training.

Each filter is drawn on its own scale, symmetric about zero: grey is 0. The strongest come first.
Where training moves taps by much less than their size, the change since the start is drawn too.
"""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from figures.saved import saved_runs
from figures.style import METHOD_STYLES, plt, save
from refimpl.experiments import EXPERIMENTS, Run, set_up

ROWS = {  # preset, filters shown, side by side, whether their changes are shown below them
    "30 filters 3 × 3": ("conv-denoising-3x3-tv", 30, 6, False),
    "2 filters 11 × 11,\nbelow: their change": ("conv-denoising-11x11-tv", 2, 2, True),
    "5 dense rows,\nchange": ("dense-denoising-relu-0.1", 5, 5, True),
}
COLUMNS = (("bilevel", "A"), ("deq", "A"), ("deq", "C"))


def draw(output: Path) -> None:
    """Save filters."""
    figure, panels = plt.subplots(
        len(ROWS), 4, figsize=(9.2, 6.0), width_ratios=(1, 1, 1, 1.3), height_ratios=(5, 6, 3.2)
    )
    for (label, (preset, *layout)), row in zip(ROWS.items(), panels):
        runs = saved_runs(output, preset, parameters=True)
        start = set_up(EXPERIMENTS[preset]).start.A if runs else None
        for axes, (method, name) in zip(row, COLUMNS):
            bare(axes)
            if method in runs:
                picture = learned(runs[method], name, start, layout)
                axes.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            else:
                axes.text(0.5, 0.5, "not trained", ha="center", transform=axes.transAxes)
            axes.set_title(f"{name} of {METHOD_STYLES[method]['label']}")
        row[0].set_ylabel(label)
        draw_asymmetry(row[3], runs)
    handles = [plt.Line2D([], [], **style) for style in METHOD_STYLES.values()]
    figure.legend(handles=handles, loc="outside lower right", ncols=3)
    save(figure, output, "filters")


def bare(axes) -> None:
    """No grid, ticks or frame."""
    axes.grid(False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def learned(run: Run, name: str, start: np.ndarray, layout: list) -> np.ndarray:
    """The filters with the largest norms in A, and below them what training changed."""
    shown, width, with_change = layout
    size = run.truth.shape[2:] if start.ndim == 2 else start.shape[2:]
    A, filters = (getattr(run.effective, part).reshape(-1, *size) for part in ("A", name))
    chosen = np.argsort(-np.linalg.norm(A, axis=(1, 2)), kind="stable")[:shown]
    if not with_change:
        return mosaic(filters[chosen], width)
    change = filters - start.reshape(-1, *size)
    return mosaic(np.concatenate((filters[chosen], change[chosen])), width)


def mosaic(filters: np.ndarray, width: int) -> np.ndarray:
    """Filters (F, h, w), each divided by its largest modulus, side by side with white gaps."""
    largest = np.abs(filters).max(axis=(1, 2), keepdims=True)
    scaled = filters / np.where(largest > 0, largest, 1)
    _, h, w = filters.shape
    gap = max(1, h // 10)
    height = -(-len(filters) // width)
    picture = np.full((height * (h + gap) - gap, width * (w + gap) - gap), np.nan)
    for k, one in enumerate(scaled):
        i, j = (k // width) * (h + gap), (k % width) * (w + gap)
        picture[i : i + h, j : j + w] = one
    return picture


def draw_asymmetry(axes, runs: dict[str, Run]) -> None:
    """‖A − C‖ / ‖A‖ of every epoch; the tied model stays at 0."""
    for method, run in runs.items():
        values = [record["asymmetry"] for record in run.records]
        axes.plot([record["epoch"] for record in run.records], values, **METHOD_STYLES[method])
    axes.set(xlabel="epoch", ylabel="‖A − C‖ / ‖A‖")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
