"""From a preset to images, data, model and initial parameters.

Everything random is drawn from the preset's seed: one stream each for the noise of the training
images, the noise of the test images, and the initial A.
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.experiments.presets import ACTIVATIONS, SLOPE, Experiment
from refimpl.images import PAPER_RANGE, ImageSet, add_noise, faces, photograph_crops
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
from refimpl.training.model import Model
from refimpl.training.normalization import Normalization
from refimpl.training.objective import Objective
from refimpl.training.parametrisations import ZeroMean

# Difference filters on a large image have this norm: ‖(∂₁, ∂₂)‖² → 8.
TOTAL_VARIATION_NORM = np.sqrt(8.0)


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
    """

    images: ImageSet
    model: Model
    y: Array
    y_test: Array
    start: Parameters


def set_up(experiment: Experiment) -> Setup:
    """Images, data, model and initial parameters; the same on every call."""
    images = load_images(experiment)
    image_shape = images.train.shape[1:]
    operator, bank = forward_operator(experiment, image_shape), make_bank(experiment, image_shape)
    slope = {"slope": SLOPE} if experiment.activation == "tanh" else {}
    potential = make_potential(ACTIVATIONS[experiment.activation], **slope)
    model = Model(operator, bank, potential, experiment.lam, experiment.tau)
    noise_train, noise_test, initial = np.random.default_rng(experiment.seed).spawn(3)
    y = add_noise(operator.matvec(images.train), experiment.noise_level, noise_train)
    y_test = add_noise(operator.matvec(images.test), experiment.noise_level, noise_test)
    return Setup(images, model, y, y_test, initial_parameters(experiment, bank, initial))


def load_images(experiment: Experiment) -> ImageSet:
    """Faces in [−1, 1] for the dense model, photographs in [0, 1] for the convolutional one."""
    if experiment.model == "dense":
        return faces().rescaled(PAPER_RANGE).subset(experiment.train_images, experiment.test_images)
    crops = photograph_crops(experiment.image_size, shrink=4)
    return crops.subset(experiment.train_images, experiment.test_images)


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
    """Tied θ̂: the A of the preset's start, b = 0 and w = 1."""
    A = smooth_rows(bank, rng) if experiment.model == "dense" else _filters(experiment, bank, rng)
    return make_parameters(A, gamma=experiment.gamma)


def smooth_rows(bank: DenseBank, rng: np.random.Generator) -> Array:
    """A dense A (F, n) with AᵀA = 16 DᵀD, D the forward differences of an image of n pixels.

    A = 4 Q (DᵀD)^(1/2) with a random orthogonal Q; the first F rows of A and of -A below it.
    With F = 2n, σ = ReLU also begins as the quadratic prior:
    AᵀReLU(A u) - AᵀReLU(-A u) = AᵀA u. With γ = 1/64 the prior begins as ‖Du‖²/8.

    Raises
    ------
    ValueError
        If F > 2n, more rows than there are.
    """
    F, n = bank.coefficients_shape
    if F > 2 * n:
        raise ValueError(f"smooth_rows: {F} features, expected at most {2 * n}, twice the pixels")
    C, H, W = bank.image_shape
    down, across = (np.eye(m, k=1) - np.eye(m) for m in (H, W))
    down[-1] = across[-1] = 0
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
