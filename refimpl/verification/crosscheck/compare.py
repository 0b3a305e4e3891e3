"""Outputs that another program wrote for one portable case, held against the reference."""

import time
from collections.abc import Mapping

import numpy as np

from refimpl.arrays import Array, shown
from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.calls import checked_outputs
from refimpl.verification.crosscheck.diagnosis import stage_reports
from refimpl.verification.crosscheck.judge import judge
from refimpl.verification.crosscheck.records import Record, Report
from refimpl.verification.crosscheck.reference import Reference, make_reference
from refimpl.verification.crosscheck.stages import STAGES, applies, output_shapes


def compare(case: Case, outputs: dict[str, Array], *, name: str = "outputs") -> Report:
    """Judge outputs of a case, any subset.

    Parameters
    ----------
    case : Case
        Its dtype is the precision that the outputs are held to.
    outputs : dict of arrays
        By the names of `outputs.npz`. A wrong shape or dtype, NaN and infinity are faults.
    name : str
        What the report calls the outputs.

    Raises
    ------
    ValueError
        If there is no output, or one has a name that this case has no output of.
    """
    start = time.monotonic()
    check_names(case, outputs)
    precision = case.arrays["u"].dtype
    reference = make_reference(case, precision)
    records = [
        compared(stage, reference, mine)
        for stage in STAGES
        if (mine := {k: x for k, x in outputs.items() if k in output_shapes(stage, case)})
    ]
    return Report(
        backend=name,
        seed=None,
        precision=precision.name,
        cases=1,
        cases_asked=1,
        seconds=round(time.monotonic() - start, 1),
        stages=stage_reports(records, {r.stage: [] for r in records}, {}),
        only={},
    )


def check_names(case: Case, outputs: dict[str, Array]) -> None:
    """Raise unless there is a case, and every output is one of it."""
    if not isinstance(case, Case):
        raise TypeError(f"case: given {shown(case)}, expected a Case, as read_case returns it")
    if not isinstance(outputs, Mapping) or not all(isinstance(name, str) for name in outputs):
        raise TypeError(f"outputs: given {shown(outputs)}, expected a dict of arrays by name")
    known = [
        name
        for stage in STAGES
        if applies(stage, case)
        for name in output_shapes(stage, case)
    ]
    unknown = [name for name in outputs if name not in known]
    if unknown or not outputs:
        given = ", ".join(unknown) if unknown else "none"
        kind = "a tied" if case.tied else "an untied"
        raise ValueError(f"outputs: given {given}; {kind} case has {', '.join(known)}")


def compared(stage: str, reference: Reference, outputs: dict[str, Array]) -> Record:
    """One stage's outputs, judged; those of a wrong kind are findings."""
    values = {name: np.asarray(x) for name, x in outputs.items()}
    if values.get("loss", np.empty(1)).shape == ():
        values["loss"] = values["loss"][()]  # a number, in any precision
    call = checked_outputs(values, output_shapes(stage, reference.case), reference.precision)
    usable = {name: x.astype(np.float64) for name, x in call.outputs.items()}
    return Record(None, stage, reference, usable, judge(reference, usable), call.findings)
