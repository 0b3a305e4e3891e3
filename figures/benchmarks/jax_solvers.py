"""Newton's method with preconditioned Krylov solves, compiled as one program by JAX.

    state     (λ KᵀK + Cᵀ diag(d) A) δ = −G(u),  u ← u + t δ
    adjoint   Jᵀ p = ∇ℓ(u*)

Plain Newton steps, d = σ′(z), must be halved again and again where σ is steep. With a dual
variable v for σ(z), z = Au, and ψ(z) = z / σ(z), the equation ψ(z) v = z is linearised instead:

    d = (1 − ψ′(z) v) / ψ(z),   v ← clip( σ(z) + d ⊙ Aδ, −1, 1 ),

which begins, v = 0, as iteratively reweighted least squares and ends, v = σ(z), as Newton's
method. Steps are halved until they lower the energy; untied, where there is none, only while ‖G‖
exceeds that of the start.

Tied, the systems are symmetric and conjugate gradients solve them; untied, BiCGStab does. Both
are preconditioned, and every image of the batch has its own stopping test.

Reference: T. Chan, G. Golub and P. Mulet, A nonlinear primal-dual method for total variation-based
image restoration, SIAM J. Sci. Comput. 20 (1999).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from figures.benchmarks.jax_model import Arrays, JaxModel
from figures.benchmarks.jax_products import Array

NEWTON_STEPS, HALVINGS, INNER = 100, 30, 2000
DECREASE = 1e-4


class JaxSolution(NamedTuple):
    """State, dℓ/dθ and counts: evaluations of G, products with J, products with Jᵀ."""

    state: Array
    gradient: Array
    counts: Array


def dot(x: Array, y: Array) -> Array:
    """⟨x, y⟩ of each image, (N, 1, 1)."""
    return (x * y).sum((1, 2), keepdims=True)


def norm(x: Array) -> Array:
    """‖x‖ of each image, (N, 1, 1)."""
    return jnp.sqrt(dot(x, x))


def quotient(x: Array, y: Array) -> Array:
    """x / y, and 0 where y = 0."""
    return jnp.where(y == 0, 0, x / jnp.where(y == 0, 1, y))


def cg(matvec: Callable, b: Array, precondition: Callable, tol: Array) -> tuple[Array, Array]:
    """M x = b to ‖b − M x‖ ≤ tol ‖b‖ by conjugate gradients; x and the number of products."""
    goal = tol * norm(b)

    def going(carry):
        _, r, _, _, k = carry
        return (norm(r) > goal).any() & (k < INNER)

    def step(carry):
        x, r, p, rho, k = carry
        running = norm(r) > goal
        Mp = matvec(p)
        alpha = jnp.where(running, quotient(rho, dot(p, Mp)), 0)
        x, r = x + alpha * p, r - alpha * Mp
        z = precondition(r)
        new = dot(r, z)
        return x, r, jnp.where(running, z + quotient(new, rho) * p, p), new, k + 1

    z = precondition(b)
    x, _, _, _, k = lax.while_loop(going, step, (jnp.zeros_like(b), b, z, dot(b, z), 0))
    return x, k


def bicgstab(matvec: Callable, b: Array, precondition: Callable, tol: Array) -> tuple[Array, Array]:
    """M x = b by BiCGStab, preconditioned from the right; x and the number of products."""
    goal = tol * norm(b)

    def going(carry):
        return (norm(carry[1]) > goal).any() & (carry[-1] < INNER)

    def step(carry):
        x, r, p, Mp, rho, alpha, omega, k = carry
        running = norm(r) > goal
        new = dot(b, r)
        p = r + quotient(new, rho) * quotient(alpha, omega) * (p - omega * Mp)
        y = precondition(p)
        Mp = matvec(y)
        alpha = quotient(new, dot(b, Mp))
        s = r - alpha * Mp
        z = precondition(s)
        Mz = matvec(z)
        omega = quotient(dot(Mz, s), dot(Mz, Mz))
        x = jnp.where(running, x + alpha * y + omega * z, x)
        return x, jnp.where(running, s - omega * Mz, r), p, Mp, new, alpha, omega, k + 2

    one, zero = jnp.ones_like(goal), jnp.zeros_like(b)
    x, *_, k = lax.while_loop(going, step, (zero, b, zero, zero, one, one, one, 0))
    return x, k


class JaxIterate(NamedTuple):
    """u with z = Au, s = σ(z), G(u), ‖G(u)‖, its merit, the dual variable, and counts."""

    u: Array
    z: Array
    s: Array
    direction: Array
    size: Array
    merit: Array
    dual: Array
    counts: Array


def evaluate(model: JaxModel, arrays: Arrays, u: Array, dual: Array, counts: Array) -> JaxIterate:
    """Everything at u that costs one evaluation of G."""
    z = model.analyse(arrays, u)
    s = jnp.tanh(model.plain.slope * z)
    direction = model.direction(arrays, u, s)
    size = norm(direction)
    merit = model.energy(arrays, u, z) if model.plain.tied else size
    return JaxIterate(u, z, s, direction, size, merit, dual, counts + jnp.array([1, 0]))


def newton(model: JaxModel, arrays: Arrays, u0: Array, tol: Array) -> JaxIterate:
    """u with τ ‖G(u)‖ ≤ tol max(‖u‖, ‖u0‖)."""
    tau, start = model.plain.tau, norm(u0)

    def residual(it):
        return tau * it.size / jnp.maximum(norm(it.u), start)

    def going(carry):
        return (residual(carry[0]) > tol).any() & (carry[1] < NEWTON_STEPS)

    def step(carry):
        it, k = carry
        r = residual(it)
        eta = jnp.maximum(jnp.minimum(0.5, jnp.sqrt(it.size / first)), tol / (2 * r))
        return newton_step(model, arrays, it, jnp.where(r > tol, eta, jnp.inf), first), k + 1

    zero = jnp.array([0, 0])
    begin = evaluate(model, arrays, u0, jnp.zeros(()), zero)
    first = begin.size
    return lax.while_loop(going, step, (begin._replace(dual=0 * begin.s), 0))[0]


def newton_step(
    model: JaxModel, arrays: Arrays, it: JaxIterate, eta: Array, first: Array
) -> JaxIterate:
    """The system with the responses of the dual variable, then the step and its safeguard."""
    d = dual_slope(it.z, it.s, it.dual, model.plain.slope)
    lin, solve = model.linearize(arrays, d), cg if model.plain.tied else bicgstab
    change, products = solve(lin.jvp, -it.direction, model.preconditioner(arrays, d), eta)
    dual = jnp.clip(it.s + d * model.analyse(arrays, change), -1, 1)
    counts = it.counts + jnp.array([0, products])

    limit, slope = first, 0.0
    if model.plain.tied:
        rounding = jnp.finfo(it.u.dtype).eps * jnp.sqrt(it.u[0].size) * jnp.abs(it.merit)
        limit, slope = it.merit + rounding, jnp.minimum(dot(it.direction, change), 0)

    def refused(t, new):
        return new.merit > limit + DECREASE * t * slope

    def going(carry):
        t, new, k = carry
        return refused(t, new).any() & (k < HALVINGS)

    def halve(carry):
        t, new, k = carry
        t = jnp.where(refused(t, new), t / 2, t)
        return t, evaluate(model, arrays, it.u + t * change, dual, new.counts), k + 1

    begin = evaluate(model, arrays, it.u + change, dual, counts)
    return lax.while_loop(going, halve, (jnp.ones_like(it.size), begin, 0))[1]


def dual_slope(z: Array, s: Array, dual: Array, slope: float) -> Array:
    """(σ(z)/z) (1 − ψ′(z) dual), ψ(z) = z/σ(z): σ′(z) where dual = σ(z)."""
    x = slope * z
    small = jnp.abs(x) < 1e-3
    safe_x, safe_s = jnp.where(small, 1, x), jnp.where(small, 1, s)
    majoriser = slope * jnp.where(small, 1 - x * x / 3, safe_s / safe_x)
    psi = jnp.where(small, 2 * x / 3, 1 / safe_s - safe_x * (1 - safe_s**2) / safe_s**2)
    return majoriser * (1 - psi * dual)


def hypergradient(model: JaxModel, arrays: Arrays, tol: Array, adjoint_tol: Array) -> JaxSolution:
    """The state from Kᵀy and dℓ/dθ there, E9 and E10, ℓ the mean squared error."""
    it = newton(model, arrays, model.adjoint(arrays, arrays.y), tol)
    d = model.plain.slope * (1 - it.s**2)
    loss = 2 / it.u.size * (it.u - arrays.truth)
    lin, solve = model.linearize(arrays, d), cg if model.plain.tied else bicgstab
    p, products = solve(lin.vjp, loss, model.preconditioner(arrays, d), adjoint_tol)
    gradient = model.gradients(arrays, it.u, p, it.s, d)
    return JaxSolution(it.u, gradient, jnp.concatenate([it.counts, jnp.array([products])]))


def compiled(model: JaxModel) -> Callable[[float, float], JaxSolution]:
    """(tol, adjoint_tol) ↦ JaxSolution, one program for all tolerances."""
    program = jax.jit(partial(hypergradient, model))
    return lambda tol, adjoint_tol: program(model.arrays, tol, adjoint_tol)
