"""Reading what training saved, for scripts and studies; and comparing runs image by image."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import t

from figures.train import RUNS, run_path
from refimpl.experiments import EXPERIMENTS, Run, load_run


def saved_runs(output: Path, name: str, *, parameters: bool = False) -> dict[str, Run]:
    """The runs of one preset that are there, by method; without parameters unless asked for."""
    paths = {method: run_path(EXPERIMENTS[name], method, output / "runs") for method in RUNS}
    there = {method: path for method, path in paths.items() if path.exists()}
    return {method: load_run(path, parameters=parameters) for method, path in there.items()}


def kept(run: Run) -> dict:
    """The record of the parameters that the run kept."""
    return next(record for record in run.records if record.get("kept"))


def seconds(run: Run) -> np.ndarray:
    """Time of training up to each record."""
    return np.cumsum([record["seconds"] for record in run.records])


class Difference(NamedTuple):
    """Mean difference of PSNR in dB over test images, with half its 95 % confidence interval."""

    mean: float
    half: float
    count: int

    @property
    def sign(self) -> int:
        """1 or −1 where the interval excludes 0, else 0."""
        return int(np.sign(self.mean)) if abs(self.mean) > self.half else 0

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half:.2f} dB"


def difference(run: Run, other: Run) -> Difference:
    """PSNR of `run` less that of `other`, paired over the test images that both reconstruct."""
    d = run.psnr - other.psnr
    d = d[np.isfinite(d)]
    if len(d) < 2:
        return Difference(np.nan, np.nan, len(d))
    half = t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    return Difference(float(d.mean()), float(half), len(d))
