"""Verdicts: which outputs of a backend agree with the reference, and to how many digits."""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.verification.crosscheck.reference import Reference

PARAMETERS = ("A", "C", "b", "weights")
OUTPUTS = (
    "operator",
    "operator_adjoint",
    "map",
    "energy",
    "gradient",
    "jvp",
    "hvp",
    "vjp",
    *(f"vjp_{name}" for name in PARAMETERS),
    "fixed_point",
    "loss",
    *(f"hypergradient_{name}" for name in PARAMETERS),
)


class Judgement(NamedTuple):
    """The verdict on one output.

    Attributes
    ----------
    output : str
    agrees : bool or None
        None where the output cannot be judged; `note` says why.
    error, tolerance : float
        ‖difference‖ and what is allowed of it, relative to the norm of the reference (absolute
        if that is 0).
    digits, expected_digits : float
        −log10 of both, at least 0 and at most those of the precision.
    note : str
    """

    output: str
    agrees: bool | None
    error: float
    tolerance: float
    digits: float
    expected_digits: float
    note: str


def judge(reference: Reference, outputs: dict[str, Array]) -> list[Judgement]:
    """Compare outputs, any subset, with the reference, in the order of the stages.

    Raises
    ------
    ValueError
        If an output has a name that no case has.
    """
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown:
        raise ValueError(
            f"outputs: given {', '.join(unknown)}, expected names among {', '.join(OUTPUTS)}"
        )
    return [_judged(reference, name, outputs[name]) for name in OUTPUTS if name in outputs]


def _judged(reference: Reference, name: str, value: Array) -> Judgement:
    if name not in reference.outputs:
        note = reference.notes.get(name, "this case has no such output")
        return Judgement(name, None, np.nan, np.inf, 0.0, 0.0, note)
    expected = reference.outputs[name]
    size = float(np.linalg.norm(expected)) or 1.0
    tolerance = reference.tolerances.get(name, np.inf) / size
    note = reference.notes.get(name, "")
    error = difference(expected, value) / size
    if np.shape(value) != expected.shape:
        note = f"shape is {np.shape(value)}, expected {expected.shape}"
    elif np.isnan(error):
        error, note = np.inf, "holds NaN or infinite values"
    agrees = None if np.isinf(tolerance) and np.isfinite(error) else bool(error <= tolerance)
    digits = digits_of(error, reference.precision), digits_of(tolerance, reference.precision)
    return Judgement(name, agrees, error, tolerance, *digits, note)


def difference(expected: Array, value: Array) -> float:
    """‖value − expected‖, inf where the shapes differ, NaN where a value is not finite."""
    if np.shape(value) != expected.shape:
        return np.inf
    value = np.asarray(value, float)
    return float(np.linalg.norm(value - expected)) if np.isfinite(value).all() else np.nan


def digits_of(relative: float, precision: np.dtype) -> float:
    """−log10 of a relative error, between 0 and what the precision holds."""
    most = -np.log10(np.finfo(precision).eps)
    with np.errstate(divide="ignore"):
        return float(np.clip(-np.log10(relative), 0, most)) + 0.0 if relative < np.inf else 0.0
