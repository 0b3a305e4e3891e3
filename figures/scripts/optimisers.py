"""Loss against images seen and against time for L-BFGS, Barzilai and Borwein's steps, and Adam."""

from pathlib import Path

import numpy as np

from figures.saved import kept, saved_runs
from figures.studies import load_study
from figures.studies.optimisers import PRESET
from figures.style import BASELINE_STYLE, LINE_STYLES, SOLVER_COLOURS, plt, save
from refimpl.experiments import BASELINE

AXES = {0: "images seen", 1: "time [s]"}


def draw(output: Path) -> None:
    """Save optimisers."""
    curves = load_study(output, "optimisers")
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 4.0), sharey=True)
    baseline = saved_runs(output, PRESET).get(BASELINE)
    for axes, (row, label) in zip(panels, AXES.items()):
        for k, (name, curve) in enumerate(curves.items()):
            look = {"color": SOLVER_COLOURS[k], "linestyle": LINE_STYLES[k]}
            axes.plot(curve[row], curve[2], **look, label=name)
        if baseline is not None:
            axes.axhline(kept(baseline)["loss_train"], **BASELINE_STYLE)
        axes.set(xlabel=label, yscale="log")
    panels[0].set_ylabel("training loss")
    panels[1].legend()
    figure.suptitle("denoising, 8 filters of 3 × 3, tied", fontsize=9)
    save(figure, output, "optimisers", claim(curves))


def claim(curves: dict[str, np.ndarray]) -> str:
    """The lowest loss, and who reaches first, in time, what all but the slowest reach."""
    lowest = min(curves, key=lambda name: np.nanmin(curves[name][2]))
    level = 1.02 * np.nanmin(curves[lowest][2])
    times = {name: reached(curve, level) for name, curve in curves.items()}
    order = sorted((name for name in times if np.isfinite(times[name])), key=times.get)
    listed = ", ".join(f"{name} after {times[name]:.1f} s" for name in order)
    missing = ", ".join(name for name in times if name not in order)
    tail = f"; not by {missing}" if missing else ""
    return (
        f"The lowest training loss, {np.nanmin(curves[lowest][2]):.3e}, is that of {lowest}. "
        f"Within 2 % of it: {listed}{tail}."
    )


def reached(curve: np.ndarray, level: float) -> float:
    """The first time at which the loss is at most `level`; inf if it never is."""
    below = np.flatnonzero(curve[2] <= level)
    return float(curve[1, below[0]]) if len(below) else np.inf
