"""One call, and what to think of how it ended."""

import contextlib
import dis
import io
import re
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import refimpl
from refimpl.results import BreakdownError, NotConvergedError

PACKAGE = str(Path(refimpl.__file__).parent)
REFUSALS = (ValueError, TypeError, NotConvergedError, BreakdownError)
# Words of Python and NumPy that are no better for being handed on by refimpl.
GENERIC = re.compile(
    r"has no len|no attribute|object is not|unsupported operand|not subscriptable|cannot unpack|"
    r"could not be broadcast|must be real|index out of|positional argument|keyword argument|"
    r"not supported between|truth value|invalid literal|unhashable|bad operand|Cannot cast|"
    r"setting an array|inhomogeneous|int too (large|big)|maximum recursion|too many values|"
    r"not enough values|expected str, bytes|cannot be interpreted|matmul|cannot reshape"
)


class Hang(BaseException):
    """A call that takes too long; no `except Exception` of the package may catch it."""


class Verdict(NamedTuple):
    """How a call ended: "answered", "refused" or "fault", seconds, and what was said."""

    outcome: str
    seconds: float
    said: str


def judge(call: Callable, seconds: float) -> Verdict:
    """Call, with no more than so many seconds."""
    begin = time.perf_counter()
    try:
        with limited(seconds), warnings.catch_warnings(action="ignore"):
            answer = call()
        outcome, said = "answered", "" if answer is None else type(answer).__name__
    except Hang:
        outcome, said = "fault", f"no answer in {seconds:g} s"
    except BaseException as error:  # whatever it is, it is judged
        fault = wrong(error)
        outcome, said = ("fault", fault) if fault else ("refused", str(error))
    return Verdict(outcome, time.perf_counter() - begin, said)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Hang` after so many seconds."""

    def ring(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wrong(error: BaseException) -> str:
    """What is wrong with an exception as an answer to a user; "" if nothing is."""
    frame, text = list(traceback.walk_tb(error.__traceback__))[-1][0], str(error)
    where = f"{Path(frame.f_code.co_filename).name}:{error_line(error)}"
    said = f"{type(error).__name__} at {where}: {text[:200]}"
    if isinstance(error, OSError) and error.filename is not None:
        return ""  # of the system, with the file's name
    if isinstance(error, Refused):
        return ""
    if not isinstance(error, REFUSALS) or not raised_on_purpose(error):
        return said
    if not text or "\n" in text:
        return f"not one line: {said}"
    return f"handed on: {said}" if GENERIC.search(text) else ""


def error_line(error: BaseException) -> int:
    """The line on which it was raised."""
    return list(traceback.walk_tb(error.__traceback__))[-1][1]


def raised_on_purpose(error: BaseException) -> bool:
    """Whether a `raise` statement of the package raised it, not an operation that failed."""
    tb = error.__traceback__
    while tb.tb_next is not None:
        tb = tb.tb_next
    code = tb.tb_frame.f_code
    if not code.co_filename.startswith(PACKAGE):
        return False
    names = {i.offset: i.opname for i in dis.get_instructions(code)}
    return names[tb.tb_lasti] in ("RAISE_VARARGS", "RERAISE")


def command(main: Callable, arguments: list[str]) -> None:
    """Call the command line; raise AssertionError unless it ends as it should."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except SystemExit as stop:  # of argparse
        code = stop.code
    text = err.getvalue()
    if code not in (0, 1, 2) or "Traceback" in text:
        raise AssertionError(f"exit code {code}: {text[-200:]}")
    if code == 2:
        last = text.splitlines()[-1] if text else "nothing said"
        if "error: " not in last or GENERIC.search(last):
            raise AssertionError(f"exit code 2: {last[:300]}")
        raise Refused(last)


class Refused(ValueError):
    """Exit code 2 with a line that says why."""
