"""Every way to a hypergradient, by one signature: tolerance ↦ `Outcome`.

A variant is made for a problem, which is when programs are compiled, and then called with a
relative residual of the state; that of the adjoint system is `ADJOINT_FACTOR` times it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize
from scipy.sparse.linalg import LinearOperator, cg

from figures.benchmarks.plain import plain
from figures.task import Task, filters_vector
from refimpl import hypergradient, reconstruct
from refimpl.arrays import Array
from refimpl.kernels.vectors import norm

# With it, neither the state nor the adjoint alone decides the error of the hypergradient.
ADJOINT_FACTOR = 100


class Outcome(NamedTuple):
    """State and gradient as vectors, and counts of the work done on the whole batch."""

    state: Array
    gradient: Array
    evaluations: int
    products: int
    adjoint_products: int


Solve = Callable[[float], Outcome]


def make_refimpl(problem: Task, max_iterations: int | None = None) -> Solve:
    """This project, with the solvers that it chooses by itself."""
    step = problem.step

    def solve(tol: float) -> Outcome:
        star = reconstruct(step, method="auto", residual_tol=tol, max_iterations=max_iterations)
        loss = problem.loss_gradient(star.x)
        result = hypergradient(step, star, loss, method="auto", residual_tol=ADJOINT_FACTOR * tol)
        counts = star.evaluations, star.products, result.adjoint.products
        return Outcome(star.x.ravel(), filters_vector(result.gradient), *counts)

    return solve


def make_jax(problem: Task, product: str) -> Solve:
    """Newton's method compiled by JAX, with one of its products."""
    from figures.benchmarks.jax_model import make_model
    from figures.benchmarks.jax_solvers import compiled

    program = compiled(make_model(plain(problem.step, problem.truth), product))

    def solve(tol: float) -> Outcome:
        found = program(tol, ADJOINT_FACTOR * tol)
        return Outcome(
            np.asarray(found.state).ravel(), np.asarray(found.gradient).ravel(),
            *map(int, found.counts),
        )

    return solve


def make_torch(problem: Task, method: str, form: str = "conv2d") -> Solve:
    """A solver of `torch_solvers` in float64."""
    from figures.benchmarks.torch_model import TorchModel
    from figures.benchmarks.torch_solvers import hypergradient as torch_hypergradient

    model = TorchModel(plain(problem.step, problem.truth), form)

    def solve(tol: float) -> Outcome:
        found = torch_hypergradient(model, method, tol, ADJOINT_FACTOR * tol)
        return Outcome(found.state.ravel(), found.gradient.ravel(), *found.counts)

    return solve


def make_scipy(problem: Task) -> Solve:
    """SciPy's L-BFGS-B on all images at once and its plain CG, with refimpl's own kernels."""

    def solve(tol: float) -> Outcome:
        u, evaluations = scipy_state(problem, tol)
        lin = problem.step.linearize(u)
        products = [0]

        def product(v: Array) -> Array:
            products[0] += 1
            return lin.hvp(v.reshape(u.shape)).ravel()

        hessian = LinearOperator((u.size, u.size), product, dtype=u.dtype)
        loss = problem.loss_gradient(u)
        p, _ = cg(hessian, loss.ravel(), rtol=ADJOINT_FACTOR * tol, maxiter=10_000)
        gradient = lin.params_vjp(p.reshape(u.shape) / problem.step.tau)
        return Outcome(u.ravel(), filters_vector(gradient), evaluations, 0, products[0])

    return solve


def scipy_state(problem: Task, tol: float) -> tuple[Array, int]:
    """The minimiser of the sum of all energies to the residual `tol` of each image."""
    step, count, seen = problem.step, 0, {}
    u0 = step.operator.adjoint(step.problem.y)

    def objective(x: Array) -> tuple[float, Array]:
        nonlocal count
        lin, count = step.linearize(x.reshape(u0.shape)), count + 1
        seen["x"], seen["g"] = x.copy(), lin.gradient
        return float(lin.energy.sum()), lin.gradient.ravel()

    def stop(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        x = intermediate_result.x
        if not np.array_equal(x, seen["x"]):
            objective(x)
        scale = np.maximum(norm(x.reshape(u0.shape)), norm(u0))
        if (step.tau * norm(seen["g"]) <= tol * scale).all():
            raise StopIteration

    options = {"maxcor": 10, "ftol": 0.0, "gtol": 0.0, "maxiter": 10_000, "maxfun": 100_000}
    found = scipy.optimize.minimize(
        objective, u0.ravel(), jac=True, method="L-BFGS-B", callback=stop, options=options
    )
    return found.x.reshape(u0.shape), count


class Variant(NamedTuple):
    """A name, what makes it, and whether its tolerances are chosen on a few images first."""

    name: str
    make: Callable[[Task], Solve]
    slow: bool = False
    untied: bool = True


def variants(form: str, product: str) -> tuple[Variant, ...]:
    """All of them, torch with its fastest `form` and JAX with its fastest `product`."""
    torch = [
        Variant(
            f"torch {method}", lambda p, m=method: make_torch(p, m, form), True, method != "lbfgs"
        )
        for method in ("newton", "lbfgs", "anderson")
    ]
    return (
        Variant("refimpl", make_refimpl),
        *torch,
        Variant("jax convolutions", lambda p: make_jax(p, product)),
        Variant("jax stencil", lambda p: make_jax(p, "stencil")),
        Variant("scipy", make_scipy, True, False),
    )
