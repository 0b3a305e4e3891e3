"""The smallest failing case of each wrong stage, kept as a portable case."""

import time
from pathlib import Path

import numpy as np

from refimpl.storage import npz_bytes, write_file
from refimpl.verification.cases import Case, write_case
from refimpl.verification.crosscheck.calls import Session
from refimpl.verification.crosscheck.fixed import keeps
from refimpl.verification.crosscheck.judge import judge
from refimpl.verification.crosscheck.posed import why_ill_posed
from refimpl.verification.crosscheck.records import Record, Small, size_in_words
from refimpl.verification.crosscheck.reference import make_reference
from refimpl.verification.crosscheck.shrinking import shrink
from refimpl.verification.question import in_precision

# Seconds for all stages together, and the least that one of them gets.
SECONDS, LEAST = 8.0, 0.5


def keep_smallest(
    failing: dict[str, Record], session: Session, out: Path | str | None
) -> dict[str, Small]:
    """Shrink the failing case of each stage, keeping the session's settings; with `out`, write it
    to out/STAGE."""
    deadline, small = time.monotonic() + SECONDS, {}
    for done, (stage, record) in enumerate(failing.items()):
        share = (deadline - time.monotonic()) / (len(failing) - done)
        case = shrink(
            record.case,
            lambda case, stage=stage, record=record: (
                keeps(case, session.only) and fails(session, stage, case, causes_of(record))
            ),
            seconds=max(share, LEAST),
        )
        directory = None if out is None else str(Path(out) / stage)
        if directory is not None:
            write_failure(directory, session, stage, case)
        small[stage] = Small(size_in_words(case), directory)
    return small


def causes_of(record: Record) -> set[str]:
    """What was seen at a record besides wrong numbers."""
    return {finding.cause for finding in record.findings}


def fails(session: Session, stage: str, case: Case, causes: set[str]) -> bool:
    """Whether a well-posed case is one that the stage gets wrong in the same way."""
    if stage in session.hung or why_ill_posed(case) is not None:
        return False
    call = session.call(stage, case)
    seen = {finding.cause for finding in call.findings}
    if seen or causes:
        return bool(seen & causes)
    reference = make_reference(case, session.dtype, tol=session.tol)
    return any(j.agrees is False for j in judge(reference, call.outputs))


def write_failure(directory: str, session: Session, stage: str, case: Case) -> None:
    """The case with the reference's outputs, and backend.npz with those of the backend."""
    reference = make_reference(case, session.dtype, tol=session.tol)
    write_case(directory, in_precision(case, session.dtype), reference.outputs)
    outputs = session.call(stage, case).outputs
    as_returned = {name: np.asarray(x) for name, x in outputs.items()}
    if as_returned:  # not where it raised, or returned nothing that can be compared
        write_file(Path(directory) / "backend.npz", npz_bytes(as_returned))
