"""From photographs to a trained regulariser: crops, noise, a start, and the loop.

    θ = argmin ℓ(u*(θ)),  ℓ = mean (u* − u†)² over crops u† with data y = K u† + ε n     E1, E11

λ = 1/ε is fixed: only its ratio to γ counts, and the filters bring their own scale. They have mean
zero. γ is the best of a few powers of two for the filters of the start; then the filters move.

Not here: the loop (`refimpl.training.loop`), and what is done with the result
(`refimpl.training.trained`).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from refimpl.arrays import Array, as_images, count, positive, shown
from refimpl.images import UNIT_RANGE, add_noise
from refimpl.images.pixels import as_batch_of_images
from refimpl.images.sets import check_range
from refimpl.images.shipped import tiles
from refimpl.paper.filters import cosine_filters, total_variation_filters
from refimpl.paper.operators import FilterBank, LinearOperator
from refimpl.paper.parameters import Parameters, make_parameters
from refimpl.paper.potentials import LogCosh, Potential
from refimpl.results import BreakdownError, NotConvergedError
from refimpl.training.adam import TrainingSettings
from refimpl.training.loop import TrainingState, nan_last, run_epochs
from refimpl.training.model import Model
from refimpl.training.objective import Objective, SolverSettings
from refimpl.training.parametrisations import Parametrisation, ZeroMean
from refimpl.training.trained import TrainedModel, as_operator

# Steep enough that flat parts come out flat: with slope 100 test images lost 0.1 to 0.2 dB.
SLOPE = 300.0
# Adjoint states to 1e-3 give gradients to 1e-3, which minibatches change by far more.
SOLVERS = SolverSettings(forward_tol=1e-6, adjoint_tol=1e-3)
STARTS = ("cosine", "total_variation", "random")
STRENGTHS = 2.0 ** np.arange(-7, 2)
WINDOW = 5  # epochs over which the loss must improve


def train(
    images: Array | Sequence[Array],
    noise_level: float,
    *,
    operator: LinearOperator | None = None,
    channel_axis: int | None = None,
    test: Array | Sequence[Array] | None = None,
    crop: int | None = 40,
    start: str | TrainedModel = "cosine",
    filters: tuple[int, int, int] | None = None,
    potential: Potential | None = None,
    boundary: str = "symmetric",
    tied: bool = True,
    max_epochs: int = 8,
    batch_size: int = 16,
    learning_rate: float = 0.01,
    tol: float = 1e-3,
    value_range: tuple[float, float] = UNIT_RANGE,
    seed: int = 0,
    callback: Callable[[TrainingState], None] | None = None,
) -> TrainedModel:
    """Train a regulariser on images for one noise level.

    Parameters
    ----------
    images : sequence of arrays (H, W), or one array (N, C, H, W)
        u†, of any sizes; integers are divided by the largest value of their type.
    noise_level : float
        ε > 0, the standard deviation of the noise where white is `value_range[1]`.
    operator : LinearOperator, optional
        K on images (C, crop, crop); left out: the identity.
    channel_axis : int, optional
        Where the channels of each image of a sequence are; left out: they are grey.
    test : like `images`, optional
        Images that are only looked at; left out: every fifth crop.
    crop : int or None
        Side of the crops that images are cut into; None: images as they are, of one size.
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
    max_epochs, batch_size : int
        Limit of passes over the crops, and crops of a step.
    learning_rate : float
        Of Adam at first, per unit of a filter's taps; it falls to a twentieth.
    tol : float
        Training ends when the least loss of five epochs is not below the least before by this
        share of it.
    value_range : tuple (low, high)
        Of the images, for PSNR.
    seed : int
        Of noise, random filters and minibatches.
    callback : callable, optional
        Called with the `TrainingState` after each epoch. The logger "refimpl" tells each epoch.

    Returns
    -------
    TrainedModel
        That of the least training loss; `ended` says why training did.

    Raises
    ------
    TypeError, ValueError
        For what does not fit, with what was expected.
    NotConvergedError, BreakdownError
        If nothing can be reconstructed with the start.

    Notes
    -----
    Measured with the defaults on the training crops of `photograph_crops(40, shrink=2)`, ε = 0.1:
    dB of the mean squared error, and mean dB, of the crops held out and of the test photographs.
    The λ of total variation is the best for each number.

    =================================  ============  ============
    data                               20.00, 20.00  19.99, 19.99
    total variation                    26.77, 27.90  28.06, 29.15
    tied                               27.32, 28.33  28.24, 28.98
    untied, from the tied model        27.43, 28.45  28.24, 28.98
    =================================  ============  ============
    """
    if not (isinstance(tol, (int, float)) and 0 <= tol < 1):
        raise ValueError(f"tol: given {shown(tol)}, expected a share from 0 to below 1")
    rate, seed = positive(learning_rate, "learning_rate"), count(seed, "seed", least=0)
    settings = TrainingSettings(max_epochs, rate, rate / 20, batch_size=batch_size, seed=seed)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: given {shown(callback)}, expected a function of a state")
    lam = 1 / within_range(noise_level, value_range)
    crops = split(cut(images, crop, channel_axis), test, crop, channel_axis)
    noise, initial = np.random.default_rng(seed).spawn(2)
    if isinstance(start, TrainedModel):
        model = continued(start, filters, potential, tied)
    else:
        A = first_filters(start, crops[0].shape[1], filters, initial)
        potential = LogCosh(SLOPE) if potential is None else potential
        model = TrainedModel(make_parameters(A), potential, boundary, lam, noise_level)
    model = replace(model, noise_level=noise_level, value_range=value_range, records=(), ended="")
    streams = zip(crops, noise.spawn(2), strict=True)
    sets = [objective(model, u, operator, stream) for u, stream in streams]
    if not isinstance(start, TrainedModel):
        model = replace(model, theta=strengthened(sets[0], model.theta))
    if not tied and model.theta.tied:
        model = model.untie()
    return fitted(model, sets, settings, tol, callback)


def within_range(noise_level: float, value_range: tuple[float, float]) -> float:
    """The noise level, if it is not above the range of the images."""
    low, high = check_range(value_range)
    if positive(noise_level, "noise_level") > high - low:
        raise ValueError(
            f"noise_level: given {noise_level!r}, expected at most {high - low:g}, the range of "
            "the images; divide that of 8-bit pixels by 255"
        )
    return noise_level


def fitted(
    model: TrainedModel, sets: list[Objective], settings: TrainingSettings, tol: float, callback
) -> TrainedModel:
    """The model with the θ and the records of the loop over training and test set."""
    result = run_epochs(
        *sets, model.theta, settings, value_range=model.value_range,
        callback=partial(told, callback), stop=partial(stalled, tol=tol),
    )  # fmt: skip
    theta = sets[0].model.effective(result.parameters)
    return replace(model, theta=theta, records=result.records, ended=result.ended)


def continued(start: TrainedModel, filters, potential, tied: bool) -> TrainedModel:
    """A model to train further, if nothing contradicts it."""
    if filters is not None or potential is not None:
        raise ValueError(
            "start: is a model with filters and a potential; leave out filters and potential"
        )
    if tied and not start.theta.tied:
        raise ValueError("start: is an untied model; train it with tied=False")
    return start


def cut(images: Array | Sequence[Array], crop: int | None, channel_axis: int | None) -> Array:
    """Crops (N, C, crop, crop), float64, of all images."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        batch = list(as_images(images, "images"))
    elif isinstance(images, (list, tuple)) and images:
        named = ((x, f"image {n}") for n, x in enumerate(images))
        batch = [as_batch_of_images(x, channel_axis, name=name)[0][0] for x, name in named]
    else:
        given = f"shape {images.shape}" if isinstance(images, np.ndarray) else repr(images)[:60]
        raise TypeError(
            f"images: given {given}, expected a list of images (H, W), or an array (N, C, H, W); "
            "one image alone goes into a list"
        )
    if crop is not None:
        count(crop, "crop")
        batch = [tile for n, u in enumerate(batch) for tile in tiles(u, crop, f"image {n}")]
    if len({u.shape for u in batch}) > 1:
        raise ValueError(
            f"images: shapes are {sorted({u.shape for u in batch})}, expected one with crop=None; "
            "give crop a number that is at most the smallest side, and one number of channels"
        )
    return np.stack(batch).astype(np.float64)


