"""Holding the package to the golden suite: every output, computed again, against the stored one.

    measured   ‖x − x_stored‖ / ‖x_stored‖
    bound      2 ρ / ‖x_stored‖: one ρ for what is computed now, one for what was stored

ρ is what rounding does to an output, measured: each number of the case but the parameters of φ
is multiplied by 1 + ROUNDINGS eps ξ with random ξ in [−1, 1], everything is computed again, and
ρ is the root mean square over DRAWS of these of ‖x′ − x‖. A program whose errors are those of
exact computation from numbers that are slightly off (backward stability) stays below it, and
the conditioning of a case enters by itself: near a kink, or where I − ∂T is nearly singular, ρ
is large. For solved outputs the error of the solve (`refimpl.verification.cases.accuracy`) is
added.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.results import Check
from refimpl.verification.cases.case import Case, CaseError
from refimpl.verification.cases.evaluation import CaseResult, evaluate
from refimpl.verification.cases.exchange import read_arrays, read_case
from refimpl.verification.checks.dot_tests import ratio
from refimpl.verification.perturbation import perturbed

SUITE = Path(__file__).with_name("suite")

# As many roundings of each number as `rounding_bound` allows for each term of a sum.
ROUNDINGS, DRAWS = 64, 3

# Errors of a solve are those of a random residual but for a small factor: the largest of some
# hundred draws.
ESTIMATE_FACTOR = 20


class GoldenCase(NamedTuple):
    """A case with its stored outputs, and the name of its directory."""

    name: str
    case: Case
    outputs: dict[str, Array]


def read_suite(directory: Path | str = SUITE) -> list[GoldenCase]:
    """All cases below a directory, in the order of their names.

    Raises
    ------
    CaseError
        If there are none, or one is damaged.
    """
    folders = sorted(path.parent for path in Path(directory).glob("*/case.json"))
    if not folders:
        raise CaseError(f"{directory}: no cases there; give a directory of case directories")
    return [GoldenCase(f.name, read_case(f), read_arrays(f / "outputs.npz")) for f in folders]


def golden_checks(suite: list[GoldenCase]) -> Iterator[Check]:
    """One check for each output of each case: stored, computed, or both."""
    for name, case, stored in suite:
        result = evaluate(case)
        errors = rounding_errors(case, result)
        for output in sorted(stored.keys() | result.outputs.keys()):
            given, expected = result.outputs.get(output), stored.get(output)
            yield compare(f"{name}: {output}", given, expected, errors.get(output, 0.0))


def compare(name: str, given: Array | None, expected: Array | None, error: float) -> Check:
    """The check of one output; one that is missing or of another shape fails."""
    if given is None or expected is None:
        return Check(f"{name} {'not computed' if given is None else 'not stored'}", np.inf, 0.0)
    if (given.shape, given.dtype) != (expected.shape, expected.dtype):
        what = f"stored {expected.dtype} {expected.shape}, computed {given.dtype} {given.shape}"
        return Check(f"{name} {what}", np.inf, 0.0)
    size = float(np.linalg.norm(expected))
    distance = float(np.linalg.norm(given - expected))
    # Where nothing bounds the error, nothing can be said to hold, and NaN holds nowhere.
    bound = ratio(2 * error, size) if np.isfinite(error) else np.nan
    return Check(name, ratio(distance, size), bound)


def rounding_errors(case: Case, result: CaseResult) -> dict[str, float]:
    """ρ by output, as in the module's docstring."""
    rng, A = np.random.default_rng(0), case.arrays["A"]
    squares, eps = dict.fromkeys(result.outputs, 0.0), ROUNDINGS * np.finfo(A.dtype).eps
    # Weights of 1 that are not given are moved too: they stand for the rounding of φ and σ.
    weighted = replace(case, arrays={"weights": np.ones(len(A), A.dtype)} | case.arrays)
    for _ in range(DRAWS):
        moved = evaluate(perturbed(weighted, eps, rng, parameters=False)).outputs
        for name, x in result.outputs.items():
            change = moved[name] - x if name in moved else np.inf
            squares[name] += float(np.linalg.norm(change)) ** 2 / DRAWS
    solved = result.report.get("accuracy", {})
    return {name: np.sqrt(s) + solve_error(solved.get(name)) for name, s in squares.items()}


def solve_error(entry: dict[str, float | None] | None) -> float:
    """The error of a solved output: its certified bound or, where smaller or alone, an estimate."""
    if entry is None:
        return 0.0
    known = [entry["bound"]] if entry["bound"] is not None else []
    known += [ESTIMATE_FACTOR * entry["estimate"]] if entry["estimate"] is not None else []
    return min(known, default=np.inf)
