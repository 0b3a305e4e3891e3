"""Hypothesis strategies shared by the property tests.

Arrays are not drawn number by number: a test draws shapes and a seed, and builds its arrays
from a `Generator`. That keeps shrinking fast and the values generic. Raw floats are drawn only
for potentials, where the extremes are what is tested.
"""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from refimpl.engine import make_step

Array = np.ndarray

BOUNDARIES = ("zero", "periodic", "symmetric", "reflect", "replicate")
PRECISIONS = (np.float64, np.float32)


# A kind of `refimpl.verification.identities.known_problems.problem`.
KIND = {
    "operator": "identity",
    "operator_boundary": "symmetric",
    "analysis": "convolution",
    "boundary": "symmetric",
    "potential": "log_cosh",
    "tied": True,
}


def generator(seed: int) -> np.random.Generator:
    """The generator of a drawn seed."""
    return np.random.default_rng(seed)


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: type = np.float64) -> Array:
    """Standard normal numbers in the given precision."""
    return rng.standard_normal(shape).astype(dtype)


def seeds() -> st.SearchStrategy[int]:
    """Seeds of `generator`."""
    return st.integers(0, 2**32 - 1)


def precisions() -> st.SearchStrategy[type]:
    """float64 or float32."""
    return st.sampled_from(PRECISIONS)


def boundaries() -> st.SearchStrategy[str]:
    """The five boundary names."""
    return st.sampled_from(BOUNDARIES)


@st.composite
def image_shapes(
    draw: st.DrawFn, *, max_batch: int = 3, min_side: int = 1, max_side: int = 8
) -> tuple[int, int, int, int]:
    """(N, C, H, W) with one to three channels and sides that differ."""
    batch, channels = draw(st.integers(1, max_batch)), draw(st.integers(1, 3))
    sides = st.integers(min_side, max_side)
    return batch, channels, draw(sides), draw(sides)


@st.composite
def filter_shapes(
    draw: st.DrawFn, channels: int, *, max_count: int = 3, max_side: int = 5
) -> tuple[int, int, int, int]:
    """(F, C, h, w) of odd sides; h and w differ, so that a swap of axes shows."""
    odd = st.integers(0, (max_side - 1) // 2).map(lambda half: 2 * half + 1)
    return draw(st.integers(1, max_count)), channels, draw(odd), draw(odd)


@st.composite
def bank_shapes(
    draw: st.DrawFn, *, min_side: int = 3, max_side: int = 8, max_filter: int = 5
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Shapes (N, C, H, W) and (F, C, h, w) such that every boundary can pad the image.

    Reflection needs a padding smaller than the side: h//2 < H and w//2 < W.
    """
    images = draw(image_shapes(min_side=min_side, max_side=max_side))
    largest = min(max_filter, 2 * min(images[2:]) - 1)
    return images, draw(filter_shapes(images[1], max_side=largest))


def magnitudes() -> st.SearchStrategy[float]:
    """Signed numbers from 1e-300 to 1e300, evenly in the exponent, and zero."""
    exponents = st.floats(-300, 300)
    signed = st.tuples(st.sampled_from((-1.0, 1.0)), exponents).map(lambda p: p[0] * 10.0 ** p[1])
    return st.one_of(st.just(0.0), signed, st.floats(-10, 10))


def near(points: tuple[float, ...]) -> st.SearchStrategy[float]:
    """The given points (kinks, thresholds), and their neighbours to a few units of rounding."""
    relative = st.integers(-4, 4).map(lambda k: 1 + k * np.finfo(float).eps)
    return st.tuples(st.sampled_from(points), relative).map(lambda p: p[0] * p[1])


def changed(step, **fields):
    """The step of the same problem with some fields exchanged, and with the same τ."""
    return make_step(replace(step.problem, **fields), step.tau)
