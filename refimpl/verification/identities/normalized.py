"""Spectral norms against dense singular values, and the derivative of A = s Â / ‖Â‖.

    exact    the difference quotient of f(Â) = ⟨g, A(Â)⟩; orthogonal to Â, since A(tÂ) = A(Â)
    frozen   misses it: the term with d‖Â‖ is left out

Singular vectors come from an iteration, so a complex step is impossible. The difference quotient
is D(h) = (f(Â + hd) − f(Â − hd)) / 2h, extrapolated to (4 D(h/2) − D(h)) / 3 = f′d + O(h⁴). Where
two singular values nearly meet, ‖Â‖ nearly has a kink; such Â are not drawn.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from refimpl.arrays import Array
from refimpl.equilibrium.norms import bank_norm
from refimpl.results import Check
from refimpl.training.normalization import Normalization
from refimpl.verification.checks.dense_matrices import singular_gap, singular_values
from refimpl.verification.identities import registry
from refimpl.verification.identities.agreement import agree, at_most

TARGET = 0.8  # s
CANDIDATES = 10
STEP = 1e-3  # h: truncation h⁴ and rounding eps/h are both below 1e-11
DIFFERENCE = 1e-8
LANCZOS = 1e-10  # singular values and vectors are computed to 1e-12 and lose a gap


def checks(seed: int) -> Iterator[Check]:
    """All identities of spectral norms and of the normalisation."""
    for name, bank in registry.banks():
        rng = registry.stream(seed, f"normalization {name}")
        raw, norm = separated(bank, rng)
        given = bank_norm(bank, raw)
        yield agree(f"‖A‖ against dense singular values: {name}", given, norm, LANCZOS)
        A = Normalization(bank, norm=TARGET).apply(raw)
        yield agree(f"A = s Â / ‖Â‖: {name}", A, TARGET * raw / norm, LANCZOS)
        yield from _derivative_checks(name, bank, raw, rng)


def separated(bank: registry.Bank, rng: np.random.Generator) -> tuple[Array, float]:
    """The candidate whose largest singular value is furthest from the next, and that value."""
    candidates = (registry.coefficients(bank, rng) for _ in range(CANDIDATES))
    raw = max(candidates, key=partial(singular_gap, bank))
    return raw, float(singular_values(bank, raw)[0])


def _derivative_checks(
    name: str, bank: registry.Bank, raw: Array, rng: np.random.Generator
) -> Iterator[Check]:
    # A gradient with a part along Â, so that the term that freezing leaves out is not small.
    g = raw + registry.coefficients(bank, rng)
    d = registry.coefficients(bank, rng)
    exact = Normalization(bank, "exact", norm=TARGET).vjp(raw, g)
    frozen = Normalization(bank, "frozen", norm=TARGET).vjp(raw, g)

    def paired(x):
        return np.sum(g * Normalization(bank, norm=TARGET).apply(x))

    slope, size = np.sum(exact * d), np.linalg.norm(exact)
    error = abs(slope - difference_quotient(paired, raw, d)) / (size * np.linalg.norm(d))
    yield Check(f"exact norm, difference quotient: {name}", float(error), DIFFERENCE)
    along = abs(np.sum(exact * raw)) / (size * np.linalg.norm(raw))
    yield Check(f"exact norm, orthogonal to Â: {name}", float(along), LANCZOS)
    apart = np.linalg.norm(frozen - exact) / size
    yield at_most(f"frozen norm, off by more than 1 %: {name}", 0.01, apart)


def difference_quotient(function, x: Array, d: Array) -> float:
    """f′(x) d by central differences with one extrapolation."""
    coarse, fine = ((function(x + h * d) - function(x - h * d)) / (2 * h) for h in (STEP, STEP / 2))
    return (4 * fine - coarse) / 3
