"""The command `experiment`: train one preset and keep the results."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from refimpl.cli.common import (
    FAILED,
    OK,
    BadInputError,
    add_command,
    input_errors,
    write_json,
)


def add_experiment(commands) -> None:
    """Add the parser of `experiment`."""
    parser = add_command(
        commands, "experiment", run_experiment, "train one preset and keep the results"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", metavar="NAME", help="name of a preset")
    what.add_argument("--list", action="store_true", help="list the presets")
    parser.add_argument(
        "--method", default="bilevel", help="bilevel (default), deq or deq_from_bilevel"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="results go to DIR/NAME/METHOD (default: results)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint; L-BFGS, which keeps none, begins anew",
    )
    parser.add_argument(
        "--paper-solvers",
        action="store_true",
        help="find fixed points and adjoint states by the paper's iterations, which is slow",
    )


def run_experiment(options: argparse.Namespace) -> int:
    """List the presets, or train one."""
    from refimpl.experiments import EXPERIMENTS, METHODS, get_experiment, with_paper_solvers

    if options.list:
        for name, e in EXPERIMENTS.items():
            model = f"{e.model}, {e.filters[0]} filters"
            print(f"{name:<36} {model}, {e.activation}, noise {e.noise_level:g}")
        return OK
    with input_errors():
        experiment = get_experiment(options.name)
    if options.paper_solvers:
        experiment = with_paper_solvers(experiment)
    if options.method not in METHODS:
        known = ", ".join(METHODS)
        raise BadInputError(f"method {options.method!r} is unknown; choose one of {known}")
    return _train(experiment, options.method, options.out / experiment.name, options.resume)


def _train(experiment, method: str, folder: Path, resume: bool) -> int:
    """Train one preset in one way into folder/method; the tied one first where it is the start."""
    from refimpl.storage import locked

    with ExitStack() as stack:
        with input_errors():
            stack.enter_context(locked(folder / method / "run.npz"))
        return _train_alone(experiment, method, folder, resume)


def _train_alone(experiment, method: str, folder: Path, resume: bool) -> int:
    """The same, once no other process writes there."""
    from refimpl.experiments import run, save_run, summarize
    from refimpl.results import BreakdownError, NotConvergedError
    from refimpl.training import save_checkpoint

    directory, title = folder / method, f"{experiment.name} {method}"
    try:
        start = _tied_solution(experiment, folder, resume) if method == "deq_from_bilevel" else None
        with input_errors():
            progress = _prepare(experiment, method, directory, resume)
        with _display(title, experiment.training, progress) as show:
            result = run(
                experiment, method, start=start, report=show, resume=progress,
                callback=partial(save_checkpoint, directory / "checkpoint.npz"),
            )  # fmt: skip
        finished = summarize(experiment, method, result)
    except (NotConvergedError, BreakdownError) as error:
        print(f"{title}: {error}", file=sys.stderr)
        return FAILED
    save_run(directory / "run.npz", finished)
    write_json(directory / "records.json", result.records)
    quality = f"PSNR {finished.psnr.mean():.2f} dB on the test images"
    print(f"{title}: {result.ended}; {quality}; results in {directory}")
    return OK if finished.converged.all() else FAILED


def _tied_solution(experiment, folder: Path, resume: bool):
    """The parameters that `bilevel` ended with, trained now if they are not there."""
    from refimpl.experiments import load_run
    from refimpl.results import NotConvergedError

    path = folder / "bilevel" / "run.npz"
    if not path.is_file():
        _train(experiment, "bilevel", folder, resume)
    if not path.is_file():
        raise NotConvergedError("the tied solution, from which this starts, was not found")
    with input_errors():
        _require_settings(path.with_name("settings.json"), _settings(experiment, "bilevel"))
        return load_run(path).parameters


def _settings(experiment, method: str) -> dict:
    return json.loads(json.dumps({**experiment.settings(), "method": method}))


def _require_settings(path: Path, settings: dict) -> None:
    from refimpl.storage import read_json

    if read_json(path) != settings:
        raise ValueError(f"{path}: not the settings of this preset; choose another --out")


def _prepare(experiment, method: str, directory: Path, resume: bool):
    """Write the effective settings; the progress to resume from, or None.

    Raises
    ------
    ValueError
        If results are there and `resume` is False, or belong to other settings.
    """
    from refimpl.storage import remove_parts
    from refimpl.training import load_checkpoint

    remove_parts(directory)
    settings = _settings(experiment, method)
    path, checkpoint = directory / "settings.json", directory / "checkpoint.npz"
    if not path.exists():
        write_json(path, settings)
        return None
    if not resume:
        raise ValueError(f"{directory} holds results; add --resume, or choose another --out")
    _require_settings(path, settings)
    return load_checkpoint(checkpoint) if checkpoint.exists() else None


@contextmanager
def _display(title: str, training, progress) -> Iterator[Callable[[dict], None]]:
    """A progress bar on a terminal, a line for each step or epoch elsewhere."""
    from refimpl.training import TrainingSettings

    minibatches = isinstance(training, TrainingSettings)
    limit = training.epochs if minibatches else training.max_iterations
    unit = "epoch" if minibatches else "step"
    if not sys.stderr.isatty():
        yield lambda r: print(f"{title}: {unit} {r['epoch']}/{limit}, {_losses(r)}", flush=True)
        return
    from tqdm import tqdm

    done = progress.epoch if progress else 0
    with tqdm(total=limit, initial=done, desc=title, unit=unit) as bar:

        def show(record):
            bar.set_postfix_str(_losses(record))
            bar.update()

        yield show


def _losses(record: dict) -> str:
    test = f", {record['loss_test']:.4g} test" if "loss_test" in record else ""
    return f"loss {record['loss_train']:.4g} train{test}"
