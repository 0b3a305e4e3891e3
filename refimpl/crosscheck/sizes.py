"""Sizes of the terms that an output sums, from which its rounding follows.

Every sum of products is evaluated again with absolute values: |K|, |A|, |C|, |u|, …; σ counts with
|σ(z)| + |σ′(z)| (|A||u| + |b|), which covers the rounding of z, and σ′ with sup|σ′|, because
1 − tanh² and the like lose digits where σ′ is small.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.cases import Case
from refimpl.crosscheck.parts import Linear, Parts, make_operator
from refimpl.potentials import make_potential

ROUNDING = 2


class Sizes(NamedTuple):
    """Absolute sums at one u.

    Attributes
    ----------
    parts : Parts
        With absolute arrays, as they act.
    u, v, w : arrays
        Their absolute values.
    s, phi : arrays of responses
        Sizes of σ and of φ.
    slope : float
        sup |σ′|.
    scale : float
        What normalisation multiplies gradients by.
    """

    parts: Parts
    u: Array
    v: Array
    w: Array
    s: Array
    phi: Array
    slope: float
    scale: float

    @classmethod
    def of(cls, case: Case, parts: Parts, **at: Array) -> "Sizes":
        """Sizes of a case, at its own u, v, w or at others."""
        u, v, w = (at.get(name, case.arrays[name]) for name in "uvw")
        potential = make_potential(case.potential, **case.potential_parameters)
        acting = parts.acting()
        z, absolute = preactivation(acting, u), absolute_parts(case, acting)
        room = preactivation(absolute, abs(u))
        s = abs(potential.derivative(z))
        phi = abs(potential.value(z)) + s * room + 2 / potential.sup_second
        s = s + potential.second_derivative(z) * room
        scale = 1.0
        if parts.normalizer is not None:
            ratio = np.linalg.norm(acting.A) / parts.normalizer.size
            scale = (1 + ratio) * np.linalg.norm(acting.A) / np.linalg.norm(parts.A)
        return cls(absolute, abs(u), abs(v), abs(w), s, phi, potential.sup_second, float(scale))

    def rounding(self, name: str, eps: float) -> float:
        """2 eps √n ‖sizes‖."""
        n = longest_sum(self.parts, self.u)
        return float(ROUNDING * eps * np.sqrt(n) * np.linalg.norm(self.size(name)))

    def size(self, name: str) -> Array:
        """The absolute sums of one output."""
        tau = self.parts.tau
        if name.startswith("vjp_"):
            return tau * self.scale * self.parameters(self.w)[name.removeprefix("vjp_")]
        functions = {
            "map": lambda: self.u + tau * self.direction(),
            "gradient": self.direction,
            "energy": self.energy,
            "jvp": lambda: self.v + tau * self.jacobian(self.v),
            "hvp": lambda: self.jacobian(self.v),
            "vjp": lambda: self.w + tau * self.transposed(self.w),
        }
        return functions[name]()

    def energy(self) -> Array:
        """λ/2 (|K||u| + |y|)² + γ w φ, summed for each image."""
        parts, bank = self.parts, self.parts.analysis
        residual = (parts.operator.forward(self.u) + parts.y) ** 2
        experts = bank.per_filter(parts.weights) * self.phi
        sums = [x.reshape(len(self.u), -1).sum(axis=1) for x in (residual, experts)]
        return parts.lam / 2 * sums[0] + parts.gamma * sums[1]

    def direction(self) -> Array:
        """λ |K|ᵀ(|K||u| + |y|) + γ |C|ᵀ( w s )."""
        parts = self.parts
        data = parts.operator.transpose(parts.operator.forward(self.u) + parts.y)
        field = parts.synthesis.adjoint(parts.C, self._weighted(self.s))
        return parts.lam * data + parts.gamma * field

    def jacobian(self, v: Array) -> Array:
        """λ |K|ᵀ|K| v + γ sup σ′ |C|ᵀ( w |A| v )."""
        return self._product(v, self.parts.A, self.parts.C)

    def transposed(self, q: Array) -> Array:
        """λ |K|ᵀ|K| q + γ sup σ′ |A|ᵀ( w |C| q )."""
        return self._product(q, self.parts.C, self.parts.A)

    def _product(self, v: Array, inner: Array, outer: Array) -> Array:
        parts, bank = self.parts, self.parts.analysis
        data = parts.operator.transpose(parts.operator.forward(v))
        field = bank.adjoint(outer, self._weighted(bank.apply(inner, v)))
        return parts.lam * data + parts.gamma * self.slope * field

    def parameters(self, q: Array) -> dict[str, Array]:
        """The terms of (∂_θ F)ᵀ q."""
        parts, bank = self.parts, self.parts.analysis
        Cq = bank.apply(parts.C, q)
        r = parts.gamma * self.slope * self._weighted(Cq)
        sizes = {
            "A": bank.adjoint_filters(self.u, r),
            "C": parts.gamma * bank.adjoint_filters(q, self._weighted(self.s)),
            "b": bank.sum_per_filter(r),
            "weights": parts.gamma * bank.sum_per_filter(self.s * Cq),
        }
        return sizes | ({"A": sizes["A"] + sizes["C"]} if parts.tied else {})

    def _weighted(self, z: Array) -> Array:
        return self.parts.analysis.per_filter(self.parts.weights) * z


def longest_sum(parts: Parts, u: Array) -> int:
    """A bound on how many terms any output adds up: pixels, measurements or dense rows."""
    return max(u.size, parts.y[0].size, len(parts.A))


def absolute_parts(case: Case, acting: Parts) -> Parts:
    """The parts of a case with absolute values for all arrays."""
    arrays = {name: x if name == "mask" else abs(x) for name, x in case.arrays.items()}
    operator = Linear.of(make_operator(replace(case, arrays=arrays)))
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
