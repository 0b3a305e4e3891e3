"""The paper's plain iteration: how many evaluations it takes, and so how long in torch.

    state     u ← T(u) from Kᵀy       until dℓ/dθ, with an exact adjoint state, is right to ε/2
    adjoint   q ← ∇ℓ + (∂_u T)ᵀ q     until dℓ/dθ, at the exact state, is right to ε/2

Evaluations are counted with refimpl's step, which makes the same iterates sooner, on a few images;
torch's time for one of each is measured on all. Their product is an extrapolation and is marked
as one. Where the count itself does not end within its budget, it is continued along the line
through the logarithms of the last two errors, and marked "estimated".
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from figures.benchmarks.plain import plain
from figures.benchmarks.problems import Exact
from figures.benchmarks.timing import seconds
from figures.benchmarks.torch_model import FORMS, TorchModel
from figures.benchmarks.torch_solvers import plain_hypergradient
from figures.task import Task, distance, filters_vector
from refimpl.arrays import Array
from refimpl.equilibrium import solve_adjoint

GROWTH = 1.2  # errors are measured at iterations 16, 16 · 1.2, …
FIRST, SHORT = 16, 3
PRECISIONS = {1e-3: torch.float32, 1e-6: torch.float64}


def count_until(
    advance: Callable[[Array], Array], error: Callable[[Array], float], start: Array,
    targets: tuple[float, ...], budget: float,
) -> dict[float, dict]:
    """For each target, iterations until `error` is at most half of it.

    Returns
    -------
    dict from target to {"count", "estimated"}
    """
    x, k, check, errors, end = start, 0, FIRST, [], time.perf_counter() + budget
    while not errors or errors[-1][1] > min(targets) / 2:
        if time.perf_counter() > end and len(errors) > 1:
            break
        while k < check:
            x, k = advance(x), k + 1
        errors.append((k, error(x)))
        check = int(np.ceil(GROWTH * check))
    return {target: crossing(errors, target / 2) for target in targets}


def crossing(errors: list[tuple[int, float]], goal: float) -> dict:
    """Where log error, linear between measurements and beyond the last two, reaches the goal."""
    below = [i for i, (_, e) in enumerate(errors) if e <= goal]
    i = max(below[0] if below else len(errors) - 1, 1)
    (k0, e0), (k1, e1) = errors[i - 1], errors[i]
    if not below and e1 >= e0:
        return {"count": None, "estimated": True}
    fraction = 1.0 if e1 >= e0 else np.log(e0 / goal) / np.log(e0 / e1)
    return {"count": int(np.ceil(k0 + max(fraction, 0) * (k1 - k0))), "estimated": not below}


def count_evaluations(
    problem: Task, reference: Exact, targets: tuple[float, ...], budget: float
) -> dict[str, dict[float, dict]]:
    """Counts for the state and for the adjoint state, each within half of the budget."""
    step = problem.step
    star = step.linearize(reference.state)
    loss = problem.loss_gradient(reference.state)

    def gradient_at(u: Array) -> float:
        lin, loss_u = step.linearize(u), problem.loss_gradient(u)
        q = solve_adjoint(lin, loss_u, residual_tol=min(targets) / 100, max_iterations=3_000).x
        return distance(filters_vector(lin.params_vjp(q)), reference.gradient)

    def gradient_from(q: Array) -> float:
        return distance(filters_vector(star.params_vjp(q)), reference.gradient)

    u0 = step.operator.adjoint(step.problem.y)
    return {
        "state": count_until(step.apply, gradient_at, u0, targets, budget / 2),
        "adjoint": count_until(
            lambda q: loss + star.vjp(q), gradient_from, loss, targets, budget / 2
        ),
    }


def seconds_of_evaluations(problem: Task, dtype: torch.dtype) -> dict[str, float | str]:
    """Seconds of one evaluation of T and one of its adjoint iteration, in the faster form."""
    numbers = plain(problem.step, problem.truth)
    models = {form: TorchModel(numbers, form, dtype) for form in FORMS[:2]}
    rows = [seconds_in_form(model) | {"form": form} for form, model in models.items()]
    return min(rows, key=lambda row: row["state"] + row["adjoint"])


def seconds_in_form(model: TorchModel) -> dict[str, float]:
    """The same for one form: differences between runs with more and with fewer evaluations."""

    def run(iterations: int, adjoint_iterations: int) -> float:
        return seconds(partial(plain_hypergradient, model, iterations, adjoint_iterations))

    run(1, 1)
    base, more = run(1, 1), {"state": run(1 + SHORT, 1), "adjoint": run(1, 1 + SHORT)}
    return {name: max(value - base, 1e-9) / SHORT for name, value in more.items()}


def extrapolate(
    problems: tuple[Task, Task], reference: Exact, targets: tuple[float, ...],
    budget: float,
) -> dict[float, dict]:
    """For each target, the row of the plain iteration in torch, extrapolated."""
    counts = count_evaluations(problems[1], reference, targets, budget)
    rows = {}
    for target in targets:
        dtype = PRECISIONS.get(target, torch.float64)
        each = seconds_of_evaluations(problems[0], dtype)
        found = {part: counts[part][target] for part in counts}
        if any(part["count"] is None for part in found.values()):
            rows[target] = {"failed": "the iteration makes no progress"}
            continue
        rows[target] = {
            "seconds": sum(found[part]["count"] * each[part] for part in found),
            "evaluations": found["state"]["count"],
            "adjoint_products": found["adjoint"]["count"],
            "seconds_each": each,
            "precision": str(dtype).removeprefix("torch."),
            "extrapolated": True,
            "estimated": any(part["estimated"] for part in found.values()),
        }
    return rows


def reached(problem: Task, reference: Exact, row: dict) -> float:
    """The error that the extrapolated counts leave in torch, in the row's precision."""
    model = TorchModel(plain(problem.step, problem.truth), dtype=getattr(torch, row["precision"]))
    found = plain_hypergradient(model, row["evaluations"], row["adjoint_products"])
    return distance(found.gradient, reference.gradient)
