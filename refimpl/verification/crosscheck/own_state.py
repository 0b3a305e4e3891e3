"""Hypergradients judged at the u* that the backend itself found.

A solve that stops early moves u*, and with it the gradient; whether the backward pass is right is
seen at that u*. The adjoint solve is then allowed what the backend's own solve left.
"""

import numpy as np

from refimpl.kernels.vectors import norm
from refimpl.verification.cases import CaseResult
from refimpl.verification.cases.accuracy import DENSE_LIMIT
from refimpl.verification.crosscheck.anatomy import make_parts, terms
from refimpl.verification.crosscheck.judge import judge
from refimpl.verification.crosscheck.matrices import MatrixSystem
from refimpl.verification.crosscheck.records import Record
from refimpl.verification.crosscheck.solved import solved_tolerances

# A state with a larger relative residual is one of another problem.
NEAR = 1e-2
SLACK = 2.0


def at_own_states(records: list[Record], others: list[Record]) -> list[Record]:
    """The records with references at the backend's own u* where that is wrong, but near; the same
    list if there is none."""
    stars = {r.seed: r for r in others if r.stage == "fixed_point" and r.agrees is False}
    moved = [at_own_state(r, stars[r.seed]) if r.seed in stars else r for r in records]
    return moved if any(new is not old for new, old in zip(moved, records)) else records


def at_own_state(record: Record, star: Record) -> Record:
    """One record judged at the u* of another, if that is near the right one."""
    reference, u = record.reference, star.outputs.get("fixed_point")
    small = record.case.arrays["u"][0].size <= DENSE_LIMIT
    if u is None or not small or "fixed_point" not in reference.outputs:
        return record
    parts = make_parts(record.case)
    left = float((parts.tau * norm(sum(terms(parts, u))) / norm(u)).max())
    if not left <= NEAR:
        return record
    system = MatrixSystem.of(parts)
    gradient = {f"hypergradient_{name}": g for name, g in system.hypergradient(u).items()}
    outputs = {"fixed_point": u, "loss": np.asarray(system.loss(u))}
    outputs |= {k: x for k, x in gradient.items() if k in reference.outputs}
    tol, eps = max(reference.tol, SLACK * left), float(np.finfo(reference.precision).eps)
    allowed = solved_tolerances(record.case, eps, CaseResult(outputs, {}), tol)
    own = reference._replace(
        outputs=reference.outputs | outputs, tolerances=reference.tolerances | allowed, tol=tol
    )
    return record._replace(reference=own, judgements=judge(own, record.outputs))
