"""What a run or a comparison found, stage by stage, as plain values; and how causes are chosen.

A cause in the numbers must explain every failing output that is looked at. What is seen directly
(an exception, other numbers at every call) comes before it, what may be a consequence of it after.
A later stage that fails for the same cause, or for none that is known, inherits.
"""

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from refimpl.arrays import Array
from refimpl.cases import Case
from refimpl.crosscheck.calls import Finding
from refimpl.crosscheck.judge import Judgement
from refimpl.crosscheck.reference import Reference
from refimpl.crosscheck.stages import STAGES
from refimpl.crosscheck.suspects import explanation, suspects
from refimpl.crosscheck.suspects.evidence import Known

AGREES, DISAGREES = "agrees", "DISAGREES"
NOT_OFFERED, CANNOT_JUDGE = "not offered", "cannot judge"

# Causes are looked for in the numbers of so many failing cases of a stage, and for so long.
DIAGNOSED = 4
SECONDS = 20.0
# Seen directly, these leave nothing to look for in the numbers.
DECISIVE = ("not_deterministic", "hangs")
# Seen by calling, but better explained by a cause that predicts all the numbers: a wrong formula
# may depend on too little without anything being kept.
DOUBTFUL = ("stale_state", "leaks_between_images")
# Seen in the difference, without a prediction that equals the value.
SIGNS = (
    "border",
    "some_images",
    "hidden_precision",
    "too_few_forward_iterations",
    "too_few_adjoint_iterations",
)
OF_OTHER_IMAGES = ("leaks_between_images", "batch_global_stopping", "some_images")
INDIRECT_CAUSES = (
    "times_batch",
    "divided_by_batch",
    "sum_not_mean",
    "not_adjoint",
    "not_symmetric",
    "not_linear",
    "too_few_forward_iterations",
    "too_few_adjoint_iterations",
)


class Record(NamedTuple):
    """One stage at one case."""

    seed: int | None
    stage: str
    reference: Reference
    outputs: dict[str, Array]
    judgements: list[Judgement]
    findings: tuple[Finding, ...]

    @property
    def case(self) -> Case:
        """The case."""
        return self.reference.case

    @property
    def agrees(self) -> bool | None:
        """False if anything is wrong, None if nothing could be judged."""
        verdicts = [j.agrees for j in self.judgements]
        if self.findings or False in verdicts:
            return False
        return True if True in verdicts else None

    @property
    def wrong(self) -> list[str]:
        """Names of the outputs that disagree."""
        return [j.output for j in self.judgements if j.agrees is False]

    @property
    def message(self) -> str:
        """One line: what is wrong, or how many digits agree."""
        if self.findings:
            return self.findings[0].message
        judged = [j for j in self.judgements if j.agrees is not None]
        if not judged:
            return next((j.note for j in self.judgements if j.note), "nothing to judge")
        worst = min(judged, key=lambda j: j.digits - j.expected_digits)
        return f"{worst.digits:.1f} digits agree, {worst.expected_digits:.1f} expected"


class StageReport(NamedTuple):
    """The verdict on one stage, in plain values.

    Attributes
    ----------
    stage, verdict : str
        The verdict is "agrees", "DISAGREES", "not offered" or "cannot judge".
    cases, failed : int
        At how many cases it was called, and at how many it is wrong.
    digits, expected_digits : float or None
        That agree at the worst case, and that should.
    worst_output : str
    worst_seed : int or None
        The seed of the worst case, for `random_case` with the same `only`.
    causes : tuple of str
        What explains every failing case, the likeliest first.
    explanation : str
        The first cause in a sentence.
    details : tuple of str
        What else was seen.
    inherits : str or None
        The earlier stage whose cause explains this one.
    smallest, written : str or None
        The smallest failing case in words, and the directory it was written to.
    """

    stage: str
    verdict: str
    cases: int = 0
    failed: int = 0
    digits: float | None = None
    expected_digits: float | None = None
    worst_output: str = ""
    worst_seed: int | None = None
    causes: tuple[str, ...] = ()
    explanation: str = ""
    details: tuple[str, ...] = ()
    inherits: str | None = None
    smallest: str | None = None
    written: str | None = None


