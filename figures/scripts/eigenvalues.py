"""Eigenvalues of ∂_u T at the fixed point in the complex plane, with the unit circle.

The imaginary axis is linear up to `LINEAR` and logarithmic beyond, because imaginary parts are
small: a real matrix near a symmetric one keeps most of its eigenvalues real.
"""

from pathlib import Path

import numpy as np

from figures.studies import load_study
from figures.studies.eigenvalues import CROP, START
from figures.style import METHOD_STYLES, ORANGE, plt, save
from refimpl.experiments import METHODS, PROBLEMS

LINEAR = 1e-4
NOTE = "ρ: spectral radius; asym: ‖J − Jᵀ‖ / ‖J‖; complex: how many eigenvalues are not real"
MODELS = {"dense": "dense, 25 × 25", "convolutional": f"convolutional, {CROP} × {CROP}"}
SHORT = {START: "start", "bilevel": "tied", "deq": "untied", "deq_from_bilevel": "from tied"}
STYLES = {START: {"color": ORANGE, "marker": "|", "label": "before training"}, **METHOD_STYLES}
FRONT = {"markersize": 1.5, "zorder": 3}  # the tied ones, all on the real axis
BEHIND = {"markersize": 3.5, "markerfacecolor": "none", "markeredgewidth": 0.7}


def draw(output: Path) -> None:
    """Save eigenvalues."""
    study = load_study(output, "eigenvalues")
    figure, panels = plt.subplots(len(MODELS), len(PROBLEMS), figsize=(8.8, 6.4), sharey=True)
    for (model, label), row in zip(MODELS.items(), panels):
        for problem, axes in zip(PROBLEMS, row):
            draw_panel(axes, study, f"{model}-{problem}")
            axes.set_title(f"{problem} ({label})")
            axes.set_xlabel("real part")
        row[0].set_ylabel("imaginary part")
    entries = panels[0, 0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=5, title=NOTE)
    save(figure, output, "eigenvalues")


def draw_panel(axes, study: dict[str, np.ndarray], key: str) -> None:
    """Eigenvalues of each method, the unit circle, and the numbers that describe them."""
    angle = np.linspace(0, 2 * np.pi, 2001)
    axes.plot(np.cos(angle), np.sin(angle), color="black", linewidth=0.8, label="unit circle")
    lines = []
    for method in (START, *METHODS):
        values = study.get(f"{key}-{method}-eigenvalues")
        if values is None:
            tried = f"{key}-{method}-residual" in study
            lines += [f"{SHORT[method]:9s} no fixed point found"] if tried else []
            continue
        style = STYLES[method]
        axes.plot(
            values.real,
            values.imag,
            linestyle="none",
            marker=style["marker"],
            label=style["label"],
            color=style["color"],
            **(FRONT if method == "bilevel" else BEHIND),
        )
        lines.append(describe(SHORT[method], values, study[f"{key}-{method}-asymmetry"]))
    axes.set_yscale("symlog", linthresh=LINEAR)
    axes.set_yticks([-1, -1e-2, -LINEAR, 0, LINEAR, 1e-2, 1])
    axes.set_ylim(-1000, 3)
    text = "\n".join(lines) or "not trained"
    axes.text(0.03, 0.02, text, transform=axes.transAxes, fontsize=6.5, family="monospace")


def describe(name: str, values: np.ndarray, asymmetry: float) -> str:
    """Spectral radius, departure from symmetry, and how many eigenvalues are not real."""
    # eigvals gives rounding-level imaginary parts to some double eigenvalues of a symmetric matrix
    complex_ones = int(np.sum(np.abs(values.imag) > 1e-12))
    radius = np.abs(values).max()
    return f"{name:9s} ρ {radius:5.3f}  asym {asymmetry:.0e}  complex {complex_ones}"
