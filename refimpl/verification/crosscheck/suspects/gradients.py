"""Causes in the backward pass: terms of the parameter gradients, and how q of E9 is had."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from refimpl.arrays import Array
from refimpl.verification.crosscheck.anatomy import (
    Parts,
    parameter_terms,
    parameters_vjp,
    pulled_back,
    tangent_terms,
)
from refimpl.verification.crosscheck.matrices import MatrixSystem, solve
from refimpl.verification.crosscheck.suspects.evidence import ROOM, Evidence, Prediction
from refimpl.verification.crosscheck.suspects.scaling import LEAST

# Longest series that is tried, and numbers of unrolled steps: those that people choose.
MOST_TERMS = 300
UNROLLED_STEPS = (*range(1, 21), *range(25, 105, 5))

# Central difference along θ, and how well it must fit before a gradient is computed in full.
STEP = 1e-6
FILTER = 1e-4

# A factor this small is none.
TINY = 1e-6


def parameter_pieces(evidence: Evidence) -> Iterator[Prediction]:
    """Gradients of A and C: one term of two, exchanged, one given for the other."""
    name, p = evidence.parameter, evidence.parts
    if name is None:
        return
    pieces = parameter_terms(p, *evidence.at)
    pieces = {key: -p.tau * g for key, g in pieces.items()}
    untied = replace(p, tied=False)
    if p.tied and name == "A":
        for given in ("A", "C"):
            one = pulled_back(untied, pieces | {"A": pieces[given]})["A"]
            yield Prediction("one_of_two_terms", one)
            yield Prediction("one_of_two_terms", 2 * one)
        twisted = pulled_back(untied, pieces | {"A": pieces["A"] - pieces["C"]})["A"]
        yield Prediction("term_sign", twisted)
        yield Prediction("term_sign", -twisted)
    if not p.tied and name in ("A", "C"):
        exchanged = pulled_back(p, pieces | {"A": pieces["C"], "C": pieces["A"]})
        added = pieces["A"] + pieces["C"]
        own = pulled_back(p, pieces)
        yield Prediction("a_c_exchanged", exchanged[name])
        yield Prediction("a_c_exchanged", own["C" if name == "A" else "A"])
        yield Prediction("terms_added", pulled_back(p, pieces | {"A": added, "C": added})[name])
        yield Prediction("terms_added", own["A"] + own["C"])
    if name == "weights":
        yield Prediction("weights_squared", p.weights * pulled_back(p, pieces)[name])
    if p.normalizer is not None and name in ("A", "C"):
        yield Prediction("norm_ignored", pulled_back(p.acting(), pieces)[name])


def transposed(evidence: Evidence) -> Iterator[Prediction]:
    """∂T in the place of (∂T)ᵀ."""
    p, arrays = evidence.parts, evidence.case.arrays
    if evidence.name == "vjp":
        product = sum(tangent_terms(p, arrays["u"], arrays["w"]))
        yield Prediction("adjoint_not_transposed", arrays["w"] - p.tau * product)
    elif evidence.hypergradient:
        J, goal = evidence.system.jacobian(evidence.star), _goal(evidence)
        yield _with(evidence, "adjoint_not_transposed", solve(J, goal) / p.tau)


def _goal(evidence: Evidence) -> Array:
    return evidence.system.loss_gradient(evidence.star)


def _with(evidence: Evidence, slug: str, q: Array) -> Prediction:
    """The hypergradient at u* with another adjoint state."""
    return Prediction(slug, parameters_vjp(evidence.parts, evidence.star, q)[evidence.parameter])


def adjoint_states(evidence: Evidence) -> Iterator[Prediction]:
    """No solve, a failed one, and the wrong right-hand side."""
    goal, tau = _goal(evidence), evidence.parts.tau
    free = _with(evidence, "jacobian_free", goal)
    yield free
    yield _with(evidence, "adjoint_is_right_hand_side", goal)
    yield _with(evidence, "adjoint_is_right_hand_side", goal / tau)
    yield _with(evidence, "adjoint_zero", 0 * goal)
    p = tau * evidence.adjoint
    yield _with(evidence, "adjoint_scaled_by_tau", p)
    yield _with(evidence, "adjoint_scaled_by_tau", evidence.adjoint / tau)
    factor = float(np.vdot(free.value, evidence.value)) / (np.vdot(free.value, free.value) or 1.0)
    named = any(abs(factor - x) <= LEAST * abs(x) + TINY for x in (0.0, 1.0, 1 / tau))
    if evidence.value.size > 1 and not named:  # with a step size of its own
        yield free._replace(value=factor * free.value)


def starts(evidence: Evidence) -> list[Array]:
    """Where iterations begin: Kᵀy, 0, y."""
    p = evidence.parts
    u = p.operator.transpose(p.y)
    return [u, 0 * u, *([p.y] if p.y.shape == u.shape else [])]


def at_start(evidence: Evidence) -> Iterator[Prediction]:
    """The hypergradient at a start of the iterations in place of u*."""
    for u in starts(evidence):
        gradient = evidence.system.hypergradient(u)[evidence.parameter]
        yield Prediction("at_start_not_fixed_point", gradient)


def neumann(evidence: Evidence) -> Iterator[Prediction]:
    """K terms of q = Σ ((∂T)ᵀ)ᵏ ∇ℓ at u*."""
    system, tau = evidence.system, evidence.parts.tau
    J = system.transposed(evidence.star)
    term = q = _goal(evidence)
    for K in range(2, MOST_TERMS + 1):
        term = term - tau * _times(J, term)
        q = q + term
        if not np.linalg.norm(term) > evidence.eps * np.linalg.norm(q):
            return
        prediction = _with(evidence, f"truncated_neumann:{K}", q)
        yield prediction
        # A solver that stops by a test needs another K in another case.
        yield prediction._replace(slug="too_few_adjoint_iterations")


def _times(matrices: Array, x: Array) -> Array:
    return (matrices @ x.reshape(len(x), -1, 1)).reshape(x.shape)


def unrolled(evidence: Evidence) -> Iterator[Prediction]:
    """Reverse mode through K steps from a start, for the K that one directional derivative allows.

    With θ moving along ρ, u_K moves along d_K, d_{k+1} = ∂T d_k + ∂_θT ρ by one central
    difference; the gradient g_K must satisfy ⟨g_K, ρ⟩ = ⟨∇ℓ(u_K), d_K⟩.
    """
    p, system, name = evidence.parts, evidence.system, evidence.parameter
    rho = np.random.default_rng(0).standard_normal(evidence.value.shape)
    ahead, behind = (MatrixSystem.of(moved(p, name, sign * STEP * rho)) for sign in (1, -1))
    along, size = float(np.vdot(rho, evidence.value)), np.linalg.norm(evidence.value)
    allowed = np.linalg.norm(rho) * max(FILTER * size, ROOM * evidence.tolerance)
    for start in starts(evidence):
        states, d = [start], 0 * start
        for K in range(1, UNROLLED_STEPS[-1] + 1):
            u = states[-1]
            d = (ahead.step(u + STEP * d) - behind.step(u - STEP * d)) / (2 * STEP)
            states.append(system.step(u))
            moved_along = float(np.vdot(system.loss_gradient(states[-1]), d))
            if K in UNROLLED_STEPS and abs(moved_along - along) <= allowed:
                gradient = _reverse(system, states)[name]
                yield Prediction(f"truncated_unrolled:{K}", gradient)


def moved(parts: Parts, name: str, change: Array) -> Parts:
    """The parts with one parameter moved; the C of tied parts moves with A."""
    parts = replace(parts, **{name: getattr(parts, name) + change})
    return replace(parts, C=parts.A) if parts.tied else parts


def _reverse(system: MatrixSystem, states: list[Array]) -> dict[str, Array]:
    """dℓ(u_K)/dθ through the states u_0, …, u_K."""
    parts, q = system.parts, system.loss_gradient(states[-1])
    total: dict[str, Array] = {}
    for u in states[-2::-1]:
        gradient = parameters_vjp(parts, u, q)
        total = {name: total.get(name, 0) + g for name, g in gradient.items()}
        q = q - parts.tau * _times(system.transposed(u), q)
    return total


def krylov(evidence: Evidence) -> Iterator[Prediction]:
    """K iterations of conjugate gradients on Jᵀp = ∇ℓ, from 0, when J is symmetric."""
    if not evidence.parts.tied:
        return
    J, r = evidence.system.transposed(evidence.star), _goal(evidence)
    p, s = 0 * r, r
    for _ in range(r[0].size):
        Js = _times(J, s)
        curvature, old = _dots(s, Js), _dots(r, r)
        if not (curvature > 0).all() or not (old > 0).all():
            return
        p, r = p + old / curvature * s, r - old / curvature * Js
        s = r + _dots(r, r) / old * s
        yield _with(evidence, "too_few_adjoint_iterations", p / evidence.parts.tau)


def _dots(x: Array, y: Array) -> Array:
    return (x * y).reshape(len(x), -1).sum(axis=1)[:, None, None, None]
