"""A report as text for people, as plain values for JSON, and as JUnit XML for CI."""

import xml.etree.ElementTree as ET
from typing import Any, NamedTuple

from refimpl.verification.crosscheck.fixed import written
from refimpl.verification.crosscheck.records import (
    AGREES,
    CANNOT_JUDGE,
    DISAGREES,
    NOT_ASKED,
    NOT_OFFERED,
    StageReport,
)
from refimpl.verification.crosscheck.suspects import explanation

COLUMNS = ("stage", "verdict", "cases", "digits", "expected", "cause")


class Report(NamedTuple):
    """The outcome of a run or a comparison; printed, the table.

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

    def __str__(self) -> str:
        return as_text(self)


def as_text(report: Report) -> str:
    """The table of stages, and what to do about the wrong ones."""
    rows = [COLUMNS, *(row(stage) for stage in report.stages)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [headline(report), ""]
    for cells in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append("  ".join(padded).rstrip())
    for stage in report.stages:
        lines += explained(stage)
    return "\n".join([*lines, "", conclusion(report)])


def headline(report: Report) -> str:
    """What was held against the reference, and how much of it."""
    cases = f"{report.cases} of {report.cases_asked} cases"
    cases += " within the budget" if report.cases < report.cases_asked else ""
    parts = [report.backend, report.precision, cases]
    if report.only:
        parts.append(f"only {written(report.only)}")
    parts += [] if report.seed is None else [f"seed {report.seed}"]
    return ", ".join([*parts, f"{report.seconds:.1f} s"])


def row(stage: StageReport) -> tuple[str, ...]:
    """The cells of one stage."""
    count = f"{stage.failed} of {stage.cases} fail" if stage.failed else str(stage.cases or "")
    digits, expected = (
        "" if x is None else f"{x:.1f}" for x in (stage.digits, stage.expected_digits)
    )
    return (stage.stage, stage.verdict, count, digits, expected, cause(stage))


def cause(stage: StageReport) -> str:
    """The likeliest cause of a wrong stage, or where it may come from."""
    if stage.verdict != DISAGREES:
        return ""
    if stage.causes:
        same = f", as {stage.inherits}" if stage.inherits else ""
        return name(stage) + same
    return f"may come from {stage.inherits}" if stage.inherits else "unknown"


def name(stage: StageReport) -> str:
    """The first cause, and whether the numbers single it out."""
    return stage.causes[0] + (" (ambiguous)" if stage.ambiguous else "")


def explained(stage: StageReport) -> list[str]:
    """The lines on one wrong stage, fewer if it inherits; those on one that cannot be judged."""
    if stage.verdict == CANNOT_JUDGE:
        known = "; ".join(stage.details) or "no case has it, or the backend offers it for none"
        return ["", f"{stage.stage}: {known}"]
    lines = without_entries(stage)
    unchecked = [detail for detail in stage.details if detail.startswith("not checked")]
    if unchecked and stage.verdict == AGREES:
        lines += ["", *(f"{stage.stage}: {detail}" for detail in unchecked)]
    if stage.verdict != DISAGREES or stage.inherits:
        return lines
    known = f"{stage.causes[0]}. {stage.explanation}" if stage.causes else "no known cause fits."
    lines += ["", f"{stage.stage}: {known}"]
    if stage.ambiguous:
        lines.append("  ambiguous, because these give the same numbers:")
        lines += [f"    {slug}: {explanation(slug)}" for slug in stage.ambiguous[:3]]
    others = [slug for slug in stage.causes[1:] if slug not in stage.ambiguous]
    if others:
        lines.append(f"  or: {', '.join(others[:3])}")
    lines += [f"  {detail}" for detail in stage.details]
    if stage.worst_seed is not None:
        output = f", output {stage.worst_output}" if stage.worst_output else ""
        lines.append(f"  worst case: seed {stage.worst_seed}{output}")
    elif stage.worst_output:
        lines.append(f"  worst output: {stage.worst_output}")
    if stage.smallest:
        lines.append(f"  smallest case: {stage.smallest}")
    if stage.written:
        lines.append(f"  written to: {stage.written}")
    return lines


def without_entries(stage: StageReport) -> list[str]:
    """The line on entries of a mapping that are not offered."""
    if not stage.entries_missing:
        return []
    return ["", f"{stage.stage}: {', '.join(stage.entries_missing)} not offered"]


def conclusion(report: Report) -> str:
    """One line."""
    count = {v: sum(s.verdict == v for s in report.stages) for v in (AGREES, NOT_OFFERED)}
    if report.first_wrong is not None:
        stage = report.first_wrong
        what = f" ({' or '.join(stage.causes[:1] + stage.ambiguous[:2])})" if stage.causes else ""
        return f"disagrees; first wrong stage: {stage.stage}{what}"
    if report.cases == 0:
        return "no well-posed case was found: fix fewer settings, or give it more time"
    if not report.agrees:
        return "nothing could be judged"
    few = f"; at {report.cases} of {report.cases_asked} cases only, raise the budget for more"
    few = few if report.cases < report.cases_asked else ""
    return f"agrees in {count[AGREES]} stages, {count[NOT_OFFERED]} not offered{few}"


def as_plain(report: Report) -> dict[str, Any]:
    """Plain values, for JSON."""
    first = report.first_wrong
    return {
        **report._asdict(),
        "agrees": report.agrees,
        "first_wrong": None if first is None else first.stage,
        "stages": [
            {k: list(x) if isinstance(x, tuple) else x for k, x in stage._asdict().items()}
            for stage in report.stages
        ],
    }


def as_junit(report: Report) -> bytes:
    """JUnit XML: a test for each stage; skipped where it is not offered or cannot be judged."""
    verdicts = [stage.verdict for stage in report.stages]
    suite = ET.Element(
        "testsuite",
        name=f"refimpl crosscheck {report.backend} {report.precision}",
        tests=str(len(verdicts)),
        failures=str(verdicts.count(DISAGREES)),
        errors="0",
        skipped=str(sum(v in (NOT_OFFERED, NOT_ASKED, CANNOT_JUDGE) for v in verdicts)),
        time=str(report.seconds),
    )
    for stage in report.stages:
        test = ET.SubElement(suite, "testcase", classname=report.backend, name=stage.stage)
        if stage.verdict == DISAGREES:
            failure = ET.SubElement(test, "failure", message=printable(cause(stage)))
            failure.text = printable("\n".join((" ".join(row(stage)), *explained(stage))))
        elif stage.verdict != AGREES:
            ET.SubElement(test, "skipped", message=stage.verdict)
    return ET.tostring(suite, encoding="utf-8", xml_declaration=True)


def printable(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
