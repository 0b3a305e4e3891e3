"""Learned filters before and after: A at the start, A tied, A and C untied from tied.

The strongest, by w ‖A_k‖ of the tied model, come first, the same order in every column. Each filter
is drawn on its own scale, symmetric about zero: grey is 0. The last column: w ‖A_k‖ of each.
"""

from pathlib import Path

import numpy as np

from figures.saved import saved_runs
from figures.style import METHOD_STYLES, bare, plt, save
from refimpl.experiments import EXPERIMENTS, Run, set_up

ROWS = {  # preset, filters shown, side by side
    "denoising,\n30 filters 3 × 3": ("conv-denoising-3x3", 30, 6),
    "inpainting,\n30 filters 3 × 3": ("conv-inpainting-3x3", 30, 6),
    "denoising,\n2 filters 11 × 11": ("conv-denoising-11x11", 2, 2),
    "inpainting,\n12 dense rows": ("dense-inpainting-tanh", 12, 4),
}
COLUMNS = ("start", "A, tied", "A, untied from tied", "C, untied from tied")


def draw(output: Path) -> None:
    """Save filters."""
    figure, panels = plt.subplots(len(ROWS), 5, figsize=(10.5, 9), width_ratios=(1, 1, 1, 1, 1.2))
    lines = []
    for (label, (preset, *layout)), row in zip(ROWS.items(), panels):
        runs = saved_runs(output, preset, parameters=True)
        for axes, title in zip(row[:4], COLUMNS):
            bare(axes)
            axes.set_title(title)
        row[0].set_ylabel(label)
        if "bilevel" not in runs or "deq_from_bilevel" not in runs:
            row[0].text(0.5, 0.5, "not trained", ha="center", transform=row[0].transAxes)
            continue
        banks = columns(EXPERIMENTS[preset], runs)
        strength = {method: strengths(runs[method]) for method in ("bilevel", "deq_from_bilevel")}
        order = np.argsort(-strength["bilevel"], kind="stable")
        for axes, bank in zip(row, banks):
            picture = mosaic(bank[order[: layout[0]]], layout[1])
            axes.imshow(picture, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        draw_strengths(row[4], strength, order)
        lines.append(claim(preset, *banks))
    handles = [plt.Line2D([], [], **METHOD_STYLES[m]) for m in ("bilevel", "deq_from_bilevel")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    save(figure, output, "filters", "\n".join(lines) or "Nothing is trained.")


def columns(experiment, runs: dict[str, Run]) -> list[np.ndarray]:
    """The four banks as pictures (F, h, w)."""
    setup = set_up(experiment)
    start = setup.model.effective(setup.start).A
    size = setup.images.train.shape[2:] if start.ndim == 2 else start.shape[2:]
    tied, untied = (runs[method].effective for method in ("bilevel", "deq_from_bilevel"))
    return [x.reshape(-1, *size) for x in (start, tied.A, untied.A, untied.C)]


def strengths(run: Run) -> np.ndarray:
    """γ w ‖A_k‖ of each filter."""
    theta = run.effective
    return theta.gamma * theta.weights * np.linalg.norm(theta.A.reshape(len(theta.A), -1), axis=1)


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


def draw_strengths(axes, strength: dict[str, np.ndarray], order: np.ndarray) -> None:
    """γ w ‖A_k‖ in the order of the pictures."""
    for method, values in strength.items():
        style = {**METHOD_STYLES[method], "marker": None if len(order) > 40 else "o"}
        axes.plot(np.arange(1, len(order) + 1), values[order], **style)
    axes.set(xlabel="filter", ylabel="γ w ‖A_k‖", yscale="log")


def claim(preset: str, start, tied, untied, synthesis) -> str:
    """How far training moved A, and how far untying moved C from A."""
    size = np.linalg.norm
    scale = np.vdot(start, tied) / size(start) ** 2  # the part that only scales the start
    moved = size(tied - scale * start) / size(tied)
    apart = size(untied - synthesis) / size(untied)
    return (
        f"{preset}: the part of A that is no multiple of the start is {moved:.0%} of it; "
        f"untied, ‖A − C‖ / ‖A‖ = {apart:.2f}."
    )
