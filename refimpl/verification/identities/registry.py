"""Every operator, bank, potential, field and step, small enough for dense oracles.

Each builder yields pairs (name, object). Names are unique within a family and fix the random
numbers of the object together with the seed. Shapes are odd and even, not square, smaller than
the filter, one pixel wide, with one to three channels.

Not here: what must hold for these objects (the other modules of this package).
"""

from collections.abc import Iterator
from zlib import crc32

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

from refimpl.arrays import Array
from refimpl.engine import Step, make_step
from refimpl.paper.operators import (
    BOUNDARIES,
    Convolution,
    DenseBank,
    Downsample,
    FilterBank,
    FromScipy,
    Identity,
    LinearOperator,
    Mask,
    Matrix,
    Padding,
    block_mask,
    random_mask,
    row_mask,
)
from refimpl.paper.operators.banks import Analysis
from refimpl.paper.parameters import Parameters, make_parameters
from refimpl.paper.potentials import POTENTIALS, Potential
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.verification.builders import Bank

COLOUR = (3, 5, 4)
SMALL = (1, 3, 4)
THIN = (2, 6, 1)
IMAGES = 2


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of the object called `name`."""
    return np.random.default_rng((seed, crc32(name.encode())))


def operators(seed: int = 0) -> Iterator[tuple[str, LinearOperator]]:
    """Every forward operator, every padding, and their combinations."""
    yield "identity", Identity(COLOUR)
    yield from _masks(seed)
    for boundary in BOUNDARIES:
        yield from _convolutions(seed, boundary)
        yield f"padding, {boundary}", Padding(COLOUR, (1, 2), boundary)
        yield f"padding, {boundary}, wider than the image", Padding(THIN, (7, 3), boundary)
    yield "matrix", Matrix(stream(seed, "matrix").standard_normal((7, 60)), COLOUR)
    yield from _combinations(seed)
    for name, bank in banks():
        yield f"analysis, {name}", Analysis(bank, coefficients(bank, stream(seed, name)))


def _masks(seed: int) -> Iterator[tuple[str, LinearOperator]]:
    size, rng = COLOUR[1:], stream(seed, "mask")
    yield "mask, rows", Mask(row_mask(size), COLOUR)
    yield "mask, block", Mask(block_mask(size, 0.5), COLOUR)
    yield "mask, random", Mask(random_mask(size, 0.4, rng), COLOUR)
    yield "mask, one for each colour", Mask(rng.random(COLOUR) < 0.6, COLOUR)


def _convolutions(seed: int, boundary: str) -> Iterator[tuple[str, LinearOperator]]:
    name, rng = f"convolution, {boundary}", stream(seed, f"convolution, {boundary}")
    yield name, Convolution(rng.standard_normal((3, 5)), COLOUR, boundary)
    larger = rng.standard_normal((7, 11))
    yield f"{name}, kernel larger than the image", Convolution(larger, SMALL, boundary)
    yield f"{name}, image one pixel wide", Convolution(larger[:5, :3], THIN, boundary)


def _combinations(seed: int) -> Iterator[tuple[str, LinearOperator]]:
    rng = stream(seed, "combinations")
    blur = Convolution(rng.standard_normal((3, 3)), COLOUR, "reflect")
    mask = Mask(random_mask(COLOUR[1:], 0.3, rng), COLOUR)
    sparse = scipy.sparse.csr_array(rng.standard_normal((11, 60)) * (rng.random((11, 60)) < 0.3))
    yield "downsample", Downsample((2, 3), COLOUR, (1, 0))
    yield "larger pixels", Downsample(3, COLOUR, 1) @ Convolution(np.ones((3, 3)) / 9, COLOUR)
    yield "from scipy", FromScipy(aslinearoperator(sparse), COLOUR)
    yield "composition", mask @ blur
    yield "sum", blur + mask
    yield "difference", blur - Identity(COLOUR)
    yield "multiple", -2.5 * blur


def banks() -> Iterator[tuple[str, Bank]]:
    """Filter banks under each boundary, also for images smaller than a filter; a dense bank.

    25 filters of 3 × 3 on one channel have Jacobians in the form of a stencil, tied and untied.
    """
    for boundary in BOUNDARIES:
        yield f"filters, {boundary}", FilterBank((2, 4, 5), (3, 3, 5), boundary)
    for boundary in BOUNDARIES:
        name = f"filters larger than the image, {boundary}"
        yield name, FilterBank((1, 3, 2), (2, 5, 7), boundary)
    yield "filters, image one pixel wide", FilterBank(THIN, (2, 3, 3), "symmetric")
    for boundary in ("symmetric", "periodic"):
        name = f"filters enough for a stencil, {boundary}"
        yield name, FilterBank((1, 4, 5), (25, 3, 3), boundary)
    yield "dense rows", DenseBank((2, 4, 5), 7)


def coefficients(bank: Bank, rng: np.random.Generator) -> Array:
    """Random coefficients, scaled so that responses to white noise have variance one."""
    shape = bank.coefficients_shape
    return rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))


def potentials() -> Iterator[tuple[str, Potential]]:
    """Every potential with its default parameter, and those with a parameter with another one."""
    for name, potential in POTENTIALS.items():
        yield name, potential()
    yield "soft_shrinkage, threshold 0.5", POTENTIALS["soft_shrinkage"](0.5)
    yield "log_cosh, slope 100", POTENTIALS["log_cosh"](100.0)
    yield "smoothed_l1, nu 1", POTENTIALS["smoothed_l1"](1.0)
    yield "huber, delta 0.3", POTENTIALS["huber"](0.3)


def fields(seed: int = 0) -> Iterator[tuple[str, FieldOfExperts]]:
    """Every potential in every form of bank, tied and untied."""
    wanted = [(name, bank) for name, bank in banks() if "image" not in name]
    for bank_name, bank in wanted:
        for potential_name, potential in POTENTIALS.items():
            for tied in (True, False):
                name = f"{'tied' if tied else 'untied'}, {bank_name}, {potential_name}"
                theta = parameters(bank, tied, stream(seed, name))
                yield name, FieldOfExperts(bank, potential(), theta)


def parameters(bank: Bank, tied: bool, rng: np.random.Generator) -> Parameters:
    """Random θ, weights of both signs."""
    F = bank.coefficients_shape[0]
    A, C = coefficients(bank, rng), coefficients(bank, rng)
    return make_parameters(
        A,
        None if tied else C,
        b=rng.standard_normal(F),
        weights=rng.standard_normal(F),
        gamma=0.7,
    )


def steps(seed: int = 0) -> Iterator[tuple[str, Step]]:
    """T with every operator that acts on images, tied and untied."""
    for operator_name, operator in operators(seed):
        for tied in (True, False):
            name = f"{'tied' if tied else 'untied'}, {operator_name}"
            rng = stream(seed, name)
            bank = FilterBank(operator.domain_shape, (2, 3, 3), "symmetric")
            theta = parameters(bank, tied, rng)
            experts = FieldOfExperts(bank, POTENTIALS["log_cosh"](2.0), theta)
            y = rng.standard_normal((IMAGES, *operator.range_shape))
            yield name, make_step(Problem(operator, y, experts, lam=1.3), tau=0.2)
