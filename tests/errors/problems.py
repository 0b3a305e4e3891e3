"""Random problems of every potential, bank, operator and boundary, and how each is solved.

A seed gives the problem, the solver, and where it is stopped; images have 8 to 144 values. In
every third problem γ is drawn relative to the sizes of A and σ′, so that condition numbers of J
go from 1 to 10⁶ and beyond.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refimpl.paper.operators import BOUNDARIES, Mask, block_mask
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import Potential, make_potential
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.verification.builders import make_bank, make_operator

Array = np.ndarray
Rng = np.random.Generator

TIED = ("auto", "picard", "anderson", "nesterov", "lbfgs", "newton", "newton_krylov")
UNTIED = ("auto", "picard", "anderson", "newton_krylov")
LARGEST = 144
# Iterations of slow methods, so that the whole set takes minutes.
LIMIT = {"picard": 1000, "nesterov": 1000, "lbfgs": 400, "anderson": 400}


class Task(NamedTuple):
    """A problem, and how it is to be solved.

    Attributes
    ----------
    name : str
        "random 17", as `python -m errors` names it.
    kind : str
        What makes the problem what it is, under which it is counted.
    problem : Problem
    target : array like u
        u† of the loss.
    method : str
    tol : float
        Of the error.
    residual_tol : float, optional
        The tolerance of the residual, where that is to stop the solver instead.
    max_iterations : int, optional
    looked_at : array like one image of u, optional
        1 where the loss looks, so that ∇ℓ has no part of the pixels where it is 0.
    """

    name: str
    kind: str
    problem: Problem
    target: Array
    method: str
    tol: float
    residual_tol: float | None = None
    max_iterations: int | None = None
    looked_at: Array | float = 1.0


def blinkered(task: Task, seed: int) -> Task:
    """Where K is a mask, every other task's loss looks at the pixels that K shows alone."""
    K, chosen = task.problem.operator, np.random.default_rng([3, seed]).random() < 0.5
    if not (chosen and isinstance(K, Mask)):
        return task
    shown = np.broadcast_to(K.mask, task.target.shape[1:])
    return task._replace(looked_at=shown.astype(float))


def random_task(seed: int) -> Task:
    """The random problem of a seed, and where its solver is stopped."""
    rng = np.random.default_rng([1, seed])
    image = image_shape(rng)
    kind = str(rng.choice(("identity", "mask", "convolution", "matrix")))
    K = operator(rng, kind, image)
    bank, theta, potential = experts(rng, image)
    u = rng.random((rng.integers(1, 4), *image))
    y = K.matvec(u)
    y = y + 10 ** rng.uniform(-3, -0.5) * rng.standard_normal(y.shape)
    lam = 10 ** rng.uniform(-2, 3)
    if rng.random() < 1 / 3:
        lam, theta = balanced(rng, bank, theta, potential)
    problem = Problem(K, y, FieldOfExperts(bank, potential, theta), float(lam))
    tie = "tied" if problem.tied else "untied"
    kind = f"{potential.name}, {tie}"
    return blinkered(Task(f"random {seed}", kind, problem, u, *stop(rng, problem.tied)), seed)


def stop(rng: Rng, tied: bool) -> tuple[str, float, float | None, int | None]:
    """Method, tolerances, iterations: on the error, on the residual, or stopped early."""
    method = str(rng.choice(TIED if tied else UNTIED))
    tol, how = 10 ** -rng.uniform(1, 12), rng.integers(3)
    if how == 0:
        return method, max(tol, 1e-8), None, LIMIT.get(method)
    if how == 1:
        return method, 1e-4, tol, LIMIT.get(method)
    most = 8 if "newton" in method or method == "auto" else 100
    return method, 1e-4, 1e-12, int(rng.integers(1, most))


