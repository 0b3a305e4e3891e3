"""One line for a user's own tests: `assert_matches_reference(backend)`."""

from typing import Any

from refimpl.crosscheck.report import as_text
from refimpl.crosscheck.run import crosscheck


def assert_matches_reference(backend: Any, **options: Any) -> None:
    """Raise AssertionError, with the table of stages, unless a backend agrees.

    Parameters
    ----------
    backend : object
    **options
        Those of `refimpl.crosscheck.crosscheck`, for example `cases=10` or `stages=("apply",)`.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line
    report = crosscheck(backend, **options)
    if not report.agrees:
        raise AssertionError("\n" + as_text(report))
