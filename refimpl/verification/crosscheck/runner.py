"""The run: random cases through every stage of a backend, then what is wrong with each stage.

for each case      reference, calls, judgement
for a few cases    behaviours (`refimpl.verification.crosscheck.behaviour`)
for each failure   causes that explain all failing cases, and the smallest failing case
"""

import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from refimpl.arrays import count, positive, shown
from refimpl.storage import as_path
from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.behaviour import DIRECT, INDIRECT, Probe
from refimpl.verification.crosscheck.calls import Call, Finding, Session, describe
from refimpl.verification.crosscheck.diagnosis import stage_reports
from refimpl.verification.crosscheck.fixed import Only, as_only
from refimpl.verification.crosscheck.generation import draft, planned, random_case
from refimpl.verification.crosscheck.judge import judge
from refimpl.verification.crosscheck.records import Record, Verdict
from refimpl.verification.crosscheck.reference import (
    DEFAULT_TOL,
    Reference,
    build_loops,
    make_reference,
)
from refimpl.verification.crosscheck.report import Report
from refimpl.verification.crosscheck.smallest import keep_smallest
from refimpl.verification.crosscheck.stages import STAGES, SUITE, applies

# A run takes the seeds of its cases from SEEDS_PER_RUN · seed on, so that runs share no case.
SEEDS_PER_RUN = 1000
# Cases on which behaviour shows best are looked for among so many of them.
LOOKED_AT = 200
BEHAVIOUR_CASES = 2
# Values of one image of those cases, at most.
SMALL = 36
CASES_SHARE = 0.75
# So many cases in a row that a backend does not take are enough.
REFUSED = 100
DAY = 86_400


def case_seeds(seed: int, only: Only | None = None) -> list[int]:
    """The seeds of a run; those of cases on which behaviour shows best, tied and untied, first."""
    block = range(SEEDS_PER_RUN * seed, SEEDS_PER_RUN * (seed + 1))
    first = []
    for tied in (True, False):
        found = (s for s in block[:LOOKED_AT] if telling(planned(s, None, only), tied))
        first += list(islice(found, 1))
    return [*first, *(s for s in block if s not in first)]


def telling(plan: dict[str, Any], tied: bool) -> bool:
    """Several small images, curved but convex φ, nothing hidden, bias and weights."""
    curved = plan["potential"] in ("log_cosh", "smoothed_l1") and plan["tied"] == tied
    several = plan["shape"][0] > 1 and math.prod(plan["shape"][1:]) <= SMALL
    return (
        curved and several and plan["optional"] == ("b", "weights") and plan["operator"] != "mask"
    )


def crosscheck(
    backend: Any,
    *,
    seed: int = 0,
    cases: int = 40,
    precision: str = "float64",
    stages: Sequence[str] | None = None,
    only: Only | str | None = None,
    tol: float | None = None,
    since: int | None = None,
    time_limit: float = 10.0,
    budget: float = 45.0,
    out: Path | str | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
) -> Report:
    """Hold a backend against the reference on random cases.

    Parameters
    ----------
    backend : object
        With some of the callables of `refimpl.verification.crosscheck.stages.STAGES`; see
        `refimpl.verification.crosscheck`. A class is called without arguments. It may declare
        `only` and `tol`, which hold where these are left out here.
    seed : int
        Chooses the cases; the same seed gives the same cases.
    cases : int
        At most how many; 1 to 1000.
    precision : "float64" or "float32"
        Of the arrays that the backend is given and must return.
    stages : sequence of str, optional
        Which stages; left out: all that the backend offers.
    only : mapping or str, optional
        Settings that every drawn case has, for code that is made for one kind of problem, such as
        "operator=identity,b=none,size=window"; `refimpl.verification.crosscheck.fixed` has a list.
        They come on top of those that the backend declares.
    tol : float, optional
        Relative residual that solves are asked for, and judged by; left out: 1e-12, or 1e-6 in
        float32. Stages without a solve are judged as sharply as ever.
    since : int, optional
        A version of the suite: stages that were added later are not called.
    time_limit : float
        Seconds for one call.
    budget : float
        Seconds for cases and behaviour; after three quarters of them no further case is begun.
        What is wrong is then told apart and shrunk, for about half a minute more.
    out : path, optional
        Where the smallest failing case of each stage is written, in a directory of its name.
    on_verdict : function, optional
        Called with each `Verdict` as it comes.

    Returns
    -------
    Report
        `report.agrees` says whether nothing is wrong; `as_text(report)` is the table.

    Raises
    ------
    ValueError
        If an option is out of range, or the backend offers none of the stages.
    """
    check_options(seed, cases, precision, stages)
    check_seconds(time_limit=time_limit, budget=budget)
    check_receivers(out, on_verdict)
    only = as_only(getattr(backend, "only", None)) | as_only(only)
    tol = accuracy(backend, tol, precision)
    build_loops(precision)
    start = time.monotonic()  # loops are compiled by then
    session = Session(backend, precision=precision, tol=tol, time_limit=time_limit, only=only)
    try:
        show = on_verdict or (lambda verdict: None)
        run = Inquiry(session, chosen(session, stages, since), show)
        lost = run.add_cases(case_seeds(seed, only), cases, CASES_SHARE * budget)
        run.look_at_behaviour(start + lost + budget)
        small = keep_smallest(run.failing(), session, out)
    finally:
        session.close()
    return Report(
        backend=describe(backend),
        seed=seed,
        precision=precision,
        cases=run.cases,
        cases_asked=cases,
        seconds=round(time.monotonic() - start, 1),
        stages=stage_reports(run.records, run.findings, small, offered_by(session)),
        only=only,
    )


