"""What untying buys: PSNR of the untied model less that of the tied one.

Differences are paired over test images; bars are 95 % confidence intervals of their mean. Crops of
two photographs are not independent, so that the true intervals are wider.
"""

from pathlib import Path

from figures.saved import Difference, difference, saved_runs
from figures.style import BLUE, GREEN, RED, plt, save
from refimpl.experiments import BASELINE, EXPERIMENTS, NOISE_LEVELS, PROBLEMS

GAINS = {  # what, less what, colour, marker
    "tied − total variation": ("bilevel", BASELINE, BLUE, "o"),
    "untied − tied": ("deq", "bilevel", RED, "s"),
    "untied from tied − tied": ("deq_from_bilevel", "bilevel", GREEN, "^"),
}
MAIN = [name for name in EXPERIMENTS if name.startswith(("conv", "dense"))]


def draw(output: Path) -> None:
    """Save untying (problem by problem) and noise_levels."""
    gains = {name: gains_of(output, name) for name in EXPERIMENTS if not name.startswith("seed")}
    figure, axes = plt.subplots(figsize=(7.6, 3.9))
    for (label, (_, _, colour, marker)), offset in zip(GAINS.items(), (-0.2, 0, 0.2)):
        places = [k + offset for k, name in enumerate(MAIN) if label in gains[name]]
        found = [gains[name][label] for name in MAIN if label in gains[name]]
        axes.errorbar(
            [d.mean for d in found], places, xerr=[d.half for d in found], color=colour,
            marker=marker, markersize=5, linestyle="none", capsize=3, label=label,
        )  # fmt: skip
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(MAIN)), MAIN)
    axes.invert_yaxis()
    axes.set_xlabel("gain in PSNR on test images [dB]")
    axes.legend(loc="lower right")
    save(figure, output, "untying", claim({name: gains[name] for name in MAIN}))
    draw_levels(output, gains)


def gains_of(output: Path, name: str) -> dict[str, Difference]:
    """The gains of one preset whose runs are there."""
    runs = saved_runs(output, name)
    pairs = {label: (what, base) for label, (what, base, *_) in GAINS.items()}
    return {
        label: difference(runs[what], runs[base])
        for label, (what, base) in pairs.items()
        if what in runs and base in runs
    }


def draw_levels(output: Path, gains: dict[str, dict[str, Difference]]) -> None:
    """The same gains of small convolutional models against the noise level, one panel a problem."""
    figure, panels = plt.subplots(1, 3, figsize=(8.8, 3.6), sharey=True)
    swept = {}
    for problem, axes in zip(PROBLEMS, panels):
        for label, (what, _, colour, marker) in GAINS.items():
            if what == "deq":  # sweeps are trained without it
                continue
            names = {level: f"noise-{problem}-{level:g}" for level in NOISE_LEVELS}
            found = {x: gains[n][label] for x, n in names.items() if label in gains[n]}
            axes.errorbar(
                list(found), [d.mean for d in found.values()],
                yerr=[d.half for d in found.values()], color=colour, marker=marker, capsize=3,
                label=label,
            )  # fmt: skip
            swept |= {names[level]: gains[names[level]] for level in found}
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=problem, xlabel="noise level", xscale="log")
        axes.set_xticks(NOISE_LEVELS, [f"{x:g}" for x in NOISE_LEVELS], minor=False)
        axes.minorticks_off()
    panels[0].set_ylabel("gain in PSNR on test images [dB]")
    panels[0].legend()
    save(figure, output, "noise_levels", claim(swept))


def claim(gains: dict[str, dict[str, Difference]]) -> str:
    """Where each gain is shown, where a loss is, and where neither is, with the numbers."""
    lines = []
    for label in GAINS:
        found = {name: cell[label] for name, cell in gains.items() if label in cell}
        for sign, verdict in ((1, "gains"), (-1, "loses"), (0, "neither is shown")):
            listed = [
                f"{name.removeprefix('noise-')} {d}" for name, d in found.items() if d.sign == sign
            ]
            if listed:
                counts = f"{len(listed)} of {len(found)}"
                lines.append(f"{label} {verdict} in {counts}: {'; '.join(listed)}.")
    return "\n".join(lines) or "Nothing is trained."
