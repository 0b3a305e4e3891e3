"""Stage two: computations behind single figures, each saved as output/studies/NAME.npz.

A study is a module with `compute(runs)`, which returns a dict of arrays; `runs` is the
folder of trained presets. It is computed again when a run is newer than its file.
"""

from importlib import import_module
from pathlib import Path

import numpy as np

from figures.workers import run_side_by_side
from refimpl.storage import npz_bytes, read_arrays, write_file

STUDIES = (
    "solver_convergence",
    "tolerance",
    "hypergradient_methods",
    "gradient_checks",
    "eigenvalues",
    "normalization",
    "pictures",
    "optimisers",
)


def run_all(output: Path, say) -> None:
    """Compute every study that is missing or older than the runs."""
    runs, folder = output / "runs", output / "studies"
    folder.mkdir(exist_ok=True)
    newest = max(path.stat().st_mtime for path in runs.glob("*.npz"))
    calls = [(name, runs, folder) for name in STUDIES if not _fresh(name, folder, newest)]
    for (name, *_), _ in run_side_by_side(run_study, calls):
        say(f"studied {name}")


def _fresh(name: str, folder: Path, newest: float) -> bool:
    path = folder / f"{name}.npz"
    return path.exists() and path.stat().st_mtime > newest


def run_study(name: str, runs: Path, folder: Path) -> None:
    """Compute one study and save it."""
    arrays = import_module(f"figures.studies.{name}").compute(runs)
    write_file(folder / f"{name}.npz", npz_bytes(arrays))


def load_study(output: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays that a study saved."""
    return read_arrays(output / "studies" / f"{name}.npz")
