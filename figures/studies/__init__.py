"""Stage two: computations behind single figures, each saved as output/studies/NAME.npz.

A study is a module with `compute(runs, quick)`, which returns a dict of arrays; `runs` is the
folder of trained presets. It is computed again when a run is newer than its file.
"""

from importlib import import_module
from pathlib import Path

import numpy as np

from refimpl.storage import npz_bytes, read_arrays, write_file

STUDIES = (
    "solver_convergence",
    "tolerance",
    "hypergradient_methods",
    "gradient_checks",
    "eigenvalues",
    "normalization",
    "robustness",
)


def run_all(output: Path, quick: bool, say) -> None:
    """Compute every study that is missing or older than the runs."""
    runs, folder = output / "runs", output / "studies"
    folder.mkdir(exist_ok=True)
    newest = max(path.stat().st_mtime for path in runs.glob("*.npz"))
    for name in STUDIES:
        path = folder / f"{name}.npz"
        if path.exists() and path.stat().st_mtime > newest:
            continue
        arrays = import_module(f"figures.studies.{name}").compute(runs, quick)
        write_file(path, npz_bytes(arrays))
        say(f"studied {name}")


def load_study(output: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays that a study saved."""
    return read_arrays(output / "studies" / f"{name}.npz")
