"""Every output of a backend, or of the oracle, for one case, named as in outputs.npz."""

import numpy as np
import pytest

from refimpl.verification.cases import Case
from refimpl.verification.crosscheck import Question
from refimpl.verification.crosscheck.stages import STAGES, applies


def problem_of(case: Case, backend) -> Question:
    """The problem of a case, its arrays converted by the backend."""
    return Question.from_case(case, backend.asarray)


def local_outputs(backend, case: Case) -> dict[str, np.ndarray]:
    """Every output at u."""
    problem, outputs = problem_of(case, backend), {}
    for name, stage in STAGES.items():
        if hasattr(backend, name) and applies(name, case) and not stage.solved:
            images = (backend.asarray(case.arrays[image]) for image in stage.arguments)
            found = getattr(backend, name)(problem, *images)
            named = found.items() if stage.mapping else [("", found)]
            outputs |= {stage.output + key: np.asarray(x) for key, x in named}
    return outputs


def solved_outputs(backend, case: Case, *, tol: float) -> dict[str, np.ndarray]:
    """Fixed point, loss and hypergradient."""
    problem = problem_of(case, backend)
    gradient = dict(backend.hypergradient(problem, tol=tol))
    outputs = {"fixed_point": backend.fixed_point(problem, tol=tol), "loss": gradient.pop("loss")}
    outputs |= {f"hypergradient_{name}": x for name, x in gradient.items()}
    return {name: np.asarray(x) for name, x in outputs.items()}


def oracle_outputs(case):
    """All outputs by autodiff and dense solves."""
    pytest.importorskip(
        "torch", reason="the oracle is torch autodiff; install refimpl[backends]"
    )
    import torch_oracle

    return torch_oracle.oracle_outputs(case)
