"""Training on crops that are drawn anew at every step, turned, mirrored, and with fresh noise.

    u† = a crop of a random image under one of the 8 symmetries of the square
    y = K u† + ε n                                                            E1

What step k of a run sees is drawn from (seed, k) alone, so that a run that resumes sees the same.
No step sees a crop again, and the loss of one says little: by the loss of crops that are held out,
with noise drawn once, the run chooses the best θ̂ and sees that it has converged. Test images, of
any size, are looked at and decide nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import joined
from refimpl.images import psnr
from refimpl.paper.operators import FilterBank, LinearOperator, Mask
from refimpl.paper.operators.pointwise import random_mask
from refimpl.paper.parameters import Parameters, add
from refimpl.paper.potentials import Potential
from refimpl.training.adam import TrainingSettings
from refimpl.training.loop import Survey, TrainingState, asymmetry
from refimpl.training.model import Model
from refimpl.training.objective import FAILURES, Evaluation, Objective, SolverSettings
from refimpl.training.parametrisations import Parametrisation

# Epochs between looks at the test images, which are whole and take their time.
TEST_EVERY = 5
# Part of the held-out crops that may be without a fixed point; their last iterates count.
UNFINISHED = 0.1
# Of the crops of a step, in float64; their solves take some hundred times as much.
MOST_BYTES = 2**27

OperatorOf = Callable[[np.random.Generator, tuple[int, ...]], LinearOperator]


@dataclass(frozen=True)
class RandomMask:
    """K with so many of the pixels missing at random, others in every image."""

    missing: float

    def __call__(self, rng: np.random.Generator, image_shape: tuple[int, ...]) -> Mask:
        """A mask for one image."""
        return Mask(random_mask(image_shape[1:], self.missing, rng), image_shape)


@dataclass(frozen=True)
class OfAnySize:
    """The same kind of K for images of any size: `make` takes their shape."""

    make: Callable[[tuple[int, ...]], LinearOperator]
    random: ClassVar[bool] = False

    def __call__(self, rng: np.random.Generator, image_shape: tuple[int, ...]) -> LinearOperator:
        """K for such images."""
        return self.make(image_shape)


@dataclass(frozen=True)
class Fixed:
    """One K, for images of one size."""

    operator: LinearOperator
    random: ClassVar[bool] = False

    def __call__(self, rng: np.random.Generator, image_shape: tuple[int, ...]) -> LinearOperator:
        """K, if it acts on such images."""
        if tuple(self.operator.domain_shape) != tuple(image_shape):
            raise ValueError(
                f"operator: acts on images {tuple(self.operator.domain_shape)}, crops or test "
                f"images are {tuple(image_shape)}; choose crop accordingly, or pass a function "
                "(rng, image_shape) that returns an operator"
            )
        return self.operator


@dataclass(frozen=True)
class Reconstruction:
    """Everything that makes an `Objective` of images: data, regulariser and solvers.

    Attributes
    ----------
    operator_of : callable (rng, image_shape)
        K of each image; where its attribute `random` is False, of all that have one size.
    noise_level : float
        ε.
    filters : tuple (F, h, w)
    potential, boundary, lam, parametrisation, solvers
        As of `refimpl.training.model.Model` and `refimpl.training.objective.Objective`.
    precision : "float32" or "float64"
        Of the solves; θ̂ and the steps of Adam are float64.
    """

    operator_of: OperatorOf
    noise_level: float
    filters: tuple[int, int, int]
    potential: Potential
    boundary: str
    lam: float
    parametrisation: Parametrisation
    solvers: SolverSettings
    precision: str = "float32"

    def objectives(self, truth: Array, rng: np.random.Generator) -> list[Objective]:
        """The loss on images (N, C, H, W): one objective, or one for each if their K differ."""
        shape = truth.shape[1:]
        random = getattr(self.operator_of, "random", True)
        parts = [truth[n : n + 1] for n in range(len(truth))] if random else [truth]
        return [self._objective(self.operator_of(rng, shape), u, rng) for u in parts]

    def around(self, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        """The same data, with the parametrisation of this task."""
        P = self.parametrisation
        return tuple(replace(o, model=replace(o.model, parametrisation=P)) for o in objectives)

    def _objective(self, K: LinearOperator, u: Array, rng: np.random.Generator) -> Objective:
        bank = FilterBank(u.shape[1:], self.filters, self.boundary)
        y = K.matvec(u) + self.noise_level * rng.standard_normal((len(u), *K.range_shape))
        # An operator of one's own may have no other precision than its own.
        precision = self.precision if hasattr(K, "astype") else u.dtype
        K = K.astype(np.dtype(precision)) if hasattr(K, "astype") else K
        model = Model(K, bank, self.potential, self.lam, None, self.parametrisation)
        return Objective(model, u.astype(precision), y.astype(precision), self.solvers)


@dataclass(frozen=True)
class FreshCrops:
    """The `Course` over crops of images.

    Attributes
    ----------
    task : Reconstruction
    images : tuple of arrays (C, H, W)
    crop : int
        Side of the crops.
    held_out, test : tuple of Objective
        What decides, and what is looked at.
    steps : int
        Of an epoch.
    value_range : tuple
    reference : dict
        What stands beside every evaluation, such as the PSNR of total variation.
    first : array or None
        Where the first reconstructions of the held-out crops begin; None: at their data.
    """

    task: Reconstruction
    images: tuple[Array, ...]
    crop: int
    held_out: tuple[Objective, ...]
    test: tuple[Objective, ...]
    steps: int
    value_range: tuple[float, float]
    reference: dict[str, float]
    first: Array | None = None
    decides: str = "loss_held_out"

    @property
    def unit(self) -> tuple[int, str]:
        """An epoch is so many steps."""
        return self.steps, "steps"

    def content(self) -> tuple:
        """Images, held-out and test data, and the task."""
        return self.task, self.images, self.crop, self.held_out, self.test, self.steps

    def begin(self, settings: TrainingSettings) -> tuple[Array | None, Array]:
        """The solves of test images always begin at their data.

        Raises
        ------
        ValueError
            For batches whose crops alone do not fit into `MOST_BYTES`.
        """
        most = MOST_BYTES // (8 * len(self.images[0]) * self.crop**2)
        if settings.batch_size > most:
            raise ValueError(
                f"batch_size: given {settings.batch_size}, expected at most {most} crops of "
                f"{self.crop} x {self.crop}; pass fewer, or a smaller crop"
            )
        return self.first, np.zeros(0)

    def batches(self, epoch: int, settings: TrainingSettings) -> list[tuple[int, ...]]:
        """Seed, number of the step, and size of each batch, which is drawn when its turn comes."""
        first = epoch * self.steps
        return [(settings.seed, first + k, settings.batch_size) for k in range(self.steps)]

    def gradient(
        self, batch: tuple[int, ...], raw: Parameters, states: Array, limits: dict[str, int]
    ) -> tuple[Evaluation, Array]:
        """Loss and gradient of fresh crops; `states` are those of the held-out ones."""
        seed, step, size = batch
        rng = np.random.default_rng((seed, step))
        truth = np.stack([self._crop(rng) for _ in range(size)])
        objectives = self.task.objectives(truth, rng)
        return combined([_gradient(o.limited(limits), raw) for o in objectives]), states

    def _crop(self, rng: np.random.Generator) -> Array:
        """A crop, turned or mirrored or neither."""
        u = self.images[rng.integers(len(self.images))]
        top, left = (rng.integers(side - self.crop + 1) for side in u.shape[1:])
        u = u[:, top : top + self.crop, left : left + self.crop].astype(np.float64)
        if rng.random() < 0.5:
            u = u[:, :, ::-1]
        return np.rot90(u, rng.integers(4), axes=(1, 2))

    def survey(self, raw: Parameters, progress: TrainingState, limits: dict[str, int]) -> Survey:
        """Loss and PSNR of the held-out crops, and now and then of the test images."""
        held_out = [objective.limited(limits) for objective in self.held_out]
        found = self.looked_at(held_out, raw, progress.states)
        record: dict[str, Any] = {"step": progress.epoch * self.steps, **self.reference}
        if found is None:
            record |= {"loss_held_out": np.nan, "psnr_held_out": np.nan}
            return Survey(None, record, progress.states, progress.test_states)
        loss, quality, states = found
        record |= {"loss_held_out": loss, "psnr_held_out": quality}
        if self.test and progress.epoch % TEST_EVERY == 0:
            tested = self.looked_at(self.test, raw) or (np.nan, np.nan)
            record |= {"loss_test": tested[0], "psnr_test": tested[1]}
        record["asymmetry"] = asymmetry(self.task.parametrisation.apply(raw))
        return Survey(loss, record, states, progress.test_states)

    def looked_at(
        self, objectives, raw: Parameters, states: Array | None = None
    ) -> tuple[float, float, Array] | None:
        """Mean loss, mean PSNR and, of images of one size, states; None where solves fail."""
        losses, qualities, found, failed, first = [], [], [], 0, 0
        for objective in objectives:
            number = len(objective.truth)
            start = None if states is None else states[first : first + number]
            try:
                given = raw.astype(objective.truth.dtype)
                evaluation = objective.loss(
                    given, objective.nearby(given) if start is None else start
                )
            except FAILURES:
                return None
            u, first = evaluation.state.x, first + number
            losses += [evaluation.loss] * number
            qualities += psnr(u, objective.truth, self.value_range).tolist()
            failed += int(np.sum(~evaluation.state.converged))
            found.append(u)
        if failed > UNFINISHED * first:
            return None
        same = len({u.shape[1:] for u in found}) == 1
        states = np.concatenate(found) if same else np.zeros(0)
        return float(np.mean(losses)), float(np.mean(qualities)), states


def _gradient(objective: Objective, raw: Parameters) -> Evaluation | Exception:
    """Loss and gradient, in float64, or why there are none."""
    try:
        raw = raw.astype(objective.truth.dtype)
        found = objective.gradient(raw, objective.nearby(raw))
        return found._replace(gradient=found.gradient.astype(np.float64))
    except FAILURES as error:
        return error


def combined(parts: list[Evaluation | Exception]) -> Evaluation:
    """The evaluation of a batch from those of its parts; what failed is left out."""
    there = [part for part in parts if isinstance(part, Evaluation)]
    if not there:
        raise parts[0]
    if len(parts) == 1:
        return there[0]
    used = sum(part.used for part in there)
    weighted = [scaled(part.gradient, part.used / used) for part in there]
    return Evaluation(
        sum(part.used / used * part.loss for part in there),
        joined([part.state for part in there]),
        reduce(add, weighted),
        joined([part.adjoint for part in there]),
        any(part.damped for part in there),
        used,
        len(parts) - len(there) + sum(part.left_out for part in there),
    )


def scaled(theta: Parameters, factor: float) -> Parameters:
    """Every number times the factor."""
    return replace(theta, **{name: factor * array for name, array in theta.items()})
