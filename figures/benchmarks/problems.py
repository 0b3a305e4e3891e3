"""The problems, and reference solutions that errors are measured against.

Ten crops of 178 × 218 pixels, 30 filters of 3 × 3 trained for denoising (the preset
conv-denoising-3x3-tv, tied and untied), σ = tanh(100 z), λ = 18.156, γ = 1, τ = 1/800.

A reference is solved by refimpl in float64 until rounding stops it, and solved again by the JAX
program, which shares no code with it; both distances are kept with it. References are cached.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from figures.task import Task, distance, filters_vector
from figures.train import presets, run_path, train_all
from refimpl import (
    Convolution,
    FilterBank,
    Identity,
    Mask,
    Parameters,
    add_noise,
    hypergradient,
    make_potential,
    reconstruct,
)
from refimpl.arrays import Array
from refimpl.experiments import load_run
from refimpl.images import photograph_crops
from refimpl.paper.operators import LinearOperator, block_mask
from refimpl.paper.operators.convolution import diagonal_kernel
from refimpl.storage import npz_bytes, read_arrays, write_file
from refimpl.training.model import Model

PRESET, METHODS = "conv-denoising-3x3-tv", {True: "bilevel", False: "deq"}
SIZE, IMAGES, BLUR = (178, 218), 10, 11
LAM, TAU, SLOPE = 18.156, 1 / 800, 100.0
NOISE = {"denoising": 0.1, "deblurring": 0.01, "inpainting": 0.01}
# Beyond what rounding leaves in a residual: the iteration ends where it stalls.
STATE_TOL, ADJOINT_TOL = 1e-14, 1e-12


class Exact(NamedTuple):
    """u* (N, 1, H, W), dℓ/d(A, C) as one vector, and how far a second method is from both."""

    state: Array
    gradient: Array
    state_distance: float
    gradient_distance: float


def trained_parameters(output: Path, quick: bool, say) -> dict[bool, Parameters]:
    """Tied (True) and untied (False) filters, trained now unless `output` has them."""
    chosen = [preset for preset in presets(quick) if preset.name == PRESET]
    train_all(chosen, output / "runs", say)
    paths = {tied: run_path(chosen[0], method, output / "runs") for tied, method in METHODS.items()}
    return {tied: load_run(path).effective for tied, path in paths.items()}


def make_problem(
    task: str, theta: Parameters, *, size: tuple[int, int] = SIZE, images: int = IMAGES
) -> Task:
    """One task, a key of `NOISE`, with trained filters; the same arrays on every call."""
    truth = photograph_crops(size).train[:images]
    operator = forward_operator(task, truth.shape[1:])
    bank = FilterBank(truth.shape[1:], (theta.A.shape[0], *theta.A.shape[2:]), "symmetric")
    y = add_noise(operator.matvec(truth), NOISE[task], np.random.default_rng(0))
    model = Model(operator, bank, make_potential("log_cosh", slope=SLOPE), LAM, TAU)
    name = task if theta.tied else f"{task}, untied"
    return Task(name, model.step(theta, y), truth)


def forward_operator(task: str, image_shape: tuple[int, int, int]) -> LinearOperator:
    """K: nothing, motion blur along the diagonal, or the central block missing."""
    if task == "denoising":
        return Identity(image_shape)
    if task == "deblurring":
        return Convolution(diagonal_kernel(BLUR), image_shape, "symmetric")
    return Mask(block_mask(image_shape[1:]), image_shape)


def find_reference(problem: Task, folder: Path) -> Exact:
    """The reference of a problem, from the cache if it is there."""
    path = folder / f"{digest(problem)}.npz"
    if path.exists():
        arrays = read_arrays(path)
        distances = (float(arrays[name]) for name in Exact._fields[2:])
        return Exact(arrays["state"], arrays["gradient"], *distances)
    reference = solve_reference(problem)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, npz_bytes({k: np.asarray(x) for k, x in reference._asdict().items()}))
    return reference


def digest(problem: Task) -> str:
    """A name for the problem's arrays, its operator and its constants."""
    given = problem.step.problem
    content = hashlib.sha256(f"{problem.name} {given.lam} {problem.step.tau}".encode())
    for array in (given.y, problem.truth, given.theta.A, given.theta.synthesis):
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]


def solve_reference(problem: Task) -> Exact:
    """Solve by refimpl to rounding errors, and by JAX to see that both agree."""
    from figures.benchmarks.jax_model import make_model
    from figures.benchmarks.jax_solvers import compiled
    from figures.benchmarks.plain import plain

    step = problem.step
    star = reconstruct(step, residual_tol=STATE_TOL, max_iterations=200)
    result = hypergradient(
        step, star, problem.loss_gradient(star.x), residual_tol=ADJOINT_TOL, max_iterations=5_000,
        allow_unconverged=True,
    )
    second = compiled(make_model(plain(step, problem.truth), "stencil"))(1e-13, ADJOINT_TOL)
    gradient = filters_vector(result.gradient)
    return Exact(
        star.x, gradient, distance(second.state, star.x), distance(second.gradient, gradient)
    )
