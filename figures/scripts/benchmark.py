"""What `make bench` measured: ratios to refimpl for every task, and time against size."""

from pathlib import Path

import numpy as np

from figures.style import BLACK, LINE_STYLES, SOLVER_COLOURS, plt, save
from refimpl.storage import read_json

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
RIVALS = (
    "torch plain iteration",
    "torch newton",
    "torch lbfgs",
    "torch anderson",
    "jax convolutions",
    "jax stencil",
    "scipy",
)
AXES = {"size": "rows = columns of the image", "filters": "filters", "batch": "images"}


def draw(output: Path) -> None:
    """Save benchmark."""
    results = read_json(output / "benchmark.json")
    figure, panels = plt.subplots(
        1, 4, figsize=(13, 4.2), gridspec_kw={"width_ratios": [3, 1, 1, 1]}
    )
    draw_ratios(panels[0], results.get("tasks", {}))
    for axes, axis in zip(panels[1:], AXES):
        draw_scaling(axes, axis, results.get("scaling", {}).get(axis, []))
    panels[1].set_ylabel("seconds")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower right", ncols=3)
    save(figure, output, "benchmark")


def draw_ratios(axes, tasks: dict) -> None:
    """Time of every rival as a multiple of refimpl's; hollow where it is extrapolated."""
    columns = [(name, error) for name, task in tasks.items() for error in task["targets"]]
    for rival, colour, marker in zip(RIVALS, SOLVER_COLOURS, MARKERS):
        rows = [tasks[name]["targets"][error].get(rival, {}) for name, error in columns]
        measured = [(x, row) for x, row in enumerate(rows) if "ratio" in row]
        if measured:
            axes.plot([], [], color=colour, marker=marker, linestyle="none", label=rival)
        for x, row in measured:
            axes.plot(
                x, row["ratio"], color=colour, marker=marker, markersize=6,
                fillstyle="none" if estimated(row) else "full",
            )
    axes.axhline(1, color=BLACK, linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(
        range(len(columns)), [f"{name}\n{error}" for name, error in columns], rotation=60
    )
    axes.set_ylabel("time / time of refimpl")
    axes.set_title("to the same relative error of dℓ/dθ (hollow: extrapolated)")


def estimated(row: dict) -> bool:
    """Whether a time was not measured on the whole problem."""
    return bool(row.get("extrapolated") or row.get("scaled"))


def draw_scaling(axes, axis: str, rows: list[dict]) -> None:
    """Seconds of one gradient and of one hypergradient, with a line of the expected growth."""
    axes.set_title(f"time against {axis}")
    axes.set_xlabel(AXES[axis])
    if not rows:
        return
    x = np.array([row[axis] for row in rows], dtype=float)
    for key, colour, line in zip(("gradient", "hypergradient"), SOLVER_COLOURS, LINE_STYLES):
        y = [row[f"{key}_seconds"] for row in rows]
        axes.loglog(x, y, color=colour, linestyle=line, marker="o", label=key)
    power = 2 if axis == "size" else 1
    expected = rows[-1]["gradient_seconds"] * (x / x[-1]) ** power
    axes.loglog(x, expected, color=BLACK, linestyle=":", linewidth=0.8, label="proportional")
    axes.set_xticks(x, [f"{value:g}" for value in x], rotation=60)
    axes.set_xticks([], minor=True)
