"""The adjoint state q of implicit differentiation, by seven methods (E9).

    (I − ∂_u T)ᵀ q = ∇ℓ(u*)        E9

I − ∂_u T = τ J with J = ∂_u G, so the Krylov methods solve Jᵀ p = ∇ℓ(u*) for p = τ q, which is
better scaled; tied, J is the Hessian of the energy.

    cg             conjugate gradients on the Hessian; tied models only
    gmres          nonsymmetric Krylov
    bicgstab       nonsymmetric Krylov
    neumann        q ← ∇ℓ + (∂_u T)ᵀ q, the adjoint fixed-point iteration
    anderson       the same, accelerated
    jacobian_free  q = ∇ℓ: the first term of the Neumann series; not the adjoint state
    auto           one of the first three, with another where it fails (`automatic`)

Not here: the hypergradient that q gives (`refimpl.equilibrium.implicit`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np

from refimpl import solvers
from refimpl.arrays import Array, as_images, positive
from refimpl.engine import (
    StepLinearization,
    TiedStepLinearization,
    find_preconditioner,
    parts_for,
    solve_in_parts,
)
from refimpl.equilibrium.automatic import Attempt, adjoint_attempts, tried
from refimpl.equilibrium.options import check_known, check_settings, settings
from refimpl.equilibrium.tolerances import Measured, chosen_tolerance, to_error
from refimpl.kernels.vectors import norm
from refimpl.results import BreakdownError, SolverResult
from refimpl.solvers import ratio

# Of the error asked for, the first residual that the Krylov methods try.
FIRST_RESIDUAL = 0.3

# Relative error of the system that measures an error.
ERROR_OF_ERROR = 0.1

DAMPED = "the system was damped: its residual and error are those of the damped one"

Callback = Callable[[int, Array, Array], None]
Matvec = Callable[[Array], Array]


def solve_adjoint(
    linearization: StepLinearization,
    loss_gradient: Array,
    *,
    method: str = "auto",
    tol: float | None = None,
    residual_tol: float | None = None,
    max_iterations: int | None = None,
    preconditioner: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> SolverResult:
    """Solve (I − ∂_u T)ᵀ q = ∇ℓ for q, E9.

    Parameters
    ----------
    linearization : StepLinearization
        T at the fixed point.
    loss_gradient : array (N, C, H, W)
        ∇ℓ(u*).
    method : str
        "auto" or one of `ADJOINT_METHODS`. "auto" preconditions "cg", untied "bicgstab" for at most
        200 iterations in each precision, and falls back on "gmres" in cycles of 60, with the
        diagonal where the preconditioner was "circulant"; the result's `method` says what ran.
    tol : float, optional
        Relative error ‖q − q*‖ / ‖q‖ to reach for each image; left out: 1e-4, of float32 1e-3. It
        is estimated: by the Krylov methods from what they see of the Jacobian's spectrum, also in
        directions of which ∇ℓ has no part (`probe` of `refimpl.solvers.cg`), of the others by one
        more system. With `damping`, it is that of the damped system.
    residual_tol : float, optional
        In place of `tol`: the relative residual ‖∇ℓ − (I − ∂_u T)ᵀ q‖ / ‖∇ℓ‖ of each image.
    max_iterations : int, optional
        Most iterations of an image; left out: what the method's function says.
    preconditioner : "jacobi", "circulant", "cholesky" or None
        For the Krylov methods and "auto", where it replaces the one chosen.
    options : mapping, optional
        Further parameters of the method's function in `ADJOINT_METHODS`, for example {"restart":
        40} for `gmres`; of "auto", those of its two choices.

    Returns
    -------
    SolverResult
        q with its convergence; `products` counts products with the Jacobian or its transpose.

    Raises
    ------
    ValueError
        For an unknown method or preconditioner, or one that the method cannot use; for a
        `loss_gradient` that is not of the shape of u.
    TypeError
        For "cg" on an untied model; for an option that the method does not have.
    """
    if not isinstance(linearization, StepLinearization):
        raise TypeError(
            f"linearization: given a {type(linearization).__name__}, expected that of a step at "
            "u*, step.linearize(star.x); hypergradient takes problems"
        )
    tol, residual_tol = chosen_tolerance(tol, residual_tol, linearization.step.dtype)
    if as_images(loss_gradient, "loss_gradient").shape != linearization.u.shape:
        raise ValueError(
            f"loss_gradient: shape is {loss_gradient.shape}, expected {linearization.u.shape}, "
            "that of the state"
        )
    given = settings(options, max_iterations=max_iterations, preconditioner=preconditioner)
    if isinstance(method, str) and method == "auto":
        attempts = adjoint_attempts(linearization.step, given)
    else:
        check_adjoint_method(linearization, method)
        attempts = (Attempt(method, given),)
    for attempt in attempts:
        check_settings(attempt.method, attempt.settings, ADJOINT_METHODS)
    parts = parts_for(linearization.step, given)

    def solve(part: slice) -> SolverResult:
        lin = linearization if len(parts) == 1 else linearization.images(part)
        b = loss_gradient[part]
        if residual_tol is not None:
            return tried(attempts, lambda a: _attempted(a, lin, b, tol=residual_tol))
        return tried(attempts, lambda a: _to_error(a, lin, b, tol))

    return solve_in_parts(solve, parts)


def check_adjoint_method(linearization: StepLinearization, method: str) -> None:
    """Raise unless the method exists and fits the model."""
    check_known(method, ADJOINT_METHODS)
    if method == "cg" and not isinstance(linearization, TiedStepLinearization):
        raise TypeError(
            "method 'cg' needs a symmetric Jacobian, and that of an untied model (C given) is not; "
            "use 'gmres' or 'bicgstab'"
        )


def _attempted(
    attempt: Attempt, linearization: StepLinearization, loss_gradient: Array, **tolerance: Any
) -> SolverResult:
    solve = ADJOINT_METHODS[attempt.method]
    result = solve(linearization, loss_gradient, **attempt.settings, **tolerance)
    return result._replace(method=attempt.name)


def _to_error(
    attempt: Attempt, linearization: StepLinearization, loss_gradient: Array, tol: float
) -> SolverResult:
    """The method until the error of every image is at most `tol`."""
    if attempt.method in KRYLOV:
        attempt = attempt._replace(settings={"probe": True} | attempt.settings)
        return _attempted(
            attempt, linearization, loss_gradient, tol=FIRST_RESIDUAL * tol, error_tol=tol
        )

    def run(start: Array, tols: Array) -> SolverResult:
        begun = {} if attempt.method == "jacobian_free" else {"x0": start}
        return _attempted(attempt, linearization, loss_gradient, tol=tols, **begun)

    def measure(result: SolverResult, tol: float) -> Measured:
        return adjoint_error(linearization, loss_gradient, result.x)

    return to_error(run, measure, loss_gradient, tol)


def adjoint_error(linearization: StepLinearization, loss_gradient: Array, q: Array) -> Measured:
    """‖e‖ / ‖q‖ with (I − ∂_u T)ᵀ e = ∇ℓ − (I − ∂_u T)ᵀ q, and q + e."""
    rest = loss_gradient - (q - linearization.vjp(q))
    try:
        solved = solve_adjoint(linearization, rest, tol=ERROR_OF_ERROR)
    except BreakdownError:
        solved = None
    if solved is None or not np.isfinite(solved.error).all():
        return Measured.unknown(q, "the system for the error cannot be solved")
    error = np.where(solved.converged, ratio(norm(solved.x), norm(q)), np.inf)
    kind = np.where(np.isfinite(error), "estimated", "unknown")
    return Measured(error, tuple(kind.tolist()), q + solved.x, solved.advice)


def cg(
    linearization: TiedStepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 1_000, x0: Array | None = None, preconditioner: str | None = None,
    refined: bool = False, damping: float = 0.0, error_tol: float | None = None,
    probe: bool = False,
) -> SolverResult:
    """H p = ∇ℓ by conjugate gradients, q = p / τ.

    `x0` is a start for p. `refined` computes corrections, and the preconditioner, with J in
    float32 where that is near enough; there must be a preconditioner. `damping` δ replaces J by
    J + δ L I, L ≥ ‖J‖: a part of p along an eigenvalue μ of J becomes μ / (μ + δ L) of itself. If J
    has none below 0, ‖p‖ ≤ ‖∇ℓ‖ / (δ L) follows, however singular J is, as at missing pixels.
    """
    solve = partial(
        solvers.cg, x0=x0, tol=tol, error_tol=error_tol, probe=probe,
        max_iterations=max_iterations,
    )
    return _krylov(solve, linearization, loss_gradient, preconditioner, refined, damping)


def gmres(
    linearization: StepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 1_000, restart: int = 20, x0: Array | None = None,
    preconditioner: str | None = None, refined: bool = False, damping: float = 0.0,
    error_tol: float | None = None, probe: bool = False,
) -> SolverResult:
    """Jᵀ p = ∇ℓ by GMRES(restart), q = p / τ; `x0`, `refined` and `damping` as for `cg`."""
    solve = partial(
        solvers.gmres, x0=x0, restart=restart, tol=tol, error_tol=error_tol, probe=probe,
        max_iterations=max_iterations,
    )
    return _krylov(solve, linearization, loss_gradient, preconditioner, refined, damping)


def bicgstab(
    linearization: StepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 1_000, x0: Array | None = None, preconditioner: str | None = None,
    refined: bool = False, damping: float = 0.0, error_tol: float | None = None,
    probe: bool = False,
) -> SolverResult:
    """Jᵀ p = ∇ℓ by BiCGStab, q = p / τ; `x0`, `refined` and `damping` as for `cg`."""
    solve = partial(
        solvers.bicgstab, x0=x0, tol=tol, error_tol=error_tol, probe=probe,
        max_iterations=max_iterations,
    )
    return _krylov(solve, linearization, loss_gradient, preconditioner, refined, damping)


def _krylov(
    solve: Callable[..., SolverResult], linearization: StepLinearization, loss_gradient: Array,
    preconditioner: str | None, refined: bool, damping: float,
) -> SolverResult:
    """Jᵀ p = ∇ℓ solved, with M⁻¹ and with products in float32 where these are near enough."""
    divide, model = None, None
    shift = positive(damping, "damping") * linearization.step.steepness if damping else 0.0
    if preconditioner is not None:
        rough = linearization.rounded if refined else linearization
        divide = find_preconditioner(preconditioner)(rough)
        model = None if rough is linearization else _shifted(rough.direction_vjp, shift)
    product = _shifted(linearization.direction_vjp, shift)
    result = solve(product, loss_gradient, preconditioner=divide, model=model)
    if shift:
        result = result._replace(notes=(*result.notes, DAMPED))
    return _divided_by_tau(result, linearization)


def _shifted(product: Matvec, shift: float) -> Matvec:
    """v ↦ Jᵀ v + shift v."""
    return (lambda v: product(v) + v.dtype.type(shift) * v) if shift else product


def _divided_by_tau(result: SolverResult, linearization: StepLinearization) -> SolverResult:
    """q = p / τ; the relative residual is that of E9, since both sides scale by τ."""
    with np.errstate(over="ignore"):
        q = result.x / linearization.step.tau
    infinite = result.converged & ~np.isfinite(q).all(axis=(1, 2, 3))
    if infinite.any():
        result = result.rejected(infinite, "the adjoint state q is infinite: J is singular")
    return result._replace(x=q)


def neumann(
    linearization: StepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 10_000, x0: Array | None = None, callback: Callback | None = None,
) -> SolverResult:
    """q ← ∇ℓ + (∂_u T)ᵀ q from `x0` or ∇ℓ; its change is the residual of E9, over ‖∇ℓ‖."""
    result = solvers.picard(
        _adjoint_map(linearization, loss_gradient), loss_gradient if x0 is None else x0, tol=tol,
        max_iterations=max_iterations, reference=norm(loss_gradient), callback=callback,
    )
    return result._replace(evaluations=0, products=result.evaluations)


def anderson(
    linearization: StepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 1_000, memory: int = 5, ridge: float = 1e-10,
    ridge_scale: Literal["gram", "absolute"] = "gram", mixing: float = 1.0,
    x0: Array | None = None, callback: Callback | None = None,
) -> SolverResult:
    """The iteration of `neumann`, accelerated."""
    result = solvers.anderson(
        _adjoint_map(linearization, loss_gradient), loss_gradient if x0 is None else x0,
        memory=memory, ridge=ridge, ridge_scale=ridge_scale, mixing=mixing, tol=tol,
        max_iterations=max_iterations, reference=norm(loss_gradient), callback=callback,
    )
    return result._replace(evaluations=0, products=result.evaluations)


def _adjoint_map(linearization: StepLinearization, loss_gradient: Array) -> Matvec:
    """q ↦ ∇ℓ + (∂_u T)ᵀ q."""
    return lambda q: loss_gradient + linearization.vjp(q)


def jacobian_free(
    linearization: StepLinearization, loss_gradient: Array, *, tol: float
) -> SolverResult:
    """q = ∇ℓ, with the relative residual ‖(∂_u T)ᵀ∇ℓ‖ / ‖∇ℓ‖ that it leaves in E9.

    `converged` says, as everywhere, whether that residual is at most `tol`; it seldom is.
    """
    scale = norm(loss_gradient)
    residuals = norm(linearization.vjp(loss_gradient)) / np.where(scale > 0, scale, 1)
    converged, none = residuals <= tol, np.zeros(len(scale), dtype=int)
    advice = ("" if c else "q = ∇ℓ is its definition, not the adjoint state" for c in converged)
    return SolverResult(
        loss_gradient, converged, none, residuals, 0, 1, residuals[None],
        method="jacobian_free", tol=np.broadcast_to(tol, len(scale)), advice=tuple(advice),
        error=np.full(len(scale), np.inf), kind=("unknown",) * len(scale),
    )


KRYLOV = ("cg", "gmres", "bicgstab")
ADJOINT_METHODS = {
    function.__name__: function
    for function in (cg, gmres, bicgstab, neumann, anderson, jacobian_free)
}