class Small(NamedTuple):
    """The smallest failing case of a stage, in words, and where it was written."""

    description: str
    directory: str | None


class Report(NamedTuple):
    """The outcome of a run or a comparison.

    Attributes
    ----------
    backend : str
    seed : int or None
    precision : str
    cases, cases_asked : int
        Cases that were run, and that were asked for: fewer where the time ran out, or all seeds
        of the run were used.
    seconds : float
    stages : tuple of StageReport
        One for each stage, in order.
    only : dict
        The settings that every case has.
    """

    backend: str
    seed: int | None
    precision: str
    cases: int
    cases_asked: int
    seconds: float
    stages: tuple[StageReport, ...]
    only: dict[str, Any]

    @property
    def agrees(self) -> bool:
        """Whether no stage is wrong and at least one is right."""
        verdicts = [stage.verdict for stage in self.stages]
        return DISAGREES not in verdicts and AGREES in verdicts

    @property
    def first_wrong(self) -> StageReport | None:
        """The first stage that is wrong; later ones are made of it."""
        return next((s for s in self.stages if s.verdict == DISAGREES), None)


def stage_reports(
    records: list[Record],
    findings: dict[str, list[Finding]],
    small: dict[str, Small],
) -> tuple[StageReport, ...]:
    """One report for each stage; `findings` has the stages that were called."""
    reports, first, deadline = [], None, time.monotonic() + SECONDS
    for stage in STAGES:
        if stage not in findings:
            reports.append(StageReport(stage, NOT_OFFERED))
            continue
        mine = [r for r in records if r.stage == stage]
        report = stage_report(stage, mine, findings[stage], small.get(stage), deadline)
        if report.verdict == DISAGREES and first is not None:
            report = inheriting(report, first)
        if report.verdict == DISAGREES and first is None:
            first = report
        reports.append(report)
    return tuple(reports)


def stage_report(
    stage: str, records: list[Record], seen: list[Finding], small: Small | None, deadline: float
) -> StageReport:
    """The verdict on one stage from all its records and what its behaviour showed."""
    failed = [r for r in records if r.agrees is False]
    judged = [(r, j) for r in records for j in r.judgements if j.agrees is not None]
    report = StageReport(stage, CANNOT_JUDGE, len(records), len(failed))
    if judged:
        worst, j = min(judged, key=lambda pair: pair[1].digits - pair[1].expected_digits)
        report = report._replace(
            verdict=AGREES,
            digits=round(j.digits, 1),
            expected_digits=round(j.expected_digits, 1),
            worst_output=j.output,
            worst_seed=worst.seed,
        )
    notes = tuple(dict.fromkeys(j.note for r in records for j in r.judgements if j.note))
    if not failed and not seen:
        return report._replace(details=notes[:2])
    seen = [f for r in failed for f in r.findings] + seen
    decided = any(f.cause in DECISIVE for f in seen)
    numerical = [] if decided else numerical_findings(failed, deadline)
    causes = in_order(seen, numerical)
    if any(len(r.case.arrays["u"]) == 1 and not r.findings for r in failed):
        # Other images cannot explain what is wrong with a single one.
        causes = tuple(sorted(causes, key=lambda cause: cause in OF_OTHER_IMAGES))
    seen += [f for f in numerical if f.message]
    if not judged and failed:
        report = report._replace(worst_seed=failed[0].seed)
    return report._replace(
        verdict=DISAGREES,
        causes=causes,
        explanation=explanation(causes[0]) if causes else "",
        details=tuple(dict.fromkeys(f"{f.cause}: {f.message}" for f in seen))[:4] + notes[:2],
        smallest=small and small.description,
        written=small and small.directory,
    )


