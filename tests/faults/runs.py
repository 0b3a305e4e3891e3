"""One planted fault held against the reference, and all of them in parallel.

A run calls the stages up to the one that must be the first wrong one, which decides the same as a
run of all stages does, at `CASES` cases; at `ENOUGH` if causes coincide at these, and if nothing
is found at `MORE`, the number that the command has by default. Cases and references are the same
for all faults, so each process computes them once. JAX runs without compiling where no solve is
needed.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, NamedTuple

from faults.catalogue import CATALOGUE
from faults.fault import Fault, planted
from refimpl.verification.backends import make_backend
from refimpl.verification.crosscheck import runner, smallest
from refimpl.verification.crosscheck.stages import STAGES

# Twelve cases in a row hold every operator and potential, and every boundary twice.
ENOUGH, MORE = 12, 40
CASES = {"torch": ENOUGH, "jax": 6}
PRECISIONS = ("float64", "float32")


class Task(NamedTuple):
    """A fault, by its name, in one framework and precision."""

    fault: str
    framework: str
    precision: str


class Outcome(NamedTuple):
    """What a run made of a fault.

    Attributes
    ----------
    task : Task
    detected : bool
    stage : str or None
        The first wrong stage.
    stage_right : bool
    causes : tuple of str
        Of that stage, the likeliest first.
    named : bool
        Whether the first cause is one of those that count as right.
    cases : int
        Cases that were run.
    ambiguous : bool
        Whether other causes give the same numbers at these cases.
    """

    task: Task
    detected: bool
    stage: str | None
    stage_right: bool
    causes: tuple[str, ...]
    named: bool
    cases: int
    ambiguous: bool = False


def prepare() -> None:
    """Set up a process that runs tasks: one thread; JAX in float64 too, and compiling in haste."""
    import jax
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    share_references(setattr)


def share_references(patch: Callable[[Any, str, Any], None]) -> None:
    """Compute cases and references once, and leave failing cases as large as they are."""
    patch(runner, "random_case", lru_cache(None)(runner.random_case))
    patch(runner, "make_reference", kept_by_case(runner.make_reference))
    for name in ("SECONDS", "LEAST"):
        patch(smallest, name, 0.0)


def kept_by_case(function: Callable) -> Callable:
    """`make_reference` with its results kept by the identity of cases, which are kept too."""
    kept: dict[Any, Any] = {}

    def make(case, precision, *, tol):
        key = (id(case), str(precision), tol)
        if key not in kept:
            kept[key] = (case, function(case, precision, tol=tol))
        return kept[key][1]

    return make


def backend_of(fault: Fault, framework: str) -> Any:
    """A correct backend with the fault."""
    right = make_backend(framework)
    solved = STAGES[fault.stage].solved
    return planted(fault, type(right))(framework == "jax" and solved)


def hold(task: Task) -> Outcome:
    """Run one task."""
    fault = next(f for f in CATALOGUE if f.name == task.fault)
    try:
        outcome = hold_at(fault, task, CASES[task.framework])
        if outcome.ambiguous and outcome.cases < ENOUGH:
            outcome = hold_at(fault, task, ENOUGH)
        return outcome if outcome.detected else hold_at(fault, task, MORE)
    except Exception as error:  # crosscheck itself fails: nothing is found
        return Outcome(task, False, None, False, (f"crosscheck raised {error!r}",), False, 0)


def hold_at(fault: Fault, task: Task, cases: int) -> Outcome:
    """Run one task at some cases."""
    stages = list(STAGES)[: list(STAGES).index(fault.stage) + 1]
    report = runner.crosscheck(
        backend_of(fault, task.framework),
        cases=cases,
        precision=task.precision,
        stages=stages,
        time_limit=fault.time_limit,
        budget=600.0,
    )
    first = report.first_wrong
    stage, causes = (first.stage, first.causes) if first else (None, ())
    named = bool(causes) and causes[0] in fault.causes
    right, ambiguous = stage == fault.stage, first is not None and bool(first.ambiguous)
    return Outcome(task, first is not None, stage, right, causes, named, report.cases, ambiguous)


def tasks(
    frameworks: tuple[str, ...] = ("torch", "jax"),
    precisions: tuple[str, ...] = PRECISIONS,
    faults: tuple[Fault, ...] = CATALOGUE,
) -> list[Task]:
    """Every fault in every framework that it is planted in, and in every precision."""
    return [
        Task(fault.name, framework, precision)
        for framework in frameworks
        for precision in precisions
        for fault in faults
        if framework in fault.frameworks
    ]


def in_parallel(function: Callable, items: list, processes: int | None = None) -> Iterator:
    """Results in the order of the items, from as many processes as there are cores."""
    processes = processes or len(os.sched_getaffinity(0))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # of the processes that are started next
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=prepare) as pool:
        yield from pool.map(function, items)
