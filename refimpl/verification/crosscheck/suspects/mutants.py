"""The definition with one part exchanged: numbers, bias, weights, potential.

A mutant is a slug with the parts that it stands for. Every function here takes the evidence and
yields such pairs, which may depend on the case and on whether the output is solved, but on nothing
else, so that their number says which is which. Exchanged filters and operators are in
`refimpl.verification.crosscheck.suspects.linear_maps`.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.operators import FilterBank
from refimpl.paper.potentials import POTENTIALS, Potential, make_potential
from refimpl.verification.builders import make_bank
from refimpl.verification.cases.case import all_parameters
from refimpl.verification.crosscheck.anatomy import Normalizer, Parts
from refimpl.verification.crosscheck.suspects.evidence import Evidence
from refimpl.verification.crosscheck.suspects.scaling import factors


class Mutant(NamedTuple):
    """A cause and the definition that it stands for."""

    slug: str
    parts: Parts


def numbers(evidence: Evidence) -> Iterator[Mutant]:
    """λ, γ, τ ignored, exchanged, or on the wrong term."""
    p = evidence.parts
    lam, gamma, both = p.lam, p.gamma, p.lam * p.gamma
    for slug, changes in (
        ("lambda_ignored", {"lam": 1.0}),
        ("gamma_ignored", {"gamma": 1.0}),
        *([] if evidence.solved else [("tau_ignored", {"tau": 1.0})]),
        ("data_term_missing", {"lam": 0.0}),
        ("field_missing", {"gamma": 0.0}),
        ("data_sign", {"y": -p.y}),
        ("lambda_gamma_exchanged", {"lam": gamma, "gamma": lam}),
        ("lambda_on_field", {"lam": 1.0, "gamma": both}),
        ("lambda_on_field", {"gamma": both}),
        ("lambda_on_field", {"gamma": lam}),
        ("gamma_on_data", {"gamma": 1.0, "lam": both}),
        ("gamma_on_data", {"lam": both}),
        ("gamma_on_data", {"lam": gamma}),
    ):
        yield Mutant(slug, replace(p, **changes))


def multiples(evidence: Evidence) -> Iterator[Mutant]:
    """One of λ, γ, τ times a factor with a name; solved outputs do not depend on τ."""
    p = evidence.parts
    for name, factor in factors(evidence).items():
        yield Mutant(f"data_term_factor:{name}", replace(p, lam=factor * p.lam))
        yield Mutant(f"field_term_factor:{name}", replace(p, gamma=factor * p.gamma))
        if factor and not evidence.solved:
            yield Mutant(f"tau_factor:{name}", replace(p, tau=factor * p.tau))


def bias_and_weights(evidence: Evidence) -> Iterator[Mutant]:
    """b or w ignored, changed or in another place."""
    p = evidence.parts
    w, ones, nothing = p.weights, np.ones_like(p.weights), np.zeros_like
    for slug, changes in (
        ("bias_ignored", {"b": 0 * p.b, "pull": {"b": nothing}}),
        ("bias_ignored", {"b": 0 * p.b}),
        ("bias_sign", {"b": -p.b, "pull": {"b": np.negative}}),
        ("bias_after_sigma", {"bias_inside": False}),
        ("weights_ignored", {"weights": ones, "pull": {"weights": nothing}}),
        ("weights_ignored", {"weights": ones}),
        ("weights_squared", {"weights": w**2, "pull": {"weights": lambda g: 2 * w * g}}),
        ("weights_squared", {"weights": w**2}),
        ("weights_root", {"weights": np.sqrt(abs(w))}),
    ):
        yield Mutant(slug, replace(p, **changes))
    for power in (0, 1):
        yield Mutant("weights_inside_sigma", weighted_inside(p, power))


def weighted_inside(parts: Parts, power: int) -> Parts:
    """w σ(w z), the derivative of φ(w z), or σ(w z) for `power` 0, in the place of w σ(z)."""
    w = parts.analysis.per_filter(parts.weights)
    return replace(
        parts,
        weights=np.ones_like(parts.weights),
        phi=lambda z: parts.phi(w * z),
        sigma=lambda z: w**power * parts.sigma(w * z),
        slope=lambda z: w ** (1 + power) * parts.slope(w * z),
    )


def with_potential(parts: Parts, potential: Potential) -> Parts:
    """The parts with another potential in all three places."""
    return replace(
        parts,
        phi=potential.value,
        sigma=potential.derivative,
        slope=potential.second_derivative,
    )


def potentials(evidence: Evidence) -> Iterator[Mutant]:
    """Another potential or parameter, throughout or in σ′ alone."""
    p, case = evidence.parts, evidence.case
    for name in POTENTIALS:
        if name != case.potential:
            for other in parametrised(name, case):
                yield from _everywhere_and_in_slope(p, f"wrong_potential:{name}", other)
    own = all_parameters(case)
    for name, x in own.items():
        default = getattr(POTENTIALS[case.potential](), name)
        for value in {default, 1.0, 1 / x, x**2, np.sqrt(x), 2 * x, x / 2} - {x}:
            other = make_potential(case.potential, **{name: float(value)})
            yield from _everywhere_and_in_slope(p, "wrong_potential_parameter", other)
        for constant in ("tau", "lam", "gamma"):
            other = make_potential(case.potential, **{name: getattr(p, constant)})
            yield from _everywhere_and_in_slope(p, f"parameter_is:{constant}", other)
        for factor in (x, 1 / x):
            yield Mutant("potential_scaled", scaled_potential(p, factor))
    at_zero = float(p.phi(np.zeros(())))
    for constant in {-at_zero, np.log(2), *(np.log(2) / x for x in own.values())}:
        yield Mutant("potential_shifted", replace(p, phi=plus(constant, p.phi)))


def parametrised(name: str, case) -> list[Potential]:
    """A potential with its default parameter, and with the one of the case."""
    found = [make_potential(name)]
    parameters = [f.name for f in fields(POTENTIALS[name])]
    for value in all_parameters(case).values():
        found += [make_potential(name, **{key: value}) for key in parameters]
    return found


def _everywhere_and_in_slope(parts: Parts, slug: str, potential: Potential) -> Iterator[Mutant]:
    everywhere = with_potential(parts, potential)
    yield Mutant(slug, everywhere)
    yield Mutant(slug, replace(everywhere, slope=parts.slope))
    yield Mutant(slug, replace(parts, slope=potential.second_derivative))


def scaled_potential(parts: Parts, factor: float) -> Parts:
    """φ times a factor."""
    return replace(
        parts,
        phi=times(factor, parts.phi),
        sigma=times(factor, parts.sigma),
        slope=times(factor, parts.slope),
    )


def times(factor: float, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The multiple of a function."""
    return lambda z: factor * function(z)


