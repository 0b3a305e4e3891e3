"""Adam, its settings and its learning rate.

    m ← β₁ m + (1 − β₁) g      v ← β₂ v + (1 − β₂) g²
    θ̂ ← θ̂ − η_t m̂ / (√v̂ + ε),   m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)

References
----------
Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, count, positive


@dataclass(frozen=True)
class TrainingSettings:
    """What the loop does.

    Attributes
    ----------
    epochs : int
    learning_rate, final_learning_rate : float
        η at the first step, and what it tends to after the last one; "constant" keeps the first.
    schedule : "cosine", "linear" or "constant"
    batch_size : int or None
        Images of a minibatch; None: all of them.
    trained : tuple of str
        Names of the parameters that move.
    seed : int
        Orders the minibatches.
    beta1, beta2, epsilon : float
        Constants of Adam.
    """

    epochs: int
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    schedule: str = "cosine"
    batch_size: int | None = None
    trained: tuple[str, ...] = ("A", "C")
    seed: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule {self.schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}"
            )
        count(self.epochs, "TrainingSettings: epochs", least=0)
        if self.batch_size is not None:
            count(self.batch_size, "TrainingSettings: batch size")
        for name in ("learning_rate", "epsilon"):
            positive(getattr(self, name), f"TrainingSettings.{name}")
        for name, end in (("final_learning_rate", np.inf), ("beta1", 1), ("beta2", 1)):
            if not 0 <= getattr(self, name) < end:
                raise ValueError(
                    f"TrainingSettings.{name}: given {getattr(self, name)!r}, expected a number "
                    f"from 0 to below {end}"
                )
        if isinstance(self.trained, str):
            raise TypeError(
                f"TrainingSettings.trained: given {self.trained!r}, expected a tuple of names, "
                f"({self.trained!r},)"
            )


SCHEDULES = {
    "cosine": lambda s: (1 + np.cos(np.pi * s)) / 2,
    "linear": lambda s: 1 - s,
    "constant": lambda s: 1.0,
}


def learning_rate(settings: TrainingSettings, progress: float) -> float:
    """η after the fraction `progress` of all steps: from the first to the final rate."""
    start, end = settings.learning_rate, settings.final_learning_rate
    return end + (start - end) * float(SCHEDULES[settings.schedule](progress))


class AdamState(NamedTuple):
    """Moments m and v after t steps, and the factor by which failures reduced η."""

    m: Array
    v: Array
    t: int = 0
    reduction: float = 1.0


def adam_step(
    state: AdamState, x: Array, gradient: Array, rate: float, settings: TrainingSettings
) -> tuple[AdamState, Array]:
    """One step of Adam from `x`."""
    b1, b2 = settings.beta1, settings.beta2
    t = state.t + 1
    m = b1 * state.m + (1 - b1) * gradient
    v = b2 * state.v + (1 - b2) * gradient**2
    direction = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + settings.epsilon)
    return AdamState(m, v, t, state.reduction), x - state.reduction * rate * direction
