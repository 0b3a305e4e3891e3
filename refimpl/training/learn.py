"""From photographs to a trained regulariser: what is trained on, a start, and the loop.

    θ = argmin ℓ(u*(θ)),  ℓ = mean (u* − u†)² over crops u† with data y = K u† + ε n     E1, E11

λ = 1/ε is fixed: only its ratio to γ counts. Weights and γ are moved by their logarithms, filters
have mean zero. γ, and for potentials that are not convex the scale of the filters, begin as the
best of a search for the filters of the start.

Not here: the loop (`refimpl.training.loop`), the crops (`refimpl.training.crops`), where training
begins (`refimpl.training.starts`), and what is done with the result (`refimpl.training.trained`).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import groupby
from typing import Any

import numpy as np

from refimpl.arrays import NUMBERS, Array, as_images, count, positive, shown
from refimpl.images import UNIT_RANGE
from refimpl.images.pixels import as_batch_of_images
from refimpl.images.sets import check_range
from refimpl.images.shipped import take_turns, tiles
from refimpl.paper.operators import Identity, LinearOperator
from refimpl.paper.potentials import LogCosh, Potential
from refimpl.training.adam import TrainingSettings, nan_last
from refimpl.training.crops import (
    Fixed,
    FreshCrops,
    OfAnySize,
    OperatorOf,
    RandomMask,
    Reconstruction,
)
from refimpl.training.loop import TrainingResult, TrainingState, descend
from refimpl.training.objective import Objective, SolverSettings
from refimpl.training.parametrisations import Chain, Cosines, Exponential, Parametrisation, Scaled
from refimpl.training.starts import filters_of, strongest_start, total_variation_psnr
from refimpl.training.trained import TrainedModel, as_operator

# Gradients to about 1e-2, which minibatches change by far more.
SOLVERS = SolverSettings(
    forward_tol=3e-4, adjoint_tol=1e-2, without_tau=True, leave_out=True
)  # fmt: skip
# Steep enough that flat parts come out flat: with slope 100 test images lost 0.1 to 0.2 dB.
SLOPE = 300.0
CROP, HELD_OUT = 64, 16  # side of crops, and how many of them are held out
# Streams of random numbers beside those of the steps, which are numbered from 0.
START, DATA = 1 << 32, 1 << 33
TRAINED = ("A", "C", "weights", "gamma")

Images = Array | Sequence[Array]


def train(
    images: Images, noise_level: float, *,
    operator: LinearOperator | OperatorOf | float | None = None, channel_axis: int | None = None,
    test: Images | None = None, crop: int | None = None, start: str | TrainedModel = "cosine",
    filters: tuple[int, int, int] | None = None, potential: Potential | None = None,
    boundary: str = "symmetric", tied: bool = True, trained: tuple[str, ...] = TRAINED,
    precision: str = "float32",
    max_steps: int = 2000, batch_size: int = 8, learning_rate: float = 0.02,
    rates: dict[str, float] | None = None, warm_up: int = 20, schedule: str = "constant",
    evaluate_every: int = 25, window: int = 6, drops: int = 2, tol: float = 1e-3,
    value_range: tuple[float, float] = UNIT_RANGE, seed: int = 0,
    resume: TrainingState | None = None, callback: Callable[[TrainingState], None] | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainedModel:  # fmt: skip
    """Train a regulariser on images for one noise level.

    Parameters
    ----------
    images : sequence of arrays (H, W), or one array (N, C, H, W)
        u†, of any sizes, one is enough; integers are divided by the largest value of their type.
        Every tenth image is held out, of fewer than five images a fifth of each.
    noise_level : float
        ε > 0, the standard deviation of the noise where white is `value_range[1]`.
    operator : optional
        K on images (C, crop, crop); or a function (rng, image_shape) that returns the K of an
        image of any size; or the part of the pixels that are missing, others in every image. Left
        out: the identity.
    channel_axis : int, optional
        Where the channels of each image of a sequence are; left out: they are grey.
    test : like `images`, optional
        Images that are only looked at, as a whole.
    crop : int, optional
        Side of the crops; left out: 64, or what fits.
    start : "cosine", "total_variation", "random" or TrainedModel
        Filters to begin with. A model also gives potential, boundary, λ and γ.
    filters : tuple (F, h, w), optional
        Left out: the 3 × 3 cosines but for the constant, 8 for each channel.
    potential : Potential, optional
        φ; left out: log cosh with slope 300.
    boundary : str
        One of `refimpl.paper.operators.BOUNDARIES`.
    tied : bool
        True: bilevel learning, C = A. False: a deep equilibrium model, which begins with C = A.
    trained : tuple of str
        What moves, of A, C, b, weights, gamma. (λ counts only by its ratio to γ.)
    precision : "float32" or "float64"
        Of reconstructions and gradients while training; the model is float64.
    max_steps, batch_size : int
        Limit of steps, rounded up to whole evaluations, and crops of a step.
    learning_rate, schedule : float, str
        Of Adam, for filters in units of the largest norm of the start's, logarithms of weights
        and γ, and b; "constant", or "cosine" or "linear" to a twentieth
        after `max_steps`.
    rates : dict, optional
        Factors of the learning rate by names of parameters.
    warm_up : int
        Steps over which the learning rate rises.
    evaluate_every : int
        Steps between evaluations of the held-out crops.
    window, drops, tol : int, int, float
        Where the least loss of `window` evaluations is not below the least before by `tol` of it,
        the learning rate falls to 0.3 of itself, `drops` times; then training has converged.
    value_range : tuple (low, high)
        Of the images, for PSNR.
    seed : int
        Of crops, noise, masks and random filters.
    resume : TrainingState, optional
        Where the same training stopped, as `load_checkpoint` returns it.
    callback : callable, optional
        Called with the `TrainingState` after each evaluation. The logger "refimpl" tells each.
    watch : callable, optional
        Called with the loss, PSNR and iterations of each step.

    Returns
    -------
    TrainedModel
        The mean of the last iterates, at the evaluation of the least held-out loss. `ended` says
        why training did, whether it converged, and whether total variation is better. Ctrl-C ends
        it, and the model is returned.

    Raises
    ------
    TypeError, ValueError
        For what does not fit, with what was expected.
    NotConvergedError, BreakdownError
        If nothing can be reconstructed with the start.

    Notes
    -----
    `records` has for each evaluation loss and PSNR of the held-out crops (and of test images, now
    and then), the PSNR of total variation with its best weight on the same images, and under
    "steps" loss, PSNR, norm of the hypergradient, iterations and seconds of each step.
    """
    rate, seed = positive(learning_rate, "learning_rate"), count(seed, "seed", least=0)
    epochs, evaluate_every = epochs_of(max_steps, evaluate_every)
    settings = TrainingSettings(
        epochs, rate, rate / 20, schedule, count(batch_size, "batch_size"), trained, seed,
        warm_up=warm_up, rates={} if rates is None else rates, beta2=0.99,
        average=evaluate_every, window=window, tol=tol, drops=drops,
    )  # fmt: skip
    require_functions(callback=callback, watch=watch)
    lam = 1 / within_range(noise_level, value_range)
    given = as_list(images, channel_axis, "images")
    tests = [] if test is None else as_list(test, channel_axis, "test")
    if anew := not isinstance(start, TrainedModel):
        theta = filters_of(start, len(given[0]), filters, np.random.default_rng((seed, START)))
        potential = LogCosh(SLOPE) if potential is None else potential
        model = TrainedModel(theta, potential, boundary, lam, noise_level)
    else:
        model = continued(start, filters, potential, tied)
    model = replace(model, noise_level=noise_level, value_range=value_range, records=(), ended="")
    task = task_of(model, as_operator_of(operator), trained, precision)
    course = course_of(task, given, tests, crop, seed, evaluate_every, model.value_range)
    if anew:
        model = replace(model, theta=strongest_start(course, model.theta))
    course = sized(course, model, trained)
    if not tied and model.theta.tied:
        course, model = untied(course, model)
    result = descend(
        course, course.task.parametrisation.inverse(model.theta), settings, resume=resume,
        callback=partial(told, callback), watch=watch, interruptible=True,
    )  # fmt: skip
    return finished(model, course, result, settings)


def require_functions(**functions: Any) -> None:
    """Raise TypeError for what is given and cannot be called."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name}: given {shown(function)}, expected a function")


