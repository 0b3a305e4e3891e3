"""Residual and true error of every forward solver against work, tied and untied."""

from pathlib import Path

import numpy as np

from figures.studies import load_study
from figures.studies.trained import DESCRIPTION
from figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, plt, save

STYLES = {
    "picard": (BLACK, "-", "", "plain iteration"),
    "anderson (gram ridge)": (RED, "-", "s", "Anderson, ridge relative to Gram matrix"),
    "anderson (authors)": (RED, "--", "", "Anderson, the authors' absolute ridge 1e-4"),
    "nesterov": (ORANGE, "-.", "^", "Nesterov with restart"),
    "lbfgs": (PURPLE, ":", "D", "L-BFGS"),
    "newton": (BLUE, "-", "o", "Newton-CG"),
    "newton (circulant)": (SKY, "--", "v", "Newton-CG, circulant preconditioner"),
    "newton_krylov": (GREEN, "-.", "x", "Newton-GMRES"),
}
MODELS = {"tied": "tied (bilevel)", "untied": "untied (DEQ)"}
QUANTITIES = {
    1: "relative residual ‖T(u) − u‖ / max(‖u‖, ‖u₀‖)",
    2: "relative error ‖u − u*‖ / ‖u*‖",
}
SHOWN, COMPARED = 400, 300  # work at the right edge, and from where on decays are compared


def draw(output: Path) -> None:
    """Save solver_convergence."""
    study = load_study(output, "solver_convergence")
    figure, panels = plt.subplots(2, 2, figsize=(8.4, 6.8), sharex=True, sharey=True)
    figure.suptitle(f"{DESCRIPTION}; one test image", fontsize=9)
    for (model, label), row in zip(MODELS.items(), panels):
        curves = {name: study[f"{model}/{name}"] for name in STYLES if f"{model}/{name}" in study}
        for axes, (quantity, name) in zip(row, QUANTITIES.items()):
            draw_curves(axes, curves, quantity)
            axes.set_title(f"{label}: {name}" if curves else f"{label}: not trained")
        if curves:
            row[1].text(
                0.99, 0.42, finding(curves), transform=row[1].transAxes, ha="right", fontsize=8
            )
    for axes in panels[1]:
        axes.set_xlabel("work: evaluations of E, G or T, and products with J")
    figure.legend(*legend_entries(), loc="outside lower center", ncols=2)
    save(figure, output, "solver_convergence")


def draw_curves(axes, curves: dict[str, np.ndarray], quantity: int) -> None:
    """One line for each solver, with some ten markers spread over the window."""
    for number, (name, curve) in enumerate(curves.items()):
        colour, line, marker, _ = STYLES[name]
        offset = 0.01 * number
        axes.semilogy(
            curve[0],
            curve[quantity],
            color=colour,
            linestyle=line,
            marker=marker,
            markevery=(offset, 0.08),
        )
    axes.set(xlim=(0, SHOWN), ylim=(1e-14, 1))


def finding(curves: dict[str, np.ndarray]) -> str:
    """How the authors' ridge compares with no acceleration, after `COMPARED` units of work."""
    ratio = decay(curves["picard"]) / decay(curves["anderson (authors)"])
    return (
        f"with the absolute ridge {ratio:.1f} times\nslower than the plain iteration\n"
        "(in the limit (m + 1)/2 = 3 times)"
    )


def decay(curve: np.ndarray) -> float:
    """−d log₁₀(residual) / d work, by least squares."""
    late = curve[0] > COMPARED
    return float(-np.polyfit(curve[0][late], np.log10(curve[1][late]), 1)[0])


def legend_entries() -> tuple[list, list[str]]:
    """Handles and labels of all solvers."""
    handles = [
        plt.Line2D([], [], color=colour, linestyle=line, marker=marker)
        for colour, line, marker, _ in STYLES.values()
    ]
    return handles, [label for *_, label in STYLES.values()]
