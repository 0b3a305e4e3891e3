"""Test an object of one's own against its own claims, without a reference.

    a potential         σ = φ′, σ′, all sizes of numbers, stated traits
    a linear operator   ⟨K u, z⟩ = ⟨u, Kᵀ z⟩, linear, image by image
    a bank              the same, and ⟨A u, z⟩ = ⟨A, B*(u, z)⟩
    a Problem           the engine against the equations, derivatives against values

Whatever is tested keeps shapes and precision, leaves its arguments alone and returns arrays that
later calls do not change. A call that raises is a check that fails and says what was raised.

Not here: whether results are right (`refimpl.verification.crosscheck`): two exact adjoints of the
wrong blur pass.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from refimpl.arrays import FLOATS, Array, count
from refimpl.engine import Step, StepLinearization, make_step
from refimpl.kernels.vectors import dot
from refimpl.paper import equations
from refimpl.paper.operators.banks import Analysis
from refimpl.paper.operators.base import rounding_bound
from refimpl.paper.potentials import METHODS, trait
from refimpl.paper.problem import BANK, OPERATOR, Problem
from refimpl.results import Check
from refimpl.verification.checks import bilinear_test, dot_test, jvp_vjp, symmetry, taylor
from refimpl.verification.contracts import (
    attempt,
    attempt_named,
    kept,
    linear,
    raised,
    separate,
    stays,
)
from refimpl.verification.identities.agreement import agree
from refimpl.verification.rounding import furthest_from_kinks, shortened
from refimpl.verification.scans import find_kinks, potential_checks

POINTS, IMAGES = 3, 3  # random points of a test, and images of a batch
CANDIDATES = 20  # states of which the one furthest from all kinks is taken


@dataclass(frozen=True, repr=False)
class CheckReport:
    """What `check` found; printed, a table; true where everything passed.

    Attributes
    ----------
    subject : str
        What was tested.
    checks : tuple of Check
    """

    subject: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        rows = [
            f"{'pass' if c.passed else 'FAIL'}  {c.name:{width}}  {c.measured:8.1e}  {c.bound:8.1e}"
            for c in self.checks
        ]
        found = f"{len(self.failures)} of {len(self.checks)} checks failed"
        head = f"{self.subject}: {found if self.failures else 'all checks passed'}"
        return "\n".join([head, f"      {'':{width}}  measured     bound", *rows])


def check(thing: Any, *, seed: int = 0) -> CheckReport:
    """Test a potential, a linear operator, a bank or a `Problem`.

    Parameters
    ----------
    thing : object
        With value, derivative and second_derivative: a potential. With domain_shape, range_shape,
        matvec and adjoint: a linear operator. With image_shape, apply, adjoint_filters and the
        other attributes of `FilterBank`: a bank. Or a `Problem`.
    seed : int
        Of the random points.

    Returns
    -------
    CheckReport
        `passed`, `checks`; `print` shows name, measured, bound and verdict of each.

    Raises
    ------
    TypeError
        If `thing` is none of these.
    """
    tests, rng = find_tests(thing), np.random.default_rng(count(seed, "seed", least=0))
    # Each comparison says itself what it makes of infinity and NaN.
    with np.errstate(all="ignore"):
        return CheckReport(describe(thing), tuple(to_the_end(tests(thing, rng))))


def to_the_end(checks: Iterator[Check]) -> Iterator[Check]:
    """The checks, and a failure where no more can be made."""
    try:
        yield from checks
    except Exception as error:  # whatever a foreign object raises
        yield raised("cannot be tested further", error)


def find_tests(thing: Any) -> Callable[[Any, np.random.Generator], Iterator[Check]]:
    """The tests of what `thing` is by its attributes."""
    kinds = ((METHODS, potential_checks), (BANK, bank_checks), (OPERATOR, operator_checks))
    if isinstance(thing, Problem):
        return problem_checks
    if not isinstance(thing, type):
        for names, tests in kinds:
            if all(hasattr(thing, name) for name in names):
                return tests
    hint = ""
    if isinstance(thing, type):
        hint = f"; this is the class, pass an object, {thing.__name__}(…)"
    elif hasattr(thing, "shape"):
        hint = "; FromScipy(matrix, image_shape) makes a linear operator of a matrix"
    else:
        for names, _ in kinds:
            missing = [name for name in names if not hasattr(thing, name)]
            if len(missing) < len(names):
                hint = f"; this one lacks {', '.join(missing)}"
    raise TypeError(
        f"check: given {describe(thing)}, expected a potential ({', '.join(METHODS)}), a linear "
        f"operator ({', '.join(OPERATOR)}), a bank such as FilterBank, or a Problem{hint}"
    )


def describe(thing: Any) -> str:
    """The type of a thing, and its repr where that is short."""
    text = repr(thing)
    name = f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
    return text if len(text) <= 80 and text.startswith(name) else name


def operator_checks(K: Any, rng: np.random.Generator, name: str = "K") -> Iterator[Check]:
    """Tests of a linear operator in the first precision that it takes."""
    domain, codomain = tuple(K.domain_shape), tuple(K.range_shape)
    taken = [dtype for dtype in FLOATS[::-1] if takes(K, dtype)] or [np.dtype(np.float64)]

    def draw(shape: tuple[int, ...], dtype: np.dtype = taken[0]) -> Array:
        return rng.standard_normal((IMAGES, *shape)).astype(dtype)

    label = f"⟨{name} u, z⟩ = ⟨u, {name}ᵀ z⟩"
    for k in range(POINTS):
        points = draw(domain), draw(codomain)
        yield attempt_named(f"{label}, point {k + 1}", dot_test, K.matvec, K.adjoint, *points)
    yield attempt_named(f"{label} at z = {name} u", aligned_dot_test, K, draw(domain))
    for label, function, source, target in (
        (name, K.matvec, domain, codomain),
        (f"{name}ᵀ", K.adjoint, codomain, domain),
    ):
        for dtype in taken:
            yield attempt_named(label, kept, function, draw(source, dtype), (IMAGES, *target))
        x, y = draw(source), draw(source)
        yield attempt(f"{label}: linear", linear, function, x, y)
        yield attempt(f"{label}: each image by itself", separate, function, x)
        yield attempt(f"{label}: arguments and results stay", stays, function, x, y)


def takes(K: Any, dtype: np.dtype) -> bool:
    """Whether K acts on arrays of this precision: one with coefficients may refuse the other."""
    try:
        K.matvec(np.zeros((1, *K.domain_shape), dtype))
    except TypeError:
        return False
    except Exception:  # reported where it is called again
        return True
    return True


def aligned_dot_test(K: Any, u: Array, *, name: str) -> Check:
    """The dot test at z = K u, which shows a wrong factor whole."""
    return dot_test(K.matvec, K.adjoint, u, K.matvec(u), name=name)


def bank_checks(bank: Any, rng: np.random.Generator) -> Iterator[Check]:
    """Tests of a bank: of A as an operator, the three-way test, and sums for each filter."""
    shapes = bank.coefficients_shape, (IMAGES, *bank.image_shape), (IMAGES, *bank.response_shape)

    def draw() -> tuple[Array, ...]:
        return tuple(rng.standard_normal(shape) for shape in shapes)

    A, u, z = drawn = draw()
    yield from operator_checks(Analysis(bank, A), rng, "A")
    for name, function, x, y, out in (
        ("apply", bank.apply, 0, 1, 2),
        ("adjoint", bank.adjoint, 0, 2, 1),
        ("adjoint_filters", bank.adjoint_filters, 1, 2, 0),
    ):
        single = partial(function, drawn[x].astype(np.float32))
        yield attempt_named(name, kept, single, drawn[y].astype(np.float32), shapes[out])
        first = lambda a, f=function, b=drawn[y]: f(a, b)  # noqa: E731
        yield attempt(f"{name}: linear in its first argument", linear, first, drawn[x], draw()[x])
    for k in range(POINTS):
        label = f"⟨A u, z⟩ = ⟨u, Aᵀ z⟩ = ⟨A, B*(u, z)⟩, point {k + 1}"
        maps = bank.apply, bank.adjoint, bank.adjoint_filters
        yield attempt_named(label, bilinear_test, *maps, *draw())
    label, b = "sum_per_filter is the adjoint of per_filter", rng.standard_normal(shapes[0][0])
    spread = lambda b: np.broadcast_to(bank.per_filter(b), z.shape)  # noqa: E731
    yield attempt_named(label, dot_test, spread, bank.sum_per_filter, b, z)


def problem_checks(problem: Problem, rng: np.random.Generator) -> Iterator[Check]:
    """Tests of a problem's first images: the engine, E8 and, when tied, E2."""
    p = problem.images(slice(0, IMAGES))
    step, shape = make_step(p, tau=1.0), (len(p.y), *p.bank.image_shape)
    u, reach = calm_state(p, shape, rng)
    v, q = (rng.standard_normal(shape).astype(p.dtype) for _ in range(2))
    lin, z = step.linearize(u), equations.responses(p, u)
    given = cache(lambda: lin.params_vjp(q))
    expected = cache(lambda: equations.step_params_vjp(p, 1.0, u, q))
    pairs = [
        ("T(u)", lambda: step.apply(u), lambda: equations.step(p, 1.0, u)),
        ("∂T v", lambda: lin.jvp(v), lambda: equations.step_jvp(p, 1.0, u, v)),
        ("(∂T)ᵀ q", lambda: lin.vjp(q), lambda: equations.step_vjp(p, 1.0, u, q)),
        *(
            (
                f"(∂T/∂{key})ᵀ q",
                lambda key=key: getattr(given(), key),
                lambda key=key: getattr(expected(), key),
            )
            for key, _ in p.theta.items()
        ),
    ]
    if p.tied:
        pairs.append(("E(u)", lambda: step.energy(u), lambda: equations.energy(p, u)))
    bound = rounding_bound(z) * steepness_at(p.potential, z)
    for label, engine, definition in pairs:
        label = f"engine against equations: {label}"
        yield attempt_named(label, agreement, engine, definition, bound)
    pair = lin.direction_jvp, lin.direction_vjp
    yield attempt_named("⟨∂G v, q⟩ = ⟨v, (∂G)ᵀ q⟩", jvp_vjp, *pair, v, q)
    if p.tied:
        yield attempt_named("∇²E symmetric", symmetry, lin.hvp, v, q)
    if p.dtype == np.float64:  # float32 rounding hides what Taylor remainders show
        yield from taylor_checks(step, lin, shortened(p, v, reach))


