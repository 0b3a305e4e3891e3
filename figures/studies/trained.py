"""A trained preset as the problem of reconstructing one test image, and a count of the work.

Every evaluation of E, of G or of T, and every product with J or its transpose, uses the data term
once. `RecordingDataFit` therefore counts the work of any method, and sees every state at which
the method evaluates G, without the method knowing.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.datafit import DataFit
from refimpl.equilibrium import reconstruct
from refimpl.experiments import get_experiment, load_run, set_up
from refimpl.maps import Step, TiedStep
from refimpl.objective import squared_loss_gradient
from refimpl.parameters import Parameters, pack
from refimpl.results import SolverResult
from refimpl.vectors import norm

PRESET = "conv-denoising-3x3-tv"
DESCRIPTION = "denoising with 30 filters of 3 × 3, σ = tanh(100 z)"
MODELS = {"tied": "bilevel", "untied": "deq"}
TRAINED = ("A", "C")


class Problem(NamedTuple):
    """One test image: the trained step T and the truth u†."""

    step: Step
    truth: Array

    def loss_gradient(self, u: Array) -> Array:
        """∇ℓ(u), E11."""
        return squared_loss_gradient(u, self.truth)


def load_problems(runs: Path, preset: str = PRESET, image: int = 0) -> dict[str, Problem]:
    """The problems "tied" and "untied" of one preset, those of them that are trained."""
    paths = {name: runs / f"{preset}-{method}.npz" for name, method in MODELS.items()}
    trained = {name: load_run(path) for name, path in paths.items() if path.exists()}
    if not trained:
        return {}
    model = set_up(get_experiment(preset)).model
    return {
        name: Problem(model.step(run.parameters, run.y).image(image), run.truth[image : image + 1])
        for name, run in trained.items()
    }


def solution(step: Step) -> SolverResult:
    """u* to the rounding errors of float64, by Newton's method."""
    method = "newton" if isinstance(step, TiedStep) else "newton_krylov"
    return reconstruct(
        step, method=method, tol=1e-15, preconditioner="circulant", max_iterations=200
    )


class Record:
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
class RecordingDataFit(DataFit):
    """The data term with a record of its uses."""

    record: Record = field(default_factory=Record)

    def energy(self, u: Array) -> Array:
        """λ/2 ‖K u − y‖², with the gradient one unit of work."""
        self.record.evaluate(u)
        return super().energy(u)

    def gradient(self, u: Array) -> Array:
        """λ Kᵀ(K u − y), with the energy one unit of work; the state is kept."""
        self.record.evaluate(u)
        self.record.visits.append((self.record.work, u))
        return super().gradient(u)

    def hvp(self, v: Array) -> Array:
        """λ KᵀK v, one unit of work."""
        self.record.work += 1
        return super().hvp(v)


def recording(step: Step) -> tuple[Step, Record]:
    """The same step with a fresh record."""
    datafit = RecordingDataFit(step.datafit.operator, step.datafit.y, step.datafit.lam)
    return replace(step, datafit=datafit), datafit.record


def relative_residuals(step: Step, states: Array) -> Array:
    """‖T(u) − u‖ / max(‖u‖, ‖u0‖) for many states u of the one image, u0 = Kᵀ y."""
    many = replace(step.datafit, y=np.repeat(step.datafit.y, len(states), axis=0))
    change = step.tau * norm(replace(step, datafit=many).direction(states))
    return change / np.maximum(norm(states), norm(step.datafit.operator.adjoint(step.datafit.y)))


def relative_errors(states: Array, star: Array) -> Array:
    """‖u − u*‖ / ‖u*‖ for many states u."""
    return norm(states - star) / norm(star)


def filters_vector(gradient: Parameters) -> Array:
    """The entries for A and, untied, C as one vector: those that are trained."""
    return pack(gradient, TRAINED)


def relative_distance(x: Array, reference: Array) -> float:
    """‖x − reference‖ / ‖reference‖ of vectors."""
    return float(np.linalg.norm(x - reference) / np.linalg.norm(reference))