def split(crops: Array, test, crop: int | None, channel_axis: int | None) -> tuple[Array, Array]:
    """Training and test crops: those of `test`, or every fifth."""
    if test is not None:
        return crops, cut(test, crop, channel_axis)
    if len(crops) < 2:
        raise ValueError(
            f"images: {len(crops)} crop of {crops.shape[2:]}, expected at least 2, one to train on "
            "and one to test on; pass more images, a smaller crop, or test images"
        )
    held_out = np.arange(len(crops)) % 5 == min(4, len(crops) - 1)
    return crops[~held_out], crops[held_out]


def first_filters(start: str, channels: int, filters, rng: np.random.Generator) -> Array:
    """Filters (F, C, h, w) of mean 0 by the name of a start; random ones have norm 1."""
    if not isinstance(start, str) or start not in STARTS:
        raise ValueError(
            f"start: given {shown(start)}, expected one of {', '.join(STARTS)}, or a TrainedModel"
        )
    if filters is None:
        filters = 8 * channels, 3, 3
    if not isinstance(filters, (tuple, list)) or len(filters) != 3:
        raise ValueError(
            f"filters: given {shown(filters)}, expected (F, h, w): F filters of h rows, w columns"
        )
    F, h, w = (count(n, "filters") for n in filters)
    A = ZeroMean().apply(rng.standard_normal((F, channels, h, w)))
    A /= np.linalg.norm(A.reshape(F, -1), axis=1)[:, None, None, None]
    if start == "random":
        return A
    if start == "total_variation":
        first = total_variation_filters(A.shape)
        if F < len(first):
            raise ValueError(
                f"filters: given {F}, expected at least {len(first)}, the differences of "
                f"{channels} channel{'s' * (channels > 1)}"
            )
        A[: len(first)] = first
        return A
    first = cosine_filters(h, channels)
    if h != w or F > len(first):
        raise ValueError(
            f"filters: given {F} of {h} x {w}, expected squares, and at most {len(first)} of "
            f"{h} x {h} for the cosine start; take larger ones, or start='random'"
        )
    return first[:F]


