"""Causes that multiply: a whole output, or one of the terms that it adds up."""

from collections.abc import Iterator

import numpy as np

from refimpl.arrays import Array
from refimpl.crosscheck.parts import cotangent_terms, tangent_terms, terms
from refimpl.crosscheck.suspects.evidence import Evidence, Prediction

# Digits of a factor that has no name.
DIGITS = 4

# A number this near to 1 is rounding or chance, not a factor.
LEAST = 0.01
TERMS = ("state_term_factor", "data_term_factor", "field_term_factor")


def factors(evidence: Evidence) -> dict[str, float]:
    """Factors that programs are off by, by name, with their values in this case."""
    case, shape = evidence.case, evidence.case.arrays["u"].shape
    N, C, H, W = shape
    numbers = {"tau": case.tau, "lambda": case.lam, "gamma": case.gamma}
    counts = {
        "batch": N,
        "pixels": C * H * W,
        "channels": C,
        "pixels_of_channel": H * W,
        "filters": len(case.arrays["A"]),
    }
    named = {"two": 2.0, "half": 0.5, "minus_one": -1.0, "zero": 0.0}
    for name, value in (numbers | counts).items():
        named |= {name: value, f"one_over_{name}": 1 / value}
    return named


def slug_of(name: str) -> str:
    """The cause that a factor of an output is called."""
    special = {
        "two": "factor_two",
        "half": "factor_half",
        "minus_one": "sign",
        "zero": "zero",
        "batch": "times_batch",
        "one_over_batch": "divided_by_batch",
        "pixels": "times_pixels",
        "pixels_of_channel": "times_pixels",
        "one_over_pixels": "divided_by_pixels",
        "one_over_pixels_of_channel": "divided_by_pixels",
    }
    return special.get(name, f"factor:{name}")


def scaled(evidence: Evidence) -> Iterator[Prediction]:
    """The output times a factor with a name."""
    for name, factor in factors(evidence).items():
        slug = "adjoint_zero" if name == "zero" and evidence.hypergradient else slug_of(name)
        yield Prediction(slug, factor * evidence.expected)
    n = evidence.case.arrays["u"].size
    yield Prediction("sum_not_mean", n * evidence.expected)
    yield Prediction("mean_not_sum", evidence.expected / n)
    yield Prediction("factor:minus_two", -2 * evidence.expected)
    yield Prediction("factor:minus_half", -evidence.expected / 2)


def other_factor(evidence: Evidence) -> Iterator[Prediction]:
    """The output times a number without a name, the same in every case."""
    size = float(np.vdot(evidence.expected, evidence.expected))
    if evidence.expected.size > 1 and size > 0:
        factor = float(np.vdot(evidence.expected, evidence.value)) / size
        if abs(factor - 1) > LEAST:
            yield Prediction(f"factor:{factor:.{DIGITS}g}", factor * evidence.expected)


def known_terms(evidence: Evidence) -> tuple[Array, ...] | None:
    """The terms of an output as (state, data, field), state being 0 where it has no part."""
    parts, arrays = evidence.parts, evidence.case.arrays
    u, v, w, tau = arrays["u"], arrays["v"], arrays["w"], parts.tau
    zero = np.zeros_like(u)
    if evidence.name in ("map", "gradient"):
        first, others, base = u, terms(parts, u), "map"
    elif evidence.name in ("jvp", "hvp"):
        first, others, base = v, tangent_terms(parts, u, v), "jvp"
    elif evidence.name == "vjp":
        first, others, base = w, cotangent_terms(parts, u, w), "vjp"
    else:
        return None
    if evidence.name == base:
        return first, -tau * others[0], -tau * others[1]
    return zero, *others


def combined(evidence: Evidence) -> Iterator[Prediction]:
    """A linear combination of the known terms in which one or more coefficients are not 1."""
    found = known_terms(evidence)
    if found is None:
        return
    columns = np.stack([x.ravel() for x in found], axis=1)
    present = [k for k in range(3) if columns[:, k].any()]
    best = np.linalg.lstsq(columns[:, present], evidence.value.ravel(), rcond=None)[0]
    if np.linalg.matrix_rank(columns[:, present]) < len(present):
        return
    coefficients = dict(zip(present, best))
    wrong = [k for k, c in coefficients.items() if abs(c - 1) > LEAST]
    if len(wrong) == 1:
        value = sum(c * found[k] for k, c in coefficients.items())
        number = f"{coefficients[wrong[0]]:.{DIGITS}g}"
        missing = abs(coefficients[wrong[0]]) < LEAST
        yield Prediction(f"{TERMS[wrong[0]]}:{'zero' if missing else number}", value)
