"""Hard problems: what is missing, blurred or singular, at slopes that users have.

Each kind is a function from a generator to a problem and its target; the seed chooses the kind in
turn, so that a set of any size holds all of them.
"""

from functools import cache

import numpy as np

from errors.problems import Array, Rng, Task, blinkered
from refimpl.images import photograph_crops
from refimpl.paper.filters import total_variation
from refimpl.paper.operators import Convolution, DenseBank, Identity, Mask
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import make_potential
from refimpl.paper.problem import FieldOfExperts, Problem

Drawn = tuple[Problem, Array]
TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
SIDE = 10


def hard_task(seed: int) -> Task:
    """The hard problem of a seed."""
    rng = np.random.default_rng([2, seed])
    kind = KINDS[seed % len(KINDS)]
    problem, target = kind(rng)
    methods = ("auto", "auto", "auto", "newton_krylov", "anderson")
    if problem.tied:
        methods += ("newton", "lbfgs")
    tol = float(rng.choice(TOLERANCES))
    name = kind.__name__.replace("_", " ")
    task = Task(f"hard {seed}", name, problem, target, str(rng.choice(methods)), tol)
    return blinkered(task, seed)


def one_pixel_missing_at_an_edge(rng: Rng) -> Drawn:
    """A straight or diagonal edge, exactly symmetric about the missing pixel or not."""
    u, (i, j) = edge(rng)
    shown = np.ones((SIDE, SIDE), bool)
    shown[i, j] = False
    return inpainting(rng, u, shown)


def pixels_missing_at_an_edge(rng: Rng) -> Drawn:
    """A pair or a block at the edge, or 10 % of all pixels."""
    u, (i, j) = edge(rng)
    shown = np.ones((SIDE, SIDE), bool)
    if rng.random() < 0.3:
        shown = rng.random((SIDE, SIDE)) > 0.1
    else:
        h, w = rng.integers(1, 4, 2)
        shown[i : i + h, j : j + w + (h * w == 1)] = False
    return inpainting(rng, u, shown)


def photograph_with_missing_pixels(rng: Rng) -> Drawn:
    """A crop with one pixel, 10 % or 30 % missing."""
    u, shown = crop(rng), np.ones((SIDE, SIDE), bool)
    fraction = rng.choice((0, 0.1, 0.3))
    shown[tuple(rng.integers(0, SIDE, 2))] = False
    return inpainting(rng, u, shown & (rng.random(shown.shape) >= fraction))


def blur_of_eleven_pixels(rng: Rng) -> Drawn:
    """A Gaussian, motion or box of 11 pixels, and total variation."""
    kernel = (gaussian(), np.eye(11), np.ones((11, 11)), np.ones((1, 11)))[rng.integers(4)]
    u = crop(rng) if rng.random() < 0.7 else edge(rng)[0]
    boundary = str(rng.choice(("symmetric", "periodic", "zero", "replicate")))
    K = Convolution(kernel / kernel.sum(), (1, SIDE, SIDE), boundary)
    y = K.matvec(u) + 10 ** rng.uniform(-4, -1) * rng.standard_normal(u.shape)
    field = total_variation((SIDE, SIDE), slope=10 ** rng.uniform(0, 2))
    return Problem(K, y, field, float(10 ** rng.uniform(0, 4))), u


def untied_without_fixed_point(rng: Rng) -> Drawn:
    """A sees only observed pixels, C also hidden ones: G there does not depend on what is hidden.

    The smallest is A = (1, 0), C = (1, 1), b = 1, of which G₁ = tanh(u₀ + 1).
    """
    n, F = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    shown = np.arange(n) < rng.integers(1, n)
    A = rng.choice((-1.0, 1.0), (F, n)) if rng.random() < 0.5 else rng.standard_normal((F, n))
    A = np.where(shown, A, 0.0)
    C = np.where(shown, A, rng.choice((1.0, 0.3)) * rng.choice((-1.0, 1.0), (F, n)))
    return rows(rng, shown, A, C, b=rng.uniform(0.5, 1.5, F))


def untied_with_singular_jacobian(rng: Rng) -> Drawn:
    """Neither A nor C nor K sees one direction, or C has a row that others add up to."""
    n, F = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    shown = np.arange(n) < rng.integers(1, n)
    A, C = rng.standard_normal((2, F, n))
    blind = np.eye(n)[-1] if rng.random() < 0.5 else rng.standard_normal(n) * ~shown
    blind /= np.linalg.norm(blind)
    A, C = (M - np.outer(M @ blind, blind) for M in (A, C))
    if rng.random() < 0.5:
        C = A + 0.1 * C
    return rows(rng, shown, A, C, b=rng.standard_normal(F))


