"""One line for a user's own tests: `assert_matches_reference(backend)`."""

from collections.abc import Sequence
from typing import Any

from refimpl.verification.crosscheck.fixed import Only
from refimpl.verification.crosscheck.report import as_text
from refimpl.verification.crosscheck.runner import crosscheck


def assert_matches_reference(
    backend: Any,
    *,
    seed: int = 0,
    cases: int = 40,
    precision: str = "float64",
    stages: Sequence[str] | None = None,
    only: Only | None = None,
    time_limit: float = 10.0,
    budget: float = 45.0,
) -> None:
    """Raise AssertionError, with the table of stages, unless a backend agrees.

    Parameters
    ----------
    backend : object
    seed, cases, precision, stages, only, time_limit, budget
        As in `refimpl.verification.crosscheck.crosscheck`, for example `cases=10` or
        `stages=("apply",)`.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line
    report = crosscheck(
        backend,
        seed=seed,
        cases=cases,
        precision=precision,
        stages=stages,
        only=only,
        time_limit=time_limit,
        budget=budget,
    )
    if not report.agrees:
        raise AssertionError("\n" + as_text(report))
