"""One answer beside the truth.

An answer is `wrong` if it is called converged and misses its tolerance by more than 3 ×, or if no
fixed point is found. It is `given_up` if it is not called converged where a dense Jacobian says
that float64 knows the fixed point ten times as well as the tolerance asks; tied, where that is a
minimum, since solvers of an energy look for no saddle.

Only what was stopped by a tolerance on the error counts for either. With today's tolerances, which
are on residuals, they are counted as if the user had meant the error.
"""

from typing import NamedTuple

import numpy as np

from errors import answers, gradients
from errors.answers import GRADIENT_TOL, Answer
from errors.extended import LONG, Array, length
from errors.problems import Task
from errors.truth import Dense, Zero, dense, zero_near

FACTOR = 3.0
WELL_BELOW = 10.0
# A zero further away than this many first corrections is not the one that an estimate means.
ELSEWHERE = 10.0


class Judgement(NamedTuple):
    """What was stated and what is true of one image, or of a gradient.

    Attributes
    ----------
    task, kind, method : str
        Of the task.
    quantity : "image" or "gradient"
    stated : str
        Kind of error that the answer states.
    error, truth : float
        Relative errors, as stated and as they are; the latter NaN where there is no truth.
    rounding : float
        Below this, float64 knows nothing, and errors are not compared.
    own : float
        What the truth itself may be wrong by.
    converged : bool
    tol : float
        Of the error; NaN where residuals or iterations stopped the solver.
    zero : "zero", "open" or "none"
        What `truth.zero_near` found.
    near : bool
        Whether the zero is the one that an estimate of this error means.
    regular : bool
        Whether the zero is one that a solver must find to this tolerance.
    condition : float
        ‖J‖ ‖J⁻¹‖.
    crashes : tuple of str
        What the task ran into, at its first image.
    """

    task: str
    kind: str
    method: str
    quantity: str
    stated: str
    error: float
    truth: float
    rounding: float
    own: float
    converged: bool
    tol: float
    zero: str
    near: bool
    regular: bool
    condition: float
    crashes: tuple[str, ...] = ()

    @property
    def wrong(self) -> bool:
        """Whether it is called converged and is not."""
        missed = self.zero == "none" or self.truth - self.own > FACTOR * self.tol
        return self.converged and np.isfinite(self.tol) and missed

    @property
    def open(self) -> bool:
        """Whether it is called converged where J is singular to rounding in extended precision."""
        return self.converged and np.isfinite(self.tol) and self.zero == "open"

    @property
    def given_up(self) -> bool:
        """Whether it is not called converged where a solver must find it."""
        return self.regular and not self.converged and np.isfinite(self.tol)

    @property
    def compared(self) -> bool:
        """Whether a stated error can be held to a factor."""
        known = self.zero == "zero" and self.near and self.truth > self.rounding
        return known and self.stated != "unknown" and np.isfinite(self.error)

    @property
    def ratio(self) -> float:
        """Stated error by the truth."""
        return self.error / self.truth

    @property
    def too_small(self) -> bool:
        """Whether a bound is below the truth, by more than rounding unless it is proved."""
        slack = 0.0 if self.stated == "proved" else self.rounding
        bound = self.stated == "proved" and self.zero == "zero"
        return bound and self.truth > self.error + slack


def judged(task: Task) -> list[Judgement]:
    """All images of a task, then its gradient where there is one."""
    found = answers.answers(task)
    images = [dense(task.problem, n) for n in range(len(task.problem.y))]
    # Where the solver broke down, the truth is looked for from Kᵀy.
    starts = [
        a.value if a.value.size else (d.K.T @ d.y).astype(float)
        for a, d in zip(found.images, images)
    ]
    zeros = [zero_near(d, u) for d, u in zip(images, starts)]
    states = [judge_image(task, *three) for three in zip(found.images, images, zeros, strict=True)]
    states[0] = states[0]._replace(crashes=found.crashes)
    if found.gradient is None and not all(state.converged for state in states):
        return states
    return [*states, judge_gradient(task, found.gradient or Answer(), states, images, zeros)]


def judge_image(task: Task, answer: Answer, d: Dense, zero: Zero) -> Judgement:
    """One image."""
    truth = np.nan
    if zero.kind == "zero" and answer.value.size:
        truth = away(answer.value, zero.u)
    sure = zero.kind == "zero" and WELL_BELOW * zero.rounding <= task.tol
    return Judgement(
        task.name, task.kind, task.method, "image", answer.kind, answer.error, truth,
        max(zero.rounding, WELL_BELOW * zero.own), zero.own, answer.converged,
        asked(task, task.tol), zero.kind, unique(task) or truth <= ELSEWHERE * zero.first,
        sure and (not task.problem.tied or minimum(d, zero)), zero.condition,
    )  # fmt: skip


def judge_gradient(
    task: Task, answer: Answer, states: list[Judgement], images: list[Dense], zeros: list[Zero]
) -> Judgement:
    """The gradient, which has a truth where all images have one."""
    worst = min(("none", "open", "zero").index(zero.kind) for zero in zeros)
    kind, truth, rounding, own = ("none", "open", "zero")[worst], np.nan, np.inf, np.inf
    if kind == "zero":
        right, rounding, own = gradients.hypergradient(
            task.problem, images, zeros, task.target, task.looked_at
        )
        rounding = max(rounding, WELL_BELOW * own)
        truth = away(answer.value, right) if answer.value.size else np.nan
    sure = all(state.regular for state in states) and WELL_BELOW * rounding <= GRADIENT_TOL
    return Judgement(
        task.name, task.kind, task.method, "gradient", answer.kind, answer.error, truth, rounding,
        own, answer.converged, asked(task, GRADIENT_TOL), kind, all(s.near for s in states), sure,
        max(zero.condition for zero in zeros),
    )  # fmt: skip


def away(value: Array, right: Array) -> float:
    """‖value − right‖ / ‖right‖; NaN where that is infinite or both vanish."""
    with np.errstate(all="ignore"):
        return float(length(value.ravel().astype(LONG) - right) / length(right))


def asked(task: Task, tol: float) -> float:
    """The tolerance of the error, if that is what stopped the solver."""
    return tol if task.residual_tol is None else np.nan


def unique(task: Task) -> bool:
    """Whether a convex energy makes all regular zeros one."""
    p = task.problem
    return p.tied and p.potential.convex and bool((p.theta.weights >= 0).all())


def minimum(d: Dense, zero: Zero) -> bool:
    """Whether J, symmetric, is positive definite at the zero."""
    J = d.jacobian(zero.u).astype(np.float64)
    return bool(np.linalg.eigvalsh((J + J.T) / 2)[0] > 0)
