"""Portable cases (`refimpl-case/1`): a problem that any language can write and read.

A case is a directory with `case.json` (settings), `inputs.npz` (arrays) and `outputs.npz` (what a
program computed from them). `case` says what a case is and checks it, `files` reads and writes
the directory, `evaluation` computes every output, and `bounds` says how accurate the solved
ones are. `golden` is a suite of cases with their outputs, shipped inside the package.

Not here: comparing the outputs of two programs.
"""

from refimpl.verification.cases.case import FORMAT, Case, CaseError, build_step
from refimpl.verification.cases.evaluation import CaseResult, evaluate
from refimpl.verification.cases.exchange import read_case, read_outputs, write_case, write_result

__all__ = [
    "FORMAT",
    "Case",
    "CaseError",
    "CaseResult",
    "build_step",
    "evaluate",
    "read_case",
    "read_outputs",
    "write_case",
    "write_result",
]
