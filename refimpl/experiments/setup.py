"""From a preset to images, data, model and initial parameters.

Everything random is drawn from the preset's seed: one stream each for the noise of the training,
test and validation images, and the initial A.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from refimpl.arrays import Array
from refimpl.experiments.presets import ACTIVATIONS, Experiment
from refimpl.images import PAPER_RANGE, ImageSet, add_noise, faces, photograph_crops
from refimpl.images.shipped import block_means
from refimpl.paper.filters import total_variation_filters
from refimpl.paper.operators import (
    Convolution,
    DenseBank,
    FilterBank,
    Identity,
    LinearOperator,
    Mask,
    block_mask,
    row_mask,
)
from refimpl.paper.operators.convolution import diagonal_kernel
from refimpl.paper.parameters import Parameters, make_parameters
from refimpl.paper.potentials import make_potential
from refimpl.results import BreakdownError
from refimpl.training.model import Model
from refimpl.training.normalization import Normalization
from refimpl.training.objective import Objective
from refimpl.training.parametrisations import Exponential, Parametrisation, ZeroMean

# Difference filters on a large image have this norm: ‖(∂₁, ∂₂)‖² → 8.
TOTAL_VARIATION_NORM = np.sqrt(8.0)
STRENGTHS = (1e-4, 30.0)  # between which γ is looked for
FAILED = 1e6  # the loss where nothing is found: more than any, and finite, for golden section
FEW = 8  # images by which the γ of the start is chosen


class Setup(NamedTuple):
    """An experiment ready to train: model, data and starting point.

    Attributes
    ----------
    images : ImageSet
        u†, training and test.
    model : Model
    y, y_test : arrays (N, *K.range_shape)
        Data, E1.
    start : Parameters
        Tied θ̂.
    validation : tuple (u†, y) or None
        Validation images and their data, where the preset has any.
    """

    images: ImageSet
    model: Model
    y: Array
    y_test: Array
    start: Parameters
    validation: tuple[Array, Array] | None


def set_up(experiment: Experiment) -> Setup:
    """Images, data, model and initial parameters; the same on every call."""
    images, validation = load_images(experiment)
    image_shape = images.train.shape[1:]
    operator, bank = forward_operator(experiment, image_shape), make_bank(experiment, image_shape)
    slope = {"slope": experiment.slope} if experiment.activation == "tanh" else {}
    potential = make_potential(ACTIVATIONS[experiment.activation], **slope)
    # Positive weights keep a convex potential convex.
    zero_mean = ZeroMean() if experiment.model == "convolutional" else None
    free = Parametrisation(zero_mean, weights=Exponential())
    model = Model(operator, bank, potential, experiment.lam, None, free)
    noise_train, noise_test, noise_validation, initial = (
        np.random.default_rng(experiment.seed).spawn(4)
    )  # fmt: skip

    def data(u: Array, stream: np.random.Generator) -> Array:
        return add_noise(operator.matvec(u), experiment.noise_level, stream)

    y, y_test = data(images.train, noise_train), data(images.test, noise_test)
    held_out = (validation, data(validation, noise_validation)) if len(validation) else None
    few = Objective(model, images.train[:FEW], y[:FEW], experiment.tied_solvers)
    start = strengthened(few, initial_parameters(experiment, bank, initial))
    return Setup(images, model, y, y_test, start, held_out)


def load_images(experiment: Experiment) -> tuple[ImageSet, Array]:
    """Faces in [−1, 1] for the dense model, photographs in [0, 1] for the other; validation images.

    Validation images follow those to train on. Those faces are mirrored, too.
    """
    size, train, held_out = (
        experiment.image_size, experiment.train_images, experiment.validation_images
    )  # fmt: skip
    if experiment.model == "dense":
        images = faces().rescaled(PAPER_RANGE)
    else:
        images = photograph_crops(size, shrink=2)
    images = images.subset(train + held_out, experiment.test_images)
    if experiment.model == "dense" and size < images.train.shape[-1]:
        side = images.train.shape[-1] // size
        parts = (np.stack([block_means(u, side) for u in x]) for x in (images.train, images.test))
        images = ImageSet(*parts, images.value_range, images.name)
    validation, used = images.train[train:], images.train[:train]
    if experiment.model == "dense":
        used = np.concatenate((used, used[..., ::-1]))
    return replace(images, train=used), validation


def strengthened(objective: Objective, theta: Parameters) -> Parameters:
    """θ̂ with the γ of the lowest loss, to some percent, by golden section of log γ."""
    state = None

    def loss(log_gamma: float) -> float:
        nonlocal state
        try:
            found = objective.loss(replace(theta, gamma=np.asarray(np.exp(log_gamma))), state)
        except BreakdownError:
            return FAILED
        state = found.state.x
        return found.loss if found.state.all_converged else FAILED

    outcome = minimize_scalar(
        loss, bounds=np.log(STRENGTHS), method="bounded", options={"xatol": 0.05}
    )
    return replace(theta, gamma=np.asarray(np.exp(outcome.x)))


def forward_operator(experiment: Experiment, image_shape: tuple[int, int, int]) -> LinearOperator:
    """K: the paper's denoising, inpainting and deconvolution for either model."""
    dense = experiment.model == "dense"
    if experiment.problem == "denoising":
        return Identity(image_shape)
    if experiment.problem == "inpainting":
        return Mask((row_mask if dense else block_mask)(image_shape[1:]), image_shape)
    length, boundary = (5, "periodic") if dense else (11, "symmetric")
    return Convolution(diagonal_kernel(length), image_shape, boundary)


