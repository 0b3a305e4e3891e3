"""The hypergradient dℓ/dθ at a fixed point by implicit differentiation (E10), and by unrolling.

u* = T(u*, θ) gives (I − ∂_u T) du = ∂_θ T dθ, hence with the adjoint state q of E9

    dℓ/dθ = (∂_θ T)ᵀ q        E10

`unrolled_hypergradient` differentiates K steps of the iteration itself.

Not here: the adjoint state (`refimpl.equilibrium.adjoint`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from refimpl.arrays import Array, as_images, count, per_image, shown
from refimpl.engine import Step, StepLinearization, as_step
from refimpl.equilibrium.adjoint import KRYLOV, solve_adjoint
from refimpl.equilibrium.errors import USEFUL, SystemSolution, rounding
from refimpl.equilibrium.tolerances import chosen_tolerance
from refimpl.kernels.vectors import norm
from refimpl.paper.parameters import Parameters, add, pack
from refimpl.paper.problem import Problem
from refimpl.results import SINGULAR, NotConvergedError, SolverResult
from refimpl.solvers import ratio

# Corrections of u and q, at most, until the error of the gradient is small enough.
CORRECTIONS = 4

Slope = Callable[[Array], Array]


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
    error : float
        Its relative error over all parameters, ‖dℓ/dθ − truth‖ / ‖dℓ/dθ‖; infinite if unknown.
    kind : str
        "estimated", or "unknown".
    corrected : Parameters or None
        dℓ/dθ after one more correction of u and q: nearer to the truth than `gradient`.
    converged : bool
        Whether what the tolerance bounds, the error or the residual, is at most that.
    """

    gradient: Parameters
    adjoint: SolverResult
    exact: bool
    error: float = np.inf
    kind: str = "unknown"
    corrected: Parameters | None = None
    converged: bool = True


