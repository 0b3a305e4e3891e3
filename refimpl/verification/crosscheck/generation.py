"""Random cases, reproducible from a seed, on which every usual mistake shows.

Each setting runs through its values in random order before any repeats, so that 40 consecutive
seeds hold every operator, boundary, potential, size, batch and channel count. Values are drawn to
tell mistakes apart: filters, kernels and masks without symmetry, C unlike A, λ ≠ γ, constants
away from 1, potential parameters away from their defaults. Draws that are not well posed
(`refimpl.verification.crosscheck.posed`) are drawn again.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.operators import BOUNDARIES
from refimpl.verification.builders import OPERATORS
from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.anatomy import make_parts
from refimpl.verification.crosscheck.fixed import Only, as_only
from refimpl.verification.crosscheck.matrices import MatrixSystem
from refimpl.verification.crosscheck.posed import why_ill_posed
from refimpl.verification.question import in_precision

POTENTIALS = {  # ranges of the parameters, defaults left out
    "quadratic": {},
    "half_squared_relu": {},
    "soft_shrinkage": {"threshold": (0.25, 0.5)},
    "log_cosh": {"slope": (1.4, 2.5)},
    "lorentzian": {},
    "smoothed_l1": {"nu": (0.4, 0.8)},
    "huber": {"delta": (0.4, 0.8)},
}
ANALYSES = ("convolution", "convolution", "convolution", "dense")
SIZES = ((5, 6), (7, 4), (6, 6), (2, 3), (1, 6), (5, 5), (7, 1), (4, 8))
FILTER_SIZES = ((3, 3), (3, 5), (5, 3), (3, 3), (5, 5), (1, 3))
KERNEL_SIZES = ((3, 3), (3, 5), (5, 3))
OPTIONAL = (("b", "weights"), ("b", "weights"), ("b",), ("weights",))
MAX_DRAWS = 400

# Values of an image, at most; those of larger sizes have one channel where that is open.
MOST_VALUES = 768

Size = tuple[int, int]


def random_case(
    seed: int,
    *,
    size: Size | None = None,
    precision: str = "float64",
    only: Only | str | None = None,
) -> Case:
    """The case of a seed.

    Parameters
    ----------
    seed : int
        At least 0; consecutive seeds are stratified.
    size : tuple (H, W), optional
        Size of the images in place of a drawn one.
    precision : "float64" or "float32"
        dtype of the arrays.
    only : mapping, optional
        Settings in place of drawn ones, {"operator": "identity", "tied": True} or the text
        "operator=identity,tied=true"; `refimpl.verification.crosscheck.fixed` has a list.

    Raises
    ------
    ValueError
        If a setting is unknown or impossible, or no well-posed case is found, as for a size of
        one pixel.
    """
    only = as_only(only)
    plan = planned(seed, size, only)
    for attempt in range(MAX_DRAWS):
        case = drawn(plan, np.random.default_rng([seed, attempt]), precision)
        if why_ill_posed(case) is None:
            return case
    fixed = "".join(f", {name} {value}" for name, value in only.items())
    raise ValueError(
        f"random_case: no well-posed case for seed {seed}, size {size}{fixed}; take another seed"
    )


def draft(seed: int, *, precision: str = "float64", only: Only | None = None) -> Case:
    """The first draw of a seed, not made well posed: what `random_case` gives has its settings."""
    return drawn(planned(seed, None, only), np.random.default_rng([seed, 0]), precision)


def planned(seed: int, size: Size | None, only: Only | None = None) -> dict[str, Any]:
    """The discrete settings of a seed, some of them fixed."""
    only = dict(only or {})
    plan = {
        "operator": cycle(tuple(OPERATORS), seed, 0),
        "operator_boundary": cycle(tuple(BOUNDARIES), seed // len(OPERATORS), 1),
        "analysis": cycle(ANALYSES, seed, 5),
        "boundary": cycle(tuple(BOUNDARIES), seed, 2),
        "potential": cycle(tuple(POTENTIALS), seed, 3),
        "tied": cycle((True, False), seed, 6),
        "images": cycle((1, 2, 3), seed, 7),
        "channels": cycle((1, 2, 3), seed, 4),
        "size": size or cycle(SIZES, seed, 8),
        "filter_size": cycle(FILTER_SIZES, seed, 9),
        "filters": cycle((2, 3, 4), seed, 10),
        "kernel_size": cycle(KERNEL_SIZES, seed, 11),
        "optional": cycle(OPTIONAL, seed, 12),
        "normalized": cycle((False, False, True), seed, 13),
    }
    settled = {name: value for name, value in only.items() if name in plan and name != "size"}
    plan |= settled
    plan |= exceptions(plan) | settled
    given = {"given": True, "none": False}
    plan["optional"] = tuple(
        name for name in ("b", "weights") if given.get(only.get(name), name in plan["optional"])
    )
    if size is None and "size" in only:
        plan["size"] = fitted(only["size"], plan, seed)
    if "channels" not in only and plan["channels"] * math.prod(plan["size"]) > MOST_VALUES:
        plan["channels"] = 1
    plan["fixed"] = only
    return plan | {"shape": (plan["images"], plan["channels"], *plan["size"])}


def fitted(wanted: Size | range | str, plan: dict[str, Any], seed: int) -> Size:
    """The size of images that a value of `only` asks for."""
    if wanted == "window":
        kernel = plan["kernel_size"] if plan["operator"] == "convolution" else (1, 1)
        return tuple(map(max, plan["size"], plan["filter_size"], kernel))
    if isinstance(wanted, range):
        return cycle(wanted, seed, 14), cycle(wanted, seed, 15)
    return wanted


def exceptions(plan: dict[str, Any]) -> dict[str, Any]:
    """What must change for a plan to have well-posed draws.

    Hidden pixels are determined by the filters alone: these must be many and of one size, and
    φ convex. Under a norm, filters must couple rows, because else all rows have the same norm.
    """
    if plan["operator"] == "mask" and plan["potential"] == "lorentzian":
        return {"operator": "identity"}
    if plan["operator"] == "mask":
        return {"normalized": False, "filters": plan["filters"] + plan["channels"]}
    if plan["normalized"] and plan["filter_size"] == (1, 3):
        return {"filter_size": (3, 3)}
    return {}


def cycle(values: Sequence[Any], seed: int, stream: int) -> Any:
    """The value whose turn it is: every block of len(values) seeds is a random permutation."""
    block, turn = divmod(seed, len(values))
    order = np.random.default_rng([block, stream]).permutation(len(values))
    return values[order[turn]]


def drawn(plan: dict[str, Any], rng: np.random.Generator, precision: str) -> Case:
    """One draw of everything that the plan leaves open."""
    shape, operator = plan["shape"], plan["operator"]
    arrays = {name: rng.standard_normal(shape) for name in ("y", "target", "u", "v", "w")}
    arrays |= filter_arrays(plan, rng) | operator_array(plan, rng)
    if operator == "matrix":
        arrays["y"] = rng.standard_normal((shape[0], len(arrays["matrix"])))
    ranges, fixed = POTENTIALS[plan["potential"]], plan["fixed"]
    parameters = {k: rounded(rng.uniform(*ends)) for k, ends in ranges.items()}
    arrays = {k: x if k == "mask" else x.astype(precision) for k, x in arrays.items()}
    case = Case(
        operator=operator,
        operator_boundary=plan["operator_boundary"] if operator == "convolution" else None,
        analysis=plan["analysis"],
        boundary=plan["boundary"] if plan["analysis"] == "convolution" else None,
        potential=plan["potential"],
        potential_parameters={k: fixed.get(k, x) for k, x in parameters.items()},
        tied=plan["tied"],
        tau=fixed.get("tau", 1.0),
        lam=fixed.get("lam") or rounded(rng.uniform(1.4, 2.4)),
        gamma=fixed.get("gamma") or rounded(rng.uniform(0.4, 0.8)),
        arrays=arrays,
        norm=rounded(rng.uniform(1.2, 1.6)) if plan["normalized"] else None,
    )
    return with_filters_for(case, rng) if "tau" in fixed else with_step_size(case, rng)


def rounded(x: float) -> float:
    """Three decimals: settings that people can read."""
    return round(float(x), 3)


def with_step_size(case: Case, rng: np.random.Generator) -> Case:
    """τ at 0.7 to 1.1 of 1/‖J‖ at the case's u, where plain iterations contract."""
    exact = in_precision(case, np.dtype(float))
    J = MatrixSystem.of(make_parts(exact)).jacobian(exact.arrays["u"])
    largest = np.linalg.norm(J, 2, axis=(1, 2)).max()
    return replace(case, tau=rounded(rng.uniform(0.7, 1.1) / largest) or 1e-3)