def make_bank(experiment: Experiment, image_shape: tuple[int, int, int]) -> DenseBank | FilterBank:
    """The bank that A and C belong to."""
    if experiment.model == "dense":
        return DenseBank(image_shape, experiment.filters[0])
    return FilterBank(image_shape, experiment.filters, "symmetric")


def initial_parameters(
    experiment: Experiment, bank: DenseBank | FilterBank, rng: np.random.Generator
) -> Parameters:
    """Tied θ̂: the A of the preset's start, b = 0, w = exp 0 and γ = 1."""
    if experiment.start == "differences":
        A = difference_rows(bank)
    else:
        A = smooth_rows(bank, rng) if experiment.start == "smooth" else None
    A = _filters(experiment, bank, rng) if A is None else A
    return make_parameters(A, weights=np.zeros(len(A)))


def differences(size: int) -> Array:
    """The matrix of forward differences, the last one 0: image mirrored at its border."""
    D = np.eye(size, k=1) - np.eye(size)
    D[-1] = 0
    return D


def difference_rows(bank: DenseBank) -> Array:
    """The dense A (2n, n) of total variation: differences down, then across, of grey images."""
    _, H, W = bank.image_shape
    return np.concatenate(
        [np.kron(differences(H), np.eye(W)), np.kron(np.eye(H), differences(W))]
    )


def smooth_rows(bank: DenseBank, rng: np.random.Generator) -> Array:
    """A dense A (F, n) with AᵀA = 16 DᵀD, D the forward differences of an image of n pixels.

    A = 4 Q (DᵀD)^(1/2) with a random orthogonal Q; the first F rows of A and of -A below it.
    With F = 2n, σ = ReLU also begins as the quadratic prior:
    AᵀReLU(A u) - AᵀReLU(-A u) = AᵀA u.

    Raises
    ------
    ValueError
        If F > 2n, more rows than there are.
    """
    F, n = bank.coefficients_shape
    if F > 2 * n:
        raise ValueError(f"smooth_rows: {F} features, expected at most {2 * n}, twice the pixels")
    C, H, W = bank.image_shape
    down, across = differences(H), differences(W)
    gram = np.kron(down.T @ down, np.eye(W)) + np.kron(np.eye(H), across.T @ across)
    values, vectors = np.linalg.eigh(np.kron(np.eye(C), gram))
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = 4 * Q @ root
    return np.concatenate([A, -A])[:F]


def _filters(experiment: Experiment, bank: FilterBank, rng: np.random.Generator) -> Array:
    """Random filters, the first two of them differences for the total-variation start.

    Their mean is 0, so that flat images cost nothing, and the bank has the spectral norm √8 of
    total variation, for which τ = 1/(8χ) is made.
    """
    A = rng.standard_normal(bank.coefficients_shape)
    if experiment.start == "total_variation":
        A *= 1e-2 / np.sqrt(np.prod(A.shape[1:]))
        differences = total_variation_filters(A.shape)
        A[: len(differences)] = differences
    return Normalization(bank, norm=TOTAL_VARIATION_NORM).apply(ZeroMean().apply(A))


def objectives(experiment: Experiment, setup: Setup, *, tied: bool) -> tuple[Objective, Objective]:
    """Training and test objective with the solvers of the tied or the untied model."""
    solvers = experiment.tied_solvers if tied else experiment.untied_solvers
    return (
        Objective(setup.model, setup.images.train, setup.y, solvers),
        Objective(setup.model, setup.images.test, setup.y_test, solvers),
    )


def total_variation(experiment: Experiment, setup: Setup) -> tuple[Objective, Objective]:
    """The same of total variation: two differences, σ = tanh with the preset's slope."""
    bank = FilterBank(setup.model.bank.image_shape, (2, 3, 3), "symmetric")
    potential = make_potential("log_cosh", slope=experiment.slope)
    model = Model(setup.model.operator, bank, potential, experiment.lam, None)
    objective = Objective(model, setup.images.train, setup.y, experiment.tied_solvers)
    return objective, replace(objective, truth=setup.images.test, y=setup.y_test)
