"""Errors of state and hypergradient against the residual at which the plain iteration stops."""

from pathlib import Path

import numpy as np

from figures.studies import load_study
from figures.studies.trained import DESCRIPTION
from figures.style import BLACK, BLUE, RED, plt, save

MODELS = {"tied": (BLUE, "-", "o", "tied (bilevel)"), "untied": (RED, ":", "s", "untied (DEQ)")}
QUANTITIES = {1: "reconstruction ‖u − u*‖ / ‖u*‖", 2: "hypergradient ‖g − g*‖ / ‖g*‖"}
RESIDUAL = "relative residual ‖T(u) − u‖ / max(‖u‖, ‖u₀‖)\nat which the plain iteration stops"
EQUAL = [1e-12, 1e-2]


def draw(output: Path) -> None:
    """Save tolerance."""
    study = load_study(output, "tolerance")
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 4.6), sharex=True)
    figure.suptitle(f"{DESCRIPTION}, a safe τ; one test image", fontsize=9)
    for axes, (quantity, name) in zip(panels, QUANTITIES.items()):
        for model, style in MODELS.items():
            if f"{model}/errors" in study:
                draw_model(axes, study, model, quantity, style)
            else:
                axes.plot([], [], color=style[0], label=f"{style[3]}: not trained")
        axes.loglog(EQUAL, EQUAL, color=BLACK, linestyle="--", label="error = residual")
        axes.set_title(title(study, name, quantity))
        axes.set_xlabel(RESIDUAL)
    panels[0].set_ylabel("relative error")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    save(figure, output, "tolerance")


def draw_model(axes, study: dict[str, np.ndarray], model: str, quantity: int, style: tuple) -> None:
    """Measured errors, and their certified bounds where these are finite."""
    colour, line, marker, label = style
    errors, bounds = study[f"{model}/errors"], study[f"{model}/bounds"]
    mu = float(study[f"{model}/monotonicity"])
    known = np.isfinite(bounds[quantity]).all()
    if not known:
        label = f"{label}: no bound, since μ = {mu:.1f} is not positive"
    axes.loglog(
        errors[0], errors[quantity], color=colour, linestyle=line, marker=marker, label=label
    )
    if known:
        axes.loglog(
            bounds[0],
            bounds[quantity],
            color=colour,
            linestyle="-.",
            marker="^",
            markerfacecolor="white",
            markersize=6,
            label=f"{label}: certified bound (E12)",
        )


def title(study: dict[str, np.ndarray], name: str, quantity: int) -> str:
    """How many times the residual the error is, over all models and tolerances below 1e-3."""
    ratios = [
        errors[quantity][errors[0] < 1e-3] / errors[0][errors[0] < 1e-3]
        for errors in (study[f"{model}/errors"] for model in MODELS if f"{model}/errors" in study)
    ]
    if not ratios:
        return name
    ratios = np.concatenate(ratios)
    return f"{name}:\n{ratios.min():.0f} to {ratios.max():.0f} times a residual below 1e-3"
