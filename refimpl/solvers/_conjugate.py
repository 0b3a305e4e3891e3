"""Conjugate gradients for symmetric M, with frozen images, one step at a time.

    α = ρ / ⟨p, M p⟩,  x⁺ = x + α p,  r⁺ = r − α M p,  ρ⁺ = ⟨r⁺, P r⁺⟩,  p⁺ = P r⁺ + (ρ⁺ / ρ) p

`conjugate_start` and `conjugate_step` leave the sign of ⟨p, M p⟩ to the caller: the sweep of `cg`
raises where it is not positive, Newton's method stops there.

The numbers ρ_j and κ_j = ⟨p_j, M p_j⟩ of a run are Lanczos' tridiagonal matrix of P M: with
1/α_j = κ_j/ρ_j and β_j = ρ_{j+1}/ρ_j its entries are 1/α_j + β_{j−1}/α_{j−1} and, beside them,
√β_j/α_j. Its eigenvalues, the Ritz values, lie between those of P M, and the extreme ones come near
first.

Reference: G. H. Golub and G. Meurant, Matrices, Moments and Quadrature (2010), section 5.
"""

import itertools
from typing import NamedTuple

import numpy as np
import scipy  # loads `scipy.linalg` when it is first used

from refimpl.arrays import Array, per_image
from refimpl.kernels.vectors import dot, norm, plus
from refimpl.solvers._systems import Matvec, System


class Conjugate(NamedTuple):
    """Iterate, residual, direction p and ρ = ⟨r, P r⟩ of conjugate gradients."""

    x: Array
    r: Array
    p: Array
    rho: Array


def conjugate_start(r: Array, precondition: Matvec) -> Conjugate:
    """x = 0, and the first direction p = P r."""
    z = precondition(r)
    return Conjugate(np.zeros_like(r), r, z, dot(r, z))


def conjugate_step(
    state: Conjugate, Mp: Array, curvature: Array, precondition: Matvec, running: Array
) -> Conjugate:
    """One step along p, curvature = ⟨p, M p⟩, and the next direction; frozen images stay.

    α = ρ / ⟨p, M p⟩,  x⁺ = x + α p,  r⁺ = r − α M p,  p⁺ = P r⁺ + (ρ⁺ / ρ) p
    """
    alpha = np.where(running, state.rho / np.where(running, curvature, 1), 0)
    x, r = plus(state.x, alpha, state.p), plus(state.r, -alpha, Mp)
    z = precondition(r)
    rho = dot(r, z)
    beta = np.where(running, rho / np.where(running, state.rho, 1), 0)
    new = Conjugate(x, r, plus(z, beta, state.p), rho)
    if running.all():
        return new
    pairs = zip(new, state, strict=True)
    return Conjugate(*(np.where(per_image(running, a), a, b) for a, b in pairs))


def conjugate_sweep(system: System, r: Array) -> tuple[Array, Array]:
    """Conjugate gradients until every image's recurrence claims the tolerance.

    Also the smallest Ritz value of P M for each image.
    """
    progress, previous = system.progress, None
    state = conjugate_start(r, system.precondition)
    rows = []
    for k in itertools.count():
        if not progress.running.any():
            break
        _require_positive(system, state.rho, "⟨r, P r⟩", "the preconditioner")
        Mp = system.matvec(state.p)
        curvature = dot(state.p, Mp)
        _require_positive(system, curvature, "⟨p, M p⟩", "M")
        if k == 1:
            _require_symmetric(system, *previous, state.p, Mp)
        previous = (state.p, Mp)
        rows.append(np.where(progress.running, (state.rho, curvature), np.nan))
        state = conjugate_step(state, Mp, curvature, system.precondition, progress.running)
        system.record(norm(state.r))
    return state.x, smallest_ritz_values(rows, len(r))


def smallest_ritz_values(rows: list[Array], images: int) -> Array:
    """The smallest Ritz value of each image, from its (ρ_j, κ_j), NaN where it did not run.

    Infinite for an image that never ran.
    """
    smallest = np.full(images, np.inf)
    numbers = np.array(rows, dtype=float).reshape(len(rows), 2, images)
    for n in range(images):
        rho, kappa = numbers[~np.isnan(numbers[:, 0, n]), :, n].T
        if rho.size:
            smallest[n] = _smallest_ritz_value(rho, kappa)
    return smallest


def _smallest_ritz_value(rho: Array, kappa: Array) -> float:
    inverse, beta = kappa / rho, rho[1:] / rho[:-1]
    diagonal = inverse + np.append(0, beta * inverse[:-1])
    beside = np.sqrt(beta) * inverse[:-1]
    if not (np.isfinite(diagonal).all() and np.isfinite(beside).all()):
        return 0.0
    values = scipy.linalg.eigvalsh_tridiagonal(
        diagonal, beside, select="i", select_range=(0, 0)
    )
    return max(float(values[0]), 0.0)


def _require_positive(system: System, values: Array, what: str, operator: str) -> None:
    system.stop(
        ~(values > 0),
        lambda n: f"{what} = {values[n]:.3g} for {{image}}, expected a positive number: {operator} "
        "is not positive definite; use gmres, or solve at a state where it is",
    )


def _require_symmetric(system: System, p: Array, Mp: Array, q: Array, Mq: Array) -> None:
    """Compare ⟨p, M q⟩ with ⟨M p, q⟩ to √eps of their factors, far above rounding."""
    gap = np.abs(dot(p, Mq) - dot(Mp, q))
    bound = np.sqrt(np.finfo(p.dtype).eps) * (norm(p) * norm(Mq) + norm(Mp) * norm(q))
    system.stop(
        gap > bound,
        lambda n: f"⟨p, M q⟩ and ⟨M p, q⟩ differ by {gap[n]:.3g} for {{image}}, expected at most "
        f"{bound[n]:.3g}: M is not symmetric; use gmres or bicgstab",
    )