def objective(
    model: TrainedModel, truth: Array, operator: LinearOperator | None, rng: np.random.Generator
) -> Objective:
    """The loss on crops, whose data are drawn once."""
    shape = truth.shape[1:]
    operator = as_operator(operator, shape)
    if tuple(operator.domain_shape) != shape:
        raise ValueError(
            f"operator: acts on images {tuple(operator.domain_shape)}, crops are {shape}; make it "
            "for crops, or choose crop accordingly"
        )
    F, _, h, w = model.theta.A.shape
    bank = FilterBank(shape, (F, h, w), model.boundary)
    y = add_noise(operator.matvec(truth), model.noise_level, rng)
    return Objective(
        Model(operator, bank, model.potential, model.lam, None, Parametrisation(ZeroMean())),
        truth, y, SOLVERS,
    )


def strengthened(training: Objective, theta: Parameters) -> Parameters:
    """θ with the best γ of `STRENGTHS`, by the loss on the first crops."""
    few = training.subset(np.arange(min(16, len(training.truth))))

    def loss(gamma: float) -> float:
        try:
            evaluation = few.loss(replace(theta, gamma=np.asarray(gamma)))
        except BreakdownError:
            return np.inf
        return evaluation.loss if evaluation.state.all_converged else np.inf

    losses = [loss(gamma) for gamma in STRENGTHS]
    if np.isinf(losses).all():
        raise NotConvergedError("train: no reconstruction is found with the filters of the start")
    return replace(theta, gamma=np.asarray(STRENGTHS[int(np.argmin(losses))]))


def stalled(records: tuple[dict, ...], tol: float) -> str:
    """Why to end, where the loss of the last `WINDOW` epochs is hardly below that before."""
    losses = [nan_last(r["loss_train"]) for r in records]
    if len(losses) <= WINDOW or min(losses[-WINDOW:]) < (1 - tol) * min(losses[:-WINDOW]):
        return ""
    epoch = len(losses) - 1
    return f"the loss improved by less than {tol:.1%} in {WINDOW} epochs, to epoch {epoch}"


def told(callback: Callable[[TrainingState], None] | None, state: TrainingState) -> None:
    """Tell of an epoch, then call back."""
    record = state.records[-1]
    logging.getLogger("refimpl").info(
        "epoch %d: loss %.3e, PSNR %.2f dB, %.2f dB on test images",
        *(record[name] for name in ("epoch", "loss_train", "psnr_train", "psnr_test")),
    )
    if callback is not None:
        callback(state)
