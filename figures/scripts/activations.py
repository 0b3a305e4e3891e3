"""PSNR over that of total variation for every activation of the dense model, on small faces."""

from pathlib import Path

from figures.saved import Difference, difference, saved_runs
from figures.style import METHOD_STYLES, plt, save
from refimpl.experiments import BASELINE, PROBLEMS
from refimpl.experiments.presets import ACTIVATIONS

METHODS = ("bilevel", "deq_from_bilevel")


def draw(output: Path) -> None:
    """Save activations."""
    figure, panels = plt.subplots(1, 3, figsize=(8.8, 3.4))
    gains = {}
    for problem, axes in zip(PROBLEMS, panels):
        for offset, method in zip((-0.1, 0.1), METHODS):
            found = gained(output, problem, method)
            gains |= {(problem, activation, method): d for activation, d in found.items()}
            style = {**METHOD_STYLES[method], "linestyle": "none", "markersize": 5}
            places = [list(ACTIVATIONS).index(activation) + offset for activation in found]
            axes.errorbar(
                places, [d.mean for d in found.values()],
                yerr=[d.half for d in found.values()], capsize=3, **style,
            )  # fmt: skip
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(ACTIVATIONS)), ACTIVATIONS)
        axes.set_title(problem)
    panels[0].set_ylabel("PSNR over total variation [dB]")
    panels[0].legend()
    save(figure, output, "activations", claim(gains))


def gained(output: Path, problem: str, method: str) -> dict[str, Difference]:
    """The gain over total variation for each activation that is trained."""
    cells = {name: saved_runs(output, f"sigma-{problem}-{name}") for name in ACTIVATIONS}
    return {
        name: difference(runs[method], runs[BASELINE])
        for name, runs in cells.items()
        if method in runs and BASELINE in runs
    }


def claim(gains: dict[tuple[str, str, str], Difference]) -> str:
    """The best activation of each problem and method."""
    lines = []
    for problem in PROBLEMS:
        for method in METHODS:
            found = {a: d for (p, a, m), d in gains.items() if (p, m) == (problem, method)}
            if found:
                best = max(found, key=lambda a: found[a].mean)
                label = METHOD_STYLES[method]["label"]
                lines.append(f"{problem}, {label}: {best} is best, {found[best]}.")
    return " ".join(lines) or "Nothing is trained."
