"""Drawing the golden cases and writing their files: the same bytes every time.

Numbers are multiples of 2⁻¹⁰ below 16, so that float32 holds them exactly and a program in
single precision is given the same problem. A draw is taken only if

    each response A u + b, at the state u and at u*, is KINK_MARGIN away from every kink of σ,
    the spectral radius of ∂T(u*) is at most MAX_RATE, and cond(I − ∂T(u*)) at most MAX_CONDITION,
    T, iterated from Kᵀy, leads to u*,
    where A and C are normalised, their two largest singular values differ by MIN_GAP (relative).

At a kink σ′ jumps, so that programs that round differently would rightly disagree by O(1). The
condition number multiplies rounding errors. Where the iteration converges to another point, or
not at all, an honest program would be told that it is wrong. The derivative of a norm multiplies
rounding errors by the inverse of the gap.

Not here: what the cases are (`recipes`), and the tolerance of a comparison (`outputs`).
"""

from itertools import count
from pathlib import Path
from zlib import crc32

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import Step
from refimpl.paper import equations
from refimpl.verification.cases.case import Case, build_step
from refimpl.verification.cases.evaluation import CaseResult, evaluate
from refimpl.verification.cases.exchange import write_case
from refimpl.verification.cases.golden.outputs import SUITE
from refimpl.verification.cases.golden.recipes import RECIPES, Recipe
from refimpl.verification.checks import dense_matrix
from refimpl.verification.checks.dense_matrices import singular_gap
from refimpl.verification.rounding import kink_distances

GRID = 2.0**10
APART = 0.25  # ‖C − A‖ relative to ‖A‖ when untied, so that the fixed point is attractive
HIDDEN = 2  # pixels of a mask that are not observed

# A thousand times what float32 loses on responses of size one.
KINK_MARGIN = 1e-3
MAX_RATE, MAX_CONDITION, MIN_GAP = 0.97, 50.0, 0.05
ITERATIONS = 1500  # 0.97^1500 < 1e-19
REACHED = 1e-12


def draw(name: str, recipe: Recipe) -> tuple[Case, CaseResult]:
    """The first case of this recipe, of those that its name seeds, without shortcomings."""
    for attempt in count():
        case = candidate(recipe, np.random.default_rng((crc32(name.encode()), attempt)))
        result = evaluate(case)
        if not shortcomings(case, result):
            return case, result


def candidate(recipe: Recipe, rng: np.random.Generator) -> Case:
    """A case of this recipe, whatever its conditioning."""
    shape = (recipe.images, recipe.channels, *recipe.size)
    arrays = {name: _round(rng.standard_normal(shape)) for name in ("y", "target", "u", "v", "w")}
    arrays |= _operator_array(recipe, shape, rng)
    if recipe.operator == "matrix":
        arrays["y"] = _round(rng.standard_normal((recipe.images, len(arrays["matrix"]))))
    arrays |= _filter_arrays(recipe, rng)
    return Case(
        operator=recipe.operator,
        operator_boundary=recipe.operator_boundary,
        analysis=recipe.analysis,
        boundary=recipe.boundary,
        potential=recipe.potential,
        potential_parameters=dict(recipe.parameters),
        tied=recipe.tied,
        tau=recipe.tau,
        lam=recipe.lam,
        gamma=recipe.gamma,
        arrays=arrays,
        norm=recipe.norm,
    )


def _round(x: Array) -> Array:
    """The nearest multiples of 2⁻¹⁰; + 0 turns −0 into 0."""
    return np.round(x * GRID) / GRID + 0.0


def _filter_arrays(recipe: Recipe, rng: np.random.Generator) -> dict[str, Array]:
    """A, C near A, and b and weights where the recipe has them."""
    F, *window = recipe.filters
    H, W = recipe.size
    shape = (F, recipe.channels, *window) if window else (F, recipe.channels * H * W)
    scale = 1 / np.sqrt(np.prod(shape[1:]))
    arrays = {"A": _round(scale * rng.standard_normal(shape))}
    if not recipe.tied:
        arrays["C"] = arrays["A"] + _round(APART * scale * rng.standard_normal(shape))
    if "b" in recipe.given:
        arrays["b"] = _round(0.5 * rng.standard_normal(F))
    if "weights" in recipe.given:
        arrays["weights"] = _round(rng.uniform(0.5, 1.5, F))
    return arrays