def accuracy(backend: Any, tol: float | None, precision: str) -> float:
    """The relative residual that solves are asked for: given, declared, or that of the precision.

    A declared one that this precision cannot reach is left at what it can.
    """
    if tol is not None:
        return positive(tol, "tol")
    declared = getattr(backend, "tol", None)
    default = DEFAULT_TOL[precision]
    return default if declared is None else max(default, positive(declared, "the backend's tol"))


def check_options(seed: int, cases: int, precision: str, stages: Sequence[str] | None) -> None:
    """Raise ValueError for options out of range."""
    count(seed, "seed", least=0)
    if count(cases, "cases") > SEEDS_PER_RUN:
        raise ValueError(f"cases: given {cases}, expected 1 to {SEEDS_PER_RUN}")
    if not isinstance(precision, str) or precision not in DEFAULT_TOL:
        raise ValueError(f"precision: given {shown(precision)}, expected float64 or float32")
    if stages is not None and not isinstance(stages, (list, tuple)):
        raise TypeError(f"stages: given {shown(stages)}, expected a list of names")
    unknown = [str(stage) for stage in stages or () if stage not in list(STAGES)]
    if unknown:
        known = ", ".join(STAGES)
        raise ValueError(f"stages: given {', '.join(unknown)}, expected some of {known}")


def check_seconds(**given: float) -> None:
    """Raise ValueError unless all are seconds of a day."""
    for name, seconds in given.items():
        if positive(seconds, name) > DAY:
            raise ValueError(f"{name}: given {seconds}, expected seconds, at most {DAY}")


def check_receivers(out: Any, on_verdict: Any) -> None:
    """Raise TypeError unless `out` is a path and `on_verdict` a function, where there are any."""
    if on_verdict is not None and not callable(on_verdict):
        raise TypeError(f"on_verdict: given {shown(on_verdict)}, expected a function")
    if out is not None:
        as_path(out)


def chosen(
    session: Session, stages: Sequence[str] | None, since: int | None = None
) -> tuple[str, ...]:
    """The stages to call, in order."""
    version = SUITE if since is None else count(since, "since")
    wanted = STAGES if stages is None else stages
    wanted = [stage for stage in wanted if STAGES[stage].since <= version]
    found = tuple(stage for stage in offered_by(session) if stage in wanted)
    if not found:
        raise ValueError(f"the backend offers none of the stages {', '.join(wanted)}")
    return found


def offered_by(session: Session) -> tuple[str, ...]:
    """The stages that the backend has, in order."""
    return tuple(stage for stage in STAGES if session.offers(stage))