def plus(constant: float, function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A function plus a constant."""
    return lambda z: constant + function(z)


def exchanged_derivatives(evidence: Evidence) -> Iterator[Mutant]:
    """σ for σ′, σ′ for σ, σ for φ."""
    p = evidence.parts
    yield Mutant("sigma_for_sigma_prime", replace(p, slope=p.sigma))
    yield Mutant("sigma_prime_ignored", replace(p, slope=np.ones_like))
    yield Mutant("sigma_prime_for_sigma", replace(p, sigma=p.slope))
    yield Mutant("sigma_for_phi", replace(p, phi=p.sigma))
    yield Mutant("phi_for_sigma", replace(p, sigma=p.phi))


class Frobenius(NamedTuple):
    """A = s Â / ‖Â‖_F."""

    size: float

    def apply(self, raw: Array) -> Array:
        """A from Â."""
        return raw * (self.size / np.linalg.norm(raw))

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """The gradient with respect to Â."""
        value = np.linalg.norm(raw)
        along = np.vdot(gradient, raw) / value
        return (self.size / value) * (gradient - along * raw / value)


class OfReshapedFilters(NamedTuple):
    """A = s Â / ‖Â‖ with the norm of the matrix (F, C·h·w)."""

    size: float

    def _inner(self, raw: Array) -> Normalizer:
        return Normalizer(make_bank(raw.shape[1:], (len(raw), raw[0].size)), self.size)

    def apply(self, raw: Array) -> Array:
        """A from Â."""
        return self._inner(raw).apply(raw.reshape(len(raw), -1)).reshape(raw.shape)

    def vjp(self, raw: Array, gradient: Array) -> Array:
        """The gradient with respect to Â."""
        flat = raw.reshape(len(raw), -1), gradient.reshape(len(raw), -1)
        return self._inner(raw).vjp(*flat).reshape(raw.shape)


def normalisations(evidence: Evidence) -> Iterator[Mutant]:
    """The norm frozen, ignored, or another one."""
    p, n = evidence.parts, evidence.parts.normalizer
    if n is None:
        return
    yield Mutant("norm_frozen", replace(p, normalizer=replace(n, frozen=True)))
    yield Mutant("norm_ignored", replace(p, normalizer=None))
    yield Mutant("norm_size_ignored", replace(p, normalizer=replace(n, size=1.0)))
    yield Mutant("norm_frobenius", replace(p, normalizer=Frobenius(n.size)))
    if isinstance(n.bank, FilterBank):
        yield Mutant("norm_of_reshaped_filters", replace(p, normalizer=OfReshapedFilters(n.size)))
        for slug, other in other_norms(n):
            yield Mutant(slug, replace(p, normalizer=other))


def frozen_norms(evidence: Evidence) -> Iterator[Mutant]:
    """Another norm, and that frozen."""
    p, n = evidence.parts, evidence.parts.normalizer
    if n is not None and isinstance(n.bank, FilterBank):
        for slug, other in other_norms(n):
            yield Mutant(f"norm_frozen+{slug}", replace(p, normalizer=replace(other, frozen=True)))


def other_norms(n: Normalizer) -> Iterator[tuple[str, Normalizer]]:
    """Norms on patches of other sizes, and under another boundary."""
    F, C, h, w = shape = n.bank.coefficients_shape
    for patch in {(h, w), (h + 2, w + 3), (2 * h, 2 * w), (8, 8)} - {n.bank.image_shape[1:]}:
        bank = make_bank((C, *patch), shape, n.bank.boundary)
        yield "norm_of_patch", Normalizer(bank, n.size)
    for boundary in ("periodic", "zero"):
        bank = make_bank(n.bank.image_shape, shape, boundary)
        yield f"norm_under_boundary:{boundary}", Normalizer(bank, n.size)