def in_order(seen: list[Finding], numerical: list[Finding]) -> tuple[str, ...]:
    """Direct findings, then causes in the numbers, then doubtful and indirect findings."""
    slugs = [finding.cause for finding in seen]
    direct = [slug for slug in slugs if slug not in INDIRECT_CAUSES + DOUBTFUL]
    doubtful = [slug for slug in slugs if slug in DOUBTFUL]
    indirect = [slug for slug in slugs if slug in INDIRECT_CAUSES]
    predicted = [finding.cause for finding in numerical if finding.cause not in SIGNS]
    signs = [finding.cause for finding in numerical if finding.cause in SIGNS]
    return tuple(dict.fromkeys((*direct, *predicted, *doubtful, *signs, *indirect)))


def numerical_findings(failed: list[Record], deadline: float) -> list[Finding]:
    """Causes that explain every failing output looked at; else, those of each output alone; else,
    those that explain most.

    Small cases are looked at first, one output of each before the next, and nothing after the
    deadline: other cases tell causes apart that other outputs do not.
    """
    by_output: dict[str, list[tuple[str, ...]]] = {}
    smallest = sorted(failed, key=lambda r: r.case.arrays["u"].size)[:DIAGNOSED]
    caches: list[Known] = [{} for _ in smallest]
    for _, n, name in sorted(
        (k, n, name) for n, record in enumerate(smallest) for k, name in enumerate(record.wrong)
    ):
        if time.monotonic() < deadline:
            record = smallest[n]
            causes = suspects(record.reference, name, record.outputs[name], caches[n])
            by_output.setdefault(name, []).append(causes)
    everything = [causes for known in by_output.values() for causes in known]
    # What one case shows may be chance: outputs that more cases get wrong say more.
    most = max(map(len, by_output.values()), default=0)
    telling = [known for known in by_output.values() if len(known) == most]
    slugs = common(everything) or tuple(s for known in telling for s in common(known))
    return [Finding(slug, "") for slug in dict.fromkeys(slugs)] or covering(everything)


def covering(tuples: list[tuple[str, ...]]) -> list[Finding]:
    """Causes that together explain what no single one does: two mistakes, or one in two places."""
    found, left = [], tuples
    while slugs := [slug for causes in left for slug in causes]:
        best = max(dict.fromkeys(slugs), key=slugs.count)
        share = f"explains {slugs.count(best)} of {len(tuples)} wrong outputs"
        found.append(Finding(best, share))
        left = [causes for causes in left if best not in causes]
    return found


def common(tuples: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """What all tuples hold, in the order of the first."""
    tuples = list(tuples)
    return tuple(s for s in tuples[0] if all(s in t for t in tuples)) if tuples else ()


def inheriting(report: StageReport, first: StageReport) -> StageReport:
    """The report of a stage after the first wrong one, which may explain it.

    It does if they have a cause in common, or if this stage has none but what a wrong map leads
    to: solves of another problem look unfinished, and answers not linear.
    """
    if set(report.causes) & set(first.causes):
        return report._replace(inherits=first.stage)
    if not set(report.causes) - set(INDIRECT_CAUSES):
        return report._replace(inherits=first.stage, causes=(), explanation="")
    return report


def size_in_words(case: Case) -> str:
    """A case in one line."""
    N, C, H, W = case.arrays["u"].shape
    A = case.arrays["A"]
    images = f"{N} image{'s' * (N > 1)} of {C} × {H} × {W}"
    filters = f"{len(A)} {'row' if case.analysis == 'dense' else 'filter'}{'s' * (len(A) > 1)}"
    if case.analysis != "dense":
        filters += f" of {A.shape[2]} × {A.shape[3]}, {case.boundary}"
    K = case.operator + (f" ({case.operator_boundary})" if case.operator_boundary else "")
    tie = "tied" if case.tied else "untied"
    extra = [name for name in ("b", "weights") if name in case.arrays]
    extra += [] if case.norm is None else ["norm"]
    return ", ".join([images, filters, f"K {K}", case.potential, tie, *extra])