class Inquiry:
    """What is known so far about a backend."""

    def __init__(
        self,
        session: Session,
        stages: tuple[str, ...],
        on_verdict: Callable[[Verdict], None],
    ):
        self.session, self.stages, self.on_verdict = session, stages, on_verdict
        self.records: list[Record] = []
        self.cases, self.refuses = 0, False
        self.findings: dict[str, list[Finding]] = {stage: [] for stage in stages}

    def add_cases(self, seeds: list[int], most: int, seconds: float) -> float:
        """Cases until there are enough, or the time is over; the time that refused ones took, which
        does not count."""
        start, refused, lost = time.monotonic(), 0, 0.0
        for seed in seeds:
            begun = time.monotonic()
            late = begun - start - lost > seconds
            if self.cases == most or (self.cases and late) or refused == REFUSED:
                break
            refused = 0 if self.add(seed) else refused + 1
            lost += time.monotonic() - begun if refused else 0.0
        return lost

    def add(self, seed: int) -> bool:
        """Every stage at the case of a seed, which counts if one of them answers.

        A backend that refused a problem is asked before the next is made well posed, and the
        reference is computed once it is needed.
        """
        options = {"precision": self.session.dtype.name, "only": self.session.only or None}
        if self.refuses and not self.takes(draft(seed, **options)):
            return False
        try:
            case = random_case(seed, **options)
        except ValueError:  # a seed without a well-posed case is not counted
            return False
        reference, before = None, len(self.records)
        for stage in self._asked(case):
            call = self.session.call(stage, case)
            self.refuses |= call.refused
            if call.outputs or call.findings:
                reference = reference or make_reference(
                    case, self.session.dtype, tol=self.session.tol
                )
                self._keep(stage, seed, reference, call)
        answered = len(self.records) > before
        self.cases += answered
        return answered

    def _asked(self, case: Case) -> list[str]:
        """The stages to call at a case."""
        hung = self.session.hung
        return [stage for stage in self.stages if applies(stage, case) and stage not in hung]

    def takes(self, case: Case) -> bool:
        """Whether a stage without a solve answers at a case, or one with a solve may."""
        asked = self._asked(case)
        local = [stage for stage in asked if not STAGES[stage].solved]
        if len(local) < len(asked):
            return True
        for stage in local:
            call = self.session.call(stage, case)
            if stage in self.session.hung:
                self.findings[stage] += call.findings
            if not call.refused:
                return True
        return False

    def _keep(self, stage: str, seed: int, reference: Reference, call: Call) -> None:
        judgements = judge(reference, call.outputs)
        record = Record(seed, stage, reference, call.outputs, judgements, call.findings)
        self.records.append(record)
        self.on_verdict(Verdict(seed, stage, record.agrees, record.message))

    def look_at_behaviour(self, deadline: float) -> None:
        """The checks that need no reference, at a few cases of each stage."""
        for stage in self.stages:
            count = 1 if STAGES[stage].solved else BEHAVIOUR_CASES
            for record in self._telling(stage)[:count]:
                if time.monotonic() > deadline:
                    return
                if stage in self.session.hung:
                    break
                self.findings[stage] += behaviours(self.session, record)

    def _telling(self, stage: str) -> list[Record]:
        """Records of a stage whose values can be looked at; wrong ones first, then as they came."""
        mine = (r for r in self.records if r.stage == stage)
        records = [r for r in mine if r.outputs and not r.reference.notes]
        wrong = any(r.agrees is False for r in records[:1])
        return records if wrong else sorted(records, key=lambda r: r.agrees is not False)

    def failing(self) -> dict[str, Record]:
        """The smallest failing record of each stage."""
        small = {}
        for record in sorted(self.records, key=lambda r: -r.case.arrays["u"].size):
            if record.agrees is False and record.stage not in self.session.hung:
                small[record.stage] = record
        return {stage: small[stage] for stage in self.stages if stage in small}


def behaviours(session: Session, record: Record) -> list[Finding]:
    """What the checks find at one record; only the first direct one, which explains the others."""
    probe = Probe(session, record.stage, record.reference, record.outputs, record.agrees is True)
    found = next((f for check in DIRECT if (f := check(probe))), None)
    if found is not None:
        return [found]
    return [f for check in INDIRECT if (f := check(probe)) is not None]
