"""Time of one gradient and of one hypergradient against image size, filters and batch.

One axis moves at a time, the others stay at one image of 128 × 128 and 30 filters (sizes) or at
images of 64 × 64 (filters and batch). Values that would exceed the budget, by the time of the one
before, are left out. Hypergradients are solved to a relative residual of 1e-6 of the state.
"""

import time
from typing import NamedTuple

import numpy as np

from figures.benchmarks.problems import LAM, SLOPE, TAU
from figures.benchmarks.timing import seconds
from figures.benchmarks.variants import make_refimpl
from figures.task import Task
from refimpl import FieldOfExperts, FilterBank, Identity, Problem, add_noise, make_potential
from refimpl.engine import make_step
from refimpl.images import photograph_crops

SIZES = (64, 128, 256, 512, 1024, 2048)
FILTERS = (8, 16, 32, 64, 128)
BATCHES = (1, 4, 16, 64, 256)
TOLERANCE = 1e-6


class Point(NamedTuple):
    """H = W, number of filters, number of images."""

    size: int
    filters: int
    batch: int


AXES = {
    "size": [Point(size, 30, 1) for size in SIZES],
    "filters": [Point(64, filters, 1) for filters in FILTERS],
    "batch": [Point(64, 30, batch) for batch in BATCHES],
}


def make_problem(point: Point, A: np.ndarray) -> Task:
    """Denoising of tiled photographs with the first filters of A, repeated where it has fewer.

    Filters are scaled so that AᵀA keeps its size.
    """
    base = photograph_crops(64).train
    tiles = -(-point.size // 64)
    chosen = np.resize(np.arange(len(base)), (point.batch, tiles, tiles))
    truth = mosaic(base, chosen)[:, :, : point.size, : point.size]
    taps = np.resize(A, (point.filters, *A.shape[1:])) * np.sqrt(len(A) / point.filters)
    bank = FilterBank(truth.shape[1:], (point.filters, *A.shape[2:]), "symmetric")
    y = add_noise(truth, 0.1, np.random.default_rng(0))
    experts = FieldOfExperts(bank, make_potential("log_cosh", slope=SLOPE), taps)
    step = make_step(Problem(Identity(truth.shape[1:]), y, experts, LAM), TAU)
    return Task("denoising", step, truth)


def mosaic(base: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Images put together from tiles: `chosen` (N, rows, columns) says which."""
    N, rows, columns = chosen.shape
    tiles = base[chosen][:, :, :, 0].transpose(0, 1, 3, 2, 4)
    return tiles.reshape(N, 1, rows * base.shape[2], columns * base.shape[3])


def measure(point: Point, A: np.ndarray) -> dict:
    """Seconds of one gradient and of one hypergradient, once a small problem compiled the loops."""
    make_refimpl(make_problem(point._replace(size=64, batch=1), A))(TOLERANCE)
    problem = make_problem(point, A)
    solve, step = make_refimpl(problem), problem.step
    u = step.problem.y
    step.field.value(u)
    gradient = min(seconds(lambda: step.field.value(u)) for _ in range(3))
    hypergradient = seconds(lambda: solve(TOLERANCE))
    pixels = point.batch * point.size**2
    return point._asdict() | {
        "gradient_seconds": gradient,
        "hypergradient_seconds": hypergradient,
        "gradient_nanoseconds_per_pixel": 1e9 * gradient / pixels,
    }


def measure_all(A: np.ndarray, budget: float, say) -> dict[str, list[dict]]:
    """All axes, each with a third of the budget."""
    return {axis: along(points, A, budget / 3, say) for axis, points in AXES.items()}


def along(points: list[Point], A: np.ndarray, budget: float, say) -> list[dict]:
    """One axis, until the next point would not fit into what is left of the budget."""
    rows, end = [], time.perf_counter() + budget
    for point in points:
        growth = work(point) / work(points[len(rows) - 1]) if rows else 0
        last = rows[-1]["hypergradient_seconds"] if rows else 0
        if growth * last > end - time.perf_counter():
            say(f"  {point}: left out, it would take about {growth * last:.0f} s")
            break
        rows.append(measure(point, A))
        say(f"  {point}: hypergradient {rows[-1]['hypergradient_seconds']:.2f} s")
    return rows


def work(point: Point) -> int:
    """What time is expected to be proportional to."""
    return point.size**2 * point.filters * point.batch