def hypergradient(
    step: Step | Problem,
    state: SolverResult,
    loss_gradient: Array | Callable[[Array], Array],
    *,
    method: str = "auto",
    tol: float | None = None,
    residual_tol: float | None = None,
    error: Literal["estimate"] | None = None,
    max_iterations: int | None = None,
    preconditioner: str | None = None,
    allow_unconverged: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Hypergradient:
    """dℓ/dθ at the fixed point near `state.x`, E9 and E10.

    Parameters
    ----------
    step : Step or Problem
        Of a problem, the step with a safe τ.
    state : SolverResult
        The forward solution.
    loss_gradient : array (N, C, H, W), or callable
        ∇ℓ at `state.x`, of the loss E11; of another loss the function u ↦ ∇ℓ(u).
    method, max_iterations, preconditioner, options
        Of the adjoint solve, as for `refimpl.equilibrium.adjoint.solve_adjoint`.
    tol : float, optional
        Relative error of dℓ/dθ; left out: 1e-4, of float32 1e-3. Where `state` is not accurate
        enough for that, the gradient is that at a corrected state.
    residual_tol : float, optional
        In place of `tol`: relative residual of the adjoint system E9 for each image, at `state.x`
        as it is; of the error nothing is then known.
    error : "estimate", optional
        With `residual_tol`: estimate the error all the same.
    allow_unconverged : bool
        Compute also where the forward or the adjoint solve did not converge, or the error of dℓ/dθ
        is larger than `tol`.

    Raises
    ------
    NotConvergedError
        If the state, the adjoint or the gradient did not converge and `allow_unconverged` is False.
    TypeError
        For "cg" on an untied model, whose Jacobian is not symmetric, an option that the method does
        not have, or a `state` that is no SolverResult.
    ValueError
        If `loss_gradient` does not hold images like those of `state`, or is not finite.

    Notes
    -----
    The error is measured by one Newton correction of u and one of p = τ q,

        u₊ = u − J(u)⁻¹ ( G(u) + s ),    p₊ = p + J(u₊)⁻ᵀ ( ∇ℓ(u₊) − J(u₊)ᵀ p ),

    as the difference of the gradients at (u, p) and (u₊, p₊), which takes in how J and ∂_θG change
    with u. s stands for the rounding of G; where J is numerically singular, J⁻¹s, for which p says
    enough, moves u far.
    """
    if not isinstance(state, SolverResult):
        raise TypeError(
            f"hypergradient: state is a {type(state).__name__}, expected the SolverResult that a "
            "forward solver returns, which says whether it converged"
        )
    step = as_step(step)
    tol, residual_tol = chosen_tolerance(tol, residual_tol, step.dtype, error)
    if not isinstance(allow_unconverged, (bool, np.bool_)):
        raise TypeError(
            f"allow_unconverged: given {shown(allow_unconverged)}, expected True or False"
        )
    _require(state, "the forward solve", allow_unconverged)
    slope, exact = as_function(loss_gradient, state.x), method != "jacobian_free"
    aim = {"tol": tol} if residual_tol is None else {"residual_tol": residual_tol}
    if error is not None and method in ("auto", *KRYLOV):
        options = {"probe": True} | dict(options or {})
    lin = step.linearize(state.x)
    adjoint = solve_adjoint(
        lin, slope(state.x), method=method, max_iterations=max_iterations,
        preconditioner=preconditioner, options=options, **aim,
    )
    _require(adjoint, "the adjoint solve", allow_unconverged or not exact)
    point = AdjointPoint(lin, adjoint, lin.params_vjp(adjoint.x))
    if not exact or (tol is None and error is None):
        return Hypergradient(point.gradient, adjoint, exact)
    if tol is None:
        return measured(point, point.corrected(slope), None)
    return _to_error(point, slope, tol, allow_unconverged)


class AdjointPoint(NamedTuple):
    """T at one u, its adjoint state, and the gradient that they give."""

    linearization: StepLinearization
    adjoint: SolverResult
    gradient: Parameters

    def corrected(self, slope: Slope, rounded: bool = True) -> "AdjointPoint | None":
        """(u₊, p₊) with its gradient, with or without s, or None where a system is not solved."""
        lin = self.linearization
        newton = solution(lin, -lin.direction, self._amplified(slope))
        if newton is None:
            return None
        moved = newton + self._rounding(slope) if rounded else newton
        lin = lin.step.linearize(lin.u + moved)
        q, loss_gradient = self.adjoint.x, slope(lin.u)
        change = solution(lin.transposed, loss_gradient - (q - lin.vjp(q)), self._amplified(slope))
        if change is None:
            return None
        adjoint = self.adjoint._replace(x=q + change / lin.step.tau)
        return AdjointPoint(lin, adjoint, lin.params_vjp(adjoint.x))

    def _amplified(self, slope: Slope) -> Array:
        """What J⁻ᵀ makes of a residual of size 1, as the adjoint solve saw it."""
        solved, tau = self.adjoint, self.linearization.step.tau
        left = solved.residuals * norm(slope(self.linearization.u)).astype(float)
        return ratio(solved.error * tau * norm(solved.x), left)

    def _rounding(self, slope: Slope) -> Array:
        """About J⁻¹s, s the rounding of G(u): p of ∇ℓ scaled by s, as if J were diagonal."""
        lin = self.linearization
        size = norm(slope(lin.u)) / np.sqrt(lin.u.dtype.type(lin.u[0].size))
        scale = per_image(np.where(size > 0, size, np.inf), lin.u)
        return (rounding(lin) / scale * (lin.step.tau * self.adjoint.x)).astype(lin.u.dtype)


def solution(lin: StepLinearization, b: Array, amplified: Array) -> Array | None:
    """x of J x = b, accurate enough if J⁻¹ amplifies so much, or None."""
    every = np.ones(len(b), dtype=bool)
    found = SystemSolution.of(lin, b).refined(lin, b, amplified, every)
    known = np.isfinite(found.left).all() and np.isfinite(found.x).all()
    return found.x if known else None


def measured(point: AdjointPoint, better: AdjointPoint | None, tol: float | None) -> Hypergradient:
    """The gradient at `point`, its error estimated by that at `better`."""
    if better is None:
        return Hypergradient(point.gradient, point.adjoint, True, converged=tol is None)
    after = pack(better.gradient)
    apart, size = np.linalg.norm(after - pack(point.gradient)), np.linalg.norm(after)
    error = float(apart / size) if size > 0 else float(apart and np.inf)
    error, kind = (error, "estimated") if error <= USEFUL else (np.inf, "unknown")
    good = tol is None or error <= tol
    return Hypergradient(point.gradient, point.adjoint, True, error, kind, better.gradient, good)


def _to_error(
    point: AdjointPoint, slope: Slope, tol: float, allow_unconverged: bool
) -> Hypergradient:
    """The gradient whose error is at most `tol`, at `point` or where corrections lead from it."""
    for _ in range(CORRECTIONS):
        result = measured(point, point.corrected(slope), tol)
        point = None if result.converged else point.corrected(slope, rounded=False)
        if point is None:
            break
    if not (result.converged or allow_unconverged):
        raise NotConvergedError(
            f"hypergradient: its relative error is {result.error:.1e} ({result.kind}), expected at "
            f"most {tol:.2g}: solve for the state to a smaller tol, or: {SINGULAR}; or pass "
            "allow_unconverged=True for an inexact gradient"
        )
    return result


def as_function(loss_gradient: Array | Callable, u: Array) -> Slope:
    """u ↦ ∇ℓ(u); of an array, that of E11, whose second derivative is 2 / size; of zeros, 0."""
    if callable(loss_gradient):
        return lambda x: as_images(loss_gradient(x), "loss_gradient", u.shape[1:])
    given = as_images(loss_gradient, "loss_gradient", u.shape[1:])
    curvature = 2 / u.size if given.any() else 0
    return lambda x: given + u.dtype.type(curvature) * (x - u)


def _require(result: SolverResult, what: str, allow_unconverged: bool) -> None:
    if not allow_unconverged and not result.all_converged:
        raise NotConvergedError(
            f"hypergradient: {what} failed: {result.message}; or pass allow_unconverged=True for "
            "an inexact gradient"
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
        states = [stored[segment]]
        while len(states) < length:
            states.append(step.apply(states[-1]))
        for state in reversed(states):
            linearization = step.linearize(state)
            part = linearization.params_vjp(q)
            gradient = part if gradient is None else add(gradient, part)
            q = linearization.vjp(q)
    return u, gradient
