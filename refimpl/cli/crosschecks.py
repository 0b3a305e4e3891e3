"""The commands `crosscheck` and `compare`: a backend, or its outputs, against the reference."""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from refimpl.cli.common import (
    FAILED,
    OK,
    BadInputError,
    add_command,
    input_errors,
    seed_number,
)


def add_crosscheck(commands) -> None:
    """Add the parser of `crosscheck`."""
    parser = add_command(
        commands, "crosscheck", run_crosscheck, "hold a backend against the reference"
    )
    parser.add_argument("backend", metavar="MODULE:OBJECT", help="MODULE alone is a backend too")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--cases", type=int, default=40, help="at most how many (default: 40)")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the cases (default: 0)")
    parser.add_argument("--stages", metavar="A,B", help="only these (default: all offered)")
    parser.add_argument(
        "--only",
        type=settings,
        metavar="K=V,…",
        help="settings that every case has, such as operator=identity,tied=true; known are "
        "operator, operator_boundary, analysis, boundary, potential, tied, normalized, images, "
        "channels",
    )
    parser.add_argument(
        "--time-limit", type=float, default=10.0, metavar="S",
        help="for each call, three times as long for the first (default: 10)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=45.0,
        metavar="S",
        help="no case is begun after three quarters of it (default: 45)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write the smallest failing case of each stage"
    )
    _add_formats(parser)


def add_compare(commands) -> None:
    """Add the parser of `compare`."""
    parser = add_command(
        commands, "compare", run_compare, "hold outputs of a portable case against the reference"
    )
    parser.add_argument(
        "case", type=Path, metavar="CASE_DIR", help="holds case.json and inputs.npz"
    )
    parser.add_argument(
        "outputs", type=Path, metavar="OUTPUTS.npz", help="any of the outputs of the case"
    )
    _add_formats(parser)


def _add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML as well")


def settings(text: str) -> dict[str, Any]:
    """The mapping of name=value,name=value; true, false and integers are read as such.

    Raises
    ------
    argparse.ArgumentTypeError
        If an entry has no =, or a name comes twice.
    """
    found: dict[str, Any] = {}
    words = {"true": True, "false": False}
    for entry in text.split(","):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not equals:
            raise argparse.ArgumentTypeError(
                f"{entry!r} has no =; expected for example operator=identity,tied=true"
            )
        if name in found:
            raise argparse.ArgumentTypeError(f"{name} is given twice, expected once")
        found[name] = int(value) if value.isdecimal() else words.get(value.lower(), value)
    return found


def run_crosscheck(options: argparse.Namespace) -> int:
    """Load a backend and hold it against the reference.

    What the backend prints goes to standard error, so that standard output stays readable.
    """
    with redirect_stdout(sys.stderr):
        backend = load_backend(options.backend)
        from refimpl.verification.crosscheck import crosscheck

        with input_errors():
            report = crosscheck(
                backend,
                seed=options.seed,
                cases=options.cases,
                precision=options.precision,
                stages=options.stages.split(",") if options.stages else None,
                only=options.only,
                time_limit=options.time_limit,
                budget=options.budget,
                out=options.out,
                on_verdict=_progress(),
            )
    return _show(report._replace(backend=options.backend), options)


def load_backend(name: str) -> Any:
    """The object MODULE:OBJECT; the current directory comes first.

    Raises
    ------
    BadInputError
        If the name is malformed, the module cannot be imported, or has no such object.
    """
    from refimpl.storage import said

    module_name, colon, path = name.partition(":")
    if not module_name or (colon and not path):
        raise BadInputError(f"given {name!r}, expected MODULE:OBJECT, for example mine:Mine")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module does when it is imported
        reason = f"{type(error).__name__}: {said(error)}"
        raise BadInputError(f"{module_name!r} cannot be imported ({reason})") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    for part in path.split(".") if path else ():
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "give MODULE:OBJECT"
            raise BadInputError(f"{name}: there is no {part!r}; {hint}")
        found = getattr(found, part)
    return found


def _progress() -> Callable[[Any], None]:
    """Show each stage's first verdict, and its first disagreement, as they come."""
    seen: set[tuple[str, bool]] = set()

    def show(verdict: Any) -> None:
        wrong = verdict.agrees is False
        if (verdict.stage, wrong) not in seen:
            seen.add((verdict.stage, wrong))
            word = "DISAGREES" if wrong else "agrees" if verdict.agrees else "cannot judge"
            line = f"seed {verdict.case}: {verdict.stage} {word}: {verdict.message}"
            print(line, file=sys.stderr, flush=True)

    return show


def run_compare(options: argparse.Namespace) -> int:
    """Hold the outputs in a file against the reference."""
    from refimpl.storage import read_arrays
    from refimpl.verification.cases import read_case
    from refimpl.verification.crosscheck import compare

    with input_errors():
        case = read_case(options.case)
        report = compare(case, read_arrays(options.outputs), name=str(options.outputs))
    return _show(report, options)


def _show(report: Any, options: argparse.Namespace) -> int:
    """Print the report, write the JUnit file, choose the exit code."""
    from refimpl.storage import write_file
    from refimpl.verification.crosscheck import as_junit, as_plain, as_text

    if options.junit is not None:
        with input_errors():
            write_file(options.junit, as_junit(report))
    if options.json:
        print(json.dumps(as_plain(report), indent=2, allow_nan=False))
    else:
        print(as_text(report))
    return OK if report.agrees else FAILED
