"""Files that are damaged, of another kind, or made to harm; and the readers and commands."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from case_factory import POTENTIALS, make_case

import refimpl as ri
from fuzz.values import changed_array, choose, misfit, world
from fuzz.verdicts import command
from refimpl import cli, storage
from refimpl.experiments import Run, load_run, save_run
from refimpl.training import load_checkpoint, load_model, save_checkpoint
from refimpl.training.adam import AdamState
from refimpl.training.loop import TrainingState
from refimpl.verification.cases import read_case, write_case
from refimpl.verification.cases.golden import read_suite

HOSTILE_JSON = [
    None, True, 0, -1, 1.5, 1e999, 10**400, "", "mask", "log_cosh", [], {}, [1], {"a": 1}, [[]],
    {"slope": 2.0}, {"slope": "2"}, "x" * 1000, [None], float("nan"),
]  # fmt: skip
HOSTILE_BYTES = [
    b"", b"PK", b"PK\x05\x06" + bytes(18), b"\x93NUMPY", b"[" * 50_000, b'{"a":' * 50_000, b"null",
    b"\x80\x04K\x01.", bytes(1000),
]  # fmt: skip


class Reading(NamedTuple):
    """A reader or command with a folder whose files were spoilt."""

    name: str
    function: Callable[[Path], Any]
    folder: Path

    def __call__(self) -> Any:
        return self.function(self.folder)

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(sorted(os.listdir(self.folder)))}"


def use_model(folder: Path) -> None:
    """Read a model and denoise with it."""
    model = load_model(folder / "model.npz")
    repr(model)
    ri.denoise(world().grey, 0.1, model=model)


READERS = {
    "load_model": use_model,
    "load_run": lambda folder: load_run(folder / "run.npz"),
    "load_checkpoint": lambda folder: load_checkpoint(folder / "checkpoint.npz"),
    "read_case": read_case,
    "read_arrays": lambda folder: storage.read_arrays(folder / "outputs.npz"),
    "read_suite": lambda folder: read_suite(folder.parent),
    "oracle": lambda f: command(cli.main, ["oracle", str(f), "--out", str(f / "out")]),
    "compare": lambda f: command(cli.main, ["compare", str(f), str(f / "outputs.npz")]),
    "golden": lambda f: command(cli.main, ["verify", "--golden", str(f.parent)]),
    "arguments": lambda f: command(cli.main, words(f / "arguments")),
}
# Commands that solve take tenths of a second, the others milliseconds.
WEIGHTS = np.array([6, 6, 6, 6, 6, 3, 1, 1, 0.1, 1])
WORDS = [
    "verify", "oracle", "crosscheck", "compare", "experiment", "data", "--list", "--golden",
    "--out",
    "--seed", "-1", "x", "nowhere", "json", "json:x", "nowhere:Backend", ":", "--root", "--only",
    "operator=identity", "a=b,a=b", "--stages", "--method", "deq", "--resume", "--json", "--cases",
    "0", "fuzz.values:Backend", "--budget", "nan", "--time-limit", "--precision", "float32", "\0",
    "conv-denoising-3x3-tv-wrong", "--junit", "/nowhere/x", "--paper-solvers", "",
]  # fmt: skip


def draw(rng: np.random.Generator, folder: Path) -> Reading:
    """Write good files into an empty folder, spoil some, and choose a reader."""
    name = choose_weighted(list(READERS), WEIGHTS, rng)
    if name == "arguments":
        words = [choose(WORDS, rng) for _ in range(int(rng.integers(0, 6)))]
        words = ["data", *words] if words and words[0] == "verify" else words
        (folder / "arguments").write_text(json.dumps(words))
    elif name in ("load_model", "load_run", "load_checkpoint"):
        kept_file(folder, name.removeprefix("load_") + ".npz", rng)
    else:
        case_files(folder, rng)
    for _ in range(int(rng.integers(1, 3))):
        spoil(Path(folder) / choose(sorted(os.listdir(folder)), rng), rng)
    return Reading(name, READERS[name], folder)


def words(path: Path) -> list[str]:
    """A command line; that of `data` where the file with it was spoilt."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        found = None
    return found if isinstance(found, list) else ["data"]


