"""Sizes of the terms that an output sums, from which its rounding follows.

Every sum of products is evaluated again with absolute values: |K|, |A|, |C|, |u|, …, by the same
formulas (`refimpl.verification.crosscheck.anatomy`). σ counts with
|σ(z)| + |σ′(z)| (|A||u| + |b|), which covers the rounding of z, and σ′ with sup|σ′|, because
1 − tanh² and the like lose digits where σ′ is small.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.potentials import make_potential
from refimpl.verification.builders import OPERATORS, make_operator
from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.anatomy import Linear, Parts, cotangent_terms, local_output

ROUNDING = 2


class Sizes(NamedTuple):
    """Absolute sums at one u.

    Attributes
    ----------
    parts : Parts
        With absolute arrays, as they act, −|y| and −τ, so that every difference is a sum; σ, φ and
        σ′ have their sizes as values.
    arrays : dict of arrays
        |u|, |v|, |w|.
    s : array of responses
        The size of σ.
    scale : float
        What normalisation multiplies gradients by.
    """

    parts: Parts
    arrays: dict[str, Array]
    s: Array
    scale: float

    @classmethod
    def of(cls, case: Case, parts: Parts, **at: Array) -> "Sizes":
        """Sizes of a case, at its own u, v, w or at others."""
        arrays = {name: abs(at.get(name, case.arrays[name])) for name in "uvw"}
        potential = make_potential(case.potential, **case.potential_parameters)
        acting = parts.acting()
        z = preactivation(acting, at.get("u", case.arrays["u"]))
        absolute = absolute_parts(case, acting)
        room = preactivation(absolute, arrays["u"])
        s = abs(potential.derivative(z))
        phi = abs(potential.value(z)) + s * room + 2 / potential.sup_second
        s = s + potential.second_derivative(z) * room
        scale = 1.0
        if parts.normalizer is not None:
            ratio = np.linalg.norm(acting.A) / parts.normalizer.size
            scale = (1 + ratio) * np.linalg.norm(acting.A) / np.linalg.norm(parts.A)
        slope = np.full(z.shape, potential.sup_second)
        fixed = {"phi": lambda _: phi, "sigma": lambda _: s, "slope": lambda _: slope}
        parts = replace(absolute, y=-absolute.y, tau=-absolute.tau, **fixed)
        return cls(parts, arrays, s, float(scale))

    def rounding(self, name: str, eps: float) -> float:
        """2 eps √n ‖sizes‖."""
        sizes = local_output(self.parts, name, self.arrays)
        scale = self.scale if name.startswith("vjp_") else 1.0
        n = longest_sum(self.parts, self.arrays["u"])
        return float(ROUNDING * eps * np.sqrt(n) * scale * np.linalg.norm(sizes))

    def direction(self) -> Array:
        """λ |K|ᵀ(|K||u| + |y|) + γ |C|ᵀ( w s )."""
        return local_output(self.parts, "gradient", self.arrays)

    def transposed(self) -> Array:
        """λ |K|ᵀ|K| |w| + γ sup σ′ |A|ᵀ( w |C| |w| )."""
        return sum(cotangent_terms(self.parts, self.arrays["u"], self.arrays["w"]))


def longest_sum(parts: Parts, u: Array) -> int:
    """A bound on how many terms any output adds up: pixels, measurements or dense rows."""
    return max(u.size, parts.y[0].size, len(parts.A))


def absolute_parts(case: Case, acting: Parts) -> Parts:
    """The parts of a case with absolute values for all arrays."""
    array = case.arrays.get(OPERATORS[case.operator])
    array = array if array is None or case.operator == "mask" else abs(array)
    shape, boundary = case.image_shape, case.operator_boundary
    operator = Linear.of(make_operator(case.operator, shape, array, boundary))
    A = abs(acting.A)
    return replace(
        acting,
        A=A,
        C=A if acting.tied else abs(acting.C),
        b=abs(acting.b),
        weights=abs(acting.weights),
        y=abs(acting.y),
        operator=operator,
        operator_adjoint=operator.T,
    )


def preactivation(parts: Parts, u: Array) -> Array:
    """z = A u + b."""
    return parts.analysis.apply(parts.A, u) + parts.analysis.per_filter(parts.b)


def kinks_touched(
    parts: Parts, case: Case, u: Array, eps: float, away: Array | float = 0.0
) -> Array:
    """Responses closer to a kink of σ than their rounding plus `away`, as booleans.

    Rounding is that of an FFT: relative to the largest pixel of an image.
    """
    potential = make_potential(case.potential, **case.potential_parameters)
    acting = parts.acting()
    z, absolute = preactivation(acting, u), absolute_parts(case, acting)
    largest = np.broadcast_to(abs(u).max(axis=(1, 2, 3), keepdims=True), u.shape)
    rounding = ROUNDING * eps * np.sqrt(longest_sum(acting, u)) * preactivation(absolute, largest)
    touched = np.zeros(z.shape, bool)
    for kink in potential.kinks:
        touched |= abs(z - kink) <= rounding + 4 * eps * abs(kink) + away
    return touched
