"""From a case to what a backend is given."""

from types import SimpleNamespace

import numpy as np

from refimpl.cases import Case
from refimpl.cases.case import SETTINGS
from refimpl.potentials import make_potential

OPTIONAL = {"C": None, "mask": None, "kernel": None, "matrix": None}
LOCAL = {
    "map": ("apply", "u"),
    "energy": ("energy", "u"),
    "gradient": ("gradient", "u"),
    "jvp": ("jvp", "u", "v"),
    "hvp": ("hvp", "u", "v"),
    "vjp": ("vjp", "u", "w"),
}


def problem_of(case: Case, backend) -> SimpleNamespace:
    """The problem of a case, its arrays converted by the backend."""
    dtype, count = case.arrays["A"].dtype, len(case.arrays["A"])
    arrays = OPTIONAL | {"b": np.zeros(count, dtype), "weights": np.ones(count, dtype)}
    arrays |= {name: x.astype(dtype) for name, x in case.arrays.items()}
    arrays = {k: x if x is None else backend.asarray(x) for k, x in arrays.items()}
    settings = {name: getattr(case, name) for name in SETTINGS}
    settings["potential_parameters"] = vars(
        make_potential(case.potential, **case.potential_parameters)
    )
    return SimpleNamespace(**settings, **arrays)


def local_outputs(backend, case: Case) -> dict[str, np.ndarray]:
    """Every output at u, named as in outputs.npz."""
    problem = problem_of(case, backend)
    outputs = {}
    for name, (method, *images) in LOCAL.items():
        if case.tied or name not in ("energy", "gradient", "hvp"):
            outputs[name] = getattr(backend, method)(problem, *(_image(problem, i) for i in images))
    vjps = backend.params_vjp(problem, _image(problem, "u"), _image(problem, "w"))
    outputs |= {f"vjp_{name}": x for name, x in vjps.items()}
    return {name: np.asarray(x) for name, x in outputs.items()}


def solved_outputs(backend, case: Case, *, tol: float) -> dict[str, np.ndarray]:
    """Fixed point, loss and hypergradient, named as in outputs.npz."""
    problem = problem_of(case, backend)
    gradient = dict(backend.hypergradient(problem, tol=tol))
    outputs = {"fixed_point": backend.fixed_point(problem, tol=tol), "loss": gradient.pop("loss")}
    outputs |= {f"hypergradient_{name}": x for name, x in gradient.items()}
    return {name: np.asarray(x) for name, x in outputs.items()}


def _image(problem: SimpleNamespace, name: str):
    return getattr(problem, name)
