"""The reconstruction u* = T(u*) by any forward solver, by name (E8).

    every model   picard, anderson, newton_krylov
    tied only     nesterov, lbfgs, newton (on the energy E; there is none when untied)
    auto          chosen by the model, with another where it fails (`automatic`)

All share one relative residual, ‖T(u) − u‖ / max(‖u‖, ‖u0‖) per image. It scales with τ, and the
error ‖u − u*‖ may be far larger; `refimpl.equilibrium.errors` measures that, and the method goes on
until it is small enough. There the residual is ‖G(u)‖ / L in place of τ ‖G(u)‖, L ≥ ‖J‖, so that τ
matters to those alone that step by it.

The functions of `METHODS` take the step and the start of one batch. `reconstruct` checks what the
user gives, solves large batches in parts, and judges what came out.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from refimpl import solvers
from refimpl.arrays import Array, as_images, shown
from refimpl.engine import (
    FACTORED,
    Step,
    StepLinearization,
    TiedStep,
    as_step,
    find_preconditioner,
    parts_for,
    solve_in_parts,
)
from refimpl.equilibrium.automatic import Attempt, forward_attempts, tried
from refimpl.equilibrium.errors import estimated_error, state_error
from refimpl.equilibrium.norms import largest_safe_step
from refimpl.equilibrium.options import check_known, check_settings, settings
from refimpl.equilibrium.proved import proved_monotonicity
from refimpl.equilibrium.tolerances import Measured, chosen_tolerance, to_error
from refimpl.kernels.vectors import norm
from refimpl.paper.problem import Problem, require
from refimpl.results import BreakdownError, SolverResult

Callback = Callable[[int, Array, Array], None]

# ‖u‖ / ‖u0‖ beyond which an image may have run away.
RUNAWAY = 1e3
AWAY = f"some images ran away to more than {RUNAWAY:g} times their start, where G is not small"
STOPPED = "some images stopped at the start, whose residual scales with tau and may say little"

# Of these, τ changes no more than the residual's unit; so with a preconditioner.
WITHOUT_TAU = ("newton", "newton_krylov", "lbfgs")
NEWTON = ("newton", "newton_krylov")

FLOAT_MAX = float(np.finfo(np.float32).max)

# Part of a safe step below which τ is so short that iterates hardly move.
SHORT = 0.01

ANY_MODEL = ("picard", "anderson", "newton_krylov")
TIED_ONLY = ("nesterov", "lbfgs", "newton")


def reconstruct(
    step: Step | Problem,
    u0: Array | None = None,
    model: Any = None,
    *,
    method: str = "auto",
    tol: float | None = None,
    residual_tol: float | None = None,
    error: Literal["estimate"] | None = None,
    max_iterations: int | None = None,
    preconditioner: str | None = None,
    callback: Callback | None = None,
    options: Mapping[str, Any] | None = None,
) -> SolverResult:
    """Solve u = T(u), E8.

    Parameters
    ----------
    step : Step or Problem
        Of a problem, the step with a safe τ.
    u0 : array (N, C, H, W), optional
        Start; left out: Kᵀ y.
    model : TrainedModel, optional
        `reconstruct(K, y, model)` is `reconstruct(model.problem(y, K))`: K and its data y stand in
        the places of `step` and `u0`.
    method : str
        "auto", one of `ANY_MODEL`, or of `TIED_ONLY` for a `TiedStep`. "auto" chooses by the model;
        the result's `method` says what, and whether it fell back on another.
    tol : float, optional
        Relative error ‖u − u*‖ / ‖u‖ to reach for each image; left out: 1e-4, of float32 1e-3. It
        is proved where G is strongly monotone and that shows enough, else estimated. A u below the
        rounding errors of u0 is taken as 0.
    residual_tol : float, optional
        In place of `tol`: the relative residual ‖T(u) − u‖ / max(‖u‖, ‖u0‖). It scales with τ, and
        the error, which is then not computed, may be far larger.
    error : "estimate", optional
        Estimate the error at the end, whatever is proved and whatever the tolerance is of.
    max_iterations : int, optional
        Most updates of an image; left out: what the method's function in `METHODS` says.
    preconditioner : "jacobi", "circulant", "cholesky" or None
        For `newton`, `newton_krylov`, `anderson` (with that of the start), and "auto", where it
        replaces the one chosen.
    callback : callable (iteration, u, residuals), optional
        Called after every iteration, the start included, with the whole batch; not by `lbfgs`, nor
        by the method on which "auto" falls back.
    options : mapping, optional
        Further parameters of the method's function in `METHODS`, for example {"memory": 10} for
        `anderson`; of "auto", those of its first choice.

    Returns
    -------
    SolverResult
        Whether each image converged, and what to change where it did not.

    Raises
    ------
    ValueError
        For an unknown method or preconditioner, or one that the method cannot use; for a start for
        another number of images.
    TypeError
        For a method that needs an energy on an untied model; for an option that it does not have.
    BreakdownError
        When iterates become infinite or NaN; for `picard` with the largest safe τ.
    """
    if model is not None:
        require(model, ("problem",), "model", 'load_model("model.npz")')
        step, u0 = model.problem(u0, step), None
    step = as_step(step)
    tol, residual_tol = chosen_tolerance(tol, residual_tol, step.dtype, error)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: given {shown(callback)}, expected a function")
    given = settings(
        options, max_iterations=max_iterations, preconditioner=preconditioner, callback=callback
    )
    attempts = attempts_of(step, method, given)
    u0 = step.operator.adjoint(step.problem.y) if u0 is None else u0
    u0 = as_images(u0, "u0", step.problem.bank.image_shape)
    if len(u0) != len(step.problem.y):
        raise ValueError(
            f"u0: {len(u0)} images, but y holds data of {len(step.problem.y)}; pass one start each"
        )
    mu = proved_monotonicity(step) if residual_tol is None else -np.inf

    def solve(part: slice) -> SolverResult:
        some, start = step.images(part), u0[part]
        if residual_tol is not None:
            result = tried(attempts, lambda a: _to_residual(a, some, start, residual_tol))
        else:
            result = tried(attempts, lambda a: _to_error(a, some, start, tol, mu))
        return result if error is None else _estimated(result, some)

    return solve_in_parts(solve, parts_for(step, given))


def attempts_of(step: Step, method: str, given: dict[str, Any]) -> tuple[Attempt, ...]:
    """What is tried for a method by name, with settings that are checked."""
    if isinstance(method, str) and method == "auto":
        attempts = forward_attempts(step, given)
    else:
        check_method(step, method)
        attempts = (Attempt(method, given),)
    for attempt in attempts:
        check_settings(attempt.method, attempt.settings, METHODS)
    return attempts


def check_method(step: Step, method: str) -> None:
    """Raise unless the method exists and fits the model."""
    check_known(method, METHODS)
    if method in TIED_ONLY and not isinstance(step, TiedStep):
        raise TypeError(
            f"method {method!r} minimises an energy, and an untied model (C given) has none; "
            f"use one of {', '.join(ANY_MODEL)}"
        )


def _attempted(attempt: Attempt, step: Step, u0: Array, tol: float | Array) -> SolverResult:
    result = METHODS[attempt.method](step, u0, tol=tol, **attempt.settings)
    return _judged(result._replace(method=attempt.name), step, u0)


def _to_residual(attempt: Attempt, step: Step, u0: Array, tol: float) -> SolverResult:
    """The method until its residual is at most `tol`; images that never left u0 are mentioned.

    Where τ is far below a safe step, a residual is small for that alone, and does not count.
    """
    result = _attempted(attempt, step, u0, tol)
    if (relative := step.tau * step.steepness) < SHORT:
        small = result.residuals > relative * tol
        result = result.rejected(small, short_advice(step))
    if (result.iterations[result.converged] == 0).any():
        return result._replace(notes=(*result.notes, STOPPED))
    return result


def _to_error(attempt: Attempt, step: Step, u0: Array, tol: float, mu: float) -> SolverResult:
    """The method until the error of every image is at most `tol`."""
    if attempt.method in WITHOUT_TAU or attempt.settings.get("preconditioner") is not None:
        step = replace(step, tau=1 / step.steepness)
    factor = step.tau * step.steepness

    def run(start: Array, tols: Array) -> SolverResult:
        result = _attempted(attempt, step, start, np.minimum(factor * tols, FLOAT_MAX))
        residuals, history = result.residuals / factor, result.history / factor
        return result._replace(residuals=residuals, history=history)

    least = np.finfo(u0.dtype).eps * norm(u0).astype(float)  # less is 0, as where y = 0

    def measure(result: SolverResult, tol: float) -> Measured:
        return state_error(step, result.x, tol, mu, least)

    return to_error(run, measure, u0, tol, hop=attempt.method in NEWTON)


def _estimated(result: SolverResult, step: Step) -> SolverResult:
    """The result with its error estimated by a Newton correction."""
    found = estimated_error(step.linearize(result.x), np.inf)
    result = result._replace(error=found.error, kind=found.kind)
    return result.judged_by_error(result.tol) if result.measured == "error" else result


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def _judged(result: SolverResult, step: Step, u0: Array) -> SolverResult:
    """The result, in which images that ran away did not converge.

    Where σ is bounded and K hides pixels, the relative residual τ‖G‖ / ‖u‖ falls because ‖u‖ grows.
    An image ran away if ‖u‖ > 1e3 max(‖u0‖, ‖Kᵀy‖) and ‖G(u)‖ > r^(3/4) ‖G(u0)‖, r its residual;
    its residual is then taken relative to the start.
    """
    start = np.maximum(norm(u0), norm(step.operator.adjoint(step.problem.y)))
    away = result.converged & (norm(result.x) > RUNAWAY * start)
    if not away.any():
        return result
    before, after = (norm(step.direction(u)) for u in (u0, result.x))
    away &= ~(after <= result.residuals**0.75 * before)  # ‖G‖ may be infinite, or NaN
    if not away.any():
        return result
    result = result.rejected(away, "no fixed point was found: start elsewhere, or change method")
    return result._replace(
        residuals=np.where(away, step.tau * after / start, result.residuals),
        notes=(*result.notes, AWAY),
    )


def picard(
    step: Step, u0: Array, *, tol: float, max_iterations: int = 10_000,
    reference: Array | None = None, callback: Callback | None = None,
) -> SolverResult:
    """u ← T(u); what it says of τ where it diverges or stalls depends on the model."""
    try:
        result = solvers.picard(
            step.apply, u0, tol=tol, max_iterations=max_iterations, reference=reference,
            callback=callback,
        )
    except BreakdownError as error:
        raise error.advising(step_advice(step)) from error
    if result.all_converged:
        return result
    if step.tau * step.steepness < SHORT:
        left = np.full(len(result.converged), short_advice(step))
        return result._replace(advice=tuple(np.where(result.converged, "", left).tolist()))
    # Beyond the safe step a bounded σ makes the iterates oscillate without growing.
    grew = np.any(result.residuals > result.history[0])
    if grew or step.tau > largest_safe_step(step):
        result = result._replace(notes=(*result.notes, step_advice(step)))
    return result


def short_advice(step: Step) -> str:
    """What to say of a τ far below the safe one."""
    return f"tau is {step.tau:.3g}, a small part of the safe {1 / step.steepness:.3g}: raise it"


def step_advice(step: Step) -> str:
    """What to say of τ when the plain iteration diverges or stalls."""
    safe = largest_safe_step(step)
    if isinstance(step, TiedStep):
        return f"tau is {step.tau:.3g}; for a convex energy every tau < {safe:.3g} converges"
    return (
        f"tau is {step.tau:.3g}; try one below {safe:.3g} (no tau is safe for every untied model)"
    )


def anderson(
    step: Step, u0: Array, *, tol: float, max_iterations: int = 1_000, memory: int = 5,
    ridge: float = 1e-10, ridge_scale: Literal["gram", "absolute"] = "gram", mixing: float = 1.0,
    reference: Array | None = None, preconditioner: str | None = None,
    callback: Callback | None = None,
) -> SolverResult:
    """Anderson acceleration of u ← T(u), preconditioned by M ≈ J at the start.

    T(u) − u = −τ G(u), so that I − ∂T is about τ M.
    """
    divide = None
    if preconditioner is not None:
        inverse = find_preconditioner(preconditioner)(step.linearize(u0))

        def divide(f: Array) -> Array:
            return inverse(f) / step.tau

    return solvers.anderson(
        step.apply, u0, memory=memory, ridge=ridge, ridge_scale=ridge_scale, mixing=mixing,
        preconditioner=divide, tol=tol, max_iterations=max_iterations, reference=reference,
        callback=callback,
    )


def newton_krylov(
    step: Step, u0: Array, *, tol: float, max_iterations: int = 100,
    max_products: int | None = None, restart: int = 30, preconditioner: str | None = None,
    callback: Callback | None = None,
) -> SolverResult:
    """Newton's method on G(u) = 0 with safeguarded slopes, directions by GMRES."""
    return solvers.newton_krylov(
        step.linearize, u0, step=step.tau, tol=tol, max_iterations=max_iterations,
        max_products=max_products, restart=restart, safeguard=_safeguard,
        preconditioner=_builder(step, u0, preconditioner), precision=step.rough.dtype,
        callback=callback,
    )