def _operator_array(
    recipe: Recipe, shape: tuple[int, ...], rng: np.random.Generator
) -> dict[str, Array]:
    """A mask that hides two values, a kernel or a tall matrix near the identity; or nothing."""
    if recipe.operator == "mask":
        mask = np.ones(shape[1:] if recipe.coloured_mask else shape[2:], bool)
        mask.flat[rng.choice(mask.size, HIDDEN, replace=False)] = False
        return {"mask": mask.astype(float) if recipe.coloured_mask else mask}
    if recipe.operator == "convolution":
        kernel = rng.uniform(-0.1, 0.1, recipe.kernel)
        kernel[recipe.kernel[0] // 2, recipe.kernel[1] // 2] += 1
        return {"kernel": _round(kernel)}
    if recipe.operator == "matrix":
        n = int(np.prod(shape[1:]))
        return {"matrix": _round(np.eye(n + 2, n) + 0.1 * rng.standard_normal((n + 2, n)))}
    return {}


def shortcomings(case: Case, result: CaseResult) -> list[str]:
    """What makes a case unfit for comparisons; the module's docstring says why."""
    if not result.converged:
        return ["not solved"]
    step, star = build_step(case), result.outputs["fixed_point"]
    found = [
        f"responses at {name} come within {margin:.1e} of a kink, at least {KINK_MARGIN:g} wanted"
        for name, u in (("u", case.arrays["u"]), ("u*", star))
        if (margin := kink_distance(step, u)) < KINK_MARGIN
    ]
    rate, condition = conditioning(step, star)
    if rate > MAX_RATE:
        found.append(f"spectral radius {rate:.2g}, at most {MAX_RATE} wanted")
    if condition > MAX_CONDITION:
        found.append(f"condition number {condition:.2g}, at most {MAX_CONDITION:g} wanted")
    distance = np.linalg.norm(iterate(step) - star)
    if not distance <= REACHED * np.linalg.norm(star):
        found.append(f"T, iterated from Kᵀy, ends at a distance of {distance:.1e} from u*")
    for name in case.arrays.keys() & {"A", "C"} if case.norm is not None else ():
        if (gap := singular_gap(step.problem.bank, case.arrays[name])) < MIN_GAP:
            found.append(f"singular values of {name} differ by {gap:.2g}, {MIN_GAP} wanted")
    return found


def kink_distance(step: Step, u: Array) -> float:
    """The least distance of a response A u + b from a kink of σ; infinite without kinks."""
    z = equations.responses(step.problem, u)
    return float(kink_distances(step.problem.potential.kinks, z).min())


def conditioning(step: Step, star: Array) -> tuple[float, float]:
    """The largest spectral radius of ∂T(u*) and cond(I − ∂T(u*)) among the images."""
    rates, conditions = [], []
    for n, u in enumerate(star):
        tangent = step.image(n).linearize(u[None]).jvp
        M = dense_matrix(tangent, (1, *u.shape))
        rates.append(np.abs(np.linalg.eigvals(M)).max())
        conditions.append(np.linalg.cond(np.eye(len(M)) - M))
    return float(max(rates)), float(max(conditions))


def iterate(step: Step) -> Array:
    """T applied ITERATIONS times to Kᵀy."""
    u = step.operator.adjoint(step.problem.y)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(ITERATIONS):
            u = step.apply(u)
    return u


def write_suite(directory: Path | str = SUITE) -> None:
    """Draw every case and write its directory."""
    for name, recipe in RECIPES.items():
        case, result = draw(name, recipe)
        write_case(Path(directory) / name, case, result.outputs)
