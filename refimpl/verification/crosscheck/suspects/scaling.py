"""Causes that multiply: a whole output, or one of the terms that it adds up."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from refimpl.arrays import Array
from refimpl.verification.crosscheck.anatomy import (
    cotangent_terms,
    local_output,
    tangent_terms,
    terms,
)
from refimpl.verification.crosscheck.suspects.evidence import Evidence, Prediction

# Digits of a factor that has no name.
DIGITS = 4

# A number this near to 1 is rounding or chance, not a factor.
LEAST = 0.01

# Factors of A and C are fitted by so many steps, with slopes from differences, to outputs of at
# least so many numbers; a norm further off than this is another norm.
FIT_STEPS, STEP, LEAST_SIZE, NEAR = 4, 1e-6, 6, 0.5

# What a factor of a hypergradient says of the adjoint state, in which it is linear.
OF_ADJOINT = {
    "zero": "adjoint_zero",
    "tau": "adjoint_scaled_by_tau",
    "one_over_tau": "adjoint_scaled_by_tau",
}
TERMS = ("state_term_factor", "data_term_factor", "field_term_factor")


def factors(evidence: Evidence) -> dict[str, float]:
    """Factors that programs are off by, by name, with their values in this case."""
    case, (N, C, H, W) = evidence.case, evidence.case.arrays["u"].shape
    rows, each = len(case.arrays["A"]), 1 if case.analysis == "dense" else H * W
    numbers = {"tau": case.tau, "lambda": case.lam, "gamma": case.gamma}
    counts = {
        "pixels": C * H * W,
        "channels": C,
        "height": H,
        "width": W,
        "pixels_of_channel": H * W,
        "filters": rows,
        "responses": rows * each,
        "measurements": case.arrays["y"][0].size,
    }
    # A factor N fails at batches only, which may all be of two: it goes before 2 and 1/2.
    named = {"batch": N, "one_over_batch": 1 / N}
    named |= {"two": 2.0, "half": 0.5, "minus_one": -1.0, "zero": 0.0}
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
        "one_over_height": "divided_by_height",
        "one_over_width": "divided_by_width",
        "one_over_channels": "divided_by_channels",
        "one_over_pixels": "divided_by_pixels",
        "one_over_pixels_of_channel": "divided_by_pixels",
    }
    return special.get(name, f"factor:{name}")


def scaled(evidence: Evidence) -> Iterator[Prediction]:
    """The output times a factor with a name."""
    for name, factor in factors(evidence).items():
        slug = OF_ADJOINT.get(name) if evidence.hypergradient else None
        yield Prediction(slug or slug_of(name), factor * evidence.expected)
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


def other(evidence: Evidence) -> Iterator[Prediction]:
    """Numbers without a name."""
    yield from other_factor(evidence)
    yield from combined(evidence)
    yield from inexact_norm(evidence)


def combined(evidence: Evidence) -> Iterator[Prediction]:
    """One of the known terms times a number in place of 1; several may fit where K is simple."""
    for k, term in enumerate(known_terms(evidence) or ()):
        size = float(np.vdot(term, term))
        if size == 0:
            continue
        change = float(np.vdot(term, evidence.value - evidence.expected)) / size
        if abs(change) > LEAST:
            number = "zero" if abs(1 + change) < LEAST else f"{1 + change:.{DIGITS}g}"
            yield Prediction(f"{TERMS[k]}:{number}", evidence.expected + change * term)


def inexact_norm(evidence: Evidence) -> Iterator[Prediction]:
    """A and C each times a number near 1, found by Gauss-Newton steps: norms that are not exact."""
    p, size = evidence.parts, evidence.expected.size
    count = 1 if p.tied else 2
    if p.normalizer is None or evidence.solved or evidence.parameter or size < LEAST_SIZE:
        return
    acting, numbers = p.acting(), np.ones(count)

    def output(numbers: Array) -> Array:
        A, C = numbers[0] * acting.A, numbers[-1] * acting.C
        parts = replace(acting, A=A, C=C)
        return local_output(parts, evidence.name, evidence.case.arrays).ravel()

    for _ in range(FIT_STEPS):
        value = output(numbers)
        slopes = [(output(numbers + STEP * e) - value) / STEP for e in np.eye(count)]
        left = evidence.value.ravel() - value
        numbers = numbers + np.linalg.lstsq(np.stack(slopes, 1), left, rcond=None)[0]
    if (abs(numbers - 1) < NEAR).all():
        yield Prediction("norm_inexact", output(numbers).reshape(evidence.expected.shape))