def steepness_at(potential: Any, z: Array) -> float:
    """How much the rounding of z is amplified: 1 + the largest |Δσ′| over a change of z by its
    size in units of 64 roundings, relative to sup |σ′|."""
    eps = 64 * np.finfo(z.dtype).eps
    slopes = potential.second_derivative(z)
    moved = np.abs(potential.second_derivative(z + eps * np.abs(z).max()) - slopes).max()
    return float(1 + moved / (eps * max(np.abs(slopes).max(), np.finfo(z.dtype).tiny)))


def agreement(engine: Callable, definition: Callable, bound: float, *, name: str) -> Check:
    """The engine's array against that of the definition."""
    return agree(name, engine(), definition(), bound)


def calm_state(
    p: Problem, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[Array, float]:
    """A random u, and how far its responses are from all kinks: across them no remainder has an
    order."""
    kinks = [*find_kinks(p.potential), *trait(p.potential, "kinks")]
    drawn = [rng.standard_normal(shape).astype(p.dtype) for _ in range(CANDIDATES)]
    return furthest_from_kinks(p, kinks, drawn)


def taylor_checks(step: Step, lin: StepLinearization, v: Array) -> Iterator[Check]:
    """∂G v against G; tied, ∇E and ∇²E against E."""

    def test(function: Callable, terms: Callable, *, name: str) -> Check:
        return taylor(function, terms(), lin.u, v, name=name).check

    yield attempt_named("∂G against G", test, step.direction, lambda: [lin.direction_jvp(v)])
    if step.problem.tied:
        slope, curvature = lambda: dot(lin.gradient, v), lambda: dot(v, lin.hvp(v))
        yield attempt_named("∇E against E", test, step.energy, lambda: [slope()])
        yield attempt_named("∇²E against E", test, step.energy, lambda: [slope(), curvature()])
