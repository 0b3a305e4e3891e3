"""The step T of E8 as separate parts, each of which can be replaced.

    z = A u + b        T(u) = u − τ ( λ K°(K u − y) + γ C°( w ⊙ σ(z) ) )

K° and C° stand where Kᵀ and Cᵀ belong, and σ′ stands beside σ: a wrong program is this definition
with one part exchanged. Derivatives are the exact ones of the parts that are there,

    ∂T v     = v − τ ( λ K°K v + γ C°( w σ′ ⊙ A v ) )
    (∂T)ᵀ q  = q − τ ( λ Kᵀ K°ᵀ q + γ Aᵀ( w σ′ ⊙ C°ᵀ q ) ),

where Aᵀ and C°ᵀ are parts again. Everything is plain NumPy in float64.

Not here: which parts to exchange (`refimpl.verification.crosscheck.suspects`), and fixed points
(`refimpl.verification.crosscheck.matrices`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.potentials import make_potential
from refimpl.solvers.spectral import singular_triplet
from refimpl.verification.builders import make_bank
from refimpl.verification.cases import Case
from refimpl.verification.cases.accuracy import DENSE_LIMIT

LANCZOS_TOL = 1e-14

Function = Callable[[Array], Array]


class Linear(NamedTuple):
    """A linear map and its transpose."""

    forward: Function
    transpose: Function

    @classmethod
    def of(cls, operator: Any) -> "Linear":
        """The map of a `refimpl.paper.operators` object."""
        return cls(operator.matvec, operator.adjoint)

    @property
    def T(self) -> "Linear":
        """The transposed map."""
        return Linear(self.transpose, self.forward)


@dataclass(frozen=True, eq=False)
class Normalizer:
    """A = s Â / ‖Â‖, the norm being that of a bank, and the adjoint of its derivative.

    Norms are computed once for each bank and Â, which are kept with them.
    """

    bank: Any
    size: float
    frozen: bool = False
    kept: dict[tuple[int, int], tuple] = field(default_factory=dict, repr=False)

    def apply(self, raw: Array) -> Array:
        """A from Â."""
        return raw * (self.size / self._leading(raw)[0])

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """The gradient with respect to Â from that with respect to A."""
        value, left, right = self._leading(raw)
        if not self.frozen:
            along = np.vdot(gradient, raw) / value
            gradient = gradient - along * self.bank.adjoint_filters(right, left)
        return gradient * (self.size / value)

    def _leading(self, raw: Array) -> tuple[float, Array, Array]:
        """‖Â‖ with its singular vectors p = Â q / ‖Â‖ and q."""
        key = id(self.bank), id(raw)
        if key not in self.kept:
            self.kept[key] = (self.bank, raw, leading(self.bank, raw))
        return self.kept[key][-1]


def leading(bank: Any, raw: Array) -> tuple[float, Array, Array]:
    """The largest singular value of a bank's map with its vectors: of images of at most
    `DENSE_LIMIT` values from the matrix ÂᵀÂ, else by Lanczos iteration."""
    if np.prod(bank.image_shape) > DENSE_LIMIT:
        start = np.random.default_rng(0).standard_normal((1, *bank.image_shape))
        maps = partial(bank.apply, raw), partial(bank.adjoint, raw)
        triplet = singular_triplet(*maps, start, tol=LANCZOS_TOL)
        return triplet.value, triplet.left, triplet.right
    images = identity(bank.image_shape)
    responses = bank.apply(raw, images).reshape(len(images), -1)
    values, vectors = np.linalg.eigh(responses @ responses.T)
    value = np.sqrt(values[-1])  # of NumPy, so that a bank that is 0 gives NaN
    right = np.tensordot(vectors[:, -1], images, 1)[None]
    return value, bank.apply(raw, right) / value, right


def identity(image_shape: tuple[int, ...]) -> Array:
    """All unit images, as one batch."""
    n = int(np.prod(image_shape))
    return np.eye(n).reshape(n, *image_shape)


@dataclass(frozen=True)
class Parts:
    """The parts of one step.

    Attributes
    ----------
    image_shape : tuple (C, H, W)
    A, b, weights : arrays
        As the case holds them, b = 0 and w = 1 where it holds none.
    C : array like A
        A itself when tied.
    tied : bool
        Whether the gradients of A and C are added (E7).
    y, target : arrays
    tau, lam, gamma : float
    operator, operator_adjoint : Linear
        K and K°.
    analysis, analysis_adjoint : bank
        A in z, and in Aᵀ.
    synthesis, synthesis_transpose : bank
        C in C°, and in C°ᵀ.
    phi, sigma, slope : functions
        φ, σ, σ′.
    bias_inside : bool
        False: σ(A u) + b in place of σ(A u + b).
    normalizer : Normalizer or None
        Between the case's A and C and those used.
    pull : dict of functions
        What happens to the gradient of a parameter at the end, by its name.
    """

    image_shape: tuple[int, int, int]
    A: Array
    C: Array
    b: Array
    weights: Array
    tied: bool
    y: Array
    target: Array
    tau: float
    lam: float
    gamma: float
    operator: Linear
    operator_adjoint: Linear
    analysis: Any
    analysis_adjoint: Any
    synthesis: Any
    synthesis_transpose: Any
    phi: Function
    sigma: Function
    slope: Function
    bias_inside: bool = True
    normalizer: Normalizer | None = None
    pull: dict[str, Function] = field(default_factory=dict)

    @cached_property
    def used(self) -> tuple[Array, Array]:
        """A and C as they act, normalised if they are."""
        if self.normalizer is None:
            return self.A, self.C
        A = self.normalizer.apply(self.A)
        return A, A if self.C is self.A else self.normalizer.apply(self.C)

    def acting(self) -> "Parts":
        """The same step with A and C as they act; its parameter gradients are those of these."""
        if self.normalizer is None:
            return self
        A, C = self.used
        return replace(self, A=A, C=C, normalizer=None)


def make_parts(case: Case) -> Parts:
    """The parts of the step that a case describes."""
    arrays, F = case.arrays, len(case.arrays["A"])
    operator = Linear.of(case.forward)
    bank = make_bank(case.image_shape, arrays["A"].shape, case.boundary)
    potential = make_potential(case.potential, **case.potential_parameters)
    norm = case.norm
    return Parts(
        image_shape=case.image_shape,
        A=arrays["A"],
        C=arrays["A"] if case.tied else arrays["C"],
        b=arrays.get("b", np.zeros(F)),
        weights=arrays.get("weights", np.ones(F)),
        tied=case.tied,
        y=arrays["y"],
        target=arrays["target"],
        tau=float(case.tau),
        lam=float(case.lam),
        gamma=float(case.gamma),
        operator=operator,
        operator_adjoint=operator.T,
        analysis=bank,
        analysis_adjoint=bank,
        synthesis=bank,
        synthesis_transpose=bank,
        phi=potential.value,
        sigma=potential.derivative,
        slope=potential.second_derivative,
        normalizer=None if norm is None else Normalizer(bank, float(norm)),
    )


class Responses(NamedTuple):
    """At one u: z, s = w σ(z), d = γ w σ′(z)."""

    z: Array
    s: Array
    d: Array


def responses(parts: Parts, u: Array) -> Responses:
    """The responses of parts whose A and C act as they are."""
    return activated(parts, parts.analysis.apply(parts.A, u))


def activated(parts: Parts, z: Array) -> Responses:
    """The responses from z = A u."""
    bank = parts.analysis
    b, weights = bank.per_filter(parts.b), bank.per_filter(parts.weights)
    z = z + (b if parts.bias_inside else 0)
    s = parts.sigma(z) + (0 if parts.bias_inside else b)
    return Responses(z, weights * s, parts.gamma * weights * parts.slope(z))


def energy(parts: Parts, u: Array) -> Array:
    """E(u), E2, shape (N,)."""
    parts = parts.acting()
    bank, z = parts.analysis, responses(parts, u).z
    outside = 0 if parts.bias_inside else bank.per_filter(parts.b)
    experts = bank.per_filter(parts.weights) * (parts.phi(z) + outside)
    residual = parts.operator.forward(u) - parts.y
    sums = [x.reshape(len(u), -1).sum(axis=1) for x in (residual**2, experts)]
    return parts.lam / 2 * sums[0] + parts.gamma * sums[1]


def terms(parts: Parts, u: Array) -> tuple[Array, Array]:
    """λ K°(K u − y) and γ C°( w ⊙ σ(z) ), whose sum is G(u)."""
    parts = parts.acting()
    data = parts.operator_adjoint.forward(parts.operator.forward(u) - parts.y)
    field = parts.synthesis.adjoint(parts.C, responses(parts, u).s)
    return parts.lam * data, parts.gamma * field


def tangent_terms(parts: Parts, u: Array, v: Array) -> tuple[Array, Array]:
    """The two terms of ∂G v."""
    parts = parts.acting()
    data = parts.operator_adjoint.forward(parts.operator.forward(v))
    inner = responses(parts, u).d * parts.analysis.apply(parts.A, v)
    return parts.lam * data, parts.synthesis.adjoint(parts.C, inner)


def cotangent_terms(parts: Parts, u: Array, q: Array) -> tuple[Array, Array]:
    """The two terms of (∂G)ᵀ q."""
    parts = parts.acting()
    data = parts.operator.transpose(parts.operator_adjoint.transpose(q))
    inner = responses(parts, u).d * parts.synthesis_transpose.apply(parts.C, q)
    return parts.lam * data, parts.analysis_adjoint.adjoint(parts.A, inner)


def parameter_terms(parts: Parts, u: Array, q: Array) -> dict[str, Array]:
    """(∂_θ G)ᵀ q with respect to A, C, b, w as they act, A and C apart."""
    parts = parts.acting()
    at, bank = responses(parts, u), parts.analysis
    Cq = parts.synthesis_transpose.apply(parts.C, q)
    r = at.d * Cq
    weights = bank.per_filter(parts.weights)
    outside = 0 if parts.bias_inside else bank.per_filter(parts.b)
    return {
        "A": parts.analysis_adjoint.adjoint_filters(u, r),
        "C": parts.gamma * parts.synthesis_transpose.adjoint_filters(q, at.s),
        "b": bank.sum_per_filter(r if parts.bias_inside else parts.gamma * weights * Cq),
        "weights": parts.gamma * bank.sum_per_filter((parts.sigma(at.z) + outside) * Cq),
    }


def parameters_vjp(parts: Parts, u: Array, q: Array) -> dict[str, Array]:
    """(∂_θ T)ᵀ q with respect to the case's own arrays; C is zero when tied."""
    gradient = {name: -parts.tau * g for name, g in parameter_terms(parts, u, q).items()}
    return pulled_back(parts, gradient)


