"""The reconstruction u* = T(u*) by any forward solver, by name.

    every model   picard, anderson, newton_krylov
    tied only     nesterov, lbfgs, newton (on the energy E; there is none when untied)
    auto          filter banks: newton or newton_krylov, preconditioned, and anderson where these
                  fail; dense banks: anderson with the Cholesky factors, and these where it fails

All share one relative residual, ‖T(u) − u‖ / max(‖u‖, ‖u0‖) per image, so that a tolerance means
the same for each. The residual scales with τ and does not bound the error ‖u − u*‖ by itself:
`refimpl.certificates` does.
"""

from functools import partial

import numpy as np

from refimpl import solvers
from refimpl.arrays import Array, as_images
from refimpl.drafts import Drafts
from refimpl.maps import Step, TiedStep, largest_safe_step, parts_for
from refimpl.operators import DenseBank
from refimpl.parts import solve_in_parts
from refimpl.preconditioners import FACTORED, choose_preconditioner, find_preconditioner
from refimpl.results import BreakdownError, SolverResult
from refimpl.vectors import norm

# ‖u‖ / ‖u0‖ beyond which an image may have run away.
RUNAWAY = 1e3

# Memory of Anderson's method where "auto" falls back on it.
FALLBACK = 10
ANY_MODEL = ("picard", "anderson", "newton_krylov")
TIED_ONLY = ("nesterov", "lbfgs", "newton")
PRECONDITIONED = ("anderson", "newton", "newton_krylov")


def reconstruct(
    step: Step,
    u0: Array | None = None,
    *,
    method: str = "picard",
    tol: float = 1e-6,
    preconditioner: str | None = None,
    **options,
) -> SolverResult:
    """Solve u = T(u), E8.

    Parameters
    ----------
    step : Step
    u0 : array (N, C, H, W), optional
        Start; left out: Kᵀ y.
    method : str
        "auto", one of `ANY_MODEL`, or of `TIED_ONLY` for a `TiedStep`. "auto" chooses by the model;
        the result's message says what, and whether it fell back on another.
    tol : float
        Relative residual ‖T(u) − u‖ / max(‖u‖, ‖u0‖) to reach for each image. It scales with τ, and
        ‖u − u*‖ / ‖u*‖ may be far larger.
    preconditioner : "jacobi", "circulant", "cholesky" or None
        For `newton`, `newton_krylov`, `anderson` (with that of the start), and "auto", where it
        replaces the one chosen.
    **options
        Options of the solver, such as `max_iterations`; unknown ones raise TypeError there. The
        fallback of "auto" takes `max_iterations` alone.

    Returns
    -------
    SolverResult
        Whether each image converged, and what to change where it did not.

    Raises
    ------
    ValueError
        For an unknown method or preconditioner, or a start for another number of images.
    TypeError
        For a method that needs an energy on an untied model.
    BreakdownError
        When iterates become infinite or NaN; for `picard` with the largest safe τ.
    """
    if method != "auto":
        check_method(step, method, preconditioner)
    u0 = step.datafit.operator.adjoint(step.datafit.y) if u0 is None else u0
    as_images(u0, "u0", step.field.bank.image_shape)
    if len(u0) != len(step.datafit.y):
        raise ValueError(
            f"u0: {len(u0)} images, but y holds data of {len(step.datafit.y)}; pass one start each"
        )

    def solve(part: slice) -> SolverResult:
        some = dict(method=method, tol=tol, preconditioner=preconditioner, **options)
        return _solve(step.images(part), u0[part], **some)

    return solve_in_parts(solve, parts_for(step, options))


def _solve(step: Step, u0: Array, *, method: str, preconditioner: str | None, **options):
    if method == "auto":
        return _auto(step, u0, preconditioner=preconditioner, **options)
    if preconditioner is not None:
        options["preconditioner"] = _builder(step, u0, preconditioner)
    return _judged(RUNNERS[method](step, u0, **options), step, u0)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def _judged(result: SolverResult, step: Step, u0: Array) -> SolverResult:
    """The result, in which images that ran away did not converge, and those that never left u0 are
    mentioned.

    Where σ is bounded and K hides pixels, the relative residual τ‖G‖ / ‖u‖ falls because ‖u‖ grows.
    An image ran away if ‖u‖ > 1e3 max(‖u0‖, ‖Kᵀy‖) and ‖G(u)‖ > r^(3/4) ‖G(u0)‖, r its residual;
    its residual is then taken relative to the start.
    """
    if result.converged.any() and (result.iterations[result.converged] == 0).any():
        stopped = "; some stopped at the start, whose residual scales with tau and may say little"
        result = result._replace(message=result.message + stopped)
    start = np.maximum(norm(u0), norm(step.datafit.operator.adjoint(step.datafit.y)))
    away = result.converged & (norm(result.x) > RUNAWAY * start)
    if not away.any():
        return result
    before, after = (norm(step.direction(u)) for u in (u0, result.x))
    away &= ~(after <= result.residuals**0.75 * before)  # ‖G‖ may be infinite, or NaN
    if not away.any():
        return result
    return result._replace(
        converged=result.converged & ~away,
        residuals=np.where(away, step.tau * after / start, result.residuals),
        message=f"{result.message}; but {away.sum()} images ran away, to more than {RUNAWAY:g} "
        "times the size of their start, where G is not small: no fixed point was found",
    )