def image_shape(rng: Rng) -> tuple[int, int, int]:
    """(C, H, W) of 8 to 144 values."""
    most = rng.choice((5, 7, 13))
    while True:
        shape = int(rng.choice((1, 1, 2, 3))), *(int(n) for n in rng.integers(2, most, 2))
        if 8 <= np.prod(shape) <= LARGEST:
            return shape


def operator(rng: Rng, kind: str, image: tuple[int, int, int]) -> Any:
    """K of a kind."""
    boundary = str(rng.choice(list(BOUNDARIES)))
    if kind == "mask":
        return make_operator(kind, image, mask(rng, image))
    if kind == "convolution":
        kernel = rng.random((2 * rng.integers(0, 3) + 1, 2 * rng.integers(0, 3) + 1))
        return make_operator(kind, image, kernel / kernel.sum(), boundary)
    if kind == "matrix":
        n = int(np.prod(image))
        matrix = rng.standard_normal((max(1, int(n * rng.choice((0.5, 1, 1.5)))), n)) / np.sqrt(n)
        return make_operator(kind, image, matrix)
    return make_operator(kind, image)


def mask(rng: Rng, image: tuple[int, int, int]) -> Array:
    """Random pixels, alike or not in the channels; a block; rows; one pixel."""
    C, H, W = image
    kind = rng.integers(5)
    if kind == 0:
        return rng.random((H, W)) < rng.uniform(0.3, 0.95)
    if kind == 1:
        return rng.random(image) < rng.uniform(0.3, 0.95)
    if kind == 2:
        return block_mask((H, W))
    shown = np.ones((H, W), bool)
    if kind == 3:
        shown[rng.integers(2) :: 2] = False
    else:
        shown[rng.integers(H), rng.integers(W)] = False
    return shown


def experts(rng: Rng, image: tuple[int, int, int]) -> tuple[Any, Any, Potential]:
    """Bank, θ and potential."""
    n, F = int(np.prod(image)), int(rng.integers(1, 5))
    if rng.random() < 0.3:
        shape = (int(n * rng.uniform(0.5, 1.5)) + 1, n)
    else:
        shape = (F, image[0], *(int(2 * s + 1) for s in rng.integers(0, 3, 2)))
    A = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    C = None if rng.random() < 0.6 else A + rng.choice((0.1, 0.5)) * rng.standard_normal(shape) / n
    b = rng.choice((0.0, 0.3)) * rng.standard_normal(shape[0])
    theta = make_parameters(
        A, C, b=b, weights=rng.uniform(0.2, 2, shape[0]), gamma=10 ** rng.uniform(-2, 1)
    )
    return make_bank(image, shape, str(rng.choice(list(BOUNDARIES)))), theta, potential(rng)


def potential(rng: Rng) -> Potential:
    """Any of the seven, log_cosh more often."""
    name = str(rng.choice(("quadratic", "half_squared_relu", "soft_shrinkage", "log_cosh",
                           "log_cosh", "lorentzian", "smoothed_l1", "huber")))  # fmt: skip
    given = {
        "soft_shrinkage": {"threshold": 10 ** rng.uniform(-2, 0)},
        "log_cosh": {"slope": 10 ** rng.uniform(0, 2)},
        "smoothed_l1": {"nu": 10 ** rng.uniform(-2, 0)},
        "huber": {"delta": 10 ** rng.uniform(-2, 0)},
    }
    return make_potential(name, **given.get(name, {}))


def balanced(rng: Rng, bank: Any, theta: Any, potential: Potential) -> tuple[float, Any]:
    """λ = 1 and γ with γ ‖A‖² sup σ′ from 10⁻⁶ to 10⁶: J is as badly conditioned, or as K is."""
    images = np.eye(int(np.prod(bank.image_shape))).reshape(-1, *bank.image_shape)
    size = np.linalg.norm(bank.apply(theta.A, images).reshape(len(images), -1), 2)
    gamma = 10 ** rng.uniform(-6, 6) / (size**2 * potential.sup_second)
    return 1.0, replace(theta, gamma=np.asarray(gamma))
