"""Small whole problems with a known answer: steps whose fixed point is attractive and isolated.

Each potential meets each form of bank, tied and untied; operators and boundaries rotate. The
same problem is written twice: as a `Step`, and as a portable case for `dense_outputs`, which
solves it with dense matrices and knows nothing of operators and fields.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.checks import dense_outputs
from refimpl.datafit import DataFit
from refimpl.fields_of_experts import make_field
from refimpl.identities import registry
from refimpl.maps import Step, largest_safe_step, make_step
from refimpl.operators import (
    BOUNDARIES,
    Convolution,
    DenseBank,
    FilterBank,
    Identity,
    LinearOperator,
    Mask,
    Matrix,
)
from refimpl.parameters import Parameters, make_parameters
from refimpl.potentials import POTENTIALS, Potential

IMAGE = (2, 4, 3)
LAM, GAMMA = 1.0, 0.5
APART = 0.3  # ‖C − A‖ relative to ‖A‖ when untied


Forward = tuple[LinearOperator, dict[str, Array]]  # K, and its arrays in a portable case


class Problem(NamedTuple):
    """One reconstruction problem, written twice.

    Attributes
    ----------
    step : Step
    target : array (N, C, H, W)
        u†.
    description, inputs : dict
        The same as a portable case.
    """

    step: Step
    target: Array
    description: dict[str, Any]
    inputs: dict[str, Array]

    def outputs(self) -> dict[str, Array]:
        """Every output by dense matrices."""
        return dense_outputs(self.description, self.inputs, self.step.field.potential)


def problems(seed: int = 0) -> Iterator[tuple[str, Problem]]:
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


def problem(description: dict[str, Any], rng: np.random.Generator) -> Problem:
    """A problem of the given kind with random data and parameters."""
    kind, boundary = description["operator"], description["operator_boundary"]
    operator, arrays = OPERATORS[kind](boundary, rng)
    bank = make_bank(description["analysis"], description["boundary"])
    theta = near_tied(bank, description["tied"], rng)
    target = rng.standard_normal((registry.IMAGES, *IMAGE))
    y = operator.matvec(target)
    y = y + 0.1 * rng.standard_normal(y.shape)
    field = make_field(bank, potential(description["potential"]), theta)
    step = with_safe_step(make_step(DataFit(operator, y, LAM), field, tau=1.0))
    u, v, w = (rng.standard_normal(target.shape) for _ in range(3))
    inputs = {"y": y, "target": target, "u": u, "v": v, "w": w, **arrays}
    inputs |= {name: x for name, x in theta.items() if name != "gamma"}
    description = {**description, "tau": step.tau, "lam": LAM, "gamma": GAMMA}
    return Problem(step, target, description, inputs)


def potential(name: str) -> Potential:
    """The potential with its default, but ν = 1: with 0.1 plain iterations take thousands."""
    return POTENTIALS[name](nu=1.0) if name == "smoothed_l1" else POTENTIALS[name]()


def strictly_convex(potential: Potential) -> bool:
    """Whether σ′ > 0 everywhere; every potential with kinks has σ′ = 0 on one side of them."""
    return potential.convex and potential.smooth


def with_safe_step(step: Step) -> Step:
    """The step with τ = 1/L."""
    return make_step(step.datafit, step.field, largest_safe_step(step) / 2)


def make_bank(analysis: str, boundary: str) -> registry.Bank:
    """As many responses as make A injective for generic coefficients."""
    if analysis == "dense":
        return DenseBank(IMAGE, 30)
    return FilterBank(IMAGE, (4, 3, 3), boundary)


def near_tied(bank: registry.Bank, tied: bool, rng: np.random.Generator) -> Parameters:
    """Random θ, positive weights; untied, C is near A so that the fixed point is attractive."""
    F = bank.coefficients_shape[0]
    A = registry.coefficients(bank, rng)
    C = A + APART * registry.coefficients(bank, rng)
    b, weights = 0.3 * rng.standard_normal(F), rng.uniform(0.5, 1.5, F)
    return make_parameters(A, None if tied else C, b=b, weights=weights, gamma=GAMMA)


def _identity(boundary: str, rng: np.random.Generator) -> Forward:
    return Identity(IMAGE), {}


def _mask(boundary: str, rng: np.random.Generator) -> Forward:
    mask = rng.random(IMAGE) < 0.8
    return Mask(mask, IMAGE), {"mask": mask}


def _convolution(boundary: str, rng: np.random.Generator) -> Forward:
    kernel = 0.1 * rng.standard_normal((3, 5))
    kernel[1, 2] += 1
    return Convolution(kernel, IMAGE, boundary), {"kernel": kernel}


def _matrix(boundary: str, rng: np.random.Generator) -> Forward:
    matrix = np.concatenate([np.eye(24), 0.1 * rng.standard_normal((6, 24))])
    return Matrix(matrix, IMAGE), {"matrix": matrix}


OPERATORS = {
    "identity": _identity,
    "mask": _mask,
    "convolution": _convolution,
    "matrix": _matrix,
}