def _auto(step: Step, u0: Array, *, preconditioner: str | None, tol: float, **options):
    """The first choice for the model; the second for the images where it fails."""
    newton = "newton" if isinstance(step, TiedStep) else "newton_krylov"
    dense = isinstance(step.field.bank, DenseBank)
    first, second = ("anderson", newton) if dense else (newton, "anderson")
    preconditioner = preconditioner or choose_preconditioner(step)
    name = f"auto: {first}" + (f" with {preconditioner}" if preconditioner else "")
    solve = partial(_solve, step, u0, tol=tol)
    return solvers.with_fallback(
        name,
        partial(solve, method=first, preconditioner=preconditioner, **options),
        partial(solve, method=second, **_fallback(second, preconditioner, options)),
    )


def _fallback(method: str, preconditioner: str | None, options: dict) -> dict:
    """Options of the second choice: the limit, and for Newton's methods the preconditioner."""
    limit = {"max_iterations": options["max_iterations"]} if "max_iterations" in options else {}
    if method == "anderson":
        return {"preconditioner": None, "memory": FALLBACK, **limit}
    return {"preconditioner": preconditioner, **limit}


def _builder(step: Step, u0: Array, name: str):
    """From a linearisation to r ↦ M⁻¹ r: built anew at each iterate, factored ones once at u0."""
    build = find_preconditioner(name)
    if name not in FACTORED:
        return build
    inverse = build(step.linearize(u0))
    return lambda linearization: inverse


def check_method(step: Step, method: str, preconditioner: str | None) -> None:
    """Raise unless the method exists, fits the model, and can use the preconditioner."""
    if method not in RUNNERS:
        raise ValueError(f"method {method!r} is unknown; choose one of auto, {', '.join(RUNNERS)}")
    if method in TIED_ONLY and not isinstance(step, TiedStep):
        raise TypeError(
            f"method {method!r} minimises an energy, and an untied model (C given) has none; "
            f"use one of {', '.join(ANY_MODEL)}"
        )
    if preconditioner is not None and method not in PRECONDITIONED:
        raise ValueError(
            f"method {method!r} takes no preconditioner; {', '.join(PRECONDITIONED)} do"
        )


def _picard(step: Step, u0: Array, **options) -> SolverResult:
    try:
        result = solvers.picard(step.apply, u0, **options)
    except BreakdownError as error:
        raise BreakdownError(f"{error}; {step_advice(step)}") from error
    if result.all_converged:
        return result
    # Beyond the safe step a bounded σ makes the iterates oscillate without growing.
    grew = np.any(result.residuals > result.history[0])
    if grew or step.tau > largest_safe_step(step):
        result = result._replace(message=f"{result.message}; {step_advice(step)}")
    return result


def step_advice(step: Step) -> str:
    """What to say of τ when the plain iteration diverges or stalls."""
    safe = largest_safe_step(step)
    if isinstance(step, TiedStep):
        return f"tau is {step.tau:.3g}; for a convex energy every tau < {safe:.3g} converges"
    return (
        f"tau is {step.tau:.3g}; try one below {safe:.3g} (no tau is safe for every untied model)"
    )


def _anderson(step: Step, u0: Array, *, preconditioner=None, **options) -> SolverResult:
    """T(u) − u = −τ G(u), so that with M ≈ J at the start I − ∂T is about τ M."""
    if preconditioner is not None:
        divide = preconditioner(step.linearize(u0))
        options["preconditioner"] = lambda f: divide(f) / step.tau
    return solvers.anderson(step.apply, u0, **options)


def _lbfgs(step: TiedStep, u0: Array, **options) -> SolverResult:
    return solvers.lbfgs(
        [_objective(step.image(n)) for n in range(len(u0))], u0, step=step.tau, **options
    )


def _newton(solver, step: Step, u0: Array, *, tol: float, **options) -> SolverResult:
    return solver(
        Drafts(step, u0, tol), u0, step=step.tau, tol=tol, precision=step.rough.dtype,
        safeguard=lambda lin, previous: lin.safeguarded(previous), **options,
    )


def _objective(step: TiedStep):
    return lambda u: (float(step.energy(u)[0]), step.gradient(u))


RUNNERS = {
    "picard": _picard,
    "anderson": _anderson,
    "newton_krylov": lambda *given, **options: _newton(solvers.newton_krylov, *given, **options),
    "nesterov": lambda step, u0, **options: solvers.nesterov(
        step.gradient, u0, step=step.tau, **options
    ),
    "lbfgs": _lbfgs,
    "newton": lambda *given, **options: _newton(solvers.newton, *given, **options),
}
