"""Every output of a case, by the methods that this package is made of.

    at u        map, jvp, vjp, vjp_* (E8); tied also energy, gradient, hvp (E2)
    solved      fixed_point, loss (E11), hypergradient_* (E9, E10)

Solves go on until rounding stops them. Tied fixed points come from Newton's method and adjoint
states from conjugate gradients, untied ones from Newton-Krylov and GMRES; where one fails the
next of a short list is tried. What is solved is left out, and the report says why, where a state is
not found, or not known to be isolated, or where the estimated error is not below the output.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.engine import Step, StepLinearization, TiedStep
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.equilibrium.state import reconstruct
from refimpl.kernels.vectors import norm
from refimpl.paper.loss import squared_loss, squared_loss_gradient
from refimpl.paper.parameters import Parameters
from refimpl.results import BreakdownError, SolverResult
from refimpl.verification.cases.accuracy import (
    LONGEST_CYCLE,
    Solution,
    bounds,
    estimates,
    isolated,
    local_monotonicity,
    solve_linear,
    terms,
)
from refimpl.verification.cases.case import Case, build_model, raw_parameters
from refimpl.verification.cases.given import Given
from refimpl.verification.rounding import Magnitudes, OperatorNorms

# A state counts as found when its residual is within this factor of the rounding of G(u), and
# within this part of what u = Kᵀy leaves; an adjoint state within this part of what q = 0 leaves.
ROUNDING_FACTOR, STATE_PART, ADJOINT_PART = 64, 1e-8, 1e-3

FORWARD_ATTEMPTS = {
    True: (("newton",), ("nesterov", "newton"), ("picard", "newton")),
    False: (("newton_krylov",), ("anderson", "newton_krylov"), ("picard", "newton_krylov")),
}
# Tolerance and most iterations.
FORWARD_LIMITS = {
    "newton": (1e-15, 200),
    "newton_krylov": (1e-15, 200),
    "nesterov": (1e-8, 5_000),
    "anderson": (1e-8, 1_000),
    "picard": (1e-8, 5_000),
}
ADJOINT_ATTEMPTS = {True: ("cg", "gmres"), False: ("gmres", "bicgstab")}
ADJOINT_TOL = 1e-13
FLOAT32_TOL = 1e-7
NO_BOUND = "no constant of monotonicity is certified, or a response may cross a kink of σ"
NO_NORM_BOUND = "the norm that A is divided by comes from an iteration, which proves no norm"
NO_ESTIMATE = "a linear system with the Jacobian was not solved"
NOT_ISOLATED = (
    "the fixed point is not known to be isolated: the Jacobian is singular to working precision, "
    "or may be within the error of the state; a smaller slope of σ, or more data, would help"
)
NOT_SOLVED = "the adjoint system was not solved to rounding"
# An output is not known if its error may be more than half of it, and more than rounding of a
# mildly conditioned problem leaves where its terms cancel.
UNKNOWN, CANCELLED = 0.5, 1e-6
MAX_POLISHING = 10


class CaseResult(NamedTuple):
    """Outputs by name, and a report of plain values that JSON can hold."""

    outputs: dict[str, Array]
    report: dict[str, Any]

    @property
    def converged(self) -> bool:
        """Whether every output is there and finite."""
        return self.report["converged"]


class Solve(NamedTuple):
    """A solution x with what led to it.

    Attributes
    ----------
    x : array (N, ...)
    reached, limit : arrays (N,)
        Absolute residuals: what x leaves, and the level of rounding.
    iterations : int array (N,)
        Of all methods tried.
    methods, messages : sequences of str
        What gave x, and what every method tried has to say.
    """

    x: Array
    reached: Array
    limit: Array
    iterations: Array | None = None
    methods: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    @property
    def converged(self) -> Array:
        """Whether each image's residual is at the level of rounding, and that is known."""
        return np.isfinite(self.limit) & (self.reached <= self.limit)


def evaluate(case: Case) -> CaseResult:
    """All outputs of a case, and the report on the solved ones.

    Where values overflow, the outputs hold infinity or NaN, the report names them under
    `not_finite`, and the case counts as not converged.
    """
    given = Given(build_model(case), raw_parameters(case))
    step = given.model.step(given.theta, case.arrays["y"])
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = local_outputs(step, given, case.arrays)
        solved, report = solved_outputs(step, given, case.arrays["target"])
    outputs |= solved
    report["not_finite"] = [name for name, x in outputs.items() if not np.isfinite(x).all()]
    report["converged"] = report["converged"] and not report["not_finite"]
    return CaseResult(outputs, report)


