"""The command line: the only place that parses arguments, prints and chooses exit codes.

    refimpl denoise PHOTO -o OUT       also inpaint, deconvolve: one photograph
    refimpl models                     the trained models that ship
    refimpl show MODEL                 what a model learned, as a picture
    refimpl evaluate DIR --model M     PSNR and SSIM on photographs, beside total variation
    refimpl verify                     every identity: name, measured, bound, verdict
    refimpl verify --golden            every output of the golden suite, likewise
    refimpl oracle CASE_DIR            every output of a portable case, with error bounds
    refimpl crosscheck MODULE:OBJECT   hold a backend against the reference
    refimpl compare CASE_DIR OUTPUTS   hold outputs from a file against the reference
    refimpl experiment NAME | --list   train one preset
    refimpl train DIR -o M.npz         train a regulariser on photographs
    refimpl data                       the data sets there are

Exit codes: 0; 1 if a check failed, a backend disagrees or a solve did not converge; 2 for bad
input, with one line on standard error; 130 when interrupted. Each command imports what it needs
when it runs, so that `--help` is quick.

Not here: anything that computes.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from refimpl.cli.common import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    OK,
    BadInputError,
    add_command,
    input_errors,
    seed_number,
    write_json,
)
from refimpl.cli.crosschecks import add_compare, add_crosscheck
from refimpl.cli.experiment_command import add_experiment
from refimpl.cli.model_commands import add_model_commands
from refimpl.cli.pictures import add_pictures
from refimpl.cli.train_command import add_train

__all__ = ["BadInputError", "main", "make_parser", "write_json"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = make_parser().parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = options.command(options)
        sys.stdout.flush()
        return code
    except BadInputError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print("refimpl: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return FAILED
    except OSError as error:
        _forget_output()
        return _refuse(BadInputError(error))


def _forget_output() -> None:
    """Keep the interpreter from flushing to a standard output that nothing reads or keeps."""
    with contextlib.suppress(OSError, ValueError):  # not where it is a text in memory
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(error: BadInputError) -> int:
    """One line on standard error."""
    print(f"refimpl: error: {' '.join(str(error).split())}", file=sys.stderr)
    return BAD_INPUT


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="refimpl",
        description="Learned regularisers: bilevel learning and deep equilibrium models.",
    )
    parser.add_argument("--version", action="version", version=f"refimpl {version('refimpl')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_pictures(commands)
    add_model_commands(commands)
    _add_verify(commands)
    _add_oracle(commands)
    add_experiment(commands)
    add_train(commands)
    add_crosscheck(commands)
    add_compare(commands)
    data = add_command(
        commands, "data", run_data, "list the data sets and whether they can be loaded"
    )
    data.add_argument(
        "--root", type=Path, help="where the MNIST files are (default: $REFIMPL_DATA)"
    )
    return parser


def _add_verify(commands) -> None:
    parser = add_command(commands, "verify", run_verify, "check every identity of the reference")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--seed", type=seed_number, default=0, help="of the random arrays (default: 0)"
    )
    what.add_argument(
        "--golden",
        nargs="?",
        const="",
        metavar="DIR",
        help="check every output of the golden suite instead, or of the cases in DIR",
    )


def _add_oracle(commands) -> None:
    parser = add_command(commands, "oracle", run_oracle, "compute every output of a portable case")
    parser.add_argument(
        "case", type=Path, metavar="CASE_DIR", help="holds case.json and inputs.npz"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where outputs.npz and report.json go; existing ones are replaced (default: CASE_DIR)",
    )


def run_verify(options: argparse.Namespace) -> int:
    """Print each identity, or each output of the golden suite, as it is checked."""
    from refimpl.verification.identities import all_checks

    golden = options.golden is not None
    checks = _golden_checks(options.golden) if golden else all_checks(options.seed)
    print(f"{'output' if golden else 'identity':<92} {'measured':>9} {'bound':>9}  verdict")
    total = failed = 0
    for check in checks:
        total, failed = total + 1, failed + (not check.passed)
        verdict = "holds" if check.passed else "FAILS"
        print(f"{check.name:<92} {check.measured:9.2e} {check.bound:9.2e}  {verdict}", flush=True)
    print(f"{total} {'outputs' if golden else 'identities'}, {failed} failed")
    return FAILED if failed or not total else OK


def _golden_checks(directory: str) -> Iterator:
    """The checks of the suite in a directory, of the one in the package if it is empty."""
    from refimpl.verification.cases.golden import SUITE, golden_checks, read_suite

    with input_errors():
        suite = read_suite(directory or SUITE)
    return golden_checks(suite)


def run_oracle(options: argparse.Namespace) -> int:
    """Compute and write every output of a case."""
    from refimpl.verification.cases import evaluate, read_case, write_result

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