def with_filters_for(case: Case, rng: np.random.Generator) -> Case:
    """Filters so small that plain iterations contract with the τ that is asked for.

    The field's part of J is quadratic in them, near enough; its norm becomes 0.2 to 0.4 of what
    τ leaves, or of λ.
    """
    exact = in_precision(case, np.dtype(float))
    system = MatrixSystem.of(make_parts(exact))
    data = case.lam * np.linalg.norm(system.matrices.data, 2)
    J = system.jacobian(exact.arrays["u"]) - case.lam * system.matrices.data
    room = max(min(1.9 / case.tau - data, data), 0.0) * rng.uniform(0.2, 0.4)
    factor = np.sqrt(room / np.linalg.norm(J, 2, axis=(1, 2)).max())
    if case.norm is not None:
        return replace(case, norm=float(factor * case.norm))
    dtype = case.arrays["A"].dtype
    scaled = {k: (factor * case.arrays[k]).astype(dtype) for k in ("A", "C") if k in case.arrays}
    return replace(case, arrays=case.arrays | scaled)


def filter_arrays(plan: dict[str, Any], rng: np.random.Generator) -> dict[str, Array]:
    """A, C unlike A, b and weights away from 0 and 1.

    Under a norm every filter gets a mean, which makes the largest singular value simple under
    the periodic boundary, where other frequencies come in pairs.
    """
    channels, F = plan["shape"][1], plan["filters"]
    shape = (F, channels, *plan["filter_size"])
    if plan["analysis"] == "dense":
        shape = (3 * F, int(np.prod(plan["shape"][1:])))
    scale = 0.8 / np.sqrt(np.prod(shape[1:]))
    if plan["analysis"] == "dense" and plan["operator"] == "mask":
        scale = 1 / np.sqrt(shape[0])  # columns of norm 1, so that hidden values are determined
    biased = plan["normalized"] and plan["analysis"] == "convolution"
    mean = rng.uniform(1.0, 2.0, (F, 1, 1, 1)) if biased else 0.0
    arrays = {"A": scale * (rng.standard_normal(shape) + mean)}
    if not plan["tied"]:
        change = 0.3 if plan["operator"] == "mask" else 0.45
        arrays["C"] = 0.9 * arrays["A"] + change * scale * rng.standard_normal(shape)
    drawn = {
        "b": rng.choice([-1.0, 1.0], shape[0]) * rng.uniform(0.2, 0.7, shape[0]),
        "weights": rng.choice([0.7, 1.4], shape[0]) + rng.uniform(-0.15, 0.15, shape[0]),
    }
    return arrays | {name: drawn[name] for name in plan["optional"]}