def huge_lambda(rng: Rng) -> Drawn:
    """λ = 10¹², of which only the observed pixels take note."""
    u = crop(rng)
    K = Identity((1, SIDE, SIDE))
    if rng.random() < 0.5:
        K = Mask(rng.random((SIDE, SIDE)) > 0.1, (1, SIDE, SIDE))
    y = K.matvec(u + 0.1 * rng.standard_normal(u.shape))
    slope = 10 ** rng.uniform(0, 1.5)
    return Problem(K, y, total_variation((SIDE, SIDE), slope=slope), 1e12), u


def negative_weights(rng: Rng) -> Drawn:
    """A concave regulariser: bounded growth or none, a zero of G or none."""
    n, F = int(rng.integers(2, 9)), int(rng.integers(1, 6))
    shown = rng.random(n) < rng.choice((0.7, 1.0))
    shown[0] = True
    name = str(rng.choice(("log_cosh", "quadratic", "lorentzian", "smoothed_l1")))
    A = rng.standard_normal((F, n)) / np.sqrt(n)
    weights = rng.uniform(0.3, 2, F) * rng.choice((-1, 1), F)
    weights[0] = -abs(weights[0])
    return rows(rng, shown, A, None, b=0.3 * rng.standard_normal(F), weights=weights, name=name)


KINDS = (
    one_pixel_missing_at_an_edge, pixels_missing_at_an_edge, photograph_with_missing_pixels,
    blur_of_eleven_pixels, untied_without_fixed_point, untied_with_singular_jacobian, huge_lambda,
    negative_weights,
)  # fmt: skip


def inpainting(rng: Rng, u: Array, shown: Array) -> Drawn:
    """Total variation by log cosh of slope 20 to 100, two filters, no noise or little."""
    K = Mask(shown, (1, SIDE, SIDE))
    noise = rng.choice((0.0, 0.0, 0.05))
    y = K.matvec(u + noise * rng.standard_normal(u.shape))
    field = total_variation((SIDE, SIDE), slope=float(rng.choice((20, 35, 50, 100))))
    return Problem(K, y, field, float(rng.choice((10, 50, 200, 1000)))), u


def rows(rng: Rng, shown: Array, A: Array, C: Array | None, *, name="log_cosh", **theta) -> Drawn:
    """A dense bank on an image of one row, of which some pixels are shown."""
    image = (1, 1, len(shown))
    K, u = Mask(shown[None], image), rng.uniform(-1, 1, (1, *image))
    theta = make_parameters(A, C, gamma=float(10 ** rng.uniform(-1, 1)), **theta)
    bank = DenseBank(image, len(A))
    field = FieldOfExperts(bank, make_potential(name), theta)
    return Problem(K, K.matvec(u), field, float(10 ** rng.uniform(-1, 2))), u


def edge(rng: Rng) -> tuple[Array, tuple[int, int]]:
    """An image of an edge and a pixel on or beside it."""
    i, j = np.indices((SIDE, SIDE))
    at, slanted = int(rng.integers(4, SIDE - 3)), rng.random() < 0.6
    if slanted and rng.random() < 0.5:  # values 0, ½, 1: exactly symmetric about the diagonal
        u = (1 + np.sign(i + j - SIDE + 1)) / 2
    else:
        u = (i + j >= SIDE) if slanted else (i >= at)
    row = int(rng.integers(2, SIDE - 2))
    pixel = (row, SIDE - row - 1) if slanted else (at - int(rng.integers(2)), row)
    return u[None, None].astype(float), pixel


def crop(rng: Rng) -> Array:
    """One of a few hundred crops of photographs."""
    crops = photographs()
    return crops[rng.integers(len(crops))][None]


@cache
def photographs() -> Array:
    """Crops of the shipped photographs, shrunk so that they show something."""
    return photograph_crops(SIDE, shrink=3).train[:400]


def gaussian() -> Array:
    """A Gaussian on 11 × 11 pixels with standard deviation 2."""
    g = np.exp(-((np.arange(11) - 5) ** 2) / 8)
    return np.outer(g, g)