def epochs_of(max_steps: int, evaluate_every: int) -> tuple[int, int]:
    """How many epochs, and of how many steps each."""
    count(max_steps, "max_steps", least=0)
    steps = min(count(evaluate_every, "evaluate_every"), max(max_steps, 1))
    return -(-max_steps // steps), steps


def course_of(
    task: Reconstruction, images: list[Array], tests: list[Array], crop: int | None, seed: int,
    steps: int, value_range: tuple[float, float],
) -> FreshCrops:
    """What is trained on and looked at, with total variation beside it."""
    crop = fitting_crop(images) if crop is None else count(crop, "crop")
    seen, held_out = split(images, crop)
    streams = np.random.default_rng((seed, DATA)).spawn(2)
    course = FreshCrops(
        task, tuple(u.astype(np.float32) for u in seen), crop,
        tuple(task.objectives(held_out, streams[0])), objectives_of(tests, task, streams[1]),
        steps, value_range, {},
    )  # fmt: skip
    return replace(course, reference=total_variation_psnr(course))


def sized(course: FreshCrops, model: TrainedModel, trained: tuple[str, ...]) -> FreshCrops:
    """The course whose parametrisation knows the size of the filters that training begins with."""
    task = task_of(model, course.task.operator_of, trained, course.task.precision)
    held_out, test = map(task.around, (course.held_out, course.test))
    return replace(course, task=task, held_out=held_out, test=test)


def untied(course: FreshCrops, model: TrainedModel) -> tuple[FreshCrops, TrainedModel]:
    """The model with C = A (E7), and its fixed points, easier to find while it is tied."""
    raw = course.task.parametrisation.inverse(model.theta)
    found = course.looked_at(course.held_out, raw)
    return replace(course, first=None if found is None else found[2]), model.untie()


def finished(
    model: TrainedModel, course: FreshCrops, result: TrainingResult, settings: TrainingSettings
) -> TrainedModel:
    """The model with what training found, looked at on the test images, beside total variation."""
    losses = [nan_last(record["loss_held_out"]) for record in result.records]
    records, best = list(result.records), int(np.argmin(losses))
    if course.test:
        loss, quality, _ = course.looked_at(course.test, result.parameters) or (np.nan,) * 3
        records[best] = records[best] | {"loss_test": loss, "psnr_test": quality}
    ended = result.ended
    name = "test" if course.test else "held_out"
    ours, tv = records[best][f"psnr_{name}"], course.reference[f"psnr_{name}_total_variation"]
    if not ours >= tv:
        said = f"total variation with its best weight is better: {tv:.2f} dB, here {ours:.2f} dB"
        logging.getLogger("refimpl").warning("train: %s", said)
        ended = f"{ended}; {said}"
    theta = course.task.parametrisation.apply(result.parameters)
    provenance = {
        "operator": repr(course.task.operator_of), "images": len(course.images),
        "crop": course.crop, "batch size": settings.batch_size, "seed": settings.seed,
        "trained": list(settings.trained), "refimpl": version("refimpl"),
    }  # fmt: skip
    return replace(
        model, theta=theta, records=tuple(records), ended=ended, provenance=provenance
    )


def task_of(
    model: TrainedModel, operator_of: OperatorOf, trained: tuple[str, ...], precision: str
) -> Reconstruction:
    """The task of a model: filters in units of their size, what is positive by its logarithm."""
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision: given {shown(precision)}, expected 'float32' or 'float64'")
    F, _, h, w = model.theta.A.shape
    size = float(np.linalg.norm(model.theta.A.reshape(F, -1), axis=1).max())
    logs = {name: Exponential() for name in ("weights", "gamma") if name in trained}
    return Reconstruction(
        operator_of, model.noise_level, (F, h, w), model.potential, model.boundary, model.lam,
        Parametrisation(Chain(Cosines((h, w)), Scaled(size)), **logs), SOLVERS, precision,
    )  # fmt: skip


def as_operator_of(operator: Any) -> OperatorOf:
    """What gives each image its K."""
    if operator is None:
        return OfAnySize(Identity)
    if isinstance(operator, NUMBERS) and not isinstance(operator, bool):
        if not 0 < operator < 1:
            raise ValueError(
                f"operator: given {shown(operator)}, expected the part of missing pixels, "
                "between 0 and 1"
            )
        return RandomMask(float(operator))
    if callable(operator) and not hasattr(operator, "matvec"):
        return operator
    return Fixed(as_operator(operator, None))


def within_range(noise_level: float, value_range: tuple[float, float]) -> float:
    """The noise level, if it is not above the range of the images."""
    low, high = check_range(value_range)
    if positive(noise_level, "noise_level") > high - low:
        raise ValueError(
            f"noise_level: given {noise_level!r}, expected at most {high - low:g}, the range of "
            "the images; divide that of 8-bit pixels by 255"
        )
    return noise_level


def continued(start: TrainedModel, filters, potential, tied: bool) -> TrainedModel:
    """A model to train further, if nothing contradicts it."""
    if filters is not None or potential is not None:
        raise ValueError(
            "start: is a model with filters and a potential; leave out filters and potential"
        )
    if tied and not start.theta.tied:
        raise ValueError("start: is an untied model; train it with tied=False")
    return start


def as_list(images: Images, channel_axis: int | None, name: str) -> list[Array]:
    """Images (C, H, W), of one number of channels."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        batch = list(as_images(images, name))
    elif isinstance(images, (list, tuple)) and images:
        named = ((x, f"{name}: number {n}") for n, x in enumerate(images))
        batch = [as_batch_of_images(x, channel_axis, name=each)[0][0] for x, each in named]
    else:
        given = f"shape {images.shape}" if isinstance(images, np.ndarray) else repr(images)[:60]
        raise TypeError(
            f"{name}: given {given}, expected a list of images (H, W), or an array (N, C, H, W); "
            "one image alone goes into a list"
        )
    channels = sorted({len(u) for u in batch})
    if len(channels) > 1:
        raise ValueError(f"{name}: numbers of channels are {channels}, expected one for all")
    return batch


def fitting_crop(images: list[Array]) -> int:
    """`CROP`, or the largest side that leaves something to hold out."""
    sides = [u.shape[1:] for u in images]
    if len(images) >= 5:
        return min(CROP, min(map(min, sides)))
    return max(1, min(CROP, min(min(min(side), max(side) // 2) for side in sides)))


def split(images: list[Array], crop: int) -> tuple[list[Array], Array]:
    """Images to train on, and crops (N, C, crop, crop) that are held out."""
    if len(images) < 5:
        pairs = [_cut(u, crop, n) for n, u in enumerate(images)]
        seen, held_out = ([pair[k] for pair in pairs] for k in (0, 1))
    else:
        last = [n % 10 == min(9, len(images) - 1) for n in range(len(images))]
        seen, held_out = ([u for u, h in zip(images, last) if h == k] for k in (False, True))
    for n, u in enumerate(seen):
        if min(u.shape[1:]) < crop:
            raise ValueError(_too_small(n, u, crop))
    crops = take_turns([tiles(u, crop, "held-out image") for u in held_out])
    return seen, np.stack(crops[:HELD_OUT]).astype(np.float64)


def _cut(u: Array, crop: int, n: int) -> tuple[Array, Array]:
    """An image without, and only, the last fifth of its longer side, or `crop` if that is more."""
    axis = 1 + int(u.shape[2] > u.shape[1])
    side = u.shape[axis]
    at = side - max(crop, side // 5)
    if at < crop or min(u.shape[1:]) < crop:
        raise ValueError(_too_small(n, u, crop))
    first, last = np.split(u, [at], axis=axis)
    return first, last


def _too_small(n: int, u: Array, crop: int) -> str:
    return (
        f"images: number {n} is {u.shape[1:]}, crops are {(crop, crop)}; pass crop={crop // 2}, "
        "larger images, or at least 5, of which one is held out"
    )


def objectives_of(
    images: list[Array], task: Reconstruction, rng: np.random.Generator
) -> tuple[Objective, ...]:
    """The loss on whole images, those of one size together."""
    ordered = sorted(images, key=lambda u: u.shape)
    groups = (np.stack(list(group)) for _, group in groupby(ordered, key=lambda u: u.shape))
    found = [task.objectives(truth.astype(np.float64), rng) for truth in groups]
    return tuple(objective for part in found for objective in part)


def told(callback: Callable[[TrainingState], None] | None, state: TrainingState) -> None:
    """Tell of an evaluation, then call back."""
    record = state.records[-1]
    logging.getLogger("refimpl").info(
        "step %d: %.2f dB on held-out crops, total variation %.2f dB", record["step"],
        record["psnr_held_out"], record["psnr_held_out_total_variation"],
    )  # fmt: skip
    if callback is not None:
        callback(state)
