"""The hypergradient dℓ/dθ at a fixed point by implicit differentiation (E10), and by unrolling.

u* = T(u*, θ) gives (I − ∂_u T) du = ∂_θ T dθ, hence with the adjoint state q of E9

    dℓ/dθ = (∂_θ T)ᵀ q        E10

`unrolled_hypergradient` differentiates K steps of the iteration itself.

Not here: the adjoint state (`refimpl.equilibrium.adjoint`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array, as_images, count
from refimpl.engine import Step, as_step
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.paper.parameters import Parameters, add
from refimpl.paper.problem import Problem
from refimpl.results import NotConvergedError, SolverResult


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
    step: Step | Problem,
    state: SolverResult,
    loss_gradient: Array,
    *,
    method: str = "auto",
    tol: float = 1e-10,
    max_iterations: int | None = None,
    preconditioner: str | None = None,
    allow_unconverged: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Hypergradient:
    """dℓ/dθ at the fixed point `state.x`, E9 and E10.

    Parameters
    ----------
    step : Step or Problem
        Of a problem, the step with a safe τ.
    state : SolverResult
        The forward solution.
    loss_gradient : array (N, C, H, W)
        ∇ℓ(u*).
    method, max_iterations, preconditioner, options
        Of the adjoint solve, as for `refimpl.equilibrium.adjoint.solve_adjoint`.
    tol : float
        Relative residual of the adjoint system E9 for each image.
    allow_unconverged : bool
        Compute also where the forward or the adjoint solve did not converge.

    Raises
    ------
    NotConvergedError
        If the state or the adjoint did not converge and `allow_unconverged` is False.
    TypeError
        For "cg" on an untied model, whose Jacobian is not symmetric, an option that the method does
        not have, or a `state` that is no SolverResult.
    ValueError
        If `loss_gradient` does not hold images like those of `state`, or is not finite.
    """
    if not isinstance(state, SolverResult):
        raise TypeError(
            f"hypergradient: state is a {type(state).__name__}, expected the SolverResult that a "
            "forward solver returns, which says whether it converged"
        )
    _require(state, "the forward solve", allow_unconverged)
    loss_gradient = as_images(loss_gradient, "loss_gradient", state.x.shape[1:])
    linearization = as_step(step).linearize(state.x)
    adjoint = solve_adjoint(
        linearization, loss_gradient, method=method, tol=tol, max_iterations=max_iterations,
        preconditioner=preconditioner, options=options,
    )
    exact = method != "jacobian_free"
    _require(adjoint, "the adjoint solve", allow_unconverged or not exact)
    return Hypergradient(linearization.params_vjp(adjoint.x), adjoint, exact)


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
