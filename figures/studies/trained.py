"""A trained preset as the problem of reconstructing one test image, and a count of the work.

Every evaluation of E, of G or of T, and every product with J or its transpose, uses the data term
once. `RecordingStep` therefore counts the work of any method, and sees every state at which
the method evaluates G, without the method knowing.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from figures.task import Task
from refimpl import reconstruct
from refimpl.arrays import Array
from refimpl.engine import Step, TiedStep, make_step
from refimpl.experiments import get_experiment, load_run, set_up
from refimpl.kernels.vectors import norm
from refimpl.results import SolverResult

PRESET = "conv-denoising-3x3"
DESCRIPTION = "denoising with 30 filters of 3 × 3, σ = tanh(100 z)"
MODELS = {"tied": "bilevel", "untied": "deq"}


def load_tasks(runs: Path, preset: str = PRESET, image: int = 0) -> dict[str, Task]:
    """The problems "tied" and "untied" of one preset, those of them that are trained."""
    paths = {name: runs / f"{preset}-{method}.npz" for name, method in MODELS.items()}
    trained = {name: load_run(path) for name, path in paths.items() if path.exists()}
    if not trained:
        return {}
    model = set_up(get_experiment(preset)).model
    return {
        name: Task(
            name, model.step(run.parameters, run.y).image(image), run.truth[image : image + 1]
        )
        for name, run in trained.items()
    }


def solution(step: Step) -> SolverResult:
    """u* to the rounding errors of float64, by Newton's method."""
    method = "newton" if isinstance(step, TiedStep) else "newton_krylov"
    return reconstruct(
        step, method=method, residual_tol=1e-15, preconditioner="circulant", max_iterations=200
    )


class Recorder:
    """The work so far, and the states at which G was evaluated with the work that it took."""

    def __init__(self):
        self.work = 0
        self.visits: list[tuple[int, Array]] = []
        self._latest: Array | None = None

    def evaluate(self, u: Array) -> None:
        """One unit of work; energy and gradient at one state are one evaluation."""
        self.work += u is not self._latest
        self._latest = u


@dataclass(frozen=True)
class RecordingStep(Step):
    """A step with a record of the uses of its data term."""

    record: Recorder = field(default_factory=Recorder)

    def data_energy(self, u: Array) -> Array:
        """λ/2 ‖K u − y‖², with the gradient one unit of work."""
        self.record.evaluate(u)
        return super().data_energy(u)

    def data_gradient(self, u: Array) -> Array:
        """λ Kᵀ(K u − y), with the energy one unit of work; the state is kept."""
        self.record.evaluate(u)
        self.record.visits.append((self.record.work, u))
        return super().data_gradient(u)

    def data_hvp(self, v: Array) -> Array:
        """λ KᵀK v, one unit of work."""
        self.record.work += 1
        return super().data_hvp(v)


class RecordingTiedStep(RecordingStep, TiedStep):
    """The same of a tied step."""


def recording(step: Step) -> tuple[Step, Recorder]:
    """The same step with a fresh record."""
    kind = RecordingTiedStep if isinstance(step, TiedStep) else RecordingStep
    recorded = kind(step.problem, step.tau, step.operator, step.field)
    return recorded, recorded.record


def relative_residuals(step: Step, states: Array) -> Array:
    """‖T(u) − u‖ / max(‖u‖, ‖u0‖) for many states u of the one image, u0 = Kᵀ y."""
    many = replace(step.problem, y=np.repeat(step.problem.y, len(states), axis=0))
    change = step.tau * norm(make_step(many, step.tau).direction(states))
    return change / np.maximum(norm(states), norm(step.operator.adjoint(step.problem.y)))


def relative_errors(states: Array, star: Array) -> Array:
    """‖u − u*‖ / ‖u*‖ for many states u."""
    return norm(states - star) / norm(star)
