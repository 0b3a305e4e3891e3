"""Causes in the numbers of a stage: what explains every failing output of all failing cases.

A few cases are searched for every cause, of different sizes and with images at least as large as
the window, where causes differ most; what is found is then held against the other failing cases.
Where nothing fits, two mistakes together are tried, then causes that share the cases among them.

Not here: what is seen by calling (`refimpl.verification.crosscheck.behaviour`).
"""

import time
from collections.abc import Iterable

from refimpl.verification.crosscheck.calls import Finding
from refimpl.verification.crosscheck.fixed import fits_window
from refimpl.verification.crosscheck.records import Record
from refimpl.verification.crosscheck.suspects import suspects
from refimpl.verification.crosscheck.suspects.evidence import Known

# So many failing cases are searched, and so many more of a stage without and with a solve must
# have the same causes.
DIAGNOSED, CONFIRMED, CONFIRMED_SOLVED = 4, 12, 3
# Seen in the difference, without a prediction that equals the value.
SIGNS = (
    "border",
    "some_images",
    "hidden_precision",
    "too_few_forward_iterations",
    "too_few_adjoint_iterations",
)
CUT_SHORT = "cut_short"
OUT_OF_TIME = "causes were not looked for in all of the numbers: out of time"
Causes = dict[str, list[tuple[str, ...]]]  # of each output, one tuple for each case


def numerical_findings(failed: list[Record], deadline: float) -> list[Finding]:
    """Causes that explain every failing output looked at; else those of each output alone; else
    two at once; else those that explain most."""
    records = telling_first([r for r in failed if r.wrong])
    first, others = records[:DIAGNOSED], records[DIAGNOSED:]
    found, late = searched(first, deadline)
    slugs = shared(found)
    if not set(slugs) - set(SIGNS):
        pairs, late = searched(first, deadline, pairs=True)
        slugs = tuple(s for s in shared(pairs) if "+" in s) + slugs
    slugs = confirmed(slugs, others, deadline)
    everything = [causes for known in found.values() for causes in known]
    findings = [Finding(slug, "") for slug in slugs] or covering(everything)
    return findings + ([Finding(CUT_SHORT, OUT_OF_TIME)] if late else [])


def telling_first(records: list[Record]) -> list[Record]:
    """Records of images no smaller than the window first, the smallest of each size before others:
    a cropped window, a factor of one row and a lost border look alike on tiny images."""

    def size(record: Record) -> int:
        return record.case.arrays["u"].size

    def tiny(record: Record) -> bool:
        rows, columns = record.case.arrays["u"].shape[2:]
        return not fits_window(record.case) or min(rows, columns) < 3 or rows == columns

    seen: set[tuple[int, ...]] = set()
    fresh, rest = [], []
    for record in sorted(records, key=lambda r: (tiny(r), size(r))):
        shape = record.case.arrays["u"].shape[2:]
        (rest if shape in seen else fresh).append(record)
        seen.add(shape)
    return fresh + rest


def searched(
    records: list[Record], deadline: float, *, pairs: bool = False
) -> tuple[Causes, bool]:
    """Every cause of every failing output, one output of each case before the next; and whether
    time ran out."""
    by_output: Causes = {}
    caches: list[Known] = [{} for _ in records]
    for _, n, name in sorted(
        (k, n, name) for n, record in enumerate(records) for k, name in enumerate(record.wrong)
    ):
        if time.monotonic() >= deadline:
            return by_output, True
        record, cache = records[n], None if pairs else caches[n]
        causes = suspects(record.reference, name, record.outputs[name], cache, pairs=pairs)
        by_output.setdefault(name, []).append(causes)
    return by_output, False


def shared(by_output: Causes) -> tuple[str, ...]:
    """What all outputs of all cases have in common, and else what those that say most have."""
    everything = [causes for known in by_output.values() for causes in known]
    slugs = common(everything)
    if not set(slugs) - set(SIGNS):
        # The loss sees u* only: how the gradients were had is in these.
        gradients = [x for name, known in by_output.items() if name != "loss" for x in known]
        slugs = (*slugs, *common(gradients))
    # What one case shows may be chance: outputs that more cases get wrong say more.
    most = max(map(len, by_output.values()), default=0)
    telling = [known for known in by_output.values() if len(known) == most]
    return without_numbers(slugs or tuple(s for known in telling for s in common(known)))


def confirmed(slugs: tuple[str, ...], records: list[Record], deadline: float) -> tuple[str, ...]:
    """Those of the causes that explain the first failing output of other cases too.

    A cause that needs no prediction is not asked again. If none is left, all stay: they explain
    what was searched.
    """
    kept = [slug for slug in slugs if slug not in SIGNS]
    solved = any(r.stage in ("fixed_point", "hypergradient") for r in records)
    for record in records[: CONFIRMED_SOLVED if solved else CONFIRMED]:
        if len(kept) < 2 or time.monotonic() >= deadline:
            break
        name = record.wrong[-1]
        found = suspects(record.reference, name, record.outputs[name], only=kept)
        kept = [slug for slug in kept if slug in found] or kept
    return tuple(slug for slug in slugs if slug in kept or slug in SIGNS)


def without_numbers(slugs: tuple[str, ...]) -> tuple[str, ...]:
    """Without numbers that were fitted, if there are causes that say which numbers they are."""
    slugs = tuple(dict.fromkeys(slugs))
    fitted = {s for s in slugs if "factor:" in s and is_number(s.partition(":")[2])}
    named = [s for s in slugs if s not in fitted | {"norm_inexact"}]
    return tuple(named) if set(named) - set(SIGNS) else slugs


def is_number(text: str) -> bool:
    """Whether a detail is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


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
