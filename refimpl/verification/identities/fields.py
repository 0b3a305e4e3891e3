"""Fields of experts: E2 to E7 for every potential in every form of bank, tied and untied.

    E3 is the derivative of E2, E4 that of E3               complex step, Taylor orders
    E5 is the adjoint of E4, and when tied E4 is symmetric  dot tests
    E6 is the derivative in each parameter                  complex step
    E7: the tied gradient is the sum of the untied ones at C = A
    the engine computes the definitions, which also serve the complex steps

Where σ has kinks, the state is drawn away from them and the direction is short enough that no
response crosses one, because across a kink the remainders have no order.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import Field, TiedField, make_field
from refimpl.kernels.vectors import dot
from refimpl.paper import equations
from refimpl.paper.operators.base import rounding_bound
from refimpl.paper.problem import FieldOfExperts
from refimpl.results import Check
from refimpl.verification.checks import complex_step, jvp_vjp, symmetry, taylor
from refimpl.verification.identities import registry
from refimpl.verification.identities.agreement import agree, agree_each
from refimpl.verification.rounding import furthest_from_kinks, shortened

CANDIDATES = 50


def checks(seed: int) -> Iterator[Check]:
    """All identities of fields."""
    for name, experts in registry.fields(seed):
        rng = registry.stream(seed, f"state of {name}")
        field = make_field(experts)
        u, reach = state(experts, rng)
        v, noise = (rng.standard_normal(u.shape) for _ in range(2))
        q = towards(field.value(u), noise)
        yield from _derivative_checks(name, field, u, v, q)
        yield from _parameter_checks(name, field, u, q, rng)
        short = shortened(experts, v, reach)
        yield from _taylor_checks(name, field, u, short)
        if isinstance(field, TiedField):
            yield from _energy_checks(name, field, u, (v, q), short)
            yield from _tie_checks(name, field, u, q)
        yield from _engine_checks(name, field, u, q)


def state(experts: FieldOfExperts, rng: np.random.Generator) -> tuple[Array, float]:
    """The candidate u whose responses stay furthest from all kinks, and that distance."""
    shape = (registry.IMAGES, *experts.bank.image_shape)
    candidates = [rng.standard_normal(shape) for _ in range(CANDIDATES)]
    return furthest_from_kinks(experts, experts.potential.kinks, candidates)


def towards(x: Array, noise: Array) -> Array:
    """`noise` with an equal part along x: its inner product with x does not cancel."""
    return noise + x * (np.linalg.norm(noise) / np.linalg.norm(x))


def _derivative_checks(name: str, field: Field, u: Array, v: Array, q: Array) -> Iterator[Check]:
    lin, F = field.linearize(u), partial(equations.field, field.experts)
    yield complex_step(F, lin.jvp, u, v, name=f"E4 against E3, complex step: {name}")
    yield jvp_vjp(lin.jvp, lin.vjp, v, q, name=f"E5 against E4, dot test: {name}")


def _parameter_checks(
    name: str, field: Field, u: Array, q: Array, rng: np.random.Generator
) -> Iterator[Check]:
    experts, gradient = field.experts, field.linearize(u).params_vjp(q)
    for key, value in experts.theta.items():
        direction = towards(getattr(gradient, key), rng.standard_normal(value.shape))

        def paired(x, key=key):
            moved = experts.with_theta(replace(experts.theta, **{key: x}))
            return np.sum(equations.field(moved, u) * q)

        def derivative(d, key=key):
            return np.sum(getattr(gradient, key) * d)

        check = f"E6 in {key} against E3, complex step: {name}"
        yield complex_step(paired, derivative, value, direction, name=check)


def _taylor_checks(name: str, field: Field, u: Array, v: Array) -> Iterator[Check]:
    jvp = field.linearize(u).jvp(v)
    yield taylor(field.value, [jvp], u, v, name=f"E4 against E3, Taylor: {name}").check


def _energy_checks(
    name: str, field: TiedField, u: Array, along: tuple[Array, Array], short: Array
) -> Iterator[Check]:
    lin, R = field.linearize(u), partial(equations.regulariser, field.experts)
    derivative, (v, q) = lambda d: dot(lin.value, d), along
    yield complex_step(R, derivative, u, v, name=f"E3 against E2, complex step: {name}")
    yield symmetry(lin.hvp, v, q, name=f"E4 symmetric: {name}")
    terms = [dot(lin.value, short), dot(short, lin.hvp(short))]
    for order in (1, 2):
        check = f"{('E3', 'E4')[order - 1]} against E2, Taylor: {name}"
        yield taylor(field.energy, terms[:order], u, short, name=check).check


def _tie_checks(name: str, field: TiedField, u: Array, q: Array) -> Iterator[Check]:
    """E7: g_A tied = g_A + g_C untied at C = A; the other parameters are the same."""
    untied = make_field(field.experts.with_theta(field.experts.theta.untie()))
    given = field.linearize(u).params_vjp(q)
    apart = untied.linearize(u).params_vjp(q)
    summed = replace(apart, A=apart.A + apart.C, C=None)
    yield agree(f"E7, field: {name}", field.value(u), untied.value(u))
    yield from agree_each(f"E7, tied against untied: {name}", given, summed)


def _engine_checks(name: str, field: Field, u: Array, q: Array) -> Iterator[Check]:
    """The engine against `refimpl.paper.equations`."""
    lin, experts = field.linearize(u), field.experts
    bound = rounding_bound(lin.responses[0])
    yield agree(f"engine of E3: {name}", field.value(u), equations.field(experts, u), bound)
    yield agree(f"engine of E4: {name}", lin.jvp(q), equations.field_jvp(experts, u, q), bound)
    yield agree(f"engine of E5: {name}", lin.vjp(q), equations.field_vjp(experts, u, q), bound)
    gradients = lin.params_vjp(q), equations.field_params_vjp(experts, u, q)
    yield from agree_each(f"engine of E6: {name}", *gradients, bound)
    if experts.tied:
        energies = lin.energy, equations.regulariser(experts, u)
        yield agree(f"engine of E2: {name}", *energies, bound)
