"""The engine against `refimpl.paper.equations`, for every operator, boundary, potential and tie."""

import logging

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.engine import Step, TiedStep, make_step
from refimpl.engine.field import make_field
from refimpl.engine.fused import FusedExperts
from refimpl.engine.general import GeneralExperts, announce
from refimpl.engine.safe_steps import norm_bound, safe_tau
from refimpl.engine.twins import compiled
from refimpl.equilibrium import reconstruct
from refimpl.equilibrium.certificates import bilinear_norm
from refimpl.equilibrium.norms import bank_norm, lipschitz_bound
from refimpl.equilibrium.proved import proved_bank_norm, smallest_eigenvalue
from refimpl.paper import equations
from refimpl.paper.operators import (
    Convolution,
    DenseBank,
    FilterBank,
    FromScipy,
    Identity,
    Mask,
    Matrix,
)
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import POTENTIALS, LogCosh, trait
from refimpl.paper.problem import FieldOfExperts, Problem
from strategies import (
    PRECISIONS,
    boundaries,
    filter_shapes,
    generator,
    image_shapes,
    near,
    normal,
    precisions,
    seeds,
)


def operators(shape, boundary, rng, dtype):
    """One of each kind for images (C, H, W), and a product of two."""
    blur = Convolution(normal(rng, (3, 5), dtype) / 4, shape, boundary)
    mask = Mask((np.arange(np.prod(shape)) % 3 != 1).reshape(shape), shape)
    matrix = normal(rng, (7, int(np.prod(shape))), dtype)
    return {
        "identity": Identity(shape),
        "mask": mask,
        "convolution": blur,
        "matrix": Matrix(matrix, shape),
        "scipy": FromScipy(matrix, shape),
        "product": mask @ blur,
    }


def random_problem(shape, filters, boundary, potential, tied, operator, dtype, rng):
    """A problem with images `shape`; `filters` of None stands for a dense bank."""
    bank = DenseBank(shape[1:], 6)
    if filters is not None:
        bank = FilterBank(shape[1:], (filters[0], *filters[2:]), boundary)
    A, C = normal(rng, (2, *bank.coefficients_shape), dtype)
    b, w = normal(rng, (2, len(A)), dtype)
    theta = make_parameters(A, None if tied else C, b=b, weights=w, gamma=0.7)
    K = operators(shape[1:], boundary, rng, dtype)[operator]
    y = normal(rng, (shape[0], *K.range_shape), dtype)
    return Problem(K, y, FieldOfExperts(bank, potential, theta), 1.3)


def in_float64(p):
    """The problem in float64, with the same numbers."""
    experts = p.experts.with_theta(p.theta.astype(np.float64))
    K = p.operator
    if isinstance(K, FromScipy):
        K = FromScipy(K.operator.A.astype(float), K.domain_shape)
    elif hasattr(K, "outer"):
        K = K.outer.astype(np.float64) @ K.inner.astype(np.float64)
    else:
        K = K.astype(np.float64)
    return Problem(K, p.y.astype(float), experts, p.lam)


def assert_close(given, expected, scale, dtype, what):
    """To 64 eps √n of the size of what is added up; in the precision asked for."""
    given = np.asarray(given)
    assert given.dtype == dtype, what
    bound = 64 * np.finfo(dtype).eps * np.sqrt(max(expected.size, 64))
    error = np.linalg.norm(given - expected)
    assert error <= bound * max(np.linalg.norm(expected), scale), what