def choose_weighted(values: list, weights: np.ndarray, rng: np.random.Generator) -> Any:
    """One of the values, by weight."""
    return values[int(rng.choice(len(values), p=weights / weights.sum()))]


def kept_file(folder: Path, name: str, rng: np.random.Generator) -> None:
    """A model, a run or a checkpoint, seldom under the name of another."""
    w, x, images = world(), np.arange(3.0), world().batch
    state = TrainingState(0, x, x, AdamState(x, x), images, images, x, ({"epoch": 0},), "f", x)
    theta = w.tv.theta
    run = Run({}, ({},), theta, theta, images, images, images, x, x, np.ones(2, bool))
    writers = {
        "model.npz": lambda path: w.model.save(path),
        "run.npz": lambda path: save_run(path, run),
        "checkpoint.npz": lambda path: save_checkpoint(path, state),
    }
    kind = name if rng.random() < 0.9 else choose(list(writers), rng)
    writers[kind](folder / name)


def case_files(folder: Path, rng: np.random.Generator) -> None:
    """A portable case with some of its outputs."""
    potential = choose(list(POTENTIALS), rng)
    operator = choose(["identity", "mask", "convolution", "matrix"], rng)
    tied = bool(rng.random() < 0.7)
    case = make_case(potential, operator=operator, tied=tied, size=(4, 3))
    write_case(folder, case, {"map": case.arrays["u"], "energy": np.ones(2)})


def spoil(path: Path, rng: np.random.Generator) -> None:
    """Change a file: its bits, its length, an array, a value, or put something in its place."""
    if not path.is_file():
        return
    content, kind = path.read_bytes(), rng.integers(8)
    if kind == 0 and content:
        flipped = bytearray(content)
        flipped[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
    elif kind == 1:
        path.write_bytes(content[: int(rng.integers(len(content) + 1))])
    elif kind == 2:
        path.write_bytes(choose(HOSTILE_BYTES, rng))
    elif kind == 3 and rng.random() < 0.3:
        path.unlink()
        path.mkdir()
    elif path.suffix == ".npz":
        spoil_arrays(path, rng)
    elif path.suffix == ".json":
        spoil_json(path, rng)


def spoil_arrays(path: Path, rng: np.random.Generator) -> None:
    """Change, replace, rename or drop an array, or a value of the text."""
    try:
        arrays = storage.read_arrays(path)
    except ValueError:
        return
    name = choose(sorted(arrays), rng) if arrays else "x"
    if name == "text":
        text = storage.decoded(arrays["text"])
        arrays["text"] = storage.encoded(spoilt(text, rng))
    elif arrays and rng.random() < 0.6:
        arrays[name] = changed_array(arrays[name], rng)
    elif arrays and rng.random() < 0.3:
        arrays[choose(["x", "A", "C", "b", "text", "mask"], rng)] = arrays.pop(name)
    else:
        arrays[name] = misfit(rng)
    try:
        path.write_bytes(storage.npz_bytes(arrays))
    except Exception:  # not everything can be written
        path.write_bytes(b"PK")


def spoil_json(path: Path, rng: np.random.Generator) -> None:
    """Change a value of a JSON file."""
    try:
        path.write_text(json.dumps(spoilt(json.loads(path.read_bytes()), rng)))
    except (ValueError, RecursionError):
        return


def spoilt(value: Any, rng: np.random.Generator) -> Any:
    """A value of JSON with one entry, at any depth, that is something else or missing."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.95:
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = choose(list(keys), rng)
        copy = value.copy()
        if rng.random() < 0.15:
            del copy[key]
        else:
            copy[key] = spoilt(value[key], rng)
        return copy
    return choose(HOSTILE_JSON, rng)
