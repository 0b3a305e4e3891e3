"""`check`: whatever refimpl has passes, and each test fails on the error planted for it."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse

from refimpl.engine import make_step
from refimpl.paper.operators import Convolution, FilterBank, Identity, Operator
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import Huber, LogCosh, Quadratic, SmoothedL1
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.verification import check as module
from refimpl.verification.check import check
from refimpl.verification.identities import registry

SHAPE = (1, 6, 5)
SMOOTH = LogCosh(3.0)
FAMILIES = (registry.potentials, registry.operators, registry.banks)
OBJECTS = {f"{f.__name__}: {name}": thing for f in FAMILIES for name, thing in f()}


@pytest.mark.parametrize("name", OBJECTS)
def test_everything_in_the_package_passes(name):
    report = check(OBJECTS[name], seed=1)
    assert report.passed, str(report)


class Charbonnier:
    """A potential of one's own, of plain functions of real arrays."""

    def value(self, z):
        return np.hypot(z, np.float32(0.5))

    def derivative(self, z):
        return z / self.value(z)

    def second_derivative(self, z):
        return np.float32(0.25) / self.value(z) / self.value(z) / self.value(z)


@dataclass(frozen=True)
class Compiled(Charbonnier):
    """The same with scalar functions."""

    third: object = lambda z: 0.25 / (z * z + 0.25) / (z * z + 0.25) ** 0.5
    scalars = property(lambda self: (
        lambda z: (z * z + 0.25) ** 0.5, lambda z: z / (z * z + 0.25) ** 0.5, self.third
    ))  # fmt: skip


@pytest.mark.parametrize("potential", [Charbonnier(), Compiled()])
def test_a_potential_of_ones_own_passes_by_differences(potential):
    report = check(potential)
    assert report.passed, str(report)
    assert any("differences" in c.name for c in report.checks)


def planted(base, **methods):
    """An object of a subclass of Charbonnier, or another class, with some methods replaced."""
    return type("Planted", (base,), methods)()


def shifting(self, z):
    z[..., 0] += 1
    return np.hypot(z, 0.5)


CLAIMS = {"value": Quadratic.value, "derivative": Quadratic.derivative,
          "second_derivative": Quadratic.second_derivative}  # fmt: skip
HUBER = {name: lambda self, z, n=name: getattr(Huber(), n)(z) for name in CLAIMS}
POTENTIALS = {
    "wrong factor": (
        planted(Charbonnier, derivative=lambda self, z: z / self.value(z) * (1 + 1e-7)),
        "derivative is the derivative of value.*differences: at z = .* expected",
    ),
    "wrong sign": (
        planted(Charbonnier, second_derivative=lambda self, z: -0.25 / self.value(z) ** 3),
        "second_derivative is the derivative of derivative",
    ),
    "wrong factor, complex": (
        planted(LogCosh, derivative=lambda self, z: np.tanh(z) * (1 + 1e-8)),
        "derivative is the derivative of value",
    ),
    "precision": (
        planted(Charbonnier, value=lambda self, z: np.hypot(z.astype(float), 0.5)),
        "value: float32 and shape kept: given float64",
    ),
    "shape": (
        planted(Charbonnier, value=lambda self, z: np.hypot(z, 0.5).ravel()),
        r"value: float64 and shape kept: given float64 \(24,\)",
    ),
    "a list": (
        planted(Charbonnier, value=lambda self, z: np.hypot(z, 0.5).tolist()),
        "value: .* given list",
    ),
    "argument": (planted(Charbonnier, value=shifting), "value: arguments and results stay"),
    "coupled": (
        planted(Charbonnier, derivative=lambda self, z: z / self.value(z) / abs(z).max()),
        "derivative: each number by itself",
    ),
    "overflow": (
        planted(Charbonnier, value=lambda self, z: np.sqrt(z**2 + np.float32(0.25))),
        "value: 1e-300 to 1e300: inf at",
    ),
    "NaN": (
        planted(Charbonnier, second_derivative=lambda self, z: z**2 / z**2 / (1 + z**2) ** 1.5),
        "second_derivative: 1e-300 to 1e300: nan at",
    ),
    "raises": (
        planted(Charbonnier, derivative=lambda self, z: np.zeros(3)[7]),
        "derivative: .*IndexError: index 7",
    ),
    "convex": (
        planted(object, **CLAIMS | {"value": lambda s, z: -z * z / 2, "derivative": lambda s, z: -z,
                "second_derivative": lambda s, z: -np.ones_like(z), "convex": True}),
        "convex: σ′ ≥ 0",
    ),
    "convex, a fall": (
        planted(object, **CLAIMS | {"derivative": lambda s, z: z - 3 * (z > 1), "convex": True}),
        "convex: σ does not fall",
    ),
    "sup_second": (planted(object, **CLAIMS, sup_second=0.9), "sup_second: largest"),
    "sup_third": (
        planted(object, **{n: getattr(SmoothedL1, n) for n in CLAIMS},
                parameter=0.5, sup_third=3.0),
        "sup_third: largest",
    ),
    "smooth": (planted(object, **HUBER, smooth=True), "kinks: unstated ones at -1, 1"),
    "kinks": (planted(object, **HUBER, kinks=(-1.0, 0.9)), "kinks: unstated ones at 1$"),
    "scalars": (Compiled(lambda z: 0.25 / (z * z + 0.25)), "scalars: second_derivative"),
}  # fmt: skip