@pytest.mark.parametrize("operator", operators((1, 2, 2), "zero", generator(0), float))
@pytest.mark.parametrize("name", POTENTIALS)
@given(image_shapes(max_side=6), st.data(), boundaries(), st.booleans(), seeds())
def test_engine_computes_the_equations(operator, name, shape, data, boundary, tied, seed):
    dtype = data.draw(precisions())
    filters = data.draw(st.one_of(st.none(), filter_shapes(shape[1])))
    # A slope of 10 (ν = 0.1) would amplify float32 rounding of A u beyond 64 eps.
    potential = POTENTIALS[name](nu=1.0) if name == "smoothed_l1" else POTENTIALS[name]()
    rng = generator(seed)
    p = random_problem(shape, filters, boundary, potential, tied, operator, dtype, rng)
    if dtype == np.float32 and not potential.smooth:
        return  # σ′ jumps where float32 rounding of A u crosses a kink
    u, v, q = normal(rng, (3, *shape), dtype)
    step = make_step(p, 0.1)
    assert type(step) is (TiedStep if tied else Step)
    lin, exact, n = step.linearize(u), in_float64(p), np.linalg.norm
    U, V, Q = (x.astype(float) for x in (u, v, q))
    size = max(1, n(U), n(V), n(Q))
    norm_A, norm_C = n(exact.theta.A), n(exact.theta.synthesis)
    scale = (norm_A + 1) * (norm_C + 1) * max(1, n(exact.theta.weights)) * size**2
    scale += 1.3 * norm_bound(exact.operator, np.dtype(float)) * (n(exact.y) + size)
    pairs = {
        "T": (step.apply(u), equations.step(exact, 0.1, U)),
        "G": (lin.direction, equations.direction(exact, U)),
        "jvp": (lin.jvp(v), equations.step_jvp(exact, 0.1, U, V)),
        "vjp": (lin.vjp(q), equations.step_vjp(exact, 0.1, U, Q)),
    }
    if tied:
        pairs["E"] = step.energy(u), equations.energy(exact, U)
    gradient = equations.step_params_vjp(exact, 0.1, U, Q)
    for key, x in lin.params_vjp(q).items():
        pairs[key] = x, np.asarray(getattr(gradient, key))
    for what, (given_, expected) in pairs.items():
        assert_close(given_, expected, scale, dtype, what)


@pytest.mark.parametrize("name", POTENTIALS)
@given(st.data())
def test_fused_kernels_agree_with_the_definition_at_kinks(name, data):
    potential = POTENTIALS[name]()
    z = data.draw(st.lists(near((0.0, *potential.kinks)), min_size=6, max_size=6))
    u = np.array(z).reshape(1, 1, 2, 3)
    bank = FilterBank((1, 2, 3), (1, 1, 1), "zero")
    experts = FieldOfExperts(bank, potential, np.ones((1, 1, 1, 1)))
    lin, ones = make_field(experts).linearize(u), np.ones_like(u)
    np.testing.assert_allclose(lin.value, equations.field(experts, u), rtol=1e-14, atol=0)
    expected = equations.field_jvp(experts, u, ones)
    np.testing.assert_allclose(lin.jvp(ones), expected, rtol=1e-14, atol=0)


def test_engine_takes_read_only_and_transposed_images():
    bank, rng = FilterBank((2, 5, 4), (3, 3, 3)), generator(0)
    A, u = normal(rng, bank.coefficients_shape), np.asfortranarray(normal(rng, (2, 2, 5, 4)))
    u.flags.writeable = False
    experts = FieldOfExperts(bank, LogCosh(), A)
    assert_close(compiled(bank).apply(A, u), bank.apply(A, u), 1.0, float, "A u")
    assert_close(make_field(experts).value(u), equations.field(experts, u), 1.0, float, "F")


def test_complex_images_are_left_to_the_equations():
    p = strange()
    u = p.y + 1j
    with pytest.raises(TypeError, match="u is complex128"):
        make_step(p).apply(u)
    assert equations.step(p, 0.1, u).dtype == complex


# What the engine does not know by identity


class Tenth(LogCosh):
    """σ of its own in a subclass of a potential that the kernels know."""

    code = 99

    def derivative(self, z):
        return np.tanh(z) / 10

    def second_derivative(self, z):
        return (1 - np.tanh(z) ** 2) / 10


