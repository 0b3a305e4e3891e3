"""Fields of experts: E2 to E7 for every potential in every form of bank, tied and untied.

    E3 is the derivative of E2, E4 that of E3               complex step, Taylor orders
    E5 is the adjoint of E4, and when tied E4 is symmetric  dot tests
    E6 is the derivative in each parameter                  complex step
    E7: the tied gradient is the sum of the untied ones at C = A
    the compiled kernels compute the definitions

Where σ has kinks, the state is drawn away from them and the direction is short enough that no
response crosses one, because across a kink the remainders have no order.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from refimpl.arrays import Array
from refimpl.checks import complex_step, jvp_vjp, symmetry, taylor
from refimpl.checks.adjoints import rounding_bound
from refimpl.fields_of_experts import FieldsOfExperts, TiedFieldsOfExperts, definition, make_field
from refimpl.identities import registry
from refimpl.identities.compare import agree, agree_each
from refimpl.identities.linear import uncompiled
from refimpl.operators import FilterBank
from refimpl.results import Check
from refimpl.vectors import dot

CANDIDATES = 50


def checks(seed: int) -> Iterator[Check]:
    """All identities of fields."""
    for name, field in registry.fields(seed):
        rng = registry.stream(seed, f"state of {name}")
        u, reach = state(field, rng)
        v, noise = (rng.standard_normal(u.shape) for _ in range(2))
        q = towards(field.value(u), noise)
        yield from _derivative_checks(name, field, u, v, q)
        yield from _parameter_checks(name, field, u, q, rng)
        yield from _taylor_checks(name, field, u, shortened(field, v, reach))
        if isinstance(field, TiedFieldsOfExperts):
            yield from _energy_checks(name, field, u, v, q)
            yield from _tie_checks(name, field, u, q)
        if isinstance(field.bank, FilterBank):
            yield from _kernel_checks(name, field, u, q)


def state(field: FieldsOfExperts, rng: np.random.Generator) -> tuple[Array, float]:
    """The candidate u whose responses stay furthest from all kinks, and that distance."""
    shape = (registry.IMAGES, *field.bank.image_shape)
    candidates = [rng.standard_normal(shape) for _ in range(CANDIDATES)]
    distances = [distance_to_kinks(field, u) for u in candidates]
    best = int(np.argmax(distances))
    return candidates[best], distances[best]


def distance_to_kinks(field: FieldsOfExperts, u: Array) -> float:
    """min |z − kink| over all responses and kinks; infinite for smooth potentials."""
    kinks = field.potential.kinks
    if not kinks:
        return np.inf
    z = definition.preactivation(field.bank, field.parameters, u)
    return float(min(np.abs(z - kink).min() for kink in kinks))


def shortened(field: FieldsOfExperts, v: Array, reach: float) -> Array:
    """`v`, scaled down so that no response to u + v moves by more than `reach`."""
    largest = np.abs(field.bank.apply(field.parameters.A, v)).max()
    return v * min(1.0, reach / largest)


def towards(x: Array, noise: Array) -> Array:
    """`noise` with an equal part along x: its inner product with x does not cancel."""
    return noise + x * (np.linalg.norm(noise) / np.linalg.norm(x))


def _derivative_checks(
    name: str, field: FieldsOfExperts, u: Array, v: Array, q: Array
) -> Iterator[Check]:
    lin = field.linearize(u)
    yield complex_step(field.value, lin.jvp, u, v, name=f"E4 against E3, complex step: {name}")
    yield jvp_vjp(lin.jvp, lin.vjp, v, q, name=f"E5 against E4, dot test: {name}")


def _parameter_checks(
    name: str, field: FieldsOfExperts, u: Array, q: Array, rng: np.random.Generator
) -> Iterator[Check]:
    gradient = field.linearize(u).params_vjp(q)
    for key, value in field.parameters.items():
        direction = towards(getattr(gradient, key), rng.standard_normal(value.shape))

        def paired(x, key=key):
            moved = make_field(field.bank, field.potential, replace(field.parameters, **{key: x}))
            return np.sum(moved.value(u) * q)

        def derivative(d, key=key):
            return np.sum(getattr(gradient, key) * d)

        check = f"E6 in {key} against E3, complex step: {name}"
        yield complex_step(paired, derivative, value, direction, name=check)


def _taylor_checks(name: str, field: FieldsOfExperts, u: Array, v: Array) -> Iterator[Check]:
    jvp = field.linearize(u).jvp(v)
    yield taylor(field.value, [jvp], u, v, name=f"E4 against E3, Taylor: {name}").check


def _energy_checks(
    name: str, field: TiedFieldsOfExperts, u: Array, v: Array, q: Array
) -> Iterator[Check]:
    lin = field.linearize(u)
    derivative = lambda d: dot(lin.value, d)  # noqa: E731
    yield complex_step(field.energy, derivative, u, v, name=f"E3 against E2, complex step: {name}")
    yield symmetry(lin.hvp, v, q, name=f"E4 symmetric: {name}")
    short = shortened(field, v, distance_to_kinks(field, u))
    terms = [dot(lin.value, short), dot(short, lin.hvp(short))]
    for order in (1, 2):
        check = f"{('E3', 'E4')[order - 1]} against E2, Taylor: {name}"
        yield taylor(field.energy, terms[:order], u, short, name=check).check


def _tie_checks(name: str, field: TiedFieldsOfExperts, u: Array, q: Array) -> Iterator[Check]:
    """E7: g_A tied = g_A + g_C untied at C = A; the other parameters are the same."""
    untied = make_field(field.bank, field.potential, field.parameters.untie())
    given = field.linearize(u).params_vjp(q)
    apart = untied.linearize(u).params_vjp(q)
    summed = replace(apart, A=apart.A + apart.C, C=None)
    yield agree(f"E7, field: {name}", field.value(u), untied.value(u))
    yield from agree_each(f"E7, tied against untied: {name}", given, summed)


def _kernel_checks(name: str, field: FieldsOfExperts, u: Array, q: Array) -> Iterator[Check]:
    """The compiled field against the same field in plain NumPy."""
    plain = make_field(uncompiled(field.bank), field.potential, field.parameters)
    lin, plain_lin = field.linearize(u), plain.linearize(u)
    bound = rounding_bound(lin.responses[0])
    yield agree(f"kernel of E3: {name}", field.value(u), plain.value(u), bound)
    yield agree(f"kernel of E4: {name}", lin.jvp(q), plain_lin.jvp(q), bound)
    yield agree(f"kernel of E5: {name}", lin.vjp(q), plain_lin.vjp(q), bound)
    gradients = lin.params_vjp(q), plain_lin.params_vjp(q)
    yield from agree_each(f"kernel of E6: {name}", *gradients, bound)
    if field.parameters.tied:
        yield agree(f"kernel of E2: {name}", field.energy(u), plain.energy(u), bound)
