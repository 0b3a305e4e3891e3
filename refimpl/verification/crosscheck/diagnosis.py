"""What is wrong with a stage, from all its cases.

A cause in the numbers must explain every failing output that is looked at. What is seen directly
(an exception, other numbers at every call) comes before it, what may be a consequence of it after.
Causes that explain the same outputs equally well make the diagnosis ambiguous. A later stage that
fails for the same cause, or for none that is known, inherits.
"""

import time
from collections.abc import Container

from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.calls import Finding
from refimpl.verification.crosscheck.causes import CUT_SHORT, SIGNS, numerical_findings
from refimpl.verification.crosscheck.fixed import fits_window
from refimpl.verification.crosscheck.own_state import at_own_states
from refimpl.verification.crosscheck.records import (
    AGREES,
    CANNOT_JUDGE,
    DISAGREES,
    NOT_ASKED,
    NOT_OFFERED,
    Record,
    Small,
    StageReport,
)
from refimpl.verification.crosscheck.stages import STAGES, output_shapes
from refimpl.verification.crosscheck.suspects import explanation

# Causes are looked for in the numbers of all stages for so long, at most.
SECONDS = 40.0
# Seen directly, these leave nothing to look for in the numbers.
DECISIVE = ("not_deterministic", "hangs")
# What a check could not be made of.
NOT_CHECKED = "not_checked"
# Seen by calling, but better explained by a cause that predicts all the numbers: a wrong formula
# may depend on too little without anything being kept.
DOUBTFUL = ("stale_state", "leaks_between_images", "energy_constant")
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
# A right side that was never solved for is the Jacobian-free gradient: two names, not two causes.
SAME = {"jacobian_free": ("adjoint_is_right_hand_side",)}
# Derivatives along v or w: a lower precision keeps their products with −2 exact.
DERIVATIVES = ("jvp", "hvp", "vjp", "params_vjp")
# What may set failing cases apart from those that agree, at least so many of both.
LEAST_CASES = 2


def stage_reports(
    records: list[Record],
    findings: dict[str, list[Finding]],
    small: dict[str, Small],
    not_asked: Container[str] = (),
) -> tuple[StageReport, ...]:
    """One report for each stage; `findings` has the stages that were called."""
    reports, first, deadline = [], None, time.monotonic() + SECONDS
    for stage in STAGES:
        if stage not in findings:
            reports.append(StageReport(stage, NOT_ASKED if stage in not_asked else NOT_OFFERED))
            continue
        mine = [r for r in records if r.stage == stage]
        own = at_own_states(mine, records) if stage == "hypergradient" else mine
        report = stage_report(stage, own, findings[stage], small.get(stage), deadline)
        if own is not mine:
            report = without_own_state(report, mine, reports)
        elif report.verdict == DISAGREES and first is not None:
            report = inheriting(report, first)
        if report.verdict == DISAGREES and first is None:
            first = report
        reports.append(report)
    return tuple(reports)


def without_own_state(
    report: StageReport, records: list[Record], before: list[StageReport]
) -> StageReport:
    """The report of hypergradients that were judged at the backend's own u*.

    Those that are right there, and wrong at u*, inherit the fixed point's error; the others do
    not, whatever the solve left.
    """
    star = next(r for r in before if r.stage == "fixed_point")
    failed = sum(r.agrees is False for r in records)
    if report.verdict == DISAGREES:
        causes = tuple(s for s in report.causes if s != "too_few_forward_iterations")
        same = star.stage if set(causes[:1]) & set(star.causes) else None
        first = explanation(causes[0]) if causes else ""
        return report._replace(causes=causes, explanation=first, inherits=same)
    report = measured(report.stage, records)._replace(failed=failed)
    if not failed:
        return report
    return report._replace(verdict=DISAGREES, causes=star.causes[:1], inherits=star.stage)


def stage_report(
    stage: str, records: list[Record], seen: list[Finding], small: Small | None, deadline: float
) -> StageReport:
    """The verdict on one stage from all its records and what its behaviour showed."""
    failed = [r for r in records if r.agrees is False]
    report = measured(stage, records)._replace(failed=len(failed))
    notes = tuple(dict.fromkeys(j.note for r in records for j in r.judgements if j.note))
    notes += tuple(f"not checked: {f.message}" for f in seen if f.cause == NOT_CHECKED)
    seen = [f for f in seen if f.cause != NOT_CHECKED]
    if not failed and not seen:
        return report._replace(details=notes[:2])
    seen = in_small_images(failed, records) + seen
    decided = any(f.cause in DECISIVE for f in seen)
    numerical = [] if decided else numerical_findings(failed, deadline)
    notes += tuple(f.message for f in numerical if f.cause == CUT_SHORT)
    numerical = [f for f in numerical if f.cause != CUT_SHORT]
    causes = in_order(stage, seen, numerical, single_image_fails(failed))
    seen += [f for f in numerical if f.message]
    details = tuple(dict.fromkeys(f"{f.cause}: {f.message}" for f in seen))[:4] + notes[:2]
    if report.worst_seed is None and failed:
        report = report._replace(worst_seed=failed[0].seed)
    return report._replace(
        verdict=DISAGREES,
        causes=causes,
        ambiguous=rivals(causes, numerical),
        explanation=explanation(causes[0]) if causes else "",
        details=confined(failed, [r for r in records if r.agrees]) + details,
        smallest=small and small.description,
        written=small and small.directory,
    )


