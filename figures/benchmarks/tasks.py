"""One task: for each variant the loosest tolerance that reaches the target error, then its time.

The error is that of dℓ/dθ against the reference. Tolerances are tightened by √10 until the error is
reached: refimpl begins at `LOOSEST` times the target, every rival at √10 times refimpl's tolerance,
which means the same residual. Slow variants do so on `FEW` images, and where all images would take
longer than `LIMIT` they are timed on those few as well, times the ratio of the numbers of images.
"""

from typing import NamedTuple

import numpy as np

from figures.benchmarks.problems import Exact
from figures.benchmarks.timing import interleaved, ratio, seconds
from figures.benchmarks.variants import Solve, Variant
from figures.task import Task, distance
from refimpl.results import BreakdownError, NotConvergedError

FEW, LIMIT, MOST_ROUNDS, MOST_TRIES = 2, 15.0, 5, 14
LOOSEST = 0.01
TIGHTEN = 10**-0.5


class Fitted(NamedTuple):
    """A variant made for a problem, with the tolerance that reaches the target.

    Attributes
    ----------
    solve : callable
    scale : float
        What its time on the images it solves is multiplied by.
    row : dict
        What is saved: tolerance, errors, counts.
    seconds : float
        Of the run that reached the target.
    """

    solve: Solve
    scale: float
    row: dict
    seconds: float


def fit(solve: Solve, reference: Exact, target: float, first: float) -> tuple[dict, float]:
    """Row and seconds at the loosest tolerance tried that reaches the target.

    Raises
    ------
    NotConvergedError
        If no tolerance does.
    """
    tol = first
    for _ in range(MOST_TRIES):
        found = []
        duration = seconds(lambda tol=tol, found=found: found.append(solve(tol)))
        error = distance(found[0].gradient, reference.gradient)
        if error <= target:
            return row_of(found[0], reference, tol, error), duration
        tol *= TIGHTEN
    raise NotConvergedError(f"error {error:.1e} at tolerance {tol:.1e}, wanted {target:.0e}")


def row_of(outcome, reference: Exact, tol: float, error: float) -> dict:
    """What is saved of one run, but for its time."""
    return {
        "tolerance": tol,
        "gradient_error": error,
        "state_error": distance(outcome.state, reference.state),
        "evaluations": outcome.evaluations,
        "products": outcome.products,
        "adjoint_products": outcome.adjoint_products,
    }


class Made:
    """Variants made for the whole problem (0) or for few of its images (1), each only once.

    Attributes
    ----------
    problems, references : tuples of two
        The problem whole and with few images.
    first_calls : dict from (name, which) to float
        Seconds of the first call, in which programs are compiled.
    hints : dict from target to float
        Where rivals begin.
    """

    def __init__(self, problems: tuple[Task, Task], references: tuple[Exact, Exact]):
        self.problems, self.references = problems, references
        self.solves: dict[tuple[str, int], Solve] = {}
        self.first_calls: dict[tuple[str, int], float] = {}
        self.hints: dict[float, float] = {}

    @property
    def scale(self) -> float:
        """How many times more images the whole problem has."""
        return len(self.problems[0].truth) / len(self.problems[1].truth)

    def first_tolerance(self, target: float) -> float:
        """Where the search for a tolerance begins."""
        return self.hints.get(target, LOOSEST * target)

    def solver(self, variant: Variant, which: int) -> Solve:
        """The variant's solver, called once at a loose tolerance when it is made."""
        key = variant.name, which
        if key not in self.solves:
            solve = self.solves[key] = variant.make(self.problems[which])
            self.first_calls[key] = seconds(lambda: solve(1e-2))
        return self.solves[key]


def prepare(variant: Variant, made: Made, target: float) -> Fitted:
    """Find the variant's tolerance; decide whether it is timed on all images or on few."""
    first = made.first_tolerance(target)
    if variant.slow and made.scale > 1:
        solve = made.solver(variant, 1)
        row, duration = fit(solve, made.references[1], target, first)
        first = row["tolerance"]
        if made.scale * duration > LIMIT:
            row |= {"images": len(made.problems[1].truth), "scaled": True}
            return Fitted(solve, made.scale, row, duration)
    solve = made.solver(variant, 0)
    row, duration = fit(solve, made.references[0], target, first)
    made.hints.setdefault(target, row["tolerance"] / TIGHTEN)
    row |= {
        "images": len(made.problems[0].truth),
        "first_call_seconds": made.first_calls[variant.name, 0],
    }
    return Fitted(solve, 1.0, row, duration)


def compare(variants: tuple[Variant, ...], made: Made, target: float, say) -> dict[str, dict]:
    """Rows of all variants for one target; a variant that fails says why instead."""
    tied = made.problems[0].step.problem.theta.tied
    fitted, rows = {}, {}
    for variant in variants:
        if not (tied or variant.untied):
            continue
        try:
            fitted[variant.name] = prepare(variant, made, target)
            say(f"  {variant.name}: {fitted[variant.name].seconds:.2f} s to {target:g}")
        except (NotConvergedError, BreakdownError) as error:
            rows[variant.name] = {"failed": str(error)}
            say(f"  {variant.name}: {error}")
    return rows | timed(fitted)


def timed(fitted: dict[str, Fitted]) -> dict[str, dict]:
    """Interleaved repetitions, as many as each variant's own time allows; ratios to refimpl."""
    calls = {name: lambda f=f: f.solve(f.row["tolerance"]) for name, f in fitted.items()}
    rounds = {
        name: int(np.clip(LIMIT / f.seconds, 1, MOST_ROUNDS)) for name, f in fitted.items()
    }
    times = interleaved(calls, rounds)
    times = {name: [fitted[name].scale * t for t in row] for name, row in times.items()}
    return {
        name: fitted[name].row
        | {"seconds": float(np.median(row)), "repetitions": row}
        | ({"ratio": ratio(row, times["refimpl"])} if "refimpl" in times else {})
        for name, row in times.items()
    }


def add_ratio(row: dict, rows: dict[str, dict]) -> None:
    """The ratio of an extrapolated time, which has no repetitions, to refimpl's median."""
    if "seconds" in row and "seconds" in rows.get("refimpl", {}):
        row["ratio"] = row["seconds"] / rows["refimpl"]["seconds"]
