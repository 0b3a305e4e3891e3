"""Every experiment and method in one table, total variation with its best weight among them.

All numbers of a run belong to the parameters it kept.
"""

import csv
import io
from pathlib import Path

from figures.saved import kept, saved_runs, seconds
from refimpl.experiments import EXPERIMENTS, Run
from refimpl.storage import write_file


def draw(output: Path) -> None:
    """Write table.csv and table.md."""
    saved = {name: saved_runs(output, name) for name in EXPERIMENTS}
    rows = [row(name, method, run) for name, runs in saved.items() for method, run in runs.items()]
    write(output, "table", rows)


def row(name: str, method: str, run: Run) -> dict:
    """One run; PSNR in dB and SSIM are means over test images, nan where one has no fixed point."""
    return {
        "experiment": name,
        "method": method,
        "PSNR [dB]": f"{run.psnr.mean():.2f}",
        "SSIM": f"{run.ssim.mean():.3f}",
        "training loss": f"{kept(run)['loss_train']:.4e}",
        "test loss": f"{kept(run)['loss_test']:.4e}",
        "time [s]": f"{seconds(run)[-1]:.1f}",
        "CPU time [s]": f"{sum(record['cpu_seconds'] for record in run.records):.1f}",
        "steps": str(len(run.records) - 1),
        "ended": run.settings["ended"],
    }


def write(output: Path, name: str, rows: list[dict]) -> None:
    """The rows as NAME.csv and NAME.md."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["experiment"])
    writer.writeheader()
    writer.writerows(rows)
    write_file(output / f"{name}.csv", file.getvalue().encode())
    table = [list(row.values()) for row in rows]
    if rows:
        table = [list(rows[0]), ["---"] * len(rows[0]), *table]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    write_file(output / f"{name}.md", ("\n".join(lines) + "\n").encode())
