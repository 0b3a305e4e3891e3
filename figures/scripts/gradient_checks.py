"""Taylor remainders with their slopes, and finite differences against the complex step."""

from pathlib import Path

import numpy as np

from figures.studies import load_study
from figures.studies.trained import DESCRIPTION
from figures.style import BLACK, BLUE, GREEN, ORANGE, RED, plt, save

REMAINDERS = {
    "loss": (RED, "s", "training loss, with hypergradient"),
    "gradient": (BLUE, "o", "energy, with gradient"),
    "hessian": (GREEN, "^", "energy, with gradient and Hessian"),
}
DIFFERENCES = {
    "forward": (ORANGE, ":", "v", "forward difference"),
    "central": (BLUE, "--", "o", "central difference"),
    "complex": (BLACK, "-", "s", "complex step"),
}


def draw(output: Path) -> None:
    """Save gradient_checks."""
    study = load_study(output, "gradient_checks")
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.8))
    figure.suptitle(f"tied model, {DESCRIPTION}; one training image, random directions", fontsize=9)
    if study:
        for name, style in REMAINDERS.items():
            draw_remainder(left, study, name, style)
        draw_differences(right, study)
    state = "" if study else ": not trained"
    left.set(title=f"Taylor remainders{state}", xlabel="h")
    left.set_ylabel("remainder / remainder at the largest h")
    right.set(title=f"derivative ∂F v of the field{state}", xlabel="h", ylabel="relative error")
    save(figure, output, "gradient_checks")


def draw_remainder(axes, study: dict[str, np.ndarray], name: str, style: tuple) -> None:
    """One remainder on a common scale, and a line of the slope that theory predicts."""
    colour, marker, label = style
    h, r = study[f"{name}/steps"], study[f"{name}/remainders"]
    order, slope = float(study[f"{name}/order"]), 3 if name == "hessian" else 2
    text = f"{label}: observed order {order:.2f} (line: {slope})"
    axes.loglog(h, r / r[0], color=colour, linestyle="none", marker=marker, label=text)
    anchor = np.flatnonzero(r > 100 * study[f"{name}/noise"])[-1]
    line = (h / h[anchor]) ** slope * r[anchor] / r[0]
    axes.loglog(h[line <= 10], line[line <= 10], color=colour, linewidth=0.8)
    legend_below(axes)


def draw_differences(axes, study: dict[str, np.ndarray]) -> None:
    """Errors of the three numerical derivatives."""
    for name, (colour, line, marker, label) in DIFFERENCES.items():
        h, error = study["differences/steps"], study[f"differences/{name}"]
        label = f"{label}: smallest error {error.min():.0e}"
        axes.loglog(h, error, color=colour, linestyle=line, marker=marker, label=label)
    legend_below(axes)


def legend_below(axes) -> None:
    """The legend under the axis label, where no data are."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