def in_small_images(failed: list[Record], records: list[Record]) -> list[Finding]:
    """What was seen at failing cases; exceptions by another name if only images that are smaller
    than the window raise them, and larger ones do not."""
    seen = [f for r in failed for f in r.findings]
    raising = [r for r in failed if any(f.cause == "raised" for f in r.findings)]
    larger = [r for r in records if fits_window(r.case)]
    if len(larger) < LEAST_CASES or any(fits_window(r.case) for r in raising):
        return seen
    return [f._replace(cause="raises_below_window") if f.cause == "raised" else f for f in seen]


def measured(stage: str, records: list[Record]) -> StageReport:
    """How many digits agree at the worst case, before anything is said to be wrong."""
    missing = missing_entries(stage, records)
    report = StageReport(stage, CANNOT_JUDGE, len(records), entries_missing=missing)
    wrong = [r for r in records if r.agrees is False]
    judged = [(r, j) for r in wrong or records for j in r.judgements if j.agrees is not None]
    if not judged:
        return report
    worst, j = min(judged, key=lambda pair: pair[1].digits - pair[1].expected_digits)
    return report._replace(
        verdict=AGREES,
        digits=round(j.digits, 1),
        expected_digits=round(j.expected_digits, 1),
        worst_output=j.output,
        worst_seed=worst.seed,
    )


def missing_entries(stage: str, records: list[Record]) -> tuple[str, ...]:
    """Entries that the stage may return and never does, where it returns any."""
    given = {name for r in records for name in r.outputs}
    known = {name: None for r in records for name in output_shapes(stage, r.case)}
    prefix = STAGES[stage].output
    missing = [name.removeprefix(prefix) for name in known if given and name not in given]
    optional = {"b", "weights"} - {name for r in records for name in r.case.arrays}
    return tuple(name for name in missing if name not in optional)


def single_image_fails(failed: list[Record]) -> bool:
    """Whether the numbers of a case of one image are wrong: other images cannot explain it."""
    return any(len(r.case.arrays["u"]) == 1 and not r.findings for r in failed)


def in_order(
    stage: str, seen: list[Finding], numerical: list[Finding], single: bool
) -> tuple[str, ...]:
    """Direct findings, causes that predict the numbers, doubtful findings, signs that fit all
    numbers, indirect findings, and signs that fit some of them.

    What is seen of other images comes after these if a single image is wrong. Finite
    differences have the error of a lower precision, but are not linear.
    """
    slugs = [finding.cause for finding in seen]
    doubtful = [slug for slug in slugs if slug in DOUBTFUL]
    late = [slug for slug in slugs if single and slug in OF_OTHER_IMAGES]
    signs = [f for f in numerical if f.cause in SIGNS]
    whole = [f.cause for f in signs if not f.message and not (single and f.cause == "some_images")]
    if stage in DERIVATIVES and "not_linear" in slugs:
        whole = [slug for slug in whole if slug != "hidden_precision"]
    order = (
        [slug for slug in slugs if slug not in (*INDIRECT_CAUSES, *DOUBTFUL, *late)],
        [finding.cause for finding in numerical if finding.cause not in SIGNS],
        [slug for slug in doubtful if slug not in late],
        whole,
        [slug for slug in slugs if slug in INDIRECT_CAUSES],
        late,
        [finding.cause for finding in signs],
    )
    return tuple(dict.fromkeys(slug for group in order for slug in group))


def rivals(causes: tuple[str, ...], numerical: list[Finding]) -> tuple[str, ...]:
    """The causes that predict the same numbers as the first one; none if that is alone."""
    equal = [f.cause for f in numerical if f.cause not in SIGNS and not f.message]
    if not causes or causes[0] not in equal:
        return ()
    same = SAME.get(causes[0], ())
    return tuple(slug for slug in equal if slug != causes[0] and slug not in same)


def confined(failed: list[Record], right: list[Record]) -> tuple[str, ...]:
    """What all failing cases have and no other: a setting, or that a setting is another one."""
    if min(len(failed), len(right)) < LEAST_CASES:
        return ()
    wrong, others = ([settings_of(r.case) for r in records] for records in (failed, right))
    found = []
    for name in wrong[0]:
        ours, theirs = ({case[name] for case in cases} for cases in (wrong, others))
        if len(ours) == 1 and not ours & theirs:
            found.append(f"fails exactly where {name} is {ours.pop()}")
        elif len(theirs) == 1 and not ours & theirs:
            found.append(f"agrees exactly where {name} is {theirs.pop()}")
    return tuple(found[:2])


def settings_of(case: Case) -> dict[str, str]:
    """What cases differ in, in words."""
    images, channels, *_ = case.arrays["u"].shape
    return {
        "operator": case.operator,
        "operator_boundary": str(case.operator_boundary),
        "analysis": case.analysis,
        "boundary": str(case.boundary),
        "potential": case.potential,
        "tied": str(case.tied).lower(),
        "normalized": str(case.norm is not None).lower(),
        "the number of images": "1" if images == 1 else "greater than 1",
        "the number of channels": "1" if channels == 1 else "greater than 1",
        "b": "given" if "b" in case.arrays else "left out",
        "weights": "given" if "weights" in case.arrays else "left out",
    }


def inheriting(report: StageReport, first: StageReport) -> StageReport:
    """The report of a stage after the first wrong one, which may explain it.

    It does if they have a cause in common, or if this stage has none but what a wrong map leads
    to: solves of another problem look unfinished, and answers not linear.
    """
    if set(report.causes) & set(first.causes):
        return report._replace(inherits=first.stage)
    if not set(report.causes) - {*INDIRECT_CAUSES, *SIGNS}:
        return report._replace(inherits=first.stage, causes=(), explanation="")
    return report