def operator_array(plan: dict[str, Any], rng: np.random.Generator) -> dict[str, Array]:
    """The array of K: without symmetry, and well conditioned unless it hides values."""
    channels, H, W = plan["shape"][1:]
    pixels = channels * H * W
    if plan["operator"] == "mask":
        flat = plan["analysis"] == "convolution" and rng.random() < 0.5
        return {"mask": random_mask((H, W) if flat else (channels, H, W), rng)}
    if plan["operator"] == "convolution":
        h, w = plan["kernel_size"]
        kernel = rng.uniform(-0.5, 0.5, (h, w)) / np.sqrt(h * w)
        if plan["fixed"].get("kernel_symmetric"):
            kernel = (kernel + kernel[::-1, ::-1]) / 2
        kernel[h // 2, w // 2] += 1.2
        return {"kernel": kernel}
    if plan["operator"] == "matrix":
        noise = rng.standard_normal((pixels + 2, pixels)) / (4 * np.sqrt(pixels))
        return {"matrix": 1.1 * np.eye(pixels + 2, pixels) + noise}
    return {}


def random_mask(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """One value in 20 hidden, at least one."""
    mask = np.ones(shape, dtype=bool)
    mask.flat[rng.choice(mask.size, max(1, mask.size // 20), replace=False)] = False
    return mask
