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
        metavar="K=V,…",
        help="settings that every case has, such as operator=identity,b=none,filter_size=3x3,"
        "size=window,slope=1; an unknown one is answered with all",
    )
    parser.add_argument(
        "--tol",
        type=float,
        metavar="R",
        help="relative residual that solves are asked for and judged by (default: 1e-12, or 1e-6)",
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
        "outputs",
        type=Path,
        metavar="OUTPUTS",
        help="any of the outputs of the case: an npz or mat file, or a directory of npy files",
    )
    _add_formats(parser)


def _add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML as well")


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
                tol=options.tol,
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
            where = "" if verdict.case is None else f"seed {verdict.case}: "
            line = f"{where}{verdict.stage} {word}: {verdict.message}"
            print(line, file=sys.stderr, flush=True)

    return show


def run_compare(options: argparse.Namespace) -> int:
    """Hold the outputs in a file against the reference."""
    from refimpl.verification.crosscheck import compare

    with input_errors():
        report = compare(options.case, options.outputs, on_verdict=_progress())
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
