"""The command line: the only place that parses arguments, prints and chooses exit codes.

    refimpl verify                     every identity: name, measured, bound, verdict
    refimpl verify --golden            every output of the golden suite, likewise
    refimpl oracle CASE_DIR            every output of a portable case, with error bounds
    refimpl experiment NAME | --list   train one preset
    refimpl data                       the data sets there are

Exit codes: 0; 1 if a check failed or a solve did not converge; 2 for bad input, with one line on
standard error; 130 when interrupted. Each command imports what it needs when it runs, so that
`--help` is quick.

Not here: anything that computes.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class BadInputError(Exception):
    """What the user gave cannot be used; the message says what and how to fix it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        code = options.command(options)
        sys.stdout.flush()
        return code
    except BadInputError as error:
        print(f"refimpl: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("refimpl: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output is gone; keep the interpreter from flushing to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


@contextmanager
def input_errors() -> Iterator[None]:
    """Errors raised inside are the user's: reading, looking up, writing where told to."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise BadInputError(str(error)) from error


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="refimpl",
        description="Learned regularisers: bilevel learning and deep equilibrium models.",
    )
    parser.add_argument("--version", action="version", version=f"refimpl {version('refimpl')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_verify(commands)
    _add_oracle(commands)
    _add_experiment(commands)
    data = _add(commands, "data", run_data, "list the data sets and whether they can be loaded")
    data.add_argument(
        "--root", type=Path, help="where the MNIST files are (default: $REFIMPL_DATA)"
    )
    return parser


def _add(
    commands, name: str, command: Callable[[argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.set_defaults(command=command)
    return parser


def _add_verify(commands) -> None:
    parser = _add(commands, "verify", run_verify, "check every identity of the reference")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--seed", type=_seed, default=0, help="of the random arrays (default: 0)")
    what.add_argument(
        "--golden",
        nargs="?",
        const="",
        metavar="DIR",
        help="check every output of the golden suite instead, or of the cases in DIR",
    )


def _add_oracle(commands) -> None:
    parser = _add(commands, "oracle", run_oracle, "compute every output of a portable case")
    parser.add_argument(
        "case", type=Path, metavar="CASE_DIR", help="holds case.json and inputs.npz"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where outputs.npz and report.json go; existing ones are replaced (default: CASE_DIR)",
    )


def _add_experiment(commands) -> None:
    parser = _add(commands, "experiment", run_experiment, "train one preset and keep the results")
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
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument(
        "--paper-solvers",
        action="store_true",
        help="find fixed points and adjoint states by the paper's iterations, which is slow",
    )


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"given {text!r}, expected an integer of at least 0")
    return int(text)


def run_verify(options: argparse.Namespace) -> int:
    """Print each identity, or each output of the golden suite, as it is checked."""
    golden = options.golden is not None
    checks = _golden_checks(options.golden) if golden else _identities(options.seed)
    print(f"{'output' if golden else 'identity':<92} {'measured':>9} {'bound':>9}  verdict")
    total = failed = 0
    for check in checks:
        total, failed = total + 1, failed + (not check.passed)
        verdict = "holds" if check.passed else "FAILS"
        print(f"{check.name:<92} {check.measured:9.2e} {check.bound:9.2e}  {verdict}", flush=True)
    print(f"{total} {'outputs' if golden else 'identities'}, {failed} failed")
    return FAILED if failed or not total else OK


def _identities(seed: int) -> Iterator:
    from refimpl.identities import all_checks

    return all_checks(seed)


def _golden_checks(directory: str) -> Iterator:
    """The checks of the suite in a directory, of the one in the package if it is empty."""
    from refimpl.cases.golden import SUITE, golden_checks, read_suite

    with input_errors():
        suite = read_suite(directory or SUITE)
    return golden_checks(suite)


def run_oracle(options: argparse.Namespace) -> int:
    """Compute and write every output of a case."""
    from refimpl.cases import evaluate, read_case, write_result

    with input_errors():
        case = read_case(options.case)
    result, directory = evaluate(case), options.out or options.case
    with input_errors():
        write_result(directory, *result)
    for line in _accuracy_table(result.report):
        print(line)
    print(f"{len(result.outputs)} outputs written to {directory / 'outputs.npz'}")
    if not result.converged:
        print(f"not converged: {directory / 'report.json'} says what is left out", file=sys.stderr)
    return OK if result.converged else FAILED


def _accuracy_table(report: dict) -> Iterator[str]:
    """One line for each solved output: its error relative to its norm, bounded and estimated."""
    if "accuracy" in report:
        yield f"{'output':<24} {'relative error: bound':>22} {'estimate':>10}"
    for name, entry in report.get("accuracy", {}).items():
        size = entry["norm"] or 1.0
        errors = (entry["bound"], entry["estimate"])
        bound, estimate = ("unknown" if e is None else f"{e / size:.1e}" for e in errors)
        yield f"{name:<24} {bound:>22} {estimate:>10}"


def run_data(options: argparse.Namespace) -> int:
    """Print the table of data sets."""
    from refimpl.images import describe

    with input_errors():
        rows = describe(options.root)
    cells = [("name", "source", "image", "train / test", "values", "loads")]
    for r in rows:
        cells.append((r.name, r.source, r.shape, r.split, r.values, "yes" if r.available else "no"))
    notes = ["note", *(r.note for r in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line, note in zip(cells, notes, strict=True):
        padded = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join((*padded, note)))
    return OK


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
    from refimpl.experiments import run, save_run, summarize
    from refimpl.results import BreakdownError, NotConvergedError

    directory, title = folder / method, f"{experiment.name} {method}"
    try:
        start = _tied_solution(experiment, folder, resume) if method == "deq_from_bilevel" else None
        with input_errors():
            progress = _prepare(experiment, method, directory, resume)
        with _display(title, experiment.training.epochs, progress) as show:
            keep = _each_epoch(directory, show)
            result = run(experiment, method, start=start, resume=progress, callback=keep)
        finished = summarize(experiment, method, result)
    except (NotConvergedError, BreakdownError) as error:
        print(f"{title}: {error}", file=sys.stderr)
        return FAILED
    save_run(directory / "run.npz", finished)
    write_json(directory / "records.json", result.records)
    quality = f"PSNR {finished.psnr.mean():.2f} dB on the test images"
    print(f"{title}: {quality}; results in {directory}")
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
    if json.loads(path.read_text("utf-8")) != settings:
        raise ValueError(f"{path}: not the settings of this preset; choose another --out")


def _prepare(experiment, method: str, directory: Path, resume: bool):
    """Write the effective settings; the progress to resume from, or None.

    Raises
    ------
    ValueError
        If results are there and `resume` is False, or belong to other settings.
    """
    from refimpl.training import load_checkpoint

    settings = _settings(experiment, method)
    path, checkpoint = directory / "settings.json", directory / "checkpoint.npz"
    if not path.is_file():
        write_json(path, settings)
        return None
    if not resume:
        raise ValueError(f"{directory} holds results; add --resume, or choose another --out")
    _require_settings(path, settings)
    return load_checkpoint(checkpoint) if checkpoint.is_file() else None


def _each_epoch(directory: Path, show: Callable[[dict], None]):
    """The callback of training: keep a checkpoint, show the record."""
    from refimpl.training import save_checkpoint

    def callback(progress):
        save_checkpoint(directory / "checkpoint.npz", progress)
        show(progress.records[-1])

    return callback


@contextmanager
def _display(title: str, epochs: int, progress) -> Iterator[Callable[[dict], None]]:
    """A progress bar on a terminal, a line for each epoch elsewhere."""
    if not sys.stderr.isatty():
        yield lambda r: print(f"{title}: epoch {r['epoch']}/{epochs}, {_losses(r)}", flush=True)
        return
    from tqdm import tqdm

    done = progress.epoch if progress else 0
    with tqdm(total=epochs, initial=done, desc=title, unit="epoch") as bar:

        def show(record):
            bar.set_postfix_str(_losses(record))
            bar.update()

        yield show


def _losses(record: dict) -> str:
    return f"loss {record['loss_train']:.4g} train, {record['loss_test']:.4g} test"


def write_json(path: Path, value) -> None:
    """Write JSON, whole or not at all, with null in place of NaN and infinity."""
    from refimpl.storage import write_file

    write_file(path, (json.dumps(_finite(value), indent=2, allow_nan=False) + "\n").encode())


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
