"""Adam, its settings and its learning rate, and when training has converged.

    m ← β₁ m + (1 − β₁) g      v ← β₂ v + (1 − β₂) g²
    θ̂ ← θ̂ − η_t r ⊙ m̂ / (√v̂ + ε),   m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)

with r the factors of the parameters' own rates.

References
----------
Kingma and Ba, Adam: a method for stochastic optimization, ICLR 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from refimpl.arrays import NUMBERS, Array, count, positive, shown
from refimpl.paper.parameters import NAMES


@dataclass(frozen=True)
class TrainingSettings:
    """What the loop does.

    Attributes
    ----------
    epochs : int
        Limit of evaluations; a run may converge before.
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
    warm_up : int
        Steps over which η rises linearly: the first steps of Adam have the full length in every
        coordinate, however small the gradient.
    rates : dict from names to factors of η
        For parameters that move faster or more slowly than the others.
    average : int
        What is evaluated and kept is the mean of about so many last iterates, x̄ + (x − x̄) / average
        at each step; 1: the last one.
    window : int or None
        Training has converged where the best loss of so many epochs is not below the best before
        by `tol` times it; None: it goes on to the last epoch.
    tol : float
    drops : int
        Before it ends so, η is lowered to `DROP` of itself so many times, and training goes on.
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
    warm_up: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    average: int = 1
    window: int | None = None
    tol: float = 1e-3
    drops: int = 0

    def __post_init__(self):
        if not isinstance(self.schedule, str) or self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule {shown(self.schedule)} is unknown; choose one of {', '.join(SCHEDULES)}"
            )
        count(self.epochs, "TrainingSettings: epochs", least=0)
        if self.batch_size is not None:
            count(self.batch_size, "TrainingSettings: batch size")
        for name, least in (("warm_up", 0), ("average", 1), ("drops", 0), ("window", 1)):
            if getattr(self, name) is not None:
                count(getattr(self, name), f"TrainingSettings: {name}", least=least)
        for name in ("learning_rate", "epsilon"):
            positive(getattr(self, name), f"TrainingSettings.{name}")
        if not isinstance(self.rates, dict):
            raise TypeError(
                f'rates: given {shown(self.rates)}, expected factors by name such as {{"b": 0.5}}'
            )
        for name, factor in self.rates.items():
            if name not in NAMES:
                raise ValueError(f"rates: given {shown(name)}, expected some of {', '.join(NAMES)}")
            positive(factor, f"rates of {name}")
        for name, end in LIMITS:
            value = getattr(self, name)
            if not (isinstance(value, NUMBERS) and 0 <= value < end):
                raise ValueError(
                    f"TrainingSettings.{name}: given {shown(value)}, expected a number "
                    f"from 0 to below {end}"
                )
        names = self.trained
        if not isinstance(names, (tuple, list)) or not all(isinstance(n, str) for n in names):
            example = (names,) if isinstance(names, str) else ("A", "gamma")
            raise TypeError(
                f"TrainingSettings.trained: given {shown(names)}, expected a tuple of names, "
                f"{example!r}"
            )


# Numbers from 0 to below these.
LIMITS = (("final_learning_rate", np.inf), ("beta1", 1), ("beta2", 1), ("tol", 1))
# The part of η that is left where the loss has stopped improving.
DROP = 0.3

SCHEDULES = {
    "cosine": lambda s: (1 + np.cos(np.pi * s)) / 2,
    "linear": lambda s: 1 - s,
    "constant": lambda s: 1.0,
}


def learning_rate(settings: TrainingSettings, progress: float) -> float:
    """η after the fraction `progress` of all steps: from the first to the final rate."""
    start, end = settings.learning_rate, settings.final_learning_rate
    return end + (start - end) * float(SCHEDULES[settings.schedule](progress))


def plateaus(losses: Sequence[float], settings: TrainingSettings) -> int:
    """How many times the loss has stopped improving; each begins a new window.

    NaN, of an epoch without a loss, is no improvement.
    """
    if settings.window is None:
        return 0
    found, best, since = 0, np.inf, 0
    for loss in losses:
        if loss < (1 - settings.tol) * best or best == np.inf:
            best, since = min(best, nan_last(loss)), 0
        else:
            since += 1
        if since == settings.window:
            found, since = found + 1, 0
    return found


def nan_last(loss: float) -> float:
    """The loss, or infinity where a failed epoch recorded NaN."""
    return loss if np.isfinite(loss) else np.inf


class AdamState(NamedTuple):
    """Moments m and v after t steps, and the factor by which failures reduced η."""

    m: Array
    v: Array
    t: int = 0
    reduction: float = 1.0


def adam_step(
    state: AdamState, x: Array, gradient: Array, rate: float | Array, settings: TrainingSettings
) -> tuple[AdamState, Array]:
    """One step of Adam from `x`; `rate` is η, or η r."""
    b1, b2 = settings.beta1, settings.beta2
    t = state.t + 1
    m = b1 * state.m + (1 - b1) * gradient
    v = b2 * state.v + (1 - b2) * gradient**2
    direction = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + settings.epsilon)
    return AdamState(m, v, t, state.reduction), x - state.reduction * rate * direction
