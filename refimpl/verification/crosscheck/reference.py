"""What a backend of a given precision may answer for a case: reference outputs, and tolerances.

The reference is computed in float64 from exactly the numbers that the backend is given. With eps
the backend's unit roundoff, an output may differ from it, in Frobenius norm, by

    local   SAFETY · max ‖output(inputs (1 + eps ξ)) − output‖ + 2 eps √n ‖sizes‖

ξ uniform in [−1, 1] for every number of the case, several draws, in half of which the pixels of
an image move by eps ξ times the largest of them, as in an FFT; sizes are the sums of the absolute
values of the terms that the output adds up, at most n for each number. Solved outputs are allowed
the residual that a backend with tolerance `tol` may leave,

    r = tol ‖u*‖ / τ + rounding of G      e = min( r / μ, 2 r / σ_min(J) ) ≥ ‖u − u*‖,

the first certified where μ > 0 (E12), the second to first order. The hypergradient is computed
again at states that far away and with adjoint states that leave the residual allowed, in random
directions and in the one that J amplifies most; SAFETY times the largest change is allowed.

A response within its rounding of a kink of σ leaves σ′ open: outputs that need it get `inf`.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.verification.cases import Case, CaseResult, evaluate
from refimpl.verification.crosscheck.anatomy import local_output, make_parts
from refimpl.verification.crosscheck.generation import random_case
from refimpl.verification.crosscheck.sizes import Sizes, kinks_touched
from refimpl.verification.crosscheck.solved import SAFETY, solved_tolerances
from refimpl.verification.perturbation import perturbed
from refimpl.verification.question import in_precision

DRAWS = 6
# The relative residual that solved stages are asked for: above rounding, so that it is reached.
DEFAULT_TOL = {"float64": 1e-12, "float32": 1e-6}
OF_OPERATOR = ("operator", "operator_adjoint")
LOCAL = (*OF_OPERATOR, "map", "energy", "gradient", "jvp", "hvp", "vjp")
USES_SLOPE = ("jvp", "hvp", "vjp", "vjp_A", "vjp_b")

# An allowed relative difference above this judges nothing.
LARGEST_TOLERANCE = 0.1
NO_OUTPUT = "the reference did not find it: no fixed point to working precision"
NEAR_KINK = "a response lies within rounding of a kink of σ, where σ′ jumps"
TOO_LOOSE = "the case is too ill-conditioned for this precision"


class Reference(NamedTuple):
    """What to hold a backend against, for one case.

    Attributes
    ----------
    case : Case
        In float64, with exactly the values handed to the backend.
    precision : dtype
        The backend's.
    outputs : dict of float64 arrays
        By the names of `outputs.npz`.
    tolerances : dict of float
        Allowed Frobenius norm of the difference, inf where the output cannot be judged.
    notes : dict of str
        Why not, by output.
    tol : float
        Relative residual that solves are asked for.
    """

    case: Case
    precision: np.dtype
    outputs: dict[str, Array]
    tolerances: dict[str, float]
    notes: dict[str, str]
    tol: float = DEFAULT_TOL["float64"]


def make_reference(
    case: Case, precision: str | np.dtype = "float64", *, tol: float | None = None
) -> Reference:
    """Reference outputs of a case with what a backend of this precision may differ.

    Parameters
    ----------
    case : Case
        float32 arrays are converted exactly; for precision "float32" and a float64 case the
        arrays are rounded to float32 first, as they are for the backend.
    precision : "float64" or "float32"
    tol : float, optional
        Relative residual ‖T(u) − u‖ / ‖u‖ that the backend is asked for; 1e-12 in float64 and
        1e-6 in float32.

    Raises
    ------
    ValueError
        If the precision is another one, or `tol` is not positive.
    """
    precision = np.dtype(precision)
    if precision.name not in DEFAULT_TOL:
        raise ValueError(f"precision: given {precision.name}, expected float64 or float32")
    tol = DEFAULT_TOL[precision.name] if tol is None else tol
    if not tol > 0:
        raise ValueError(f"tol: given {tol!r}, expected a relative residual > 0")
    # In float64, with the values that a backend of this precision is given.
    case = in_precision(in_precision(case, precision), np.dtype(float))
    result = evaluate(case)
    exact = make_parts(case)
    result.outputs.update({name: local_output(exact, name, case.arrays) for name in OF_OPERATOR})
    tolerances = allowed(case, precision, result, tol)
    outputs = {name: np.asarray(x, float) for name, x in result.outputs.items()}
    notes = explain(case, precision, outputs, tolerances)
    return Reference(case, precision, outputs, tolerances, notes, tol)


@cache
def build_loops(precision: str) -> None:
    """Compute one reference, so that no clock runs while loops are compiled."""
    make_reference(random_case(0, precision=precision), precision)


def allowed(case: Case, precision: np.dtype, result: CaseResult, tol: float) -> dict[str, float]:
    """The tolerance of every output, `inf` above the largest that judges anything."""
    eps, outputs = float(np.finfo(precision).eps), result.outputs
    local = {name: x for name, x in outputs.items() if is_local(name)}
    with np.errstate(over="ignore", invalid="ignore"):
        tolerances = local_tolerances(case, eps, local)
        tolerances |= solved_tolerances(case, eps, result, tol)
    for name, tolerance in tolerances.items():
        if np.isnan(tolerance):  # 0 · ∞: nothing is known
            tolerances[name] = np.inf
        elif tolerance > LARGEST_TOLERANCE * np.linalg.norm(outputs[name]):
            tolerances[name] = small_output(outputs[name], tolerance, eps)
    return tolerances


def small_output(output: Array, tolerance: float, eps: float) -> float:
    """An output that is zero, or vanishes beside what it sums, is judged if it is that of eps."""
    return tolerance if np.isfinite(tolerance) and tolerance <= np.sqrt(eps) else np.inf


def explain(
    case: Case, precision: np.dtype, outputs: dict[str, Array], tolerances: dict[str, float]
) -> dict[str, str]:
    """Why outputs are missing or cannot be judged."""
    names = ("fixed_point", "loss", "hypergradient_A", "hypergradient_b", "hypergradient_weights")
    notes = {name: NO_OUTPUT for name in names if name not in outputs}
    for name, tolerance in tolerances.items():
        if not np.isfinite(tolerance):
            kink = name in USES_SLOPE and touches(case, precision)
            notes[name] = NEAR_KINK if kink else TOO_LOOSE
    return notes


def touches(case: Case, precision: np.dtype) -> bool:
    """Whether rounding can move a response at the case's u across a kink."""
    eps = float(np.finfo(precision).eps)
    return bool(kinks_touched(make_parts(case), case, case.arrays["u"], eps).any())


def is_local(name: str) -> bool:
    """Whether an output needs no solve."""
    return name in LOCAL or name.startswith("vjp_")


def local_tolerances(case: Case, eps: float, outputs: dict[str, Array]) -> dict[str, float]:
    """Tolerances at the case's own u, v, w."""
    parts, rng = make_parts(case), np.random.default_rng(0)
    moved = dict.fromkeys(outputs, 0.0)
    for draw in range(DRAWS):
        other = perturbed(case, eps, rng, by_image=draw % 2 == 1)
        others = make_parts(other)
        for name in outputs:
            change = local_output(others, name, other.arrays) - outputs[name]
            moved[name] = max(moved[name], float(np.linalg.norm(change)))
    sizes = Sizes.of(case, parts)
    tolerances = {name: SAFETY * moved[name] + sizes.rounding(name, eps) for name in outputs}
    if kinks_touched(parts, case, case.arrays["u"], eps).any():
        tolerances |= {name: np.inf for name in outputs if name in USES_SLOPE}
    return tolerances
