"""What is killed, and what must be equal in the folders that it leaves."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.storage import decoded, read_arrays, read_json

ROOT = Path(__file__).parents[2]
# Entries that tell of time, which no two runs share.
TIMES = ("seconds", "time")


class Job(NamedTuple):
    """A command that works in a folder and, called again, goes on where it was stopped.

    `share`: kills come within this part of the time that an uninterrupted run takes; most of a run
    is done again after each. `steps`: it can be told to kill itself at one of about so many first
    steps of writing.
    """

    name: str
    arguments: tuple[str, ...]
    share: float
    steps: int = 0

    def command(self, folder: Path) -> list[str]:
        """The command line for a folder."""
        return [sys.executable, "-m", *(a.format(folder=folder) for a in self.arguments)]


TRAINING = Job(
    "training", ("kills.training", "experiment", "tiny", "--resume", "--out", "{folder}"), 1.0, 40
)
FIGURES = Job("figures", ("figures", "--quick", "--output", "{folder}"), 0.2)


def environment(kill_at: int) -> dict[str, str]:
    """Of every job: one thread, modules from here, and when to kill itself, if at all."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    when = {"KILL_AT": str(kill_at)} if kill_at else {}
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths} | when


def content(path: Path):
    """What a file holds, without times: comparable with ==."""
    if path.suffix == ".npz":
        arrays = read_arrays(path)
        values = {"text": timeless(decoded(arrays.pop("text")))} if "text" in arrays else {}
        kept = {name: x for name, x in arrays.items() if not name.endswith(TIMES)}
        return values | {n: (x.dtype.str, x.shape, x.tobytes()) for n, x in kept.items()}
    if path.suffix == ".json":
        return timeless(read_json(path))
    return path.stat().st_size > 0  # pictures and tables are drawn from the others


def timeless(value):
    """A value of JSON without the entries that tell of time, NaN as text."""
    if isinstance(value, dict):
        return {k: timeless(x) for k, x in value.items() if not k.endswith(TIMES)}
    if isinstance(value, list):
        return [timeless(x) for x in value]
    return "NaN" if isinstance(value, float) and np.isnan(value) else value


def contents(folder: Path) -> dict[str, object]:
    """Every file below a folder, hidden ones included, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): content(path) for path in files}


def differences(folder: Path, reference: dict[str, object]) -> list[str]:
    """Names of files that one of both lacks, or that hold something else."""
    found = contents(folder)
    names = sorted(found.keys() | reference.keys())
    return [
        name
        for name in names
        if name not in found or name not in reference or found[name] != reference[name]
    ]


def unreadable(folder: Path) -> list[str]:
    """What is wrong with the files that a kill left; parts of files are no files yet."""
    wrong = []
    for path in folder.rglob("*.*"):
        try:
            if path.is_file() and not path.name.endswith("-part"):
                content(path)
        except ValueError as error:
            wrong.append(str(error))
    return wrong


