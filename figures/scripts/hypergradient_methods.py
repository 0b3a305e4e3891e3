"""Relative error of the hypergradient against work for every method, tied and untied."""

from pathlib import Path

import numpy as np

from figures.studies import load_study
from figures.studies.trained import DESCRIPTION
from figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, plt, save

STYLES = {
    "cg": (BLUE, "-", "o", "conjugate gradients (CG)"),
    "cg (circulant)": (BLUE, "--", "v", "CG, circulant preconditioner"),
    "cg (jacobi)": (SKY, ":", "^", "CG, Jacobi preconditioner"),
    "gmres": (GREEN, "-", "x", "GMRES(20)"),
    "bicgstab": (PURPLE, "-.", "D", "BiCGStab"),
    "neumann": (BLACK, "-", "", "Neumann series"),
    "anderson": (RED, "--", "s", "Anderson"),
    "unrolled": (ORANGE, "-.", "p", "unrolled from u₀, K = 1 to 256 steps"),
    "jacobian_free": (BLACK, "none", "*", "Jacobian-free"),
}
NOTE = "all but the unrolled method start from u*, whose cost is not counted"
MODELS = {"tied": "tied (bilevel)", "untied": "untied (DEQ)"}


def draw(output: Path) -> None:
    """Save hypergradient_methods."""
    study = load_study(output, "hypergradient_methods")
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 5.0), sharex=True, sharey=True)
    figure.suptitle(f"{DESCRIPTION}; one test image\n{NOTE}", fontsize=9)
    for axes, (model, label) in zip(panels, MODELS.items()):
        curves = {name: study[f"{model}/{name}"] for name in STYLES if f"{model}/{name}" in study}
        draw_curves(axes, curves)
        axes.set_title(f"{label}\n{finding(curves)}" if curves else f"{label}: not trained")
        axes.set_xlabel("work: products with J or Jᵀ (unrolled: and steps)")
    panels[0].set_ylabel("relative error ‖g − g*‖ / ‖g*‖")
    handles = [
        plt.Line2D([], [], color=c, linestyle=line, marker=marker, markersize=marker_size(name))
        for name, (c, line, marker, _) in STYLES.items()
    ]
    labels = [label for *_, label in STYLES.values()]
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    save(figure, output, "hypergradient_methods")


def draw_curves(axes, curves: dict[str, np.ndarray]) -> None:
    """One line for each method; a single point for the Jacobian-free one."""
    for name, (work, error, _) in curves.items():
        colour, line, marker, _ = STYLES[name]
        axes.loglog(
            work, error, color=colour, linestyle=line, marker=marker, markersize=marker_size(name)
        )
    axes.set(xlim=(0.8, 1000), ylim=(1e-14, 3))


def marker_size(name: str) -> float:
    """The single point of the Jacobian-free method is drawn larger."""
    return 9 if name == "jacobian_free" else 3.5


def finding(curves: dict[str, np.ndarray]) -> str:
    """Error and angle of the one method that is not the gradient, and the worst of the unrolled."""
    _, error, cosine = curves["jacobian_free"][:, 0]
    angle, worst = np.degrees(np.arccos(cosine)), curves["unrolled"][1].max()
    return f"Jacobian-free: error {error:.2f}, {angle:.0f}° off; unrolled: error up to {worst:.2f}"
