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
from refimpl.kernels.vectors import norm
from refimpl.results import SolverResult

Callback = Callable[[int, Array, Array], None]
Matvec = Callable[[Array], Array]


def solve_adjoint(
    linearization: StepLinearization,
    loss_gradient: Array,
    *,
    method: str = "auto",
    tol: float = 1e-10,
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
    tol : float
        Relative residual ‖∇ℓ − (I − ∂_u T)ᵀ q‖ / ‖∇ℓ‖ of each image.
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
    tol = positive(tol, "tol")
    if as_images(loss_gradient, "loss_gradient").shape != linearization.u.shape:
        raise ValueError(
            f"loss_gradient: shape is {loss_gradient.shape}, expected {linearization.u.shape}, "
            "that of the state"
        )
    given = settings(options, max_iterations=max_iterations, preconditioner=preconditioner)
    if method == "auto":
        attempts = adjoint_attempts(linearization.step, given)
    else:
        check_adjoint_method(linearization, method)
        attempts = (Attempt(method, given),)
    for attempt in attempts:
        check_settings(attempt.method, attempt.settings, ADJOINT_METHODS)
    parts = parts_for(linearization.step, given)

    def solve(part: slice) -> SolverResult:
        lin = linearization if len(parts) == 1 else linearization.images(part)
        return tried(attempts, lambda attempt: _attempted(attempt, lin, loss_gradient[part], tol))

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
    attempt: Attempt, linearization: StepLinearization, loss_gradient: Array, tol: float
) -> SolverResult:
    solve = ADJOINT_METHODS[attempt.method]
    result = solve(linearization, loss_gradient, tol=tol, **attempt.settings)
    return result._replace(method=attempt.name)


def cg(
    linearization: TiedStepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 1_000, x0: Array | None = None, preconditioner: str | None = None,
    refined: bool = False,
) -> SolverResult:
    """H p = ∇ℓ by conjugate gradients, q = p / τ.

    `x0` is a start for p. `refined` computes corrections, and the preconditioner, with J in
    float32 where that is near enough; there must be a preconditioner.
    """
    solve = partial(solvers.cg, x0=x0, tol=tol, max_iterations=max_iterations)
    return _krylov(solve, linearization, loss_gradient, preconditioner, refined)


def gmres(
    linearization: StepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 1_000, restart: int = 20, x0: Array | None = None,
    preconditioner: str | None = None, refined: bool = False,
) -> SolverResult:
    """Jᵀ p = ∇ℓ by GMRES(restart), q = p / τ; `x0` and `refined` as for `cg`."""
    solve = partial(solvers.gmres, x0=x0, restart=restart, tol=tol, max_iterations=max_iterations)
    return _krylov(solve, linearization, loss_gradient, preconditioner, refined)


def bicgstab(
    linearization: StepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 1_000, x0: Array | None = None, preconditioner: str | None = None,
    refined: bool = False,
) -> SolverResult:
    """Jᵀ p = ∇ℓ by BiCGStab, q = p / τ; `x0` and `refined` as for `cg`."""
    solve = partial(solvers.bicgstab, x0=x0, tol=tol, max_iterations=max_iterations)
    return _krylov(solve, linearization, loss_gradient, preconditioner, refined)


def _krylov(
    solve: Callable[..., SolverResult], linearization: StepLinearization, loss_gradient: Array,
    preconditioner: str | None, refined: bool,
) -> SolverResult:
    """Jᵀ p = ∇ℓ solved, with M⁻¹ and with products in float32 where these are near enough."""
    divide, model = None, None
    if preconditioner is not None:
        rough = linearization.rounded if refined else linearization
        divide = find_preconditioner(preconditioner)(rough)
        model = None if rough is linearization else rough.direction_vjp
    result = solve(linearization.direction_vjp, loss_gradient, preconditioner=divide, model=model)
    return _divided_by_tau(result, linearization)


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
    max_iterations: int = 10_000, callback: Callback | None = None,
) -> SolverResult:
    """q ← ∇ℓ + (∂_u T)ᵀ q; its change is the residual of E9, measured against ‖∇ℓ‖."""
    result = solvers.picard(
        _adjoint_map(linearization, loss_gradient), loss_gradient, tol=tol,
        max_iterations=max_iterations, reference=norm(loss_gradient), callback=callback,
    )
    return result._replace(evaluations=0, products=result.evaluations)


def anderson(
    linearization: StepLinearization, loss_gradient: Array, *, tol: float,
    max_iterations: int = 1_000, memory: int = 5, ridge: float = 1e-10,
    ridge_scale: Literal["gram", "absolute"] = "gram", mixing: float = 1.0,
    callback: Callback | None = None,
) -> SolverResult:
    """The iteration of `neumann`, accelerated."""
    result = solvers.anderson(
        _adjoint_map(linearization, loss_gradient), loss_gradient, memory=memory, ridge=ridge,
        ridge_scale=ridge_scale, mixing=mixing, tol=tol, max_iterations=max_iterations,
        reference=norm(loss_gradient), callback=callback,
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
        method="jacobian_free", tol=np.full(len(scale), tol), advice=tuple(advice),
    )


ADJOINT_METHODS = {
    function.__name__: function
    for function in (cg, gmres, bicgstab, neumann, anderson, jacobian_free)
}
