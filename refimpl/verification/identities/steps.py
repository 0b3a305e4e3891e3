"""The step T of E8 and its linearisation, with every operator, tied and untied.

∂_u T, (∂_u T)ᵀ, (∂_θ T)ᵀ against T      complex steps, dot tests
tied: T(u) = u − τ ∇E(u), and H is the symmetric Hessian of E
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import Step, TiedStep
from refimpl.kernels.vectors import dot
from refimpl.paper import equations
from refimpl.results import Check
from refimpl.verification.checks import complex_step, jvp_vjp, symmetry, taylor
from refimpl.verification.identities import registry
from refimpl.verification.identities.agreement import agree
from refimpl.verification.identities.fields import towards


def checks(seed: int) -> Iterator[Check]:
    """All identities of steps."""
    for name, step in registry.steps(seed):
        rng = registry.stream(seed, f"state of {name}")
        shape = (registry.IMAGES, *step.problem.bank.image_shape)
        u, v, q = (rng.standard_normal(shape) for _ in range(3))
        yield from _derivative_checks(name, step, u, v, q)
        yield _parameter_check(name, step, u, q, rng)
        if isinstance(step, TiedStep):
            yield from _energy_checks(name, step, u, v, q)


def _derivative_checks(name: str, step: Step, u: Array, v: Array, q: Array) -> Iterator[Check]:
    lin = step.linearize(u)
    yield agree(f"E8, linearisation against step: {name}", lin.value, step.apply(u))
    T = partial(equations.step, step.problem, step.tau)
    yield agree(f"engine of E8: {name}", step.apply(u), T(u))
    yield complex_step(T, lin.jvp, u, v, name=f"E8 jvp, complex step: {name}")
    yield jvp_vjp(lin.jvp, lin.vjp, v, q, name=f"E8 vjp against jvp, dot test: {name}")
    yield taylor(step.apply, [lin.jvp(v)], u, v, name=f"E8 jvp, Taylor: {name}").check


def _parameter_check(name: str, step: Step, u: Array, q: Array, rng: np.random.Generator) -> Check:
    """All parameters at once, along one direction of each."""
    theta, gradient = step.problem.theta, dict(step.linearize(u).params_vjp(q).items())
    direction = {key: towards(g, rng.standard_normal(g.shape)) for key, g in gradient.items()}

    def paired(t):
        moved = replace(theta, **{key: x + t * direction[key] for key, x in theta.items()})
        return np.sum(equations.step(step.problem.with_theta(moved), step.tau, u) * q)

    def derivative(t):
        return t * sum(np.sum(gradient[key] * direction[key]) for key in direction)

    check = f"E8 parameter vjp, complex step: {name}"
    return complex_step(paired, derivative, np.float64(0), np.float64(1), name=check)


def _energy_checks(name: str, step: TiedStep, u: Array, v: Array, q: Array) -> Iterator[Check]:
    lin = step.linearize(u)
    gradient = step.gradient(u)
    yield agree(f"E8, T = u − τ∇E: {name}", step.apply(u), u - step.tau * gradient)
    E, derivative = partial(equations.energy, step.problem), lambda d: dot(gradient, d)
    yield agree(f"engine of E2: {name}", step.energy(u), E(u))
    yield complex_step(E, derivative, u, v, name=f"E2 gradient, complex step: {name}")
    yield symmetry(lin.hvp, v, q, name=f"E9 Hessian symmetric: {name}")
    terms = [dot(gradient, v), dot(v, lin.hvp(v))]
    for order, what in ((1, "gradient"), (2, "Hessian")):
        check = f"E2 {what}, Taylor: {name}"
        yield taylor(step.energy, terms[:order], u, v, name=check).check