def pulled_back(parts: Parts, gradient: dict[str, Array]) -> dict[str, Array]:
    """Gradients of the arrays as they act, carried to the case's own: tie, normalisation, pull."""
    gradient = dict(gradient)
    if parts.tied:
        gradient["A"] = gradient["A"] + gradient["C"]
        gradient["C"] = np.zeros_like(gradient["C"])
    if parts.normalizer is not None:
        gradient["A"] = parts.normalizer.vjp(parts.A, gradient["A"])
        if not parts.tied:
            gradient["C"] = parts.normalizer.vjp(parts.C, gradient["C"])
    return {name: parts.pull.get(name, np.asarray)(g) for name, g in gradient.items()}


def local_output(parts: Parts, name: str, arrays: dict[str, Array]) -> Array:
    """One of the outputs that need no solve, at the case's u, v, w."""
    u, v, w = arrays["u"], arrays["v"], arrays["w"]
    if name.startswith("vjp_"):
        return parameters_vjp(parts, u, w)[name.removeprefix("vjp_")]
    functions = {
        "operator": lambda: parts.operator.forward(u),
        "operator_adjoint": lambda: parts.operator_adjoint.forward(parts.y),
        "map": lambda: u - parts.tau * sum(terms(parts, u)),
        "energy": lambda: energy(parts, u),
        "gradient": lambda: sum(terms(parts, u)),
        "jvp": lambda: v - parts.tau * sum(tangent_terms(parts, u, v)),
        "hvp": lambda: sum(tangent_terms(parts, u, v)),
        "vjp": lambda: w - parts.tau * sum(cotangent_terms(parts, u, w)),
    }
    return functions[name]()
