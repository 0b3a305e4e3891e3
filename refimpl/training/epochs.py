"""Training on a fixed set of images: every epoch is one pass over it, in minibatches.

Each reconstruction begins where the last one of the same image ended. After an epoch the loss of
the whole set is computed, and by that the best θ̂ is chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.images import psnr
from refimpl.paper.parameters import Parameters
from refimpl.training.adam import TrainingSettings
from refimpl.training.loop import (
    Survey,
    TrainingResult,
    TrainingState,
    asymmetry,
    descend,
)
from refimpl.training.objective import Evaluation, Objective


def run_epochs(
    objective: Objective,
    test: Objective,
    start: Parameters,
    settings: TrainingSettings,
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    states: tuple[Array, Array] | None = None,
    resume: TrainingState | None = None,
    callback: Callable[[TrainingState], None] | None = None,
    watch: Callable[[dict], None] | None = None,
) -> TrainingResult:
    """Minimise `objective` by Adam from θ̂ = `start`.

    Parameters
    ----------
    objective, test : Objective
        Training and test images.
    start, settings, resume, callback, watch
        As in `refimpl.training.loop.descend`.
    value_range : tuple
        Of the images, for PSNR.
    states : tuple of arrays (N, C, H, W), optional
        Where the first reconstructions of the training and the test images begin.

    Raises
    ------
    ValueError, NotConvergedError, BreakdownError
        As `descend`.
    """
    course = FixedSet(objective, test, value_range, states or (None, None))
    return descend(course, start, settings, resume=resume, callback=callback, watch=watch)


@dataclass(frozen=True)
class FixedSet:
    """The `Course` over a training set; a test set is looked at."""

    objective: Objective
    test: Objective
    value_range: tuple[float, float]
    states: tuple[Array | None, Array | None]
    decides: str = "loss_train"
    unit: tuple[int, str] = (1, "epochs")

    def content(self) -> tuple:
        """Both sets, with model and solvers."""
        return self.objective, self.test, self.value_range

    def begin(self, settings: TrainingSettings) -> tuple[Array | None, Array | None]:
        """The states that were given, or none."""
        return self.states

    def batches(self, epoch: int, settings: TrainingSettings) -> list[Array]:
        """A partition of the images into minibatches, drawn from (seed, epoch)."""
        count = len(self.objective.truth)
        size = settings.batch_size or count
        order = np.random.default_rng((settings.seed, epoch)).permutation(count)
        return [np.sort(order[k : k + size]) for k in range(0, count, size)]

    def gradient(
        self, batch: Array, raw: Parameters, states: Array, limits: dict[str, int]
    ) -> tuple[Evaluation, Array]:
        """Loss and gradient of the images `batch`, begun at their last reconstructions."""
        evaluation = self.objective.subset(batch).gradient(raw, states[batch])
        states = states.copy()
        states[batch] = evaluation.state.x
        return evaluation, states

    def survey(self, raw: Parameters, progress: TrainingState, limits: dict[str, int]) -> Survey:
        """Loss and PSNR of both sets; without a fixed point for every training image, none."""
        train, test = self.objective.settled(raw, progress.states), None
        if train is not None:
            test = self.test.settled(raw, progress.test_states)
        states, test_states = (
            old if found is None else found.state.x
            for found, old in ((train, progress.states), (test, progress.test_states))
        )
        record = {
            **self._summary("train", self.objective, train),
            **self._summary("test", self.test, test),
            "asymmetry": asymmetry(self.objective.model.effective(raw)),
        }
        return Survey(None if train is None else train.loss, record, states, test_states)

    def _summary(
        self, name: str, objective: Objective, evaluation: Evaluation | None
    ) -> dict[str, Any]:
        """Loss and mean PSNR; NaN where the fixed point was not found."""
        if evaluation is None:
            return {f"loss_{name}": np.nan, f"psnr_{name}": np.nan}
        quality = psnr(evaluation.state.x, objective.truth, self.value_range).mean()
        return {f"loss_{name}": evaluation.loss, f"psnr_{name}": float(quality)}
