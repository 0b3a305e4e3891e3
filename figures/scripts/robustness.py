"""PSNR of denoised test images against the noise level, for models trained at one level."""

from pathlib import Path

import numpy as np

from figures.studies import load_study
from figures.studies.robustness import PRESETS
from figures.style import BLACK, METHOD_STYLES, plt, save
from refimpl.experiments import EXPERIMENTS

TITLES = {"dense": "dense, ReLU, faces", "convolutional": "convolutional, 3 × 3, photographs"}


def draw(output: Path) -> None:
    """Save robustness."""
    study = load_study(output, "robustness")
    figure, panels = plt.subplots(1, len(PRESETS), figsize=(7.6, 3.4))
    for axes, (model, preset) in zip(panels, PRESETS.items()):
        draw_model(axes, study, model)
        axes.axvline(
            EXPERIMENTS[preset].noise_level,
            color=BLACK,
            linewidth=0.8,
            linestyle=":",
            label="trained here",
        )
        axes.set_title(TITLES[model])
        axes.set(xlabel="noise level of the test data", ylabel="mean PSNR [dB]")
    panels[0].legend()
    save(figure, output, "robustness")


def draw_model(axes, study: dict[str, np.ndarray], model: str) -> None:
    """One curve for the data and for each method; a gap where a fixed point was not found."""
    levels = study["noise_levels"]
    if f"{model}-data" not in study:
        axes.text(0.5, 0.5, "not trained", ha="center", transform=axes.transAxes)
        return
    axes.plot(levels, study[f"{model}-data"], color=BLACK, linestyle="-.", label="data")
    for method, style in METHOD_STYLES.items():
        if f"{model}-{method}" in study:
            axes.plot(levels, study[f"{model}-{method}"], **style)
