"""What is known of one wrong output, and when a prediction explains it."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.verification.cases.accuracy import DENSE_LIMIT
from refimpl.verification.crosscheck.anatomy import (
    Parts,
    local_output,
    make_parts,
    parameters_vjp,
)
from refimpl.verification.crosscheck.judge import difference
from refimpl.verification.crosscheck.matrices import MatrixSystem
from refimpl.verification.crosscheck.reference import Reference, is_local

# Other definitions may be worse conditioned than the right one.
ROOM = 4

# A prediction must account for all but this share of the difference.
REMAINDER = 0.1


# What mutants give, by their number: solved outputs, or parameter gradients at one state.
Known = dict[tuple[str, int], dict[str, Array]]


class Prediction(NamedTuple):
    """A cause and what the output would be with it."""

    slug: str
    value: Array


class Evidence:
    """One output of a backend beside its reference.

    Parameters
    ----------
    reference : Reference
    name : str
        An output that the reference holds.
    value : array
        Of the right shape, finite.
    known : dict
        Predictions for solved outputs of the case that were made for another one of them.
    """

    def __init__(self, reference: Reference, name: str, value: Array, known: Known | None = None):
        self.reference, self.case, self.name = reference, reference.case, name
        self.known: Known = {} if known is None else known
        self.value = np.asarray(value, float)
        self.expected = reference.outputs[name]
        self.tolerance = reference.tolerances.get(name, np.inf)
        self.error = difference(self.expected, self.value)
        self.eps = float(np.finfo(reference.precision).eps)

    @property
    def parameter(self) -> str | None:
        """The parameter of a gradient: A, C, b, weights."""
        prefixes = ("vjp_", "hypergradient_")
        found = [self.name.removeprefix(p) for p in prefixes if self.name.startswith(p)]
        return found[0] if found else None

    @property
    def solved(self) -> bool:
        """Whether the output needs a solve."""
        return not is_local(self.name)

    @property
    def hypergradient(self) -> bool:
        """Whether the output is a hypergradient."""
        return self.name.startswith("hypergradient_")

    @property
    def disagrees(self) -> bool:
        """Whether there is something to explain, and the output can be judged."""
        return bool(np.isfinite(self.tolerance) and self.error > self.tolerance)

    @property
    def dense(self) -> bool:
        """Whether the case is small enough for Jacobians as matrices."""
        return self.case.arrays["u"][0].size <= DENSE_LIMIT

    @cached_property
    def parts(self) -> Parts:
        """The right definition."""
        return make_parts(self.case)

    @cached_property
    def system(self) -> MatrixSystem:
        """The right definition with its matrices."""
        return MatrixSystem.of(self.parts)

    @property
    def star(self) -> Array:
        """u* of the reference."""
        return self.reference.outputs["fixed_point"]

    @cached_property
    def adjoint(self) -> Array:
        """q of E9 at u*."""
        return self.system.adjoint_state(self.star, self.system.loss_gradient(self.star))

    def explains(self, prediction: Array | None) -> bool:
        """Whether a prediction equals the value, and differs from the reference."""
        if prediction is None or not np.isfinite(prediction).all():
            return False
        size = np.linalg.norm(prediction) / (np.linalg.norm(self.expected) or 1.0)
        allowed = ROOM * self.tolerance * max(1.0, float(size))
        apart = difference(self.value, prediction)
        return bool(apart <= min(allowed, REMAINDER * self.error))

    def predicted(self, number: int, parts: Parts) -> Array | None:
        """The output if the definition were these parts, every stage keeping to them."""
        if not self.solved:
            return local_output(parts, self.name, self.case.arrays)
        if not self.dense:
            return None
        if self.name == "fixed_point":
            return self.value + MatrixSystem.of(parts).newton_step(self.value)
        key = ("solved", number)
        if key not in self.known:
            self.known[key] = solved_outputs(MatrixSystem.of(parts), self.star)
        return self.known[key].get(self.name)

    def predicted_parameters(self, number: int, parts: Parts) -> Array:
        """The parameter gradient if only its own formula were that of these parts."""
        key = ("at u*" if self.hypergradient else "at u", number)
        if key not in self.known:
            self.known[key] = parameters_vjp(parts, *self.at)
        return self.known[key][self.parameter]

    @property
    def at(self) -> tuple[Array, Array]:
        """The state and the cotangent at which a parameter gradient is taken."""
        if self.hypergradient:
            return self.star, self.adjoint
        return self.case.arrays["u"], self.case.arrays["w"]


def solved_outputs(system: MatrixSystem, near: Array) -> dict[str, Array]:
    """Loss and hypergradients of a system; none if no fixed point is found from `near`."""
    u = system.fixed_point(near)
    if u is None:
        return {}
    gradients = {f"hypergradient_{name}": g for name, g in system.hypergradient(u).items()}
    return gradients | {"loss": system.loss(u)}
