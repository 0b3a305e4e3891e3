"""Potentials: φ, σ and σ′ are derivatives of each other, keep their bounds, and are compiled alike.

The points are ± 10^e with e uniform in [−3, 3]: flat and steep parts, both sides of every kink.
"""

from collections.abc import Iterator

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import make_field
from refimpl.paper.operators import FilterBank
from refimpl.paper.potentials import METHODS, Potential
from refimpl.paper.problem import FieldOfExperts
from refimpl.results import Check
from refimpl.verification.identities import registry
from refimpl.verification.identities.agreement import at_most
from refimpl.verification.scans import POINTS, exact_derivative, points

NEGLIGIBLE = 1e-280  # the kernels cut sech² off at 4e-304, the definition goes on to underflow
COMPILED = 32 * np.finfo(float).eps  # relative error allowed to each compiled number


def checks(seed: int) -> Iterator[Check]:
    """All identities of potentials."""
    for name, potential in registry.potentials():
        z = points(registry.stream(seed, name))
        yield from _derivative_checks(name, potential, z)
        yield from _bound_checks(name, potential, z)
        yield from _kernel_checks(name, potential, z)


def _derivative_checks(name: str, potential: Potential, z: Array) -> Iterator[Check]:
    value, sigma, slope = (getattr(potential, method) for method in METHODS)
    for what, function, derivative in (("σ = φ′", value, sigma), ("σ′", sigma, slope)):
        yield exact_derivative(function, derivative, z, name=f"{what}: {name}")


def _bound_checks(name: str, potential: Potential, z: Array) -> Iterator[Check]:
    dense = np.concatenate([z, np.linspace(-2, 2, 2001) * (potential.parameter or 1)])
    slope = potential.second_derivative(dense)
    rounding = 1 + COMPILED
    yield at_most(f"sup|σ′|: {name}", np.abs(slope).max(), potential.sup_second * rounding)
    if potential.smooth:
        bend = np.abs(potential.second_derivative(dense + 1e-30j).imag / 1e-30).max()
        yield at_most(f"sup|σ″|: {name}", bend, potential.sup_third * rounding)
    if potential.convex:
        yield Check(f"convex, σ′ ≥ 0: {name}", float(-slope.min()), 0.0)


def _kernel_checks(name: str, potential: Potential, z: Array) -> Iterator[Check]:
    """One filter of one pixel and value 1 hands z to the kernels as it is."""
    def field(image_shape):
        bank = FilterBank(image_shape, (1, 1, 1), "zero")
        return make_field(FieldOfExperts(bank, potential, np.ones((1, 1, 1, 1))))

    u, image = z.reshape(1, 1, 20, -1), field((1, 20, POINTS // 20))
    slopes = image.linearize(u).jvp(np.ones_like(u))
    for what, given, expected in (
        ("σ", image.value(u), potential.derivative(u)),
        ("σ′", slopes, potential.second_derivative(u)),
    ):
        yield Check(f"compiled {what}: {name}", elementwise(given, expected), COMPILED)
    given = field((1, 1, 1)).energy(u.reshape(-1, 1, 1, 1))
    yield Check(f"compiled φ: {name}", elementwise(given, potential.value(z)), COMPILED)


def elementwise(given: Array, expected: Array) -> float:
    """max |given − expected| / |expected|; smaller magnitudes count as 1e-280."""
    return float((np.abs(given - expected) / np.maximum(np.abs(expected), NEGLIGIBLE)).max())
