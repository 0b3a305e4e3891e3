"""What a run or a comparison found: one stage at one case, and one stage.

Not here: what the causes are (`refimpl.verification.crosscheck.diagnosis`), and all stages together
(`refimpl.verification.crosscheck.report`).
"""

from typing import NamedTuple

from refimpl.arrays import Array
from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.calls import Finding
from refimpl.verification.crosscheck.judge import Judgement
from refimpl.verification.crosscheck.reference import Reference

AGREES, DISAGREES = "agrees", "DISAGREES"
NOT_OFFERED, NOT_ASKED, CANNOT_JUDGE = "not offered", "not asked for", "cannot judge"


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


class Verdict(NamedTuple):
    """One stage at one case, by its seed, as soon as it is known; `agrees` is None if it cannot be
    judged."""

    case: int | None
    stage: str
    agrees: bool | None
    message: str


class StageReport(NamedTuple):
    """The verdict on one stage, in plain values.

    Attributes
    ----------
    stage, verdict : str
        The verdict is "agrees", "DISAGREES", "not offered", "not asked for" or "cannot judge".
    cases, failed : int
        At how many cases it was called, and at how many it is wrong.
    digits, expected_digits : float or None
        That agree at the worst case, and that should.
    worst_output : str
    worst_seed : int or None
        The seed of the worst case, for `random_case` with the same `only`.
    causes : tuple of str
        What explains every failing case, the likeliest first.
    ambiguous : tuple of str
        Causes that give the same numbers as the first, in every failing output looked at.
    explanation : str
        The first cause in a sentence.
    details : tuple of str
        What else was seen.
    entries_missing : tuple of str
        Entries of the stage's mapping that were never returned, and so are not offered.
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
    ambiguous: tuple[str, ...] = ()
    explanation: str = ""
    details: tuple[str, ...] = ()
    entries_missing: tuple[str, ...] = ()
    inherits: str | None = None
    smallest: str | None = None
    written: str | None = None


class Small(NamedTuple):
    """The smallest failing case of a stage, in words, and where it was written."""

    description: str
    directory: str | None


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
