"""Outputs that another program wrote for one portable case, held against the reference."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from refimpl.arrays import Array, shown
from refimpl.verification.cases import Case, read_case, read_outputs
from refimpl.verification.crosscheck.calls import Finding, checked_outputs
from refimpl.verification.crosscheck.diagnosis import stage_reports
from refimpl.verification.crosscheck.judge import judge
from refimpl.verification.crosscheck.records import Record, Verdict
from refimpl.verification.crosscheck.reference import Reference, make_reference
from refimpl.verification.crosscheck.report import Report
from refimpl.verification.crosscheck.stages import STAGES, applies, output_shapes


def compare(
    case: Case | Path | str,
    outputs: dict[str, Array] | Path | str,
    *,
    name: str = "outputs",
    on_verdict: Callable[[Verdict], None] | None = None,
) -> Report:
    """Judge outputs of a case, any subset; printed, the report is the table.

    Parameters
    ----------
    case : Case, or the directory of one
        Its dtype is the precision that the outputs are held to.
    outputs : dict of arrays, or a path
        By the names of `outputs.npz`; an npz file, a mat file, or a directory of npy files. A wrong
        shape or dtype, NaN and infinity are faults; axes of length 1 and byte order do not count.
    name : str
        What the report calls the outputs.
    on_verdict : function, optional
        Called with each `Verdict` as it comes; causes are looked for after the last.

    Raises
    ------
    ValueError
        If there is no output, or one has a name that this case has no output of.
    """
    start = time.monotonic()
    case = read_case(case) if isinstance(case, (str, Path)) else case
    if isinstance(outputs, (str, Path)):
        name, outputs = str(outputs), read_outputs(outputs)
    check_names(case, outputs)
    precision = case.arrays["u"].dtype
    reference = make_reference(case, precision)
    records = []
    for stage in STAGES:
        mine = {k: x for k, x in outputs.items() if k in output_shapes(stage, case)}
        if mine:
            records.append(record := compared(stage, reference, mine))
            if on_verdict is not None:
                on_verdict(Verdict(None, stage, record.agrees, record.message))
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
    shapes, values, turned = output_shapes(stage, reference.case), {}, []
    for name, x in outputs.items():
        values[name], reverse = laid_out(np.asarray(x), shapes[name])
        if reverse:
            message = f"{name}: shape {np.shape(x)}, expected {shapes[name]}"
            turned.append(Finding("axes_reversed", message))
    if values.get("loss", np.empty(1)).shape == ():
        values["loss"] = values["loss"][()]  # a number, in any precision
    call = checked_outputs(values, shapes, reference.precision)
    usable = {name: x.astype(np.float64) for name, x in call.outputs.items()}
    findings = (*turned, *call.findings)
    return Record(None, stage, reference, usable, judge(reference, usable), findings)


def laid_out(x: Array, shape: tuple[int, ...]) -> tuple[Array, bool]:
    """x in native byte order and in this shape, and whether its axes were in reverse order.

    Axes of length 1 may be missing or added, as MATLAB does; another shape is left as it is.
    """
    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    given, wanted = ([n for n in s if n != 1] for s in (x.shape, shape))
    if given == wanted:
        return x.reshape(shape), False
    if given == wanted[::-1]:
        return x.transpose().reshape(shape), True
    return x, False
