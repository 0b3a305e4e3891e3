"""The training loop: Adam over minibatches, a record for each epoch, and failures survived.

An epoch is a number of steps and the evaluation that ends it. Where the batches come from and what
is evaluated is the affair of a `Course`: a fixed set of images (`refimpl.training.epochs`) or fresh
crops at every step (`refimpl.training.crops`).

A step to parameters where a solve does not converge is taken back and the learning rate halved: an
untied model can lose its fixed point while it trains. The result is θ̂ of the least loss that was
evaluated, the start included.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.parameters import Parameters, pack, unpack
from refimpl.results import NotConvergedError
from refimpl.storage import digest
from refimpl.training.adam import (
    DROP,
    AdamState,
    TrainingSettings,
    adam_step,
    learning_rate,
    nan_last,
    plateaus,
)
from refimpl.training.curve import Effort, mean_psnr
from refimpl.training.objective import FAILURES, Evaluation

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
        Packed θ̂ of the least loss.
    records : tuple of dict
        One for each epoch; number 0 describes the start.
    fingerprint : str
        The hash of settings, data and start, which a run that resumes must share.
    average : array
        Mean of the last iterates: what is evaluated.
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
    average: Array


class TrainingResult(NamedTuple):
    """θ̂ of the epoch of least loss, perhaps the start's, every epoch's record, why it ended."""

    parameters: Parameters
    records: tuple[dict, ...]
    progress: TrainingState
    ended: str
    converged: bool


class Survey(NamedTuple):
    """An evaluation: the loss that decides, None where it failed; entries of the record; states."""

    loss: float | None
    record: dict[str, Any]
    states: Array
    test_states: Array


class Course(Protocol):
    """What is trained on, step by step, and what is looked at in between.

    Attributes
    ----------
    decides : str
        Name of the loss in records by which the best θ̂ is chosen.
    value_range : tuple (low, high)
        Of the images, for PSNR.
    unit : tuple (int, str)
        What an epoch is called, such as (50, "steps").
    """

    decides: str
    value_range: tuple[float, float]
    unit: tuple[int, str]

    def content(self) -> tuple:
        """All that decides the result: settings and data, for the fingerprint."""

    def begin(self, settings: TrainingSettings) -> tuple[Array | None, Array | None]:
        """Where the first reconstructions of both sets begin."""

    def batches(self, epoch: int, settings: TrainingSettings) -> list[Any]:
        """The batches of an epoch, drawn from (seed, epoch), in whatever form `gradient` takes."""

    def gradient(
        self, batch: Any, raw: Parameters, states: Array, limits: dict[str, int]
    ) -> tuple[Evaluation, Array]:
        """Loss and gradient of a batch, and the states with what was found."""

    def survey(
        self, raw: Parameters, progress: TrainingState, limits: dict[str, int]
    ) -> Survey:
        """The evaluation that ends an epoch."""


def descend(
    course: Course,
    start: Parameters,
    settings: TrainingSettings,
    *,
    resume: TrainingState | None = None,
    callback: Callable[[TrainingState], None] | None = None,
    watch: Callable[[dict], None] | None = None,
    interruptible: bool = False,
) -> TrainingResult:
    """Minimise the loss of a course by Adam from θ̂ = `start`.

    Parameters
    ----------
    course : Course
    start : Parameters
        Tied parameters train a bilevel regulariser, untied ones a deep equilibrium model.
    settings : TrainingSettings
    resume : TrainingState, optional
        Where an earlier run stopped; the result is bit-identical to one uninterrupted run.
    callback : callable, optional
        Called with the `TrainingState` after each epoch, for display and checkpoints.
    watch : callable, optional
        Called with the entries of each step's record.
    interruptible : bool
        Whether KeyboardInterrupt ends the run with what it has, or is raised.

    Raises
    ------
    ValueError
        If `resume` is of other settings, data or parameters.
    NotConvergedError, BreakdownError
        If no fixed point, or no gradient, is found at `start` itself.
    """
    run = _Run(course, start, settings, watch or (lambda step: None))
    progress = run.begin() if resume is None else run.continued(resume)
    try:
        while not (ended := run.end(progress))[0]:
            progress = run.epoch(progress)
            if callback is not None:
                callback(progress)
    except KeyboardInterrupt:
        if not interruptible:
            raise
        number, unit = course.unit
        ended = f"interrupted after {number * progress.epoch} {unit}", False
    return TrainingResult(run.unpack(progress.best), progress.records, progress, *ended)


@dataclass(frozen=True)
class _Run:
    """The fixed inputs of one training, and its epoch."""

    course: Course
    start: Parameters
    settings: TrainingSettings
    watch: Callable[[dict], None]

    def unpack(self, x: Array) -> Parameters:
        """θ̂ from its packed form."""
        return unpack(x, self.start, self.settings.trained)

    def begin(self) -> TrainingState:
        """Record number 0, at the start."""
        x = pack(self.start, self.settings.trained)
        zero = np.zeros_like(x)
        progress = TrainingState(
            0, x, x, AdamState(zero, zero), *self.course.begin(self.settings), x, (),
            self._fingerprint(), x,
        )  # fmt: skip
        return self._close_epoch(progress, Effort(), time.perf_counter())

    def continued(self, progress: TrainingState) -> TrainingState:
        """The state, if it is one of this training."""
        if not isinstance(progress, TrainingState):
            raise TypeError(
                f"resume: given a {type(progress).__name__}, expected a TrainingState, as "
                "load_checkpoint returns it"
            )
        same = progress.x.shape == pack(self.start, self.settings.trained).shape
        if not same or progress.fingerprint != self._fingerprint():
            raise ValueError(
                "resume: the checkpoint is of other settings, images, data or starting "
                "parameters; resume with those it was made with, or start anew without it"
            )
        return progress

    def _fingerprint(self) -> str:
        """A hash of all that decides the result."""
        return digest(*self.course.content(), self.start, self.settings)

    def end(self, progress: TrainingState) -> tuple[str, bool]:
        """Why no further epoch is run, or "", and whether because training has converged."""
        s, (number, unit) = self.settings, self.course.unit
        if self._plateaus(progress) > s.drops:
            window = f"the loss fell by less than {s.tol:.2%} in the last {number * s.window}"
            times = f", after {s.drops} lower learning rates" if s.drops else ""
            return f"converged after {number * progress.epoch} {unit}: {window}{times}", True
        if progress.adam.reduction <= SMALLEST_REDUCTION:
            return "not converged: failed solves have halved the learning rate ten times", False
        if progress.epoch >= s.epochs:
            return f"not converged: the limit of {number * s.epochs} {unit}", False
        return "", False

    def _plateaus(self, progress: TrainingState) -> int:
        return plateaus([r[self.course.decides] for r in progress.records], self.settings)

    def epoch(self, progress: TrainingState) -> TrainingState:
        """The steps of one epoch, then the evaluation."""
        begin, effort = time.perf_counter(), Effort(progress.records)
        batches = self.course.batches(progress.epoch, self.settings)
        lowered = DROP ** self._plateaus(progress)
        for number, batch in enumerate(batches):
            fraction = (progress.epoch + number / len(batches)) / self.settings.epochs
            rate = lowered * learning_rate(self.settings, fraction)
            progress = self._batch(progress, batch, rate, effort)
            place = {"step": progress.epoch * len(batches) + number + 1}
            self.watch(place | {"of": self.settings.epochs * len(batches)} | effort.last)
        return self._close_epoch(progress._replace(epoch=progress.epoch + 1), effort, begin)

    def _batch(
        self, progress: TrainingState, batch: Any, rate: float, effort: Effort
    ) -> TrainingState:
        begin = time.perf_counter()
        try:
            raw = self.unpack(progress.x)
            evaluation, states = self.course.gradient(batch, raw, progress.states, effort.limits())
        except FAILURES:
            effort.reject(time.perf_counter() - begin)
            if progress.adam.t == 0 and progress.epoch == 0:
                raise
            return self._take_back(progress)
        gradient = pack(evaluation.gradient, self.settings.trained)
        quality = mean_psnr(evaluation.loss, self.course.value_range)
        effort.step(evaluation, quality, np.linalg.norm(gradient), time.perf_counter() - begin)
        rate = self._rates(rate, progress.adam.t)
        adam, x = adam_step(progress.adam, progress.x, gradient, rate, self.settings)
        share = 1 / min(self.settings.average, adam.t)
        average = (1 - share) * progress.average + share * x
        return progress._replace(
            x=x, accepted=progress.x, adam=adam, states=states, average=average
        )

    def _rates(self, rate: float, t: int) -> float | Array:
        """η r, with η rising over the steps of the warm-up."""
        if self.settings.warm_up:
            rate *= min(1.0, (t + 1) / self.settings.warm_up)
        if not self.settings.rates:
            return rate
        factors = {n: np.full_like(x, self.settings.rates.get(n, 1)) for n, x in self.start.items()}
        return rate * pack(Parameters(**factors), self.settings.trained)

    @staticmethod
    def _take_back(progress: TrainingState) -> TrainingState:
        """Return to the last parameters that had a gradient, with half the learning rate."""
        adam = progress.adam._replace(reduction=progress.adam.reduction / 2)
        return progress._replace(x=progress.accepted, average=progress.accepted, adam=adam)

    def _close_epoch(
        self, progress: TrainingState, effort: Effort, begin: float
    ) -> TrainingState:
        """Evaluate at the new parameters, add the record, keep the best."""
        raw = self.unpack(progress.average)
        survey = self.course.survey(raw, progress, effort.limits())
        if survey.loss is None and progress.epoch == 0:
            raise NotConvergedError(
                "train: no fixed point at the start; begin elsewhere or allow more iterations"
            )
        if survey.loss is None:
            effort.rejected += 1
        record = {
            "epoch": progress.epoch,
            **effort.record(self.course.value_range),
            **survey.record,
            "learning_rate_factor": progress.adam.reduction * DROP ** self._plateaus(progress),
            "seconds": time.perf_counter() - begin,
        }
        lowest = min((nan_last(r[self.course.decides]) for r in progress.records), default=np.inf)
        if survey.loss is None:
            progress = self._take_back(progress)
        elif survey.loss < lowest:
            progress = progress._replace(best=progress.average)
        if not effort.rejected:  # what failed is behind
            reduction = min(1.0, 2 * progress.adam.reduction)
            progress = progress._replace(adam=progress.adam._replace(reduction=reduction))
        return progress._replace(
            states=survey.states, test_states=survey.test_states,
            records=(*progress.records, record),
        )  # fmt: skip


def asymmetry(theta: Parameters) -> float:
    """‖A − C‖ / ‖A‖ in the Frobenius norm; 0 when tied."""
    return 0.0 if theta.tied else float(np.linalg.norm(theta.A - theta.C) / np.linalg.norm(theta.A))
