"""Small whole problems with a known answer: steps whose fixed point is attractive and isolated.

Each potential meets each form of bank, tied and untied; operators and boundaries rotate. Every
problem is a portable case: its step comes from the builder of cases, its answers from
`dense_outputs`, which knows nothing of operators and fields.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import Step
from refimpl.equilibrium.norms import largest_safe_step
from refimpl.paper.operators import BOUNDARIES
from refimpl.paper.potentials import POTENTIALS, Potential
from refimpl.verification.builders import OPERATORS, Bank, make_bank, make_operator
from refimpl.verification.cases import Case, build_step
from refimpl.verification.checks import dense_outputs
from refimpl.verification.identities import registry

IMAGE = (2, 4, 3)
# As many responses as make A injective for generic coefficients.
COEFFICIENTS = {"dense": (30, 24), "convolution": (4, 2, 3, 3)}
LAM, GAMMA = 1.0, 0.5
APART = 0.3  # ‖C − A‖ relative to ‖A‖ when untied
# The defaults, but ν = 1: with 0.1 plain iterations take thousands.
PARAMETERS = {"smoothed_l1": {"nu": 1.0}}


class KnownProblem:
    """A case with its step.

    Parameters
    ----------
    case : Case
    """

    def __init__(self, case: Case):
        self.case, self.inputs, self.target = case, case.arrays, case.arrays["target"]

    @cached_property
    def step(self) -> Step:
        """T of E8."""
        return build_step(self.case)

    def outputs(self) -> dict[str, Array]:
        """Every output by dense matrices."""
        return dense_outputs(self.case.description(), self.inputs, self.step.problem.potential)


def problems(seed: int = 0) -> Iterator[tuple[str, KnownProblem]]:
    """Every potential, tied and untied, with filters and dense rows."""
    combinations = product(POTENTIALS, ("convolution", "dense"), (True, False))
    for number, (shape, analysis, tied) in enumerate(combinations):
        operator = tuple(OPERATORS)[(number + number // 4) % len(OPERATORS)]
        if operator == "mask" and not strictly_convex(POTENTIALS[shape]()):
            operator = "identity"  # where data are missing and φ is flat, nothing holds a pixel
        boundary = tuple(BOUNDARIES)[number % len(BOUNDARIES)]
        form = boundary if analysis == "convolution" else "dense"
        name = f"{'tied' if tied else 'untied'}, {operator}, {form}, {shape}"
        description = {
            "operator": operator,
            "operator_boundary": boundary,
            "analysis": analysis,
            "boundary": boundary,
            "potential": shape,
            "tied": tied,
        }
        yield name, problem(description, registry.stream(seed, name))


def problem(description: dict[str, Any], rng: np.random.Generator) -> KnownProblem:
    """A problem of the given kind with random data and parameters, and τ = 1/L."""
    kind, boundary = description["operator"], description["operator_boundary"]
    arrays = operator_arrays(kind, rng)
    operator = make_operator(kind, IMAGE, arrays.get(OPERATORS[kind]), boundary)
    bank = make_bank(IMAGE, COEFFICIENTS[description["analysis"]], description["boundary"])
    arrays |= near_tied(bank, description["tied"], rng)
    arrays["target"] = rng.standard_normal((registry.IMAGES, *IMAGE))
    y = operator.matvec(arrays["target"])
    arrays["y"] = y + 0.1 * rng.standard_normal(y.shape)
    arrays |= {name: rng.standard_normal(arrays["target"].shape) for name in "uvw"}
    parameters = PARAMETERS.get(description["potential"], {})
    constants = {"tau": 1.0, "lam": LAM, "gamma": GAMMA, "potential_parameters": parameters}
    case = Case(**description, **constants, arrays=arrays)
    return KnownProblem(replace(case, tau=with_safe_step(build_step(case)).tau))


def strictly_convex(potential: Potential) -> bool:
    """Whether σ′ > 0 everywhere; every potential with kinks has σ′ = 0 on one side of them."""
    return potential.convex and potential.smooth


def with_safe_step(step: Step) -> Step:
    """The step with τ = 1/L."""
    return replace(step, tau=largest_safe_step(step) / 2)


def near_tied(bank: Bank, tied: bool, rng: np.random.Generator) -> dict[str, Array]:
    """Random θ, positive weights; untied, C is near A so that the fixed point is attractive."""
    F = bank.coefficients_shape[0]
    A = registry.coefficients(bank, rng)
    C = A + APART * registry.coefficients(bank, rng)
    b, weights = 0.3 * rng.standard_normal(F), rng.uniform(0.5, 1.5, F)
    return {"A": A, "b": b, "weights": weights} | ({} if tied else {"C": C})


def operator_arrays(kind: str, rng: np.random.Generator) -> dict[str, Array]:
    """The array of K: a mask, a blur or a matrix near the identity; nothing for the identity."""
    if kind == "mask":
        return {"mask": rng.random(IMAGE) < 0.8}
    if kind == "convolution":
        kernel = 0.1 * rng.standard_normal((3, 5))
        kernel[1, 2] += 1
        return {"kernel": kernel}
    if kind == "matrix":
        return {"matrix": np.concatenate([np.eye(24), 0.1 * rng.standard_normal((6, 24))])}
    return {}
