"""Training and test loss against the time of training, beside total variation with its best weight.

The last column: mean and spread over three seeds of a small preset, and the two filters of 11 × 11.
The untied model that starts at the tied solution begins where the tied one ended, time included.
"""

from pathlib import Path

import numpy as np

from figures.saved import kept, saved_runs, seconds
from figures.style import BASELINE_STYLE, METHOD_STYLES, plt, save
from refimpl.experiments import BASELINE, METHODS, PROBLEMS, SEEDS, Run

PANELS = (
    *((f"conv-{p}-3x3", f"{p}, 30 filters of 3 × 3") for p in PROBLEMS),
    ("conv-denoising-11x11", "denoising, 2 filters of 11 × 11"),
    *((f"dense-{p}-tanh", f"{p}, dense, faces") for p in PROBLEMS),
)
SMALL = ("noise-denoising-0.1", *(f"seed-{seed}" for seed in SEEDS))
PARTS = {"train": {"linewidth": 1.6}, "test": {"linewidth": 0.8, "markersize": 3}}


def draw(output: Path) -> None:
    """Save learning."""
    figure, panels = plt.subplots(2, 4, figsize=(12.5, 6.2))
    drawn = {}
    for (name, title), axes in zip(PANELS, panels.ravel()):
        drawn[name] = saved_runs(output, name)
        draw_runs(axes, drawn[name])
        axes.set_title(title if drawn[name] else f"{title}: not trained")
    draw_seeds(panels[1, 3], [saved_runs(output, name) for name in SMALL])
    for axes in panels.ravel():
        axes.set(xlabel="time of training [s]", yscale="log")
    for axes in panels[:, 0]:
        axes.set_ylabel("loss, mean of (u − u†)²")
    figure.legend(*entries(), loc="outside upper center", ncols=4)
    save(figure, output, "learning", claim(drawn))


def draw_runs(axes, runs: dict[str, Run]) -> None:
    """One colour for each method: thick training, thin test; a ring where parameters are kept."""
    for method, x, run in timed(runs):
        style = METHOD_STYLES[method]
        for part, look in PARTS.items():
            y = losses(run, part)
            known = np.isfinite(y)
            markers = {"marker": style["marker"] if part == "test" else None}
            axes.plot(x[known], y[known], **{**style, **look, **markers})
        place = run.records.index(kept(run))
        axes.plot(x[place], kept(run)["loss_test"], "o", color=style["color"], markersize=8,
                  markerfacecolor="none")  # fmt: skip
    if BASELINE in runs:
        draw_baseline(axes, kept(runs[BASELINE]))


def draw_baseline(axes, record: dict) -> None:
    """Two levels: total variation on the training images, and, thinner, on the test images."""
    for part, width in (("train", 1.6), ("test", 0.8)):
        axes.axhline(record[f"loss_{part}"], **{**BASELINE_STYLE, "linewidth": width})


def timed(runs: dict[str, Run]):
    """Method, times, run; from the tied solution on, times count those of the tied run."""
    for method in METHODS:
        if method in runs:
            later = method == "deq_from_bilevel" and "bilevel" in runs
            before = seconds(runs["bilevel"])[-1] if later else 0.0
            yield method, before + seconds(runs[method]), runs[method]


def losses(run: Run, part: str) -> np.ndarray:
    """Losses of "train" or "test", nan where they were not looked at or a solve failed."""
    return np.array([record.get(f"loss_{part}", np.nan) for record in run.records])


def draw_seeds(axes, seeds: list[dict[str, Run]]) -> None:
    """Mean over seeds, and the range of them, at equal times."""
    for method in METHODS:
        chosen = [{m: (x, run) for m, x, run in timed(runs)}.get(method) for runs in seeds]
        chosen = [pair for pair in chosen if pair is not None]
        if not chosen:
            continue
        first, last = max(x[0] for x, _ in chosen), max(x[-1] for x, _ in chosen)
        grid = np.linspace(first, last, 60)
        style = METHOD_STYLES[method]
        for part, look in PARTS.items():
            curves = np.array([interpolated(grid, x, losses(run, part)) for x, run in chosen])
            axes.plot(grid, curves.mean(axis=0), **{**style, **look, "marker": None})
            axes.fill_between(
                grid, curves.min(axis=0), curves.max(axis=0), color=style["color"], alpha=0.12
            )
    bases = [kept(runs[BASELINE]) for runs in seeds if BASELINE in runs]
    if bases:
        means = {part: np.mean([base[f"loss_{part}"] for base in bases]) for part in PARTS}
        draw_baseline(axes, {f"loss_{part}": mean for part, mean in means.items()})
    axes.set_title(f"denoising, 8 filters of 3 × 3,\nmean and range of {len(bases)} seeds")


def interpolated(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A curve at other times, the last loss beyond its end."""
    known = np.isfinite(y)
    return np.interp(grid, x[known], y[known])


def entries() -> tuple[list, list[str]]:
    """What the lines are."""
    styles = [{**style, "marker": None} for style in METHOD_STYLES.values()] + [BASELINE_STYLE]
    handles = [plt.Line2D([], [], **style) for style in styles]
    handles += [
        plt.Line2D([], [], color="grey", linewidth=width) for width in (1.6, 0.8)
    ] + [plt.Line2D([], [], color="grey", linestyle="none", marker="o", markerfacecolor="none")]
    texts = ["thick: training images", "thin: test images", "parameters kept"]
    return handles, [style["label"] for style in styles] + texts


def claim(drawn: dict[str, dict[str, Run]]) -> str:
    """How many runs ended by themselves, and how many beat total variation on test images."""
    runs = [(m, run, cell) for cell in drawn.values() for m, run in cell.items() if m in METHODS]
    free = [run for _, run, _ in runs if not run.settings["ended"].startswith("the limit")]
    lines = [
        f"{len(free)} of {len(runs)} runs ended because the gradient was small, ten steps hardly "
        "lowered the loss, or the loss of validation images no longer fell; the others at the "
        "limit of steps."
    ]
    for method in METHODS:
        cells = [(run, cell[BASELINE]) for m, run, cell in runs if m == method and BASELINE in cell]
        better = sum(kept(run)["loss_test"] < kept(base)["loss_test"] for run, base in cells)
        lines.append(
            f"{METHOD_STYLES[method]['label']}: test loss below total variation's in {better} of "
            f"{len(cells)} panels."
        )
    return " ".join(lines)
