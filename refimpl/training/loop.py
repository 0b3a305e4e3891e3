"""The training loop: Adam over minibatches, a record for each epoch, and failures survived.

A step to parameters where a solve does not converge is taken back and the learning rate
halved: an untied model can lose its fixed point while it trains. The result is the parameters
with the lowest training loss seen, the start included, so training never ends higher than it began.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.images import psnr
from refimpl.paper.parameters import Parameters, pack, unpack
from refimpl.results import BreakdownError, NotConvergedError
from refimpl.storage import digest
from refimpl.training.adam import AdamState, TrainingSettings, adam_step, learning_rate
from refimpl.training.objective import Evaluation, Objective

FAILURES = (NotConvergedError, BreakdownError)
# Ten failures halve the learning rate to a thousandth: the run ends, and its records say so.
SMALLEST_REDUCTION = 2.0**-10


class TrainingState(NamedTuple):
    """Everything that the loop carries from epoch to epoch; what a checkpoint stores.

    Attributes
    ----------
    epoch : int
        Epochs done.
    x : array
        Packed θ̂.
    accepted : array
        The last θ̂ at which a gradient could be computed.
    adam : AdamState
    states, test_states : arrays (N, C, H, W)
        Reconstructions so far, the starts of the next solves.
    best : array
        Packed θ̂ of the lowest training loss.
    records : tuple of dict
        One for each epoch; number 0 describes the start.
    fingerprint : str
        The hash of settings, data and start, which a run that resumes must share.
    """

    epoch: int
    x: Array
    accepted: Array
    adam: AdamState
    states: Array
    test_states: Array
    best: Array
    records: tuple[dict, ...]
    fingerprint: str


class TrainingResult(NamedTuple):
    """Parameters of the epoch of least loss, perhaps the start's, and every epoch's record."""

    parameters: Parameters
    records: tuple[dict, ...]
    progress: TrainingState
    ended: str


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
    stop: Callable[[tuple[dict, ...]], str] | None = None,
) -> TrainingResult:
    """Minimise `objective` by Adam from θ̂ = `start`.

    Parameters
    ----------
    objective, test : Objective
        Training and test images.
    start : Parameters
        Tied parameters train a bilevel regulariser, untied ones a deep equilibrium model.
    settings : TrainingSettings
    value_range : tuple
        Of the images, for PSNR.
    states : tuple of arrays (N, C, H, W), optional
        Where the first reconstructions of the training and the test images begin.
    resume : TrainingState, optional
        Where an earlier run stopped; the result is bit-identical to one uninterrupted run.
    callback : callable, optional
        Called with the `TrainingState` after each epoch, for display and checkpoints.
    stop : callable, optional
        From the records so far to why to end, or "" to go on.

    Raises
    ------
    ValueError
        If `resume` is of other settings, data or parameters.
    NotConvergedError, BreakdownError
        If no fixed point, or no gradient, is found at `start` itself.
    """
    run = _Run(objective, test, start, settings, value_range)
    progress = run.begin(states or (None, None)) if resume is None else run.continued(resume)
    while not (ended := _end(progress, settings) or (stop and stop(progress.records))):
        progress = run.epoch(progress)
        if callback is not None:
            callback(progress)
    return TrainingResult(run.unpack(progress.best), progress.records, progress, ended)


def _end(progress: TrainingState, settings: TrainingSettings) -> str:
    """Why no further epoch is run, or ""."""
    if progress.epoch >= settings.epochs:
        return f"the limit of {settings.epochs} epochs"
    if progress.adam.reduction <= SMALLEST_REDUCTION:
        return "failed solves have halved the learning rate ten times"
    return ""


@dataclass(frozen=True)
class _Run:
    """The fixed inputs of one training, and its epoch."""

    objective: Objective
    test: Objective
    start: Parameters
    settings: TrainingSettings
    value_range: tuple[float, float]

    def unpack(self, x: Array) -> Parameters:
        """θ̂ from its packed form."""
        return unpack(x, self.start, self.settings.trained)

    def begin(self, states: tuple[Array | None, Array | None]) -> TrainingState:
        """Record number 0, at the start."""
        x = pack(self.start, self.settings.trained)
        zero = np.zeros_like(x)
        progress = TrainingState(
            0, x, x, AdamState(zero, zero), *states, x, (), self._fingerprint()
        )
        return self._close_epoch(progress, Effort(), time.perf_counter())

    def continued(self, progress: TrainingState) -> TrainingState:
        """The state, if it is one of this training."""
        if not isinstance(progress, TrainingState):
            raise TypeError(
                f"resume: given a {type(progress).__name__}, expected a TrainingState, as "
                "load_checkpoint returns it"
            )
        shapes = [getattr(x, "shape", ()) for x in (progress.x, progress.states)]
        expected = [pack(self.start, self.settings.trained).shape, self.objective.truth.shape]
        if shapes != expected or progress.fingerprint != self._fingerprint():
            raise ValueError(
                "resume: the checkpoint is of other settings, images, data or starting "
                "parameters; resume with those it was made with, or start anew without it"
            )
        return progress

    def _fingerprint(self) -> str:
        """A hash of all that decides the result."""
        return digest(self.objective, self.test, self.start, self.settings, self.value_range)

    def epoch(self, progress: TrainingState) -> TrainingState:
        """One pass over the training images, then the evaluation of both sets."""
        begin, effort = time.perf_counter(), Effort()
        batches = self._batches(progress.epoch)
        for number, batch in enumerate(batches):
            fraction = (progress.epoch + number / len(batches)) / self.settings.epochs
            progress = self._batch(progress, batch, learning_rate(self.settings, fraction), effort)
        return self._close_epoch(progress._replace(epoch=progress.epoch + 1), effort, begin)

    def _batches(self, epoch: int) -> list[Array]:
        """A partition of the images into minibatches, drawn from (seed, epoch)."""
        count = len(self.objective.truth)
        size = self.settings.batch_size or count
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(count)
        return [np.sort(order[k : k + size]) for k in range(0, count, size)]

    def _batch(
        self, progress: TrainingState, batch: Array, rate: float, effort: "Effort"
    ) -> TrainingState:
        try:
            raw = self.unpack(progress.x)
            evaluation = self.objective.subset(batch).gradient(raw, progress.states[batch])
        except FAILURES:
            if progress.adam.t == 0:
                raise
            return self._take_back(progress, effort)
        effort.count(evaluation)
        gradient = pack(evaluation.gradient, self.settings.trained)
        adam, x = adam_step(progress.adam, progress.x, gradient, rate, self.settings)
        states = progress.states.copy()
        states[batch] = evaluation.state.x
        return progress._replace(x=x, accepted=progress.x, adam=adam, states=states)

    def _take_back(self, progress: TrainingState, effort: "Effort") -> TrainingState:
        """Return to the last parameters that had a gradient, with half the learning rate."""
        effort.rejected += 1
        adam = progress.adam._replace(reduction=progress.adam.reduction / 2)
        return progress._replace(x=progress.accepted, adam=adam)

    def _close_epoch(
        self, progress: TrainingState, effort: "Effort", begin: float
    ) -> TrainingState:
        """Evaluate training and test set at the new parameters, add the record, keep the best."""
        raw = self.unpack(progress.x)
        train, states = self._evaluate(self.objective, raw, progress.states)
        if train is None:
            return self._close_failed_epoch(progress, effort, begin)
        test, test_states = self._evaluate(self.test, raw, progress.test_states)
        effort.count(train)
        lowest = min((r["loss_train"] for r in progress.records), default=np.inf, key=nan_last)
        better = train.loss < nan_last(lowest)
        record = self._record(progress, effort, begin, train, test)
        return progress._replace(
            states=states,
            test_states=test_states,
            best=progress.x if better else progress.best,
            records=(*progress.records, record),
        )

    def _close_failed_epoch(
        self, progress: TrainingState, effort: "Effort", begin: float
    ) -> TrainingState:
        """The epoch ended where no fixed point was found: take its last step back."""
        if progress.epoch == 0:
            raise NotConvergedError(
                "train: no fixed point at the start; begin elsewhere or allow more iterations"
            )
        back = self._take_back(progress, effort)
        record = self._record(progress, effort, begin, None, None)
        return back._replace(records=(*progress.records, record))

    def _record(
        self,
        progress: TrainingState,
        effort: "Effort",
        begin: float,
        train: Evaluation | None,
        test: Evaluation | None,
    ) -> dict:
        return {
            "epoch": progress.epoch,
            **self._summary("train", self.objective, train),
            **self._summary("test", self.test, test),
            **effort.record(),
            "asymmetry": asymmetry(self.objective.model.effective(self.unpack(progress.x))),
            "learning_rate_factor": progress.adam.reduction,
            "seconds": time.perf_counter() - begin,
        }

    @staticmethod
    def _evaluate(objective: Objective, raw: Parameters, states: Array | None):
        """The evaluation and its states, or None and the old states where a solve fails."""
        try:
            evaluation = objective.loss(raw, states)
        except FAILURES:
            return None, states
        return (
            (evaluation, evaluation.state.x) if evaluation.state.all_converged else (None, states)
        )

    def _summary(self, name: str, objective: Objective, evaluation: Evaluation | None) -> dict:
        """Loss and mean PSNR; NaN where the fixed point was not found."""
        if evaluation is None:
            return {f"loss_{name}": np.nan, f"psnr_{name}": np.nan}
        quality = psnr(evaluation.state.x, objective.truth, self.value_range).mean()
        return {f"loss_{name}": evaluation.loss, f"psnr_{name}": float(quality)}


def nan_last(loss: float) -> float:
    """The loss, or infinity where a failed epoch recorded NaN."""
    return loss if np.isfinite(loss) else np.inf


class Effort:
    """Iterations and residuals of one epoch's solves: the largest over images and batches."""

    def __init__(self):
        self.rejected = 0
        self.forward, self.adjoint = (0, 0.0), (0, 0.0)

    def count(self, evaluation: Evaluation) -> None:
        """Add one gradient or one loss."""
        self.forward = self._larger(self.forward, evaluation.state)
        self.adjoint = self._larger(self.adjoint, evaluation.adjoint)

    @staticmethod
    def _larger(so_far, result):
        if result is None:
            return so_far
        return (
            max(so_far[0], int(result.iterations.max())),
            max(so_far[1], float(result.residuals.max())),
        )

    def record(self) -> dict:
        """The entries of the epoch's record."""
        return {
            "forward_iterations": self.forward[0],
            "forward_residual": self.forward[1],
            "adjoint_iterations": self.adjoint[0],
            "adjoint_residual": self.adjoint[1],
            "rejected_steps": self.rejected,
        }


def asymmetry(theta: Parameters) -> float:
    """‖A − C‖ / ‖A‖ in the Frobenius norm; 0 when tied."""
    return 0.0 if theta.tied else float(np.linalg.norm(theta.A - theta.C) / np.linalg.norm(theta.A))
