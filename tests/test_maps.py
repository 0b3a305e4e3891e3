"""The step T: its derivatives, its fixed points, step sizes, batches, precision, bad input."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.checks import complex_step, dense_matrix, jvp_vjp, symmetry
from refimpl.datafit import DataFit
from refimpl.fields_of_experts import make_field
from refimpl.fields_of_experts.jacobians import StencilJacobian
from refimpl.maps import (
    Step,
    TiedStep,
    largest_safe_step,
    lipschitz_bound,
    make_step,
)
from refimpl.operators import Convolution, DenseBank, FilterBank, Identity, Mask, Matrix
from refimpl.parameters import make_parameters
from refimpl.potentials import POTENTIALS, LogCosh
from refimpl.vectors import dot
from strategies import BOUNDARIES, boundaries, generator, image_shapes, normal, precisions, seeds

IMAGE = (2, 5, 4)


def random_operator(rng, image=IMAGE, boundary="symmetric", dtype=np.float64):
    choice = rng.integers(4)
    if choice == 0:
        return Identity(image)
    if choice == 1:
        return Mask(np.arange(np.prod(image)).reshape(image) % 3 < 2, image)
    if choice == 2:
        return Convolution(normal(rng, (3, 5), dtype), image, boundary)
    return Matrix(normal(rng, (7, int(np.prod(image))), dtype), image)


def random_step(
    rng,
    *,
    tied=True,
    images=2,
    image=IMAGE,
    boundary="symmetric",
    potential=None,
    operator=None,
    dense=False,
    tau=0.05,
    dtype=np.float64,
):
    operator = operator or random_operator(rng, image, boundary, dtype)
    bank = DenseBank(image, 6) if dense else FilterBank(image, (3, 3, 3), boundary)
    A, C = (normal(rng, bank.coefficients_shape, dtype) for _ in range(2))
    theta = make_parameters(A, None if tied else C, b=A.reshape(len(A), -1)[:, 0], gamma=0.3)
    y = normal(rng, (images, *operator.range_shape), dtype)
    return make_step(
        DataFit(operator, y, 1.3), make_field(bank, potential or LogCosh(), theta), tau
    )


# Derivatives


@given(image_shapes(max_side=6), boundaries(), st.booleans(), st.booleans(), seeds())
def test_linearization_is_the_derivative_of_the_step(shape, boundary, tied, dense, seed):
    rng = generator(seed)
    step = random_step(
        rng, tied=tied, images=shape[0], image=shape[1:], boundary=boundary, dense=dense
    )
    u, v, q = normal(rng, (3, *shape))
    lin = step.linearize(u)
    assert np.linalg.norm(lin.value - step.apply(u)) <= 1e-13 * np.linalg.norm(lin.value)
    assert complex_step(step.apply, lin.jvp, u, v).passed
    assert jvp_vjp(lin.jvp, lin.vjp, v, q).passed


@given(image_shapes(max_side=6), boundaries(), seeds())
def test_tied_step_is_a_gradient_step_with_a_symmetric_hessian(shape, boundary, seed):
    rng = generator(seed)
    step = random_step(rng, images=shape[0], image=shape[1:], boundary=boundary)
    u, v, q = normal(rng, (3, *shape))
    gradient, lin = step.gradient(u), step.linearize(u)
    assert np.array_equal(step.apply(u), u - step.tau * gradient)
    assert complex_step(step.energy, lambda d: dot(gradient, d), u, v).passed
    assert complex_step(step.gradient, lin.hvp, u, v).passed
    assert symmetry(lin.hvp, v, q).passed


ENTRIES = [
    (tied, name)
    for tied in (True, False)
    for name in ("A", "C", "b", "weights", "gamma")
    if not (tied and name == "C")
]


@pytest.mark.parametrize(("tied", "name"), ENTRIES)
def test_parameter_vjp_is_the_derivative_in_each_parameter(tied, name):
    rng = generator(0)
    step = random_step(rng, tied=tied)
    theta, (u, q) = step.field.parameters, normal(rng, (2, 2, *IMAGE))
    value = getattr(theta, name)
    direction, gradient = rng.standard_normal(value.shape), step.linearize(u).params_vjp(q)

    def paired(x):
        field = make_field(step.field.bank, step.field.potential, replace(theta, **{name: x}))
        return np.sum(replace(step, field=field).apply(u) * q)

    slope = np.sum(getattr(gradient, name) * direction)
    assert complex_step(paired, lambda d: slope, value, direction).passed


def test_make_step_gives_a_tied_step_only_to_tied_fields():
    rng = generator(1)
    tied, untied = random_step(rng), random_step(rng, tied=False)
    assert isinstance(tied, TiedStep)
    assert type(untied) is Step
    assert not hasattr(untied, "energy")
    assert not hasattr(untied.linearize(np.zeros((2, *IMAGE))), "hvp")


# Fixed points and step sizes


def test_the_fixed_point_does_not_depend_on_tau():
    rng = generator(2)
    step = random_step(rng, operator=Identity(IMAGE))
    ends = []
    for factor in (0.5, 0.25):
        iteration, u = replace(step, tau=factor * largest_safe_step(step)), np.zeros((2, *IMAGE))
        for _ in range(1000):
            u = iteration.apply(u)
        ends.append(u)
    assert np.linalg.norm(ends[0] - ends[1]) <= 1e-10 * np.linalg.norm(ends[0])


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("tied", [True, False])
def test_lipschitz_bound_exceeds_the_norm_of_every_jacobian(boundary, tied):
    rng = generator(3)
    for name in ("half_squared_relu", "lorentzian", "smoothed_l1"):
        potential = POTENTIALS[name]()
        step = random_step(rng, tied=tied, boundary=boundary, potential=potential, images=1)
        J = dense_matrix(step.linearize(normal(rng, (1, *IMAGE))).direction_jvp, (1, *IMAGE))
        assert np.linalg.norm(J, 2) <= lipschitz_bound(step) * (1 + 1e-10)


@settings(max_examples=10)
@given(seeds(), st.floats(0.01, 0.99))
def test_energy_falls_for_every_safe_step(seed, factor):
    rng = generator(seed)
    step = random_step(rng)
    step = replace(step, tau=factor * largest_safe_step(step))
    u = normal(rng, (2, *IMAGE))
    energies = [step.energy(u)]
    for _ in range(5):
        u = step.apply(u)
        energies.append(step.energy(u))
    assert (np.diff(energies, axis=0) <= 64 * np.finfo(float).eps * np.abs(energies[0])).all()


def test_plain_quadratic_iteration_diverges_just_beyond_the_largest_safe_step():
    rng = generator(4)
    step = random_step(
        rng, operator=Identity(IMAGE), potential=POTENTIALS["quadratic"](), boundary="periodic"
    )
    start = normal(rng, (2, *IMAGE))
    grown = []
    for factor in (0.99, 1.01):
        iteration, u = replace(step, tau=factor * largest_safe_step(step)), start
        for _ in range(2000):
            u = iteration.apply(u)
        grown.append(np.linalg.norm(iteration.apply(u) - u))
    assert grown[0] < 1e-6 < 1e6 < grown[1]


# Batches and precision


@given(image_shapes(max_batch=4, max_side=6), boundaries(), st.booleans(), seeds())
def test_image_n_alone_is_bit_for_bit_image_n_of_the_batch(shape, boundary, tied, seed):
    rng = generator(seed)
    operator = Convolution(normal(rng, (3, 3)), shape[1:], boundary)
    step = random_step(
        rng, tied=tied, images=shape[0], image=shape[1:], boundary=boundary, operator=operator
    )
    u, v = normal(rng, (2, *shape))
    for n in range(shape[0]):
        one, alone = slice(n, n + 1), step.image(n)
        assert np.array_equal(step.apply(u)[one], alone.apply(u[one]))
        assert np.array_equal(step.linearize(u).vjp(v)[one], alone.linearize(u[one]).vjp(v[one]))
        if tied:
            assert np.array_equal(step.energy(u)[one], alone.energy(u[one]))


@settings(max_examples=10)
@given(precisions(), st.booleans(), st.booleans(), seeds())
def test_precision_is_kept_whatever_the_type_of_the_constants(dtype, tied, dense, seed):
    rng = generator(seed)
    step = random_step(rng, tied=tied, dense=dense, tau=np.float64(0.05), dtype=dtype)
    step = replace(step, datafit=replace(step.datafit, lam=np.float64(1.3)))
    u = normal(rng, (2, *IMAGE), dtype)
    lin = step.linearize(u)
    arrays = [step.apply(u), lin.value, lin.jvp(u), lin.vjp(u), lin.direction_jvp(u)]
    arrays += [array for _, array in lin.params_vjp(u).items()]
    arrays += [step.energy(u)] if tied else []
    assert {x.dtype for x in arrays} == {np.dtype(dtype)}
    assert np.isfinite(largest_safe_step(step))


# Bad input


def parts():
    step = random_step(generator(5), operator=Identity(IMAGE))
    return step.datafit, step.field


BAD = {
    "tau zero": (lambda: make_step(*parts(), 0.0), "tau: given 0.0"),
    "tau negative": (lambda: make_step(*parts(), -0.1), "tau: given -0.1"),
    "tau NaN": (lambda: make_step(*parts(), np.nan), "tau: given nan"),
    "lam zero": (lambda: replace(parts()[0], lam=0.0), "lam: given 0.0"),
    "lam infinite": (lambda: replace(parts()[0], lam=np.inf), "lam: given inf"),
    "data NaN": (lambda: DataFit(Identity(IMAGE), np.full((1, *IMAGE), np.nan)), "y: 40 of 40"),
    "data shape": (
        lambda: DataFit(Identity(IMAGE), np.ones((1, 2, 4, 5))),
        r"y: shape is \(1, 2, 4, 5\), expected \(N,\) \+ \(2, 5, 4\)",
    ),
    "data empty": (lambda: DataFit(Identity(IMAGE), np.ones((0, *IMAGE))), "y: shape is"),
    "images differ": (
        lambda: make_step(DataFit(Identity((1, 5, 4)), np.ones((1, 1, 5, 4))), parts()[1], 0.1),
        r"images \(2, 5, 4\), the operator on \(1, 5, 4\)",
    ),
    "batches differ": (
        lambda: make_step(*parts(), 0.1).apply(np.ones((3, *IMAGE))),
        "3 images, but y holds data of 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_refused_with_what_was_given_and_expected(case):
    build, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_mixed_precision_is_refused():
    datafit, field = parts()
    single = replace(datafit, y=datafit.y.astype(np.float32))
    with pytest.raises(TypeError, match="y is float32, A is float64"):
        make_step(single, field, 0.1)
    with pytest.raises(TypeError, match="mixed precision"):
        make_step(datafit, field, 0.1).apply(np.zeros((2, *IMAGE), np.float32))
    with pytest.raises(TypeError, match="dtype is int64"):
        replace(datafit, y=datafit.y.astype(np.int64))


@pytest.mark.parametrize("tied", [True, False])
def test_rough_step_has_the_jacobian_in_float32(tied):
    step = random_step(generator(0), tied=tied)
    u, v = (normal(generator(seed), (2, *IMAGE)) for seed in (1, 2))
    exact = step.linearize(u).direction_jvp(v)
    given = step.rough.linearize(u.astype(np.float32)).direction_jvp(v.astype(np.float32))
    assert step.dtype == np.float64 and given.dtype == step.rough.dtype == np.float32
    assert type(step.rough) is type(step)
    # Numbers of size 1 to 10, a hundred of them in a sum.
    assert np.linalg.norm(given - exact) <= 100 * np.finfo(np.float32).eps * np.linalg.norm(exact)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("filters", [2, 30], ids=["responses", "stencil"])
def test_a_rounded_linearization_computes_no_jacobian(monkeypatch, filters, tied):
    rng, shape, eps = generator(0), (1, 6, 5), np.finfo(np.float32).eps
    bank = FilterBank(shape, (filters, 3, 3))
    A, C = (normal(rng, bank.coefficients_shape) for _ in range(2))
    field = make_field(bank, LogCosh(), make_parameters(A, None if tied else C, gamma=0.3))
    step = make_step(DataFit(Identity(shape), normal(rng, (2, *shape))), field, 0.1)
    q, lin = normal(rng, (2, *shape)), step.linearize(normal(rng, (2, *shape)))
    exact, rounded = lin.field.jacobian, lin.rounded
    assert isinstance(exact, StencilJacobian) == (filters == 30) and type(rounded) is type(lin)
    monkeypatch.delattr("refimpl.fields_of_experts.field.make_jacobian")
    single = q.astype(np.float32)
    scale = lin.field.responses[1].max() * np.linalg.norm(A)
    scale *= np.linalg.norm(A if tied else C)
    for x, y, bound in (
        (rounded.field.vjp(single), exact.adjoint(q), scale * np.linalg.norm(q)),
        (rounded.field.jvp(single), exact.matvec(q), scale * np.linalg.norm(q)),
        (rounded.field.diagonal, exact.diagonal, scale * np.sqrt(q.size)),
        (rounded.field.mean_slopes, exact.mean_slopes, scale),
    ):
        assert x.dtype == np.float32
        # Each number and each partial sum is rounded; scale is a bound of their products' sum.
        assert np.linalg.norm(x - y) <= 4 * eps * bound


@pytest.mark.parametrize("filters", [2, 30], ids=["responses", "stencil"])
def test_a_rounded_jacobian_has_no_subnormal_numbers(filters):
    """Saturated responses, σ′ from 1e-30 to 1e-60; the states do not fit float32 either."""
    shape, tiny = (1, 6, 5), np.finfo(np.float32).tiny
    A = np.zeros((filters, 1, 3, 3))
    A[:, 0, 1, 1] = 1
    field = make_field(FilterBank(shape, (filters, 3, 3)), LogCosh(), A)
    step = make_step(DataFit(Identity(shape), np.zeros((1, *shape))), field, 0.1)
    u = np.linspace(35, 70, 30).reshape(1, *shape)
    exact, rounded = (lin.field.jacobian for lin in (step.linearize(u), step.linearize(u).rounded))
    for x in [rounded.S, rounded.diagonal] if filters == 30 else [rounded.d, rounded.diagonal]:
        assert 0 < np.count_nonzero(x) < x.size and np.abs(x[x != 0]).min() >= tiny
    # Rounded to float32, to multiples of tiny, which counts near tiny / eps, and in the sum.
    bound = filters * tiny + 3 * np.finfo(np.float32).eps * exact.diagonal
    assert (np.abs(rounded.diagonal - exact.diagonal) <= bound).all()
    assert np.isinf(step.linearize(1e300 * u).rounded.u).all()


def test_rough_products_need_no_data_and_take_any():
    step = random_step(generator(0), operator=Identity(IMAGE))
    huge = replace(step, datafit=replace(step.datafit, y=1e200 * step.datafit.y))
    assert huge.rough.dtype == np.float32


@pytest.mark.parametrize(
    "change",
    [
        lambda step: replace(step, datafit=replace(step.datafit, lam=1e-6)),
        lambda step: replace(step, datafit=replace(step.datafit, operator=1.0 * Identity(IMAGE))),
        lambda step: random_step(generator(0), operator=Identity(IMAGE), dense=True),
        lambda step: random_step(generator(0), operator=Identity(IMAGE), dtype=np.float32),
        lambda step: replace(step, field=make_field(step.field.bank, LogCosh(), tiny(step))),
        lambda step: random_step(generator(0), operator=Matrix(np.full((7, 40), 1e-30), IMAGE)),
    ],
    ids=[
        "not mild", "operator of another kind", "dense", "float32 already",
        "filters beyond float32", "operator beyond float32",
    ],
)
def test_other_steps_are_rough_already(change):
    step = change(random_step(generator(0), operator=Identity(IMAGE)))
    lin = step.linearize(step.datafit.operator.adjoint(step.datafit.y))
    assert step.rough is step and lin.rounded is lin


def tiny(step):
    """Parameters with filters that float32 would make subnormal."""
    theta = step.field.parameters
    return replace(theta, A=1e-40 * theta.A)


def spectral_problem(tied: bool):
    rng = np.random.default_rng(5)
    bank = FilterBank((1, 5, 4), (3, 3, 3), "symmetric")
    A, C = 0.4 * rng.standard_normal((2, *bank.coefficients_shape))
    theta = make_parameters(A, None if tied else C)
    field = make_field(bank, LogCosh(1.0), theta)
    u, y = rng.standard_normal((2, 1, 1, 5, 4))
    return make_step(DataFit(Identity((1, 5, 4)), y, 1.0), field, 0.1).linearize(u)


@pytest.mark.parametrize("tied", [True, False])
def test_asymmetry_and_spectral_radius_are_those_of_the_matrix(tied):
    """tol = 1e-6 bounds residuals relative to the norm, so values agree to a few times that."""
    lin = spectral_problem(tied)
    J = dense_matrix(lin.direction_jvp, lin.u.shape, np.float64)
    T = dense_matrix(lin.jvp, lin.u.shape, np.float64)
    expected = np.linalg.norm(J - J.T, 2) / np.linalg.norm(J, 2)
    assert abs(lin.asymmetry() - expected) <= 1e-5
    radius = np.abs(np.linalg.eigvals(T)).max()
    assert lin.spectral_radius() == pytest.approx(radius, rel=1e-5)


def test_spectral_figures_of_a_batch_are_refused():
    lin = spectral_problem(False)
    pair = lin.step.field.linearize(np.repeat(lin.u, 2, axis=0))
    with pytest.raises(ValueError, match="2 images; take one"):
        replace(lin, field=pair).asymmetry()