class Blur(Operator):
    """A convolution that may be spoilt."""

    domain_shape = range_shape = SHAPE
    K = Convolution(np.arange(9.0).reshape(3, 3), SHAPE, "zero")

    def matvec(self, u):
        return self.K.matvec(u)

    def adjoint(self, z):
        return self.K.adjoint(z)


def in_one_buffer(self, u):
    self.__dict__.setdefault("buffer", np.empty((3, *SHAPE)))
    out = self.buffer[: len(u)]
    out[...] = self.K.matvec(u)
    return out


def in_place(self, u):
    u *= 2
    return self.K.matvec(u)


OPERATORS = {
    "no flip": (planted(Blur, adjoint=lambda self, z: self.K.matvec(z)), "⟨K u, z⟩"),
    "factor": (planted(Blur, adjoint=lambda self, z: self.K.adjoint(z) * (1 + 1e-12)), "z = K u"),
    "not linear": (planted(Blur, matvec=lambda self, u: self.K.matvec(u) + 1), "K: linear"),
    "batch": (
        planted(Blur, matvec=lambda self, u: self.K.matvec(u - u.mean(axis=0))),
        "K: each image by itself",
    ),
    "buffer": (planted(Blur, matvec=in_one_buffer), "K: arguments and results stay"),
    "argument": (planted(Blur, matvec=in_place), "K: arguments and results stay"),
    "precision": (
        planted(Blur, matvec=lambda self, u: self.K.matvec(u.astype(float)).astype(np.float32),
                adjoint=lambda self, z: self.K.adjoint(z.astype(float)).astype(np.float32)),
        "K: float64 and shape kept: given float32",
    ),
    "complex": (
        planted(Blur, matvec=lambda self, u: np.fft.ifft2(np.fft.fft2(u))),
        "K: float64 and shape kept: given complex128",
    ),
    "shape": (planted(Blur, matvec=lambda self, u: u[..., :-1]), "K: .* given float64"),
    "no shape": (planted(Blur, domain_shape=None), "cannot be tested further: TypeError"),
    "refuses": (planted(Blur, matvec=lambda self, u: u.nothing), "K: linear: AttributeError"),
}  # fmt: skip


class Bank(FilterBank):
    """A bank that may be spoilt."""

    def __init__(self):
        super().__init__(SHAPE, (2, 3, 3), "reflect")


def flipped(self, u, z):
    return FilterBank.adjoint_filters(self, u, z)[..., ::-1, :]


BANKS = {
    "flipped": (planted(Bank, adjoint_filters=flipped), "adjoint_filters disagrees"),
    "sum": (
        planted(Bank, sum_per_filter=lambda self, z: z.mean(axis=(0, 2, 3))),
        "sum_per_filter is the adjoint",
    ),
    "precision": (
        planted(Bank, adjoint_filters=lambda self, u, z:
                FilterBank.adjoint_filters(self, u, z).astype(float)),
        "adjoint_filters: float32 and shape kept",
    ),
    "not linear in A": (
        planted(Bank, apply=lambda self, A, u: FilterBank.apply(self, abs(A), u)),
        "apply: linear in its first argument",
    ),
}  # fmt: skip
PLANTED = {f"{kind}: {name}": fault for kind, faults in (
    ("potential", POTENTIALS), ("operator", OPERATORS), ("bank", BANKS)
) for name, fault in faults.items()}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_found_and_named(name):
    thing, words = PLANTED[name]
    failures = "\n".join(c.name for c in check(thing).failures)
    assert re.search(words, failures, re.MULTILINE), failures


@pytest.mark.parametrize("base", [Blur, Bank, Charbonnier])
def test_what_errors_are_planted_in_passes(base):
    assert check(base()), str(check(base()))


