"""Slopes of the loss by the gradient with the norm frozen, by the exact one, and measured.

Slopes are divided by the norm of the exact gradient, so that they lie in [−1, 1] for the exact
one. The logarithmic axis is linear between ±`LINEAR`.
"""

from pathlib import Path

import numpy as np

from figures.studies import load_study
from figures.style import BLACK, BLUE, RED, plt, save

LABELS = {"A": "Â", "norm": "∇‖Â‖", "frozen": "frozen\ngradient"}
STARTS = {"random": "random start", "total_variation": "total-variation start"}
LINEAR = 1e-3


def draw(output: Path) -> None:
    """Save normalization."""
    study = load_study(output, "normalization")
    figure, panels = plt.subplots(2, 2, figsize=(8.4, 5.6), sharex=True, sharey=True)
    for axes, preset in zip(panels.ravel(), study["presets"]):
        draw_slopes(axes, study[f"{preset}-slopes"] / study[f"{preset}-size"])
        _, _, size, start = str(preset).split("-")
        difference, cosine = study[f"{preset}-difference"], study[f"{preset}-cosine"]
        axes.set_title(
            f"{size.replace('x', ' × ')}, {STARTS[start]}\n"
            f"‖frozen − exact‖ / ‖exact‖ = {difference:.3f}, cosine {cosine:.4f}"
        )
    for axes in panels[:, 0]:
        axes.set_ylabel("slope / ‖exact gradient‖")
    for axes in panels[1]:
        axes.set_xticks(range(len(study["directions"])), labels(study["directions"]))
        axes.set_xlabel("direction")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    save(figure, output, "normalization")


def labels(directions: np.ndarray) -> list[str]:
    """Names of the directions, the random ones numbered."""
    return [
        f"random\n{k + 1}" if d == "random" else LABELS[str(d)] for k, d in enumerate(directions)
    ]


def draw_slopes(axes, slopes: np.ndarray) -> None:
    """One column for each direction: measured, exact, frozen; wrong signs circled."""
    frozen, exact, measured = slopes.T
    places = np.arange(len(slopes))
    axes.axhline(0, color="black", linewidth=0.8)
    axes.plot(
        places,
        measured,
        "_",
        color=BLACK,
        markersize=22,
        markeredgewidth=1.5,
        label="difference quotient",
    )
    axes.plot(places, exact, "o", color=BLUE, markersize=5, label="norm differentiated (exact)")
    axes.plot(
        places, frozen, "s", color=RED, markersize=5, markerfacecolor="none", label="norm frozen"
    )
    wrong = wrong_signs(frozen, measured)
    axes.plot(
        places[wrong],
        frozen[wrong],
        "o",
        color=BLACK,
        markersize=13,
        markerfacecolor="none",
        label="frozen has the wrong sign",
    )
    axes.set_yscale("symlog", linthresh=LINEAR)
    axes.set_ylim(-2, 2)
    axes.set_yticks([-1, -1e-1, -1e-2, -LINEAR, 0, LINEAR, 1e-2, 1e-1, 1])


def wrong_signs(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Where a slope is predicted up that goes down, or down that goes up."""
    return predicted * measured < 0