class Student:
    """A potential of its own: three functions and nothing else, φ(z) = √(1 + z²)."""

    def value(self, z):
        return np.sqrt(1 + z * z)

    def derivative(self, z):
        return z / np.sqrt(1 + z * z)

    def second_derivative(self, z):
        return (1 + z * z) ** -1.5


class Scalar(Student):
    """The same with functions for Numba, which differ by a factor that shows which are used."""

    scalars = (
        numba.njit(lambda z: 2 * np.sqrt(1 + z * z)),
        numba.njit(lambda z: 2 * z / np.sqrt(1 + z * z)),
        lambda z: 2 * (1 + z * z) ** -1.5,
    )


class Mirrored(FilterBank):
    """A bank that mirrors images first."""

    def apply(self, A, u):
        return super().apply(A, u[..., ::-1])


class Doubled(Convolution):
    """A blur that doubles, of which the compiled twin would know nothing."""

    def matvec(self, u):
        return 2 * super().matvec(u)

    def adjoint(self, z):
        return 2 * super().adjoint(z)


def strange(potential=None, bank=FilterBank, operator=Convolution):
    """A problem with classes of one's own."""
    rng, shape = generator(3), (1, 6, 5)
    A = normal(rng, (3, 1, 3, 3))
    experts = FieldOfExperts(bank(shape, (3, 3, 3), "reflect"), potential or LogCosh(), A)
    K = operator(normal(rng, (3, 3)), shape)
    return Problem(K, normal(rng, (2, *shape)), experts, 1.3)


@pytest.mark.parametrize(
    "p",
    [
        strange(Tenth()),
        strange(Student()),
        strange(bank=Mirrored),
        strange(operator=Doubled),
        strange(Student(), Mirrored, Doubled),
    ],
    ids=["subclass of a potential", "own potential", "own bank", "own operator", "all three"],
)
def test_what_is_not_known_by_identity_is_its_own_definition(p):
    u, v = normal(generator(4), (2, *p.y.shape))
    step, ordinary = make_step(p, 0.1), make_step(strange(), 0.1)
    lin = step.linearize(u)
    for given_, expected in (
        (step.apply(u), equations.step(p, 0.1, u)),
        (step.energy(u), equations.energy(p, u)),
        (lin.jvp(v), equations.step_jvp(p, 0.1, u, v)),
        (lin.params_vjp(v).A, equations.step_params_vjp(p, 0.1, u, v).A),
    ):
        assert_close(given_, expected, 1.0, float, "own class")
    assert np.linalg.norm(step.apply(u) - ordinary.apply(u)) > 1e-3


def test_an_exchanged_method_of_an_instance_is_its_own_definition():
    p = strange()
    p.operator.matvec = lambda u: 0 * u
    assert np.array_equal(make_step(p, 0.1).operator.matvec(p.y), 0 * p.y)


def test_a_potential_of_ones_own_is_announced_once(caplog):
    announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="refimpl"):
        for _ in range(2):
            assert isinstance(make_field(strange(Student()).experts).maps, GeneralExperts)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "potential Student is not one of refimpl's"
    ]
    assert isinstance(make_field(strange().experts).maps, FusedExperts)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_scalar_functions_are_compiled_and_used(dtype):
    z = normal(generator(0), (4, 5), dtype)
    potential = make_field(strange(Scalar()).experts).maps.potential
    for name in ("value", "derivative", "second_derivative"):
        given_, plain = getattr(potential, name)(z), getattr(Student(), name)(z)
        assert given_.dtype == dtype
        np.testing.assert_allclose(given_, 2 * plain, rtol=8 * np.finfo(dtype).eps)


def test_traits_of_a_base_class_do_not_hold_for_other_functions():
    assert trait(LogCosh(), "convex") and trait(LogCosh(3.0), "sup_second") == 3.0
    assert not trait(Tenth(), "convex") and trait(Tenth(), "sup_second") == np.inf