def problem(potential=SMOOTH, *, dtype=np.float64, tied=True, operator=None):
    rng = np.random.default_rng(2)
    bank = FilterBank(SHAPE, (3, 3, 3), "symmetric")
    A, C = rng.standard_normal((2, *bank.coefficients_shape)).astype(dtype)
    theta = make_parameters(A, None if tied else C, b=rng.standard_normal(3).astype(dtype))
    K = operator or Identity(SHAPE)
    y = rng.standard_normal((2, *K.range_shape)).astype(dtype)
    return Problem(K, y, FieldOfExperts(bank, potential, theta), 1.5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("potential", [p for _, p in registry.potentials()] + [Charbonnier()])
def test_problems_pass(potential, tied, dtype):
    report = check(problem(potential, tied=tied, dtype=dtype))
    assert report.passed, str(report)


def spoilt(name, **linearization):
    """A `make_step` whose step, or linearisation, has one function of its own."""

    def make(p, tau=None):
        step = make_step(p, tau)
        kind = type(step)
        change = {name: lambda self, u: 1.001 * getattr(kind, name)(self, u)} if name else {}
        if linearization:
            change["linearize"] = lambda self, u: replace_methods(kind.linearize(self, u))
        return type("Spoilt", (kind,), change)(step.problem, step.tau, step.operator, step.field)

    def replace_methods(lin):
        return type("SpoiltLinearization", (type(lin),), linearization)(lin.step, lin.field)

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (spoilt("apply"), "engine against equations: T"),
        (spoilt("energy"), "∇E against E"),
        (spoilt("direction"), "∂G against G"),
        (spoilt("", jvp=lambda self, v: 0.9 * v), "engine against equations: ∂T v"),
        (spoilt("", direction_jvp=lambda self, v: np.roll(v, 1, axis=3)), "⟨∂G v, q⟩"),
        (spoilt("", vjp=lambda self, q: 0.9 * q), "engine against equations: (∂T)ᵀ q"),
        (spoilt("", hvp=lambda self, v: v[..., ::-1, :] * v.shape[2]), "∇²E against E"),
        (spoilt("", hvp=lambda self, v: np.roll(v, 1, axis=2)), "∇²E symmetric"),
        (
            spoilt("", params_vjp=lambda self, q: replace(
                super(type(self), self).params_vjp(q), b=np.zeros(3)
            )),
            "engine against equations: (∂T/∂b)ᵀ q",
        ),
    ],
)  # fmt: skip
def test_an_engine_that_computes_something_else_is_found(make, words, monkeypatch):
    monkeypatch.setattr(module, "make_step", make)
    report = check(problem())
    assert any(words in c.name for c in report.failures), str(report)


def test_a_problem_of_wrong_parts_fails():
    wrong, _ = OPERATORS["no flip"]
    K = planted(Blur)
    spoilt_later = problem(operator=K)
    type(K).adjoint = lambda self, z: self.K.matvec(z)
    assert any("symmetric" in c.name for c in check(spoilt_later).failures)
    with pytest.raises(ValueError, match="for random u and z"):
        problem(operator=wrong)
    wrong = planted(Charbonnier, derivative=lambda self, z: np.sin(z))
    assert any("∇E against E" in c.name for c in check(problem(wrong)).failures)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (None, "given NoneType, expected a potential"),
        ([1.0], "a linear operator .* or a Problem"),
        ("log_cosh", "given str"),
        (np.ones(3), "given ndarray.*FromScipy"),
        (scipy.sparse.eye_array(4), r"FromScipy\(matrix, image_shape\)"),
        (LogCosh, r"given the class LogCosh.*pass an object, LogCosh\(…\)"),
        (planted(object, value=abs, derivative=abs), "this one lacks second_derivative"),
        (planted(object, matvec=abs, domain_shape=SHAPE), "this one lacks range_shape, adjoint"),
        (make_step(problem()), "a Problem"),
    ],
)
def test_what_cannot_be_checked_is_named(thing, words):
    with pytest.raises(TypeError, match=words):
        check(thing)


def test_the_report_is_a_table():
    report = check(POTENTIALS["wrong sign"][0])
    head, columns, *rows = str(report).splitlines()
    assert head == f"Planted: {len(report.failures)} of {len(report.checks)} checks failed"
    assert columns.split() == ["measured", "bound"] and len(rows) == len(report.checks)
    assert sum(row.startswith("FAIL") for row in rows) == len(report.failures) > 0
    assert not report and check(LogCosh())
    assert str(check(LogCosh())).startswith("LogCosh(slope=1.0): all checks passed")
