"""Cases made from a case: its images chosen, repeated or scaled, or one part of it changed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from refimpl.arrays import Array
from refimpl.verification.cases import Case
from refimpl.verification.cases.case import BATCHED
from refimpl.verification.crosscheck.anatomy import make_parts
from refimpl.verification.crosscheck.fixed import Only, keeps
from refimpl.verification.crosscheck.matrices import MatrixSystem


def with_arrays(case: Case, **arrays: Array) -> Case:
    """The case with some arrays exchanged, in its own dtype."""
    dtype = case.arrays["u"].dtype
    exchanged = {k: x if k == "mask" else np.asarray(x, dtype) for k, x in arrays.items()}
    return replace(case, arrays=case.arrays | exchanged)


def with_images(case: Case, index: Sequence[int]) -> Case:
    """The batch of these images."""
    return with_arrays(case, **{name: case.arrays[name][list(index)] for name in BATCHED})


def with_quick_first_image(case: Case, factor: float) -> Case:
    """A linear tied problem whose first image is larger, and quicker to solve, than the others.

    With the quadratic φ, ∂G = J for every u. The first image's u* is `factor` times as large as
    its u, along the leading eigenvector of J, where plain iterations and Krylov methods with
    τ = 0.9 / ‖J‖ are quickest.
    """
    case = replace(case, potential="quadratic", potential_parameters={})
    system = MatrixSystem.of(make_parts(case))
    parts, u = system.acting, case.arrays["u"]
    values, vectors = np.linalg.eigh(system.jacobian(u)[0])
    star = factor * np.linalg.norm(u[0]) * vectors[:, -1].reshape(1, *u.shape[1:])
    # λ Kᵀ y = λ KᵀK u* + F(u*)
    right = system.direction(u * 0 + star) / parts.lam + parts.operator.transpose(parts.y)
    inverse = np.linalg.solve(system.matrices.data, right[0].ravel()).reshape(star.shape)
    y = np.concatenate([parts.operator.forward(inverse), case.arrays["y"][1:]])
    return replace(with_arrays(case, y=y), tau=0.9 / float(values[-1]))


def changed_cases(case: Case, only: Only) -> dict[str, Case]:
    """Cases of the same shapes in which one part is another: by the name of that part.

    What `only` fixes stays; a part that has nothing else is left out.
    """
    rng = np.random.default_rng(1)
    constants = {"lam": 1.05 * case.lam, "gamma": 0.95 * case.gamma, "tau": 0.97 * case.tau}
    constants = {name: x for name, x in constants.items() if name not in only}

    def moved(*names: str) -> dict[str, Array]:
        arrays = ((name, case.arrays[name]) for name in names if name in case.arrays)
        return {k: x + 0.1 * x.std() * rng.standard_normal(x.shape) for k, x in arrays}

    cases = {
        "filters": with_arrays(case, **moved("A", "C")),
        "state": with_arrays(case, u=-2 * case.arrays["u"]),
        "tangent": with_arrays(case, **moved("v", "w")),
        "data": with_arrays(case, **moved("y")),
        "target": with_arrays(case, **moved("target")),
    }
    if constants:
        cases["constants"] = replace(case, **constants)
    if moved("b", "weights"):
        cases["bias and weights"] = with_arrays(case, **moved("b", "weights"))
    if moved("kernel", "matrix"):
        cases["operator"] = with_arrays(case, **moved("kernel", "matrix"))
    if "mask" in case.arrays:
        cases["operator"] = with_arrays(case, mask=case.arrays["mask"][..., ::-1, ::-1])
    return {part: other for part, other in cases.items() if keeps(other, only)}


def all_changed(case: Case, only: Only) -> Case:
    """A case of the same shapes in which everything is another that `only` does not fix."""
    cases = changed_cases(case, only)
    arrays = {
        name: x
        for part in cases.values()
        for name, x in part.arrays.items()
        if not np.array_equal(x, case.arrays[name])
    }
    return with_arrays(cases.get("constants", case), **arrays)
