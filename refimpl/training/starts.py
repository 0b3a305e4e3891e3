"""Where training begins: filters by name, with the strength that suits them; total variation.

    cosine            A = the cosine basis but for the constant
    total_variation   A = the differences down and across, then random filters
    random            A of mean zero and norm 1

γ is the best for these filters on the held-out crops. Where φ is not convex, the size of A decides
what counts as an edge: A is scaled too, which for log cosh of a steep slope changes little.

Total variation with its best weight on the same images is what every training is held against.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from refimpl.arrays import Array, count, shown
from refimpl.paper.filters import cosine_filters, total_variation_filters
from refimpl.paper.operators import FilterBank
from refimpl.paper.parameters import Parameters, make_parameters
from refimpl.paper.potentials import LogCosh, trait
from refimpl.results import NotConvergedError
from refimpl.training.crops import FreshCrops
from refimpl.training.objective import Objective
from refimpl.training.parametrisations import Parametrisation, ZeroMean

STARTS = ("cosine", "total_variation", "random")
# Powers of two for γ; where φ is not convex, norms of the filters times the noise level: responses
# to noise are then within the bend of φ.
STRENGTHS = 2.0 ** np.arange(-12, 4)
SCALES = (2.0, 4.0)
FEW = 8  # held-out crops that the strength is chosen on
SLOPE = 100.0  # of total variation


def filters_of(start: str, channels: int, filters, rng: np.random.Generator) -> Parameters:
    """θ by the name of a start; filters (F, C, h, w) of mean 0, random ones of norm 1."""
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
    first = {"total_variation": total_variation_filters(A.shape) if min(h, w) > 2 else A[:0]}
    first |= {"cosine": cosine_filters((h, w), channels), "random": A[:0]}
    if start == "cosine" and F > len(first["cosine"]):
        raise ValueError(
            f"filters: given {F} of {h} x {w}, expected at most {len(first['cosine'])} of "
            f"{h} x {w} for the cosine start; take larger ones, or start='random'"
        )
    if start == "total_variation" and F < 2 * channels:
        raise ValueError(
            f"filters: given {F}, expected at least {2 * channels}, the differences of "
            f"{channels} channel{'s' * (channels > 1)}"
        )
    A[: len(first[start])] = first[start][:F]
    return make_parameters(A)


def strongest_start(course: FreshCrops, theta: Parameters) -> Parameters:
    """θ with the γ, and the size of its filters, of the least loss on a few held-out crops."""
    few = [objective.subset(np.arange(min(FEW, len(objective.truth)))) for objective in
           course.held_out[:FEW]]  # fmt: skip
    P = course.task.parametrisation

    def loss(gamma: float, scale: float) -> float:
        scaled = replace(theta, A=scale * theta.A, gamma=np.asarray(gamma))
        found = course.looked_at(few, P.inverse(scaled))
        return np.inf if found is None else found[0]

    convex, found = trait(course.task.potential, "convex"), []
    for scale in (1.0,) if convex else np.array(SCALES) / course.task.noise_level:
        # φ(s z) grows like s² z² at first.
        strengths = STRENGTHS if convex else 2.0 ** np.arange(-3, 8) / scale
        gamma, least = best_of(lambda gamma, s=scale: loss(gamma, s), strengths)
        found.append((least, gamma, scale))
    least, gamma, scale = min(found)
    if np.isinf(least):
        raise NotConvergedError("train: no reconstruction is found with the filters of the start")
    return replace(theta, A=scale * theta.A, gamma=np.asarray(gamma))


def best_of(loss: Callable[[float], float], values: Array) -> tuple[float, float]:
    """The one of the least loss, climbed to from the middle, and that loss."""
    known: dict[int, float] = {}

    def at(k: int) -> float:
        if k not in known:
            known[k] = loss(float(values[k])) if 0 <= k < len(values) else np.inf
        return known[k]

    k = len(values) // 2
    if np.isinf(at(k)):  # no slope to follow
        k = min(range(len(values)), key=at)
    while at(better := min(k - 1, k + 1, key=at)) < at(k):
        k = better
    return float(values[k]), at(k)


def total_variation_psnr(course: FreshCrops) -> dict[str, float]:
    """Mean PSNR of total variation with its best weight on held-out crops and test images."""
    found = {"psnr_held_out_total_variation": _total_variation(course, course.held_out)}
    if course.test:
        found["psnr_test_total_variation"] = _total_variation(course, course.test)
    return found


def _total_variation(course: FreshCrops, objectives: tuple[Objective, ...]) -> float:
    images = [_with_differences(objective) for objective in objectives]
    C = images[0].truth.shape[1]
    A = total_variation_filters((2 * C, C, 3, 3))
    qualities: dict[float, float] = {}

    def loss(gamma: float) -> float:
        found = course.looked_at(images, make_parameters(A, gamma=gamma))
        qualities[gamma] = np.nan if found is None else found[1]
        return np.inf if found is None else found[0]

    coarse, _ = best_of(loss, STRENGTHS)
    best, _ = best_of(loss, coarse * 2.0 ** (np.arange(-4, 5) / 4))
    return qualities[best]


def _with_differences(objective: Objective) -> Objective:
    """The same images with the field of total variation."""
    C = objective.truth.shape[1]
    bank = FilterBank(objective.truth.shape[1:], (2 * C, 3, 3), objective.model.bank.boundary)
    model = replace(
        objective.model, bank=bank, potential=LogCosh(SLOPE), parametrisation=Parametrisation()
    )
    return replace(objective, model=model)