@pytest.mark.parametrize("potential", [None, type, "log_cosh", object()])
def test_what_is_no_potential_is_refused(potential):
    with pytest.raises(TypeError, match="expected an object with the methods value, derivative"):
        FieldOfExperts(FilterBank((4, 4), (2, 3, 3)), potential, np.ones((2, 1, 3, 3)))


# A step size nobody has to choose


@pytest.mark.parametrize("operator", operators((1, 2, 2), "zero", generator(0), float))
@given(image_shapes(max_side=6), st.data(), boundaries(), st.booleans(), seeds())
def test_safe_tau_is_that_of_a_bound_of_every_jacobian(operator, shape, data, boundary, tied, seed):
    filters = data.draw(filter_shapes(shape[1]))
    p = random_problem(shape, filters, boundary, LogCosh(2.0), tied, operator, float,
                       generator(seed))  # fmt: skip
    step = make_step(p)
    assert step.tau == safe_tau(p)
    assert 1 / step.tau >= lipschitz_bound(step) * (1 - 1e-9) or operator == "scipy"


class Tenfold(FilterBank):
    """A bank with ten times the responses, of which closed forms know nothing."""

    def apply(self, A, u):
        return 10 * super().apply(A, u)

    def adjoint(self, A, z):
        return 10 * super().adjoint(A, z)

    def adjoint_filters(self, u, z):
        return 10 * super().adjoint_filters(u, z)


class TenfoldIdentity(Identity):
    """Ten times the identity, as a class of one's own."""

    def matvec(self, u):
        return 10 * u

    def adjoint(self, z):
        return 10 * z


def exchanged(K, factor):
    """An operator with methods of its own on the instance."""
    K.matvec, K.adjoint = (lambda x: factor * x,) * 2
    return K


@pytest.mark.parametrize("boundary", ["periodic", "symmetric"])
def test_norms_and_certificates_of_own_classes_are_theirs(boundary):
    shape, rng = (1, 6, 6), generator(1)
    A = normal(rng, (3, 1, 3, 3))
    plain, tenfold = (bank(shape, (3, 3, 3), boundary) for bank in (FilterBank, Tenfold))
    assert bank_norm(tenfold, A) == pytest.approx(10 * bank_norm(plain, A), rel=1e-9)
    assert bilinear_norm(tenfold) == np.inf
    weak = exchanged(Identity(shape), 0.1)
    assert smallest_eigenvalue(weak) == 0 and smallest_eigenvalue(Identity(shape)) == 1
    assert proved_bank_norm(tenfold, A) == np.inf


@pytest.mark.parametrize(
    "K", [TenfoldIdentity((1, 6, 6)), exchanged(Identity((1, 6, 6)), 10.0)], ids=["class", "method"]
)
def test_safe_tau_and_auto_take_own_classes_for_what_they_are(K):
    rng = generator(2)
    experts = FieldOfExperts(Tenfold((1, 6, 6), (1, 3, 3)), LogCosh(), normal(rng, (1, 1, 3, 3)))
    p = Problem(K, normal(rng, (1, 1, 6, 6)), experts, 1.0)
    step = make_step(p)
    assert 1 / step.tau >= lipschitz_bound(step)
    star = reconstruct(p, residual_tol=1e-12)
    expected = equations.fixed_point(p, step.tau, K.adjoint(p.y), tol=1e-13)
    assert star.all_converged and np.abs(star.x - expected).max() <= 1e-8


def test_a_step_keeps_the_parameters_that_it_was_made_with():
    p, u = strange(), normal(generator(4), (2, 1, 6, 5))
    step = make_step(p, 0.1)
    before = step.apply(u)
    p.theta.weights[...], p.theta.A[...] = 3.0, 0.0
    assert np.array_equal(step.apply(u), before)
    with pytest.raises(ValueError, match="read-only"):
        p.operator.kernel[...] = 0


def test_no_safe_step_is_said():
    class Infinite(Student):
        def second_derivative(self, z):
            return np.full_like(z, np.inf)

    with pytest.raises(ValueError, match="tau: no safe step is found"):
        make_step(strange(Infinite()))