def local_outputs(step: Step, given: Given, arrays: dict[str, Array]) -> dict[str, Array]:
    """The step and its derivatives at the given state u."""
    lin = step.linearize(arrays["u"])
    outputs = {"map": lin.value, "jvp": lin.jvp(arrays["v"]), "vjp": lin.vjp(arrays["w"])}
    outputs |= by_name("vjp", given.pull_back(lin.params_vjp(arrays["w"])))
    if isinstance(step, TiedStep):
        outputs["energy"] = step.energy(arrays["u"])
        outputs |= {"gradient": lin.gradient, "hvp": lin.hvp(arrays["v"])}
    return outputs


def by_name(prefix: str, gradient: Parameters) -> dict[str, Array]:
    """The entries for A, C (untied), b and weights, as prefix_A, …"""
    return {f"{prefix}_{name}": array for name, array in gradient.items() if name != "gamma"}


def solved_outputs(
    step: Step, given: Given, target: Array
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Fixed point, loss and hypergradient as far as they are known, and the report."""
    norms = OperatorNorms.of(step)
    state = solve_state(step, norms)
    report = {"converged": False, "fixed_point": _describe(state)}
    if not state.converged.all():
        return {}, report
    lin = step.linearize(state.x)
    sizes = Magnitudes.of(lin, norms)
    outputs = {"fixed_point": state.x, "loss": np.asarray(squared_loss(state.x, target))}
    loss_gradient = squared_loss_gradient(state.x, target)
    adjoint, local = solve_state_adjoint(lin, loss_gradient, sizes), local_monotonicity(lin)
    regular = isolated(lin, local, sizes, norms)
    report |= {"adjoint": _describe(adjoint), "smallest_singular_value": _plain(local)}
    report |= {"isolated": regular.tolist()}
    outputs |= by_name("hypergradient", given.pull_back(lin.params_vjp(adjoint.x)))
    sizes = sizes._replace(eps=sizes.eps + 2 * given.norm_error())
    solution = Solution(lin, adjoint.x, loss_gradient, sizes, given)
    accuracy = _describe_accuracy(solution, outputs)
    left_out = unknown_outputs(accuracy, terms(solution))
    for solved, reason in ((adjoint.converged, NOT_SOLVED), (regular, NOT_ISOLATED)):
        if not solved.all():
            left_out |= {name: reason for name in outputs if name.startswith("hypergradient")}
    known = {name: x for name, x in outputs.items() if name not in left_out}
    report["accuracy"] = {name: accuracy[name] for name in known}
    return known, report | {"left_out": left_out, "converged": not left_out}


def unknown_outputs(accuracy: dict[str, dict], sizes: dict[str, float]) -> dict[str, str]:
    """The outputs whose error may be more than half of them, with the reason.

    Where terms of these sizes cancel, so that rounding alone may exceed what is left, it counts
    against the terms. A hypergradient that cannot be estimated is not known; a state is found.
    """
    reasons = {}
    for name, entry in accuracy.items():
        size, error = entry["norm"], entry["estimate"]
        if error is None and name.startswith("hypergradient"):
            reasons[name] = f"its error is not known: {entry['no_estimate']}"
        elif None not in (size, error) and error > max(UNKNOWN * size, CANCELLED * sizes[name]):
            reasons[name] = f"its estimated error, {error:.1e}, is not below it, {size:.1e}"
    return reasons


def solve_state(step: Step, norms: OperatorNorms) -> Solve:
    """u* = T(u*) from Kᵀy, to rounding.

    u* does not depend on τ, so the solvers run with τ = 1/L, and their relative residual then
    measures ‖G(u)‖ in units of L ‖u‖.
    """
    scaled = replace(step, tau=1 / norms.lipschitz(step))
    begin = step.operator.adjoint(step.problem.y)
    first = _state(step.linearize(begin), norms)
    most = np.maximum(first.limit, STATE_PART * first.reached)
    u, iterations, messages = begin, np.zeros(len(begin), int), []
    for methods in FORWARD_ATTEMPTS[isinstance(step, TiedStep)]:
        for method in methods:
            u, count, message = _attempt(scaled, u, method)
            iterations, messages = iterations + count, [*messages, message]
        u = polish(step, u)
        state = _state(step.linearize(u), norms)
        state = state._replace(
            limit=np.minimum(state.limit, most), iterations=iterations, methods=tuple(methods),
            messages=tuple(messages),
        )
        if state.converged.all():
            break
        u = np.where(per_image(state.converged, u), u, begin)
    return state


def _state(lin: StepLinearization, norms: OperatorNorms) -> Solve:
    """The state at which `lin` stands, judged by ‖G(u)‖."""
    limit = ROUNDING_FACTOR * Magnitudes.of(lin, norms).of_direction()
    return Solve(lin.u, norm(lin.direction), limit)


def _attempt(step: Step, u0: Array, method: str) -> tuple[Array, Array, str]:
    """One solver from u0; where it breaks down, u0 again."""
    tol, limit = FORWARD_LIMITS[method]
    tol = FLOAT32_TOL if u0.dtype == np.float32 else tol
    options = _restart(u0) if method == "newton_krylov" else None
    try:
        result = reconstruct(
            step, u0, method=method, residual_tol=tol, max_iterations=limit, options=options
        )
    except BreakdownError as error:
        return u0, np.zeros(len(u0), int), str(error)
    finite = np.isfinite(result.x.reshape(len(u0), -1)).all(axis=1)
    return np.where(per_image(finite, u0), result.x, u0), result.iterations, result.message


def polish(step: Step, u: Array) -> Array:
    """Full Newton steps u − J⁻¹G(u) for as long as each halves ‖G‖, image by image."""
    lin = step.linearize(u)
    for _ in range(MAX_POLISHING):
        try:
            d = solve_linear(step, lin.direction_jvp, -lin.direction, tol=1e-3).x
        except BreakdownError:
            break
        trial = step.linearize(u + d)
        better = norm(trial.direction) < norm(lin.direction) / 2
        if not better.any():
            break
        u = np.where(per_image(better, u), trial.u, u)
        lin = step.linearize(u)
    return u


def solve_state_adjoint(lin: StepLinearization, loss_gradient: Array, sizes: Magnitudes) -> Solve:
    """q of E9 to rounding, by the first method of the list that gets there."""
    messages, best = [], None
    for method in ADJOINT_ATTEMPTS[isinstance(lin.step, TiedStep)]:
        try:
            result = _adjoint_attempt(lin, loss_gradient, method, sizes)
        except BreakdownError as error:
            messages.append(str(error))
            continue
        messages.append(result.message)
        best = _adjoint_state(lin, loss_gradient, sizes, result.x)
        best = best._replace(
            iterations=result.iterations, methods=(method,), messages=tuple(messages)
        )
        if best.converged.all():
            return best
    return best or _no_solution(loss_gradient, messages)


def _no_solution(b: Array, messages: list[str]) -> Solve:
    zeros = np.zeros(len(b))
    return Solve(np.zeros_like(b), zeros + np.inf, zeros, zeros.astype(int), [], messages)


def _adjoint_attempt(
    lin: StepLinearization, b: Array, method: str, sizes: Magnitudes
) -> SolverResult:
    """Jᵀp = b to less than half the limit that `_adjoint_state` sets, which p only raises."""
    tol = ADJOINT_TOL if b.dtype == np.float64 else FLOAT32_TOL
    tol = min(tol, ROUNDING_FACTOR / 2 * sizes.eps)
    limit, options = max(1_000, 20 * b[0].size), _restart(b) if method == "gmres" else None
    return solve_adjoint(
        lin, b, method=method, residual_tol=tol, max_iterations=limit, options=options
    )


def _restart(u: Array) -> dict[str, int]:
    return {"restart": min(u[0].size, LONGEST_CYCLE)}


def _adjoint_state(
    lin: StepLinearization, loss_gradient: Array, sizes: Magnitudes, q: Array
) -> Solve:
    """The adjoint state q, judged by ‖∇ℓ − Jᵀp‖ with p = τ q, of which q = 0 leaves ‖∇ℓ‖."""
    p = lin.step.tau * q
    limit = ROUNDING_FACTOR * sizes.of_adjoint(p, loss_gradient)
    limit = np.minimum(limit, ADJOINT_PART * norm(loss_gradient))
    return Solve(q, norm(loss_gradient - lin.direction_vjp(p)), limit)


def _describe(solve: Solve) -> dict[str, Any]:
    """A solve as plain values: absolute residuals, and the rounding level that they must reach."""
    return {
        "methods": solve.methods,
        "converged": solve.converged.tolist(),
        "iterations": solve.iterations.tolist(),
        "residual_norm": _plain(solve.reached),
        "residual_limit": _plain(solve.limit),
        "messages": solve.messages,
    }


def _describe_accuracy(solution: Solution, outputs: dict[str, Array]) -> dict[str, Any]:
    """Norm, bound and estimated error of each solved output; null with a reason where unknown."""
    certified, estimated = bounds(solution), estimates(solution)
    reason = NO_NORM_BOUND if solution.given.normalized else NO_BOUND
    return {
        name: {
            **_known("norm", float(np.linalg.norm(outputs[name])), "overflow"),
            **_known("bound", certified[name], reason),
            **_known("estimate", estimated[name], NO_ESTIMATE),
        }
        for name in certified
        if name in outputs
    }


def _known(name: str, value: float, reason: str) -> dict[str, Any]:
    return {name: value} if np.isfinite(value) else {name: None, f"no_{name}": reason}


def _plain(values: Array) -> list[float | None]:
    """Numbers for JSON, None in place of NaN and infinity."""
    return [float(x) if np.isfinite(x) else None for x in values]
