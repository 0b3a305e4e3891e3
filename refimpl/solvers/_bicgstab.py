"""BiCGStab, preconditioned from the right, with the shadow residual r̂ = r of the sweep's start.

    ρ⁺ = ⟨r̂, r⟩,  p⁺ = r + (ρ⁺/ρ)(α/ω)(p − ω v),  v = M P p⁺,  α = ρ⁺ / ⟨r̂, v⟩
    s = r − α v,  t = M P s,  ω = ⟨t, s⟩ / ⟨t, t⟩,  x⁺ = x + α P p⁺ + ω P s,  r⁺ = s − ω t

Where ρ, ⟨r̂, v⟩ or ω vanishes to working precision, the image leaves the sweep.

Reference: H. A. van der Vorst, Bi-CGSTAB, SIAM J. Sci. Stat. Comput. 13 (1992).
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.kernels.vectors import dot, norm, plus
from refimpl.solvers._systems import System


class _Stabilized(NamedTuple):
    """Iterate, residual, p, P p, v = M P p and the scalars ρ, α, ω of BiCGStab."""

    x: Array
    r: Array
    p: Array
    Pp: Array
    v: Array
    rho: Array
    alpha: Array
    omega: Array


def bicgstab_sweep(system: System, r: Array) -> tuple[Array, Array]:
    """BiCGStab with shadow residual r until each image claims the tolerance or breaks down.

    Of the spectrum of M P it says nothing; NaN stands for that.
    """
    progress, shadow = system.progress, r
    one, zero = np.ones(len(r), dtype=r.dtype), np.zeros_like(r)
    state = _Stabilized(zero, r, zero, zero, zero, one, one, one)
    while progress.running.any():
        rho = dot(shadow, state.r)
        progress.pause(_vanishes(rho, shadow, state.r))
        state = _next_direction(system, state, rho)
        along = dot(shadow, state.v)
        progress.pause(_vanishes(along, shadow, state.v))
        iterated = progress.running
        if not iterated.any():
            break
        state, orthogonal = _stabilized_step(system, state, along)
        system.record(norm(state.r))
        progress.pause(iterated & orthogonal)
    return state.x, np.full(len(r), np.nan)


def _next_direction(system: System, state: _Stabilized, rho: Array) -> _Stabilized:
    """β = (ρ⁺/ρ)(α/ω),  p⁺ = r + β (p − ω v),  v⁺ = M P p⁺."""
    running, keep = system.progress.running, system.progress.keep
    beta = np.where(running, rho * state.alpha / np.where(running, state.rho * state.omega, 1), 0)
    p = keep(plus(state.r, beta, plus(state.p, -state.omega, state.v)), state.p)
    Pp = system.precondition(p)
    return state._replace(p=p, Pp=Pp, v=keep(system.matvec(Pp), state.v), rho=rho)


def _stabilized_step(system: System, state: _Stabilized, along: Array) -> tuple[_Stabilized, Array]:
    """From p⁺ to x⁺ and r⁺; also where t ⟂ s, so that ω = 0 and the recurrence ends here.

    α = ρ/⟨r̂, v⟩,  s = r − α v,  t = M P s,  ω = ⟨t, s⟩/⟨t, t⟩,
    x⁺ = x + α P p⁺ + ω P s,  r⁺ = s − ω t
    """
    running, keep = system.progress.running, system.progress.keep
    alpha = np.where(running, state.rho / np.where(running, along, 1), 0)
    s = keep(plus(state.r, -alpha, state.v), state.r)
    Ps = system.precondition(s)
    t = system.matvec(Ps)
    orthogonal = _vanishes(dot(t, s), t, s)
    omega = np.where(orthogonal, 0, dot(t, s) / np.where(orthogonal, 1, dot(t, t)))
    x = keep(plus(plus(state.x, alpha, state.Pp), omega, Ps), state.x)
    r = keep(plus(s, -omega, t), state.r)
    return state._replace(x=x, r=r, alpha=alpha, omega=omega), orthogonal


def _vanishes(product: Array, x: Array, y: Array) -> Array:
    """Whether ⟨x, y⟩ is zero to working precision."""
    return np.abs(product) <= np.finfo(product.dtype).eps * norm(x) * norm(y)
