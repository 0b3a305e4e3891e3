"""For a user's own tests: one line for all stages, or one test for each stage and case.

    assert_matches_reference(backend)
    @parametrize_with_cases(backend)

What is expected to fail is named with its reason, and must fail. `since` is a version of the
suite: stages that are added to it later are then not asked for.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from refimpl.verification.crosscheck.calls import Session
from refimpl.verification.crosscheck.fixed import Only, as_only, written
from refimpl.verification.crosscheck.generation import planned, random_case
from refimpl.verification.crosscheck.judge import judge
from refimpl.verification.crosscheck.records import DISAGREES, Record
from refimpl.verification.crosscheck.reference import Reference, make_reference
from refimpl.verification.crosscheck.report import Report, as_text
from refimpl.verification.crosscheck.runner import accuracy, case_seeds, chosen, crosscheck
from refimpl.verification.crosscheck.stages import STAGES

Reasons = Mapping[str, str]


def assert_matches_reference(
    backend: Any,
    *,
    expected_failed: Reasons | None = None,
    seed: int = 0,
    cases: int = 40,
    precision: str = "float64",
    stages: Sequence[str] | None = None,
    only: Only | str | None = None,
    tol: float | None = None,
    since: int | None = None,
    time_limit: float = 10.0,
    budget: float = 45.0,
) -> None:
    """Raise AssertionError, with the table of stages, unless a backend agrees.

    Parameters
    ----------
    backend : object
    expected_failed : dict, optional
        Stages that must disagree, and why: {"hypergradient": "the solver stops at 1e-4"}.
    seed, cases, precision, stages, only, tol, since, time_limit, budget
        As in `refimpl.verification.crosscheck.crosscheck`, for example `cases=10` or
        `stages=("apply",)`.
    """
    __tracebackhide__ = True  # pytest then shows the caller's line
    expected = dict(expected_failed or {})
    require_known([*expected], STAGES)
    report = crosscheck(
        backend,
        seed=seed,
        cases=cases,
        precision=precision,
        stages=stages,
        only=only,
        tol=tol,
        since=since,
        time_limit=time_limit,
        budget=budget,
    )
    if complaint := unexpected(report, expected):
        raise AssertionError("\n" + as_text(report) + complaint)


def unexpected(report: Report, expected: Reasons) -> str:
    """What is wrong with a report besides what is expected; nothing where all is as expected."""
    failed = [stage.stage for stage in report.stages if stage.verdict == DISAGREES]
    healed = [f"{name} ({why})" for name, why in expected.items() if name not in failed]
    if healed:
        return f"\n\nexpected to disagree, and does not: {', '.join(healed)}; remove it"
    others = [name for name in failed if name not in expected]
    if others or not (report.agrees or failed):
        return f"\n\nnot expected to: {', '.join(others)}" if expected and others else " "
    return ""


def require_known(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError for an expected failure of something that is not tested."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"expected_failed: given {', '.join(map(str, unknown))}, expected some of "
            f"{', '.join(known)}"
        )


def parametrize_with_cases(
    backend: Any,
    *,
    expected_failed: Reasons | None = None,
    seed: int = 0,
    cases: int = 10,
    precision: str = "float64",
    stages: Sequence[str] | None = None,
    only: Only | str | None = None,
    tol: float | None = None,
    since: int | None = None,
) -> Any:
    """A pytest mark that makes one test for each stage and case.

    The test takes `stage_at_case` and calls it. A problem that the backend refuses is skipped.
    `expected_failed` names stages, or single tests as "apply-17", and is strict.
    """
    import pytest

    only = as_only(getattr(backend, "only", None)) | as_only(only)
    session = Session(backend, precision=precision, tol=1.0)
    offered = chosen(session, stages, since)
    session.close()
    tests = [
        StageAtCase(backend, stage, number, precision, written(only), tol)
        for stage in offered
        for number in case_seeds(seed, only)[:cases]
        if not STAGES[stage].tied_only or planned(number, None, only)["tied"]
    ]
    expected = dict(expected_failed or {})
    require_known([*expected], [*STAGES, *(str(test) for test in tests)])
    marked = []
    for test in tests:
        reason = expected.get(str(test), expected.get(test.stage))
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
        marked.append(pytest.param(test, id=str(test), marks=marks))
    return pytest.mark.parametrize("stage_at_case", marked)


class StageAtCase(NamedTuple):
    """One test: a stage of a backend at the case of a seed; called, it raises AssertionError."""

    backend: Any
    stage: str
    seed: int
    precision: str
    only: str
    tol: float | None

    def __str__(self) -> str:
        return f"{self.stage}-{self.seed}"

    def __call__(self) -> None:
        import pytest

        __tracebackhide__ = True
        record = self.record()
        if record is None:
            pytest.skip("the backend does not offer this problem, or no case is well posed")
        if record.agrees is False:
            raise AssertionError(f"{self}: {record.message}; refimpl crosscheck says why")

    def record(self) -> Record | None:
        """What came of the call."""
        tol = accuracy(self.backend, self.tol, self.precision)
        try:
            reference = kept_reference(self.seed, self.precision, self.only, tol)
        except ValueError:  # of `random_case`
            return None
        session = Session(self.backend, precision=self.precision, tol=tol, time_limit=60.0)
        try:
            call = session.call(self.stage, reference.case)
        finally:
            session.close()
        if call.refused:
            return None
        judgements = judge(reference, call.outputs)
        return Record(self.seed, self.stage, reference, call.outputs, judgements, call.findings)


@lru_cache(maxsize=64)
def kept_reference(seed: int, precision: str, only: str, tol: float) -> Reference:
    """The reference for all stages of a case."""
    case = random_case(seed, precision=precision, only=only)
    return make_reference(case, precision, tol=tol)
