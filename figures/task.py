"""One problem of the figures and benchmarks: a step with the truth that its result is held against.

Not here: how tasks are made (`figures.studies.trained`, `figures.benchmarks.problems`).
"""

from typing import NamedTuple

import numpy as np

from refimpl import Parameters, loss_gradient
from refimpl.arrays import Array
from refimpl.engine import Step
from refimpl.paper.parameters import pack

TRAINED = ("A", "C")


class Task(NamedTuple):
    """A step T with the truth that the loss compares with."""

    name: str
    step: Step
    truth: Array

    def loss_gradient(self, u: Array) -> Array:
        """∇ℓ(u), E11."""
        return loss_gradient(u, self.truth)

    def few(self, count: int) -> "Task":
        """The first `count` images alone."""
        return Task(self.name, self.step.images(slice(count)), self.truth[:count])


def filters_vector(gradient: Parameters) -> Array:
    """The entries for A and, untied, C as one vector: those that are trained."""
    return pack(gradient, TRAINED)


def distance(x: Array, reference: Array) -> float:
    """‖x − reference‖ / ‖reference‖ over all entries."""
    return float(np.linalg.norm(np.ravel(x) - np.ravel(reference)) / np.linalg.norm(reference))