def nesterov(
    step: TiedStep, u0: Array, *, tol: float, max_iterations: int = 10_000, restart: bool = True,
    callback: Callback | None = None,
) -> SolverResult:
    """Nesterov's accelerated gradient method on E."""
    return solvers.nesterov(
        step.gradient, u0, step=step.tau, tol=tol, max_iterations=max_iterations, restart=restart,
        callback=callback,
    )


def lbfgs(
    step: TiedStep, u0: Array, *, tol: float, max_iterations: int = 1_000, memory: int = 10
) -> SolverResult:
    """L-BFGS on E, image by image."""
    objectives = [_objective(step.image(n)) for n in range(len(u0))]
    return solvers.lbfgs(
        objectives, u0, step=step.tau, tol=tol, max_iterations=max_iterations, memory=memory
    )


def newton(
    step: TiedStep, u0: Array, *, tol: float, max_iterations: int = 100,
    max_products: int | None = None, preconditioner: str | None = None,
    callback: Callback | None = None,
) -> SolverResult:
    """Newton's method on E with safeguarded slopes, directions by conjugate gradients."""
    return solvers.newton(
        step.linearize, u0, step=step.tau, tol=tol, max_iterations=max_iterations,
        max_products=max_products, safeguard=_safeguard,
        preconditioner=_builder(step, u0, preconditioner), precision=step.rough.dtype,
        callback=callback,
    )


METHODS = {
    function.__name__: function
    for function in (picard, anderson, newton_krylov, nesterov, lbfgs, newton)
}


def _objective(step: TiedStep):
    return lambda u: (float(step.energy(u)[0]), step.gradient(u))


def _safeguard(lin: StepLinearization, previous: StepLinearization | None) -> StepLinearization:
    return lin.safeguarded(previous)


def _builder(step: Step, u0: Array, name: str | None):
    """From a linearisation to r ↦ M⁻¹ r: built anew at each iterate, factored ones once at u0."""
    if name is None:
        return None
    build = find_preconditioner(name)
    if name not in FACTORED:
        return build
    inverse = build(step.linearize(u0))
    return lambda linearization: inverse
