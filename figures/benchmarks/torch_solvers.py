"""Hypergradients in torch: the paper's iteration, Newton's method, L-BFGS and Anderson's method.

    plain      u ← T(u), then q ← ∇ℓ + (∂_u T)ᵀ q
    newton     as in `jax_solvers`, with the same safeguards and preconditioner; CG or BiCGStab
    lbfgs      torch.optim.LBFGS with its strong Wolfe line search; the adjoint by CG; tied only
    anderson   memory 10 on T; the adjoint by BiCGStab

Tolerances are relative residuals of the state, τ ‖G(u)‖ / max(‖u‖, ‖Kᵀy‖) for each image, and of
the adjoint system. All run without autodiff graphs: derivatives are the formulas E4 to E6.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from figures.benchmarks.torch_model import TorchModel

NEWTON_STEPS, HALVINGS, INNER = 100, 30, 2000
DECREASE = 1e-4
MEMORY, RIDGE = 10, 1e-6


class TorchSolution(NamedTuple):
    """State (N, H, W), dℓ/dθ, and counts: evaluations of G, products with J, products with Jᵀ."""

    state: np.ndarray
    gradient: np.ndarray
    counts: tuple[int, int, int]


def dot(x: Tensor, y: Tensor) -> Tensor:
    """⟨x, y⟩ of each image."""
    return (x * y).sum((1, 2, 3), keepdim=True)


def norm(x: Tensor) -> Tensor:
    """‖x‖ of each image."""
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)


def quotient(x: Tensor, y: Tensor) -> Tensor:
    """x / y, and 0 where y = 0."""
    return torch.where(y == 0, 0, x / torch.where(y == 0, 1, y))


def cg(matvec: Callable, b: Tensor, precondition: Callable, tol) -> tuple[Tensor, int]:
    """M x = b to ‖b − M x‖ ≤ tol ‖b‖ by conjugate gradients; x and the number of products."""
    goal, x, r, k = tol * norm(b), torch.zeros_like(b), b, 0
    p = z = precondition(r)
    rho = dot(r, z)
    while (running := norm(r) > goal).any() and k < INNER:
        Mp = matvec(p)
        alpha = torch.where(running, quotient(rho, dot(p, Mp)), 0)
        x, r, k = x + alpha * p, r - alpha * Mp, k + 1
        z, previous = precondition(r), rho
        rho = dot(r, z)
        p = torch.where(running, z + quotient(rho, previous) * p, p)
    return x, k


def bicgstab(matvec: Callable, b: Tensor, precondition: Callable, tol) -> tuple[Tensor, int]:
    """M x = b by BiCGStab, preconditioned from the right; x and the number of products."""
    goal, x, r, k = tol * norm(b), torch.zeros_like(b), b, 0
    p = Mp = torch.zeros_like(b)
    previous = alpha = omega = torch.ones_like(goal)
    while (running := norm(r) > goal).any() and k < INNER:
        rho = dot(b, r)
        p = r + quotient(rho, previous) * quotient(alpha, omega) * (p - omega * Mp)
        y = precondition(p)
        Mp = matvec(y)
        alpha = quotient(rho, dot(b, Mp))
        s = r - alpha * Mp
        z = precondition(s)
        Mz = matvec(z)
        omega = quotient(dot(Mz, s), dot(Mz, Mz))
        x = torch.where(running, x + alpha * y + omega * z, x)
        r = torch.where(running, s - omega * Mz, r)
        previous, k = rho, k + 2
    return x, k


class TorchIterate(NamedTuple):
    """u with z = Au, s = σ(z), G(u), ‖G(u)‖ and what a step must lower."""

    u: Tensor
    z: Tensor
    s: Tensor
    direction: Tensor
    size: Tensor
    merit: Tensor


def evaluate(model: TorchModel, u: Tensor) -> TorchIterate:
    """Everything at u that costs one evaluation of G."""
    z = model.A.analyse(u)
    s = torch.tanh(model.chi * z)
    direction = model.direction(u, s)
    size = norm(direction)
    return TorchIterate(u, z, s, direction, size, model.energy(u, z) if model.plain.tied else size)


def newton(model: TorchModel, tol: float) -> tuple[Tensor, tuple[int, int]]:
    """u with τ ‖G(u)‖ ≤ tol max(‖u‖, ‖Kᵀy‖), and counts of evaluations and products."""
    it = evaluate(model, model.adjoint(model.y))
    start, first, dual = norm(it.u), it.size, torch.zeros_like(it.s)
    evaluations, products = 1, 0
    for _ in range(NEWTON_STEPS):
        r = model.tau * it.size / torch.maximum(norm(it.u), start)
        if not (r > tol).any():
            break
        eta = torch.maximum((it.size / first).sqrt().clamp(max=0.5), tol / (2 * r))
        d = dual_slope(it.z, it.s, dual, model.chi)
        solve = cg if model.plain.tied else bicgstab
        change, count = solve(
            partial(model.jvp, d), -it.direction, model.preconditioner(d),
            torch.where(r > tol, eta, torch.inf),
        )
        dual = (it.s + d * model.A.analyse(change)).clamp_(-1, 1)
        it, trials = search(model, it, change, first)
        evaluations, products = evaluations + trials, products + count
    return it.u, (evaluations, products)


def search(
    model: TorchModel, it: TorchIterate, change: Tensor, first: Tensor
) -> tuple[TorchIterate, int]:
    """The first u + t δ, t = 1, 1/2, …, that is accepted, and the number of evaluations."""
    limit, slope = first, 0.0
    if model.plain.tied:
        rounding = torch.finfo(it.u.dtype).eps * it.u[0].numel() ** 0.5 * it.merit.abs()
        limit, slope = it.merit + rounding, dot(it.direction, change).clamp(max=0)
    t = torch.ones_like(it.size)
    new, trials = evaluate(model, it.u + change), 1
    while (refused := new.merit > limit + DECREASE * t * slope).any() and trials < HALVINGS:
        t = torch.where(refused, t / 2, t)
        new, trials = evaluate(model, it.u + t * change), trials + 1
    return new, trials


def dual_slope(z: Tensor, s: Tensor, dual: Tensor, slope: float) -> Tensor:
    """(σ(z)/z) (1 − ψ′(z) dual), ψ(z) = z/σ(z): σ′(z) where dual = σ(z)."""
    x = slope * z
    small = x.abs() < 1e-3
    safe_x, safe_s = torch.where(small, 1, x), torch.where(small, 1, s)
    majoriser = slope * torch.where(small, 1 - x * x / 3, safe_s / safe_x)
    psi = torch.where(small, 2 * x / 3, 1 / safe_s - safe_x * (1 - safe_s**2) / safe_s**2)
    return majoriser * (1 - psi * dual)


def lbfgs(model: TorchModel, tol: float) -> tuple[Tensor, tuple[int, int]]:
    """Minimise the energies of all images as one, until every image has the residual `tol`."""
    u = model.adjoint(model.y).clone()
    start, evaluations, residual = norm(u), 0, torch.inf
    optimizer = torch.optim.LBFGS(
        [u], max_iter=20, history_size=10, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        nonlocal evaluations, residual
        it = evaluate(model, u)
        u.grad, evaluations = it.direction, evaluations + 1
        residual = (model.tau * it.size / torch.maximum(norm(u), start)).max()
        return it.merit.sum()

    for _ in range(NEWTON_STEPS):
        if residual <= tol:
            break
        optimizer.step(closure)
        closure()
    return u, (evaluations, 0)


def anderson(model: TorchModel, tol: float) -> tuple[Tensor, tuple[int, int]]:
    """u ← Σ α_i T(u_i) over the last iterates, α minimising ‖Σ α_i (T(u_i) − u_i)‖."""
    u = model.adjoint(model.y)
    start, past, evaluations = norm(u), [], 0
    while evaluations < INNER:
        f, evaluations = -model.tau * model.direction(u), evaluations + 1
        if not (norm(f) / torch.maximum(norm(u), start) > tol).any():
            break
        past = [*past, (u, f)][-MEMORY:]
        F = torch.stack([f for _, f in past], 1).flatten(2)
        gram = F @ F.mT
        shift = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        ones = gram.new_ones(len(u), len(past), 1)
        a = torch.linalg.solve(gram + shift * torch.eye(len(past), dtype=gram.dtype), ones)
        alpha = (a / a.sum(1, keepdim=True))[:, :, :, None, None]
        u = (alpha * torch.stack([v + f for v, f in past], 1)).sum(1)
    return u, (evaluations, 0)


STATES = {"newton": newton, "lbfgs": lbfgs, "anderson": anderson}


@torch.no_grad()
def hypergradient(model: TorchModel, method: str, tol: float, adjoint_tol: float) -> TorchSolution:
    """The state by one of `STATES` and dℓ/dθ there by a preconditioned Krylov method."""
    u, counts = STATES[method](model, tol)
    s = torch.tanh(model.chi * model.A.analyse(u))
    d = model.chi * (1 - s * s)
    loss = 2 / u.numel() * (u - model.truth)
    solve = cg if model.plain.tied else bicgstab
    p, products = solve(partial(model.vjp, d), loss, model.preconditioner(d), adjoint_tol)
    return TorchSolution(u[:, 0].double().numpy(), model.gradients(u, p, s, d), (*counts, products))


@torch.no_grad()
def plain_hypergradient(
    model: TorchModel, iterations: int, adjoint_iterations: int
) -> TorchSolution:
    """The paper's: so many steps u ← T(u), then so many q ← ∇ℓ + (∂_u T)ᵀ q."""
    u = model.adjoint(model.y)
    for _ in range(iterations):
        u = u - model.tau * model.direction(u)
    s = torch.tanh(model.chi * model.A.analyse(u))
    d = model.chi * (1 - s * s)
    loss = q = 2 / u.numel() * (u - model.truth)
    for _ in range(adjoint_iterations):
        q = loss + q - model.tau * model.vjp(d, q)
    gradient = model.gradients(u, model.tau * q, s, d)
    return TorchSolution(u[:, 0].double().numpy(), gradient, (iterations, 0, adjoint_iterations))
