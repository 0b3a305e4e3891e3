"""Implicit differentiation: the hypergradient dℓ/dθ at a fixed point, by six methods (E9, E10).

u* = T(u*, θ) gives (I − ∂_u T) du = ∂_θ T dθ, hence with the adjoint state q

    (I − ∂_u T)ᵀ q = ∇ℓ(u*)        E9        dℓ/dθ = (∂_θ T)ᵀ q        E10

I − ∂_u T = τ J with J = ∂_u G, so the Krylov methods solve Jᵀ p = ∇ℓ(u*) for p = τ q, which is
better scaled; tied, J is the Hessian of the energy.

    cg             conjugate gradients on the Hessian; tied models only
    gmres          nonsymmetric Krylov
    bicgstab       nonsymmetric Krylov
    neumann        q ← ∇ℓ + (∂_u T)ᵀ q, the adjoint fixed-point iteration
    anderson       the same, accelerated
    auto           cg or bicgstab, preconditioned and refined with products in float32 where these
                   are near enough (`refimpl.maps`), and gmres where they fail
    jacobian_free  q = ∇ℓ: the first term of the Neumann series; not the gradient

`unrolled_hypergradient` differentiates K steps of the iteration itself.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from refimpl import solvers
from refimpl.arrays import Array, as_images, count
from refimpl.maps import Step, StepLinearization, TiedStepLinearization, parts_for
from refimpl.parameters import Parameters, add
from refimpl.parts import solve_in_parts
from refimpl.preconditioners import choose_preconditioner, find_preconditioner
from refimpl.results import NotConvergedError, SolverResult
from refimpl.vectors import norm

KRYLOV = {"cg": solvers.cg, "gmres": solvers.gmres, "bicgstab": solvers.bicgstab}
STATIONARY = {"neumann": solvers.picard, "anderson": solvers.anderson}
METHODS = (*KRYLOV, *STATIONARY, "jacobian_free")

# Iterations in one precision after which BiCGStab, whose residual need not fall, gives way; where
# it converged on the trained presets, it took at most half as many.
PATIENCE = 200

# Cycles of GMRES where "auto" falls back on it; one of 40 stagnates at an indefinite J of 11 × 11
# filters trained for inpainting.
LONG_CYCLE = 60


class Hypergradient(NamedTuple):
    """dℓ/dθ with the adjoint solve that it came from.

    Attributes
    ----------
    gradient : Parameters
        dℓ/dθ, E10, summed over the batch.
    adjoint : SolverResult
        The adjoint state q of E9 with its convergence.
    exact : bool
        False for methods that do not aim at the gradient (`jacobian_free`).
    """

    gradient: Parameters
    adjoint: SolverResult
    exact: bool


def hypergradient(
    step: Step,
    state: SolverResult,
    loss_gradient: Array,
    *,
    method: str | None = None,
    tol: float = 1e-10,
    allow_unconverged: bool = False,
    **options,
) -> Hypergradient:
    """dℓ/dθ at the fixed point `state.x`, E9 and E10.

    Parameters
    ----------
    step : Step
    state : SolverResult
        The forward solution.
    loss_gradient : array (N, C, H, W)
        ∇ℓ(u*).
    method : str, optional
        "auto" or one of `METHODS`; left out: "cg" for tied models, else "gmres".
    tol : float
        Relative residual of the adjoint system E9 for each image.
    allow_unconverged : bool
        Compute also where the forward or the adjoint solve did not converge.
    **options
        Options of the adjoint solver; `preconditioner` by name.

    Raises
    ------
    NotConvergedError
        If the state or the adjoint did not converge and `allow_unconverged` is False.
    TypeError
        For "cg" on an untied model, whose Jacobian is not symmetric, or a `state` that is no
        SolverResult.
    ValueError
        If `loss_gradient` does not hold images like those of `state`, or is not finite.
    """
    if not isinstance(state, SolverResult):
        raise TypeError(
            f"hypergradient: state is a {type(state).__name__}, expected the SolverResult that a "
            "forward solver returns, which says whether it converged"
        )
    _require(state, "the forward solve", allow_unconverged)
    as_images(loss_gradient, "loss_gradient", state.x.shape[1:])
    linearization = step.linearize(state.x)
    adjoint = solve_adjoint(linearization, loss_gradient, method=method, tol=tol, **options)
    exact = method != "jacobian_free"
    _require(adjoint, "the adjoint solve", allow_unconverged or not exact)
    return Hypergradient(linearization.params_vjp(adjoint.x), adjoint, exact)


def solve_adjoint(
    linearization: StepLinearization,
    loss_gradient: Array,
    *,
    method: str | None = None,
    tol: float = 1e-10,
    preconditioner: str | None = None,
    **options,
) -> SolverResult:
    """Solve (I − ∂_u T)ᵀ q = ∇ℓ for q, E9.

    Parameters
    ----------
    linearization : StepLinearization
        T at the fixed point.
    loss_gradient : array (N, C, H, W)
        ∇ℓ(u*).
    method : str, optional
        "auto" or one of `METHODS`; left out: "cg" for tied models, else "gmres". "auto"
        preconditions "cg", untied "bicgstab" for at most 200 iterations in each precision, and
        falls back on "gmres" in cycles of 60, with the diagonal where the preconditioner was
        "circulant"; the result's message says what was used.
    tol : float
        Relative residual ‖∇ℓ − (I − ∂_u T)ᵀ q‖ / ‖∇ℓ‖ of each image.
    preconditioner : "jacobi", "circulant", "cholesky" or None
        For the Krylov methods and "auto", where it replaces the one chosen.
    **options
        Options of the solver, such as `max_iterations`; unknown ones raise TypeError there.

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
        For "cg" on an untied model.
    """
    if loss_gradient.shape != linearization.u.shape:
        raise ValueError(
            f"loss_gradient: shape is {loss_gradient.shape}, expected {linearization.u.shape}, "
            "that of the state"
        )
    parts = parts_for(linearization.step, options)
    some = dict(method=method, tol=tol, preconditioner=preconditioner, **options)

    def solve(part: slice) -> SolverResult:
        lin = linearization if len(parts) == 1 else linearization.images(part)
        return _solve(lin, loss_gradient[part], **some)

    return solve_in_parts(solve, parts)


def _solve(linearization, loss_gradient, *, method, tol, preconditioner, **options) -> SolverResult:
    if method == "auto":
        return _auto(linearization, loss_gradient, preconditioner, tol=tol, **options)
    tied = isinstance(linearization, TiedStepLinearization)
    method = method or ("cg" if tied else "gmres")
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; choose one of auto, {', '.join(METHODS)}")
    if method == "cg" and not tied:
        raise TypeError(
            "method 'cg' needs a symmetric Jacobian, and that of an untied model (C given) is not; "
            "use 'gmres' or 'bicgstab'"
        )
    if method in KRYLOV:
        return _krylov(linearization, loss_gradient, method, preconditioner, tol=tol, **options)
    if preconditioner is not None:
        raise ValueError(f"method {method!r} takes no preconditioner; {', '.join(KRYLOV)} do")
    if method == "jacobian_free":
        return _jacobian_free(linearization, loss_gradient, tol, **options)
    return _stationary(linearization, loss_gradient, method, tol=tol, **options)


def _auto(
    linearization, loss_gradient, preconditioner, *, restart=LONG_CYCLE, **options
) -> SolverResult:
    """Conjugate gradients or BiCGStab, preconditioned; for images where they fail, GMRES.

    GMRES takes the diagonal in place of the circulant model, which can mislead where the mean of σ′
    says little of J.
    """
    preconditioner = preconditioner or choose_preconditioner(linearization.step)
    safer = "jacobi" if preconditioner == "circulant" else preconditioner
    first, limits = "cg", options
    if not isinstance(linearization, TiedStepLinearization):
        first, given = "bicgstab", options.get("max_iterations", PATIENCE)
        longer = isinstance(given, (int, np.integer)) and given > PATIENCE
        limits = options | {"max_iterations": PATIENCE if longer else given}
    name = f"auto: {first}" + (f" with {preconditioner}" if preconditioner else "")
    solve = partial(_solve, linearization, loss_gradient)
    return solvers.with_fallback(
        name,
        partial(solve, method=first, preconditioner=preconditioner, refined=True, **limits),
        partial(solve, method="gmres", preconditioner=safer, restart=restart, **options),
    )


def _krylov(
    linearization, loss_gradient, method, preconditioner, *, refined=False, **options
) -> SolverResult:
    """Jᵀ p = ∇ℓ, q = p / τ; the relative residual is that of E9, since both sides scale by τ."""
    if preconditioner is not None:
        model = linearization.rounded if refined else linearization
        options["preconditioner"] = find_preconditioner(preconditioner)(model)
        options["model"] = None if model is linearization else model.direction_vjp
    result = KRYLOV[method](linearization.direction_vjp, loss_gradient, **options)
    with np.errstate(over="ignore"):
        q = result.x / linearization.step.tau
    infinite = result.converged & ~np.isfinite(q).all(axis=(1, 2, 3))
    if infinite.any():
        why = f"but q of {infinite.sum()} images is infinite: J is singular"
        result = result._replace(
            converged=result.converged & ~infinite, message=f"{result.message}; {why}"
        )
    return result._replace(x=q)


def _stationary(linearization, loss_gradient, method, **options) -> SolverResult:
    """q ← ∇ℓ + (∂_u T)ᵀ q; its change is the residual of E9, measured against ‖∇ℓ‖."""
    result = STATIONARY[method](
        lambda q: loss_gradient + linearization.vjp(q),
        loss_gradient,
        reference=norm(loss_gradient),
        **options,
    )
    return result._replace(evaluations=0, products=result.evaluations)


def _jacobian_free(linearization, loss_gradient, tol: float) -> SolverResult:
    """q = ∇ℓ, with the relative residual ‖(∂_u T)ᵀ∇ℓ‖ / ‖∇ℓ‖ that it leaves in E9.

    `converged` says, as everywhere, whether that residual is at most `tol`; it seldom is.
    """
    scale = norm(loss_gradient)
    residuals = norm(linearization.vjp(loss_gradient)) / np.where(scale > 0, scale, 1)
    count = np.zeros(len(scale), dtype=int)
    return SolverResult(
        loss_gradient,
        residuals <= tol,
        count,
        residuals,
        0,
        1,
        residuals[None],
        "jacobian_free: q = ∇ℓ by definition; the residual says how far from the adjoint state",
    )


def unrolled_hypergradient(
    step: Step, u0: Array, loss_gradient, iterations: int
) -> tuple[Array, Parameters]:
    """u_K after K = `iterations` steps from `u0`, and dℓ(u_K)/dθ by reverse mode.

    u_{k+1} = T(u_k, θ). With q_K = ∇ℓ(u_K), for k = K − 1, …, 0:

        dℓ/dθ += (∂_θ T(u_k))ᵀ q_{k+1}        q_k = (∂_u T(u_k))ᵀ q_{k+1}

    Every √K-th state is stored and the ones between are computed again, so that 2√K images
    are held. The start u0 does not depend on θ.

    Parameters
    ----------
    step : Step
    u0 : array (N, C, H, W)
    loss_gradient : callable
        u ↦ ∇ℓ(u).
    iterations : int
        K ≥ 1.

    Returns
    -------
    tuple of array and Parameters
        u_K, and dℓ(u_K)/dθ summed over the batch.

    Raises
    ------
    ValueError
        If `iterations` is not an integer of at least 1.
    """
    count(iterations, "iterations")
    stride = max(1, int(np.sqrt(iterations)))
    stored, u = [], u0
    for k in range(iterations):
        if k % stride == 0:
            stored.append(u)
        u = step.apply(u)
    q, gradient = loss_gradient(u), None
    for segment in reversed(range(len(stored))):
        length = min(stride, iterations - segment * stride)
        for state in reversed(_trajectory(step, stored[segment], length)):
            linearization = step.linearize(state)
            part = linearization.params_vjp(q)
            gradient = part if gradient is None else add(gradient, part)
            q = linearization.vjp(q)
    return u, gradient


def _trajectory(step: Step, u: Array, length: int) -> list[Array]:
    """u, T(u), …, `length` states in all."""
    states = [u]
    while len(states) < length:
        states.append(step.apply(states[-1]))
    return states


def _require(result: SolverResult, what: str, allow_unconverged: bool) -> None:
    if not allow_unconverged and not result.all_converged:
        missed = np.flatnonzero(~result.converged)
        raise NotConvergedError(
            f"hypergradient: {what} did not converge for {len(missed)} of {len(result.converged)} "
            "images "
            f"(largest relative residual {result.residuals.max():.2e}; {result.message}); "
            "solve further, or pass allow_unconverged=True for an inexact gradient"
        )
