"""Every experiment and method in one table; and the tied solution against what it starts.

    table        PSNR, SSIM, training and test loss, time of each run
    warm_start   training loss of the tied solution, and of the untied model trained from it

All numbers of a run belong to the parameters it kept: those of the lowest training loss.
"""

import csv
import io
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from figures.saved import kept, saved_runs
from figures.style import BLACK, ORANGE, plt, save
from refimpl.experiments import EXPERIMENTS, METHODS, PROBLEMS, Run
from refimpl.storage import write_file

LOWER, EQUAL, HIGHER = "lower", "equal", "HIGHER"
MODEL_STYLES = {
    "dense": {"color": BLACK, "marker": "o"},
    "conv": {"color": ORANGE, "marker": "D"},
}


def draw(output: Path) -> None:
    """Write table.csv, table.md, warm_start.csv, warm_start.md and the picture of the latter."""
    saved = {name: saved_runs(output, name) for name in EXPERIMENTS}
    rows = [row(name, method, run) for name, runs in saved.items() for method, run in runs.items()]
    write(output, "table", rows)
    pairs = [warm_start(name, runs) for name, runs in saved.items() if len(runs) == len(METHODS)]
    write(output, "warm_start", pairs, claim(pairs))
    draw_changes(output, pairs)


def row(name: str, method: str, run: Run) -> dict:
    """One run; PSNR in dB and SSIM are means over test images, nan where one has no fixed point."""
    return {
        "experiment": name,
        "method": method,
        "PSNR [dB]": f"{run.psnr.mean():.2f}",
        "SSIM": f"{run.ssim.mean():.3f}",
        "training loss": f"{kept(run)['loss_train']:.4e}",
        "test loss": f"{kept(run)['loss_test']:.4e}",
        "time [s]": f"{sum(record['seconds'] for record in run.records):.1f}",
    }


def warm_start(name: str, runs: dict[str, Run]) -> dict:
    """Training losses of the tied solution, of the same θ in the untied model, and after training.

    The first two differ by what the solvers leave unsolved; "equal" is a change within that.
    """
    tied, untied = kept(runs["bilevel"])["loss_train"], kept(runs["deq_from_bilevel"])["loss_train"]
    start = runs["deq_from_bilevel"].records[0]["loss_train"]
    return {
        "problem": runs["bilevel"].settings["problem"],
        "experiment": name,
        "tied": f"{tied:.6e}",
        "untied, before training": f"{start:.6e}",
        "untied, trained": f"{untied:.6e}",
        "change [%]": f"{100 * (untied / tied - 1):+.3f}",
        "verdict": verdict(tied, start, untied),
    }


def verdict(tied: float, start: float, untied: float) -> str:
    """Whether training from the tied solution ended lower, equal to solver accuracy, or higher."""
    if untied < tied:
        return LOWER
    return EQUAL if untied - tied <= abs(start - tied) else HIGHER


def claim(pairs: list[dict]) -> list[str]:
    """For each problem, whether the training loss never ended higher, with the count."""
    lines = []
    for problem in PROBLEMS:
        verdicts = [pair["verdict"] for pair in pairs if pair["problem"] == problem]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in (LOWER, EQUAL, HIGHER))
        holds = "no run" if not verdicts else "fails" if HIGHER in verdicts else "holds"
        lines.append(f"- {problem}: never a higher training loss: **{holds}** ({counts})")
    return lines


def write(output: Path, name: str, rows: list[dict], heading: list[str] | None = None) -> None:
    """The rows as NAME.csv and NAME.md."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["experiment"])
    writer.writeheader()
    writer.writerows(rows)
    write_file(output / f"{name}.csv", file.getvalue().encode())
    lines = [*heading, ""] if heading else []
    if rows:
        table = [list(rows[0]), ["---"] * len(rows[0]), *(list(r.values()) for r in rows)]
        lines += ["| " + " | ".join(cells) + " |" for cells in table]
    write_file(output / f"{name}.md", ("\n".join(lines) + "\n").encode())


def draw_changes(output: Path, pairs: list[dict]) -> None:
    """The change of the training loss of every preset, sorted, one panel for each problem."""
    figure, panels = plt.subplots(1, len(PROBLEMS), figsize=(7.5, 2.8), sharey=True)
    for axes, problem in zip(panels, PROBLEMS):
        for model, style in MODEL_STYLES.items():
            chosen = [
                p for p in pairs if p["problem"] == problem and p["experiment"].startswith(model)
            ]
            changes = sorted(float(pair["change [%]"]) for pair in chosen)
            ranks = range(1, len(changes) + 1)
            axes.plot(ranks, changes, linestyle="none", **style, label=f"{model} presets")
        axes.axhline(0, color="black", linewidth=0.8)
        verdicts = [pair["verdict"] for pair in pairs if pair["problem"] == problem]
        axes.set_title(f"{problem}: higher in {verdicts.count(HIGHER)} of {len(verdicts)}")
        axes.set_xlabel("preset, sorted by change")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0, max(len(verdicts), 1) + 1)
    panels[0].set_ylabel("training loss of DEQ started\nfrom bilevel, change [%]")
    panels[0].legend()
    save(figure, output, "warm_start")
