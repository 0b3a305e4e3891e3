"""Test images of the three problems: truth, data, total variation, tied and untied.

    reconstructions_conv    photographs of 128 × 128
    reconstructions_dense   the 20 test faces of 25 × 25 side by side
"""

from pathlib import Path

import numpy as np

from figures.saved import saved_runs
from figures.studies import load_study
from figures.style import METHOD_STYLES, bare, plt, save
from refimpl.experiments import BASELINE, PROBLEMS
from refimpl.images import PAPER_RANGE, UNIT_RANGE, psnr

COLUMNS = ("truth", "data", BASELINE, "bilevel", "deq_from_bilevel")
LABELS = {"truth": "truth", "data": "data", BASELINE: "total variation\n(best weight)"} | {
    method: style["label"] for method, style in METHOD_STYLES.items()
}
SHOWN = {"denoising": 0, "inpainting": 1, "deconvolution": 0}
FACES_ACROSS = 5


def draw(output: Path) -> None:
    """Save both figures."""
    study = load_study(output, "pictures")
    photographs = {
        problem: {c: study[f"{problem}-{c}"] for c in COLUMNS if f"{problem}-{c}" in study}
        for problem in PROBLEMS
    }
    draw_rows(output, "reconstructions_conv", photographs, UNIT_RANGE, one_of)
    faces = {problem: of_runs(saved_runs(output, f"dense-{problem}-tanh")) for problem in PROBLEMS}
    draw_rows(output, "reconstructions_dense", faces, PAPER_RANGE, lambda u, _: mosaic(u))


def of_runs(runs: dict) -> dict[str, np.ndarray]:
    """The test images of a preset in every column."""
    if not runs:
        return {}
    one = next(iter(runs.values()))
    found = {name: runs[name].reconstruction for name in COLUMNS if name in runs}
    return {"truth": one.truth, "data": one.y, **found}


def one_of(images: np.ndarray, problem: str) -> np.ndarray:
    """The image of this problem that is shown."""
    return images[SHOWN[problem], 0]


def mosaic(images: np.ndarray) -> np.ndarray:
    """Images (N, 1, H, W) in rows of five."""
    rows = [np.hstack(images[k : k + FACES_ACROSS, 0]) for k in range(0, len(images), FACES_ACROSS)]
    return np.vstack(rows)


def draw_rows(output: Path, name: str, rows: dict, value_range, picture) -> None:
    """One row for each problem, PSNR of what is shown under each picture."""
    rows = {problem: images for problem, images in rows.items() if images}
    figure, panels = plt.subplots(
        max(len(rows), 1), len(COLUMNS), figsize=(11, 2.5 * max(len(rows), 1)), squeeze=False
    )
    for axes in panels.ravel():
        bare(axes)
    for (problem, images), row in zip(rows.items(), panels):
        row[0].set_ylabel(problem)
        for axes, column in zip(row, COLUMNS):
            if column in images:
                low, high = value_range
                shown = picture(images[column], problem)
                axes.imshow(shown, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
                axes.set_xlabel(quality(shown, picture(images["truth"], problem), value_range))
    for axes, column in zip(panels[0], COLUMNS):
        axes.set_title(LABELS[column])
    save(figure, output, name, claim(rows, value_range))


def quality(shown: np.ndarray, truth: np.ndarray, value_range) -> str:
    """PSNR of one picture; the truth has none."""
    if shown is truth or np.array_equal(shown, truth):
        return ""
    return f"{psnr(shown[None, None], truth[None, None], value_range)[0]:.2f} dB"


def claim(rows: dict[str, dict[str, np.ndarray]], value_range) -> str:
    """Which method has the highest mean PSNR in each row, with the numbers."""
    lines = []
    for problem, images in rows.items():
        means = {
            column: float(psnr(u, images["truth"], value_range).mean())
            for column, u in images.items()
            if column != "truth"
        }
        best = max(means, key=means.get)
        listed = ", ".join(
            f"{LABELS[c].replace(chr(10), ' ')} {value:.2f}" for c, value in means.items()
        )
        first = LABELS[best].splitlines()[0]
        lines.append(f"{problem}: {first} is best; mean PSNR [dB]: {listed}.")
    return "\n".join(lines) or "Nothing is trained."
