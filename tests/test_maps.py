"""The step T: its derivatives, its fixed points, step sizes, batches, precision, bad input."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.engine.jacobians import StencilJacobian
from refimpl.engine.step import make_step
from refimpl.equilibrium.norms import largest_safe_step, lipschitz_bound
from refimpl.paper.operators import Convolution, DenseBank, FilterBank, Identity, Mask, Matrix
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import POTENTIALS, LogCosh
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.verification.checks import dense_matrix
from strategies import (
    BOUNDARIES,
    boundaries,
    changed,
    generator,
    image_shapes,
    normal,
    precisions,
    seeds,
)

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
    experts = FieldOfExperts(bank, potential or LogCosh(), theta)
    return make_step(Problem(operator, y, experts, 1.3), tau)


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
    step = changed(step, lam=np.float64(1.3))
    u = normal(rng, (2, *IMAGE), dtype)
    lin = step.linearize(u)
    arrays = [step.apply(u), lin.value, lin.jvp(u), lin.vjp(u), lin.direction_jvp(u)]
    arrays += [array for _, array in lin.params_vjp(u).items()]
    arrays += [step.energy(u)] if tied else []
    assert {x.dtype for x in arrays} == {np.dtype(dtype)}
    assert np.isfinite(largest_safe_step(step))


# Bad input


def problem(**fields):
    return replace(random_step(generator(5), operator=Identity(IMAGE)).problem, **fields)


BAD = {
    "tau zero": (lambda: make_step(problem(), 0.0), "tau: given 0.0"),
    "tau negative": (lambda: make_step(problem(), -0.1), "tau: given -0.1"),
    "tau NaN": (lambda: make_step(problem(), np.nan), "tau: given nan"),
    "lam zero": (lambda: problem(lam=0.0), "lam: given 0.0"),
    "lam infinite": (lambda: problem(lam=np.inf), "lam: given inf"),
    "data NaN": (lambda: problem(y=np.full((1, *IMAGE), np.nan)), "y: 40 of 40"),
    "data shape": (
        lambda: problem(y=np.ones((1, 2, 4, 5))),
        r"y: shape is \(1, 2, 4, 5\), expected \(N,\) \+ \(2, 5, 4\)",
    ),
    "data empty": (lambda: problem(y=np.ones((0, *IMAGE))), "y: shape is"),
    "images differ": (
        lambda: problem(operator=Identity((1, 5, 4)), y=np.ones((1, 1, 5, 4))),
        r"images \(2, 5, 4\), the operator on \(1, 5, 4\)",
    ),
    "batches differ": (
        lambda: make_step(problem(), 0.1).apply(np.ones((3, *IMAGE))),
        "3 images, but y holds data of 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_refused_with_what_was_given_and_expected(case):
    build, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_mixed_precision_is_refused():
    y = problem().y
    with pytest.raises(TypeError, match="y is float32, A is float64"):
        problem(y=y.astype(np.float32))
    with pytest.raises(TypeError, match="mixed precision"):
        make_step(problem(), 0.1).apply(np.zeros((2, *IMAGE), np.float32))
    with pytest.raises(TypeError, match="dtype is int64"):
        problem(y=y.astype(np.int64))


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
    experts = FieldOfExperts(bank, LogCosh(), make_parameters(A, None if tied else C, gamma=0.3))
    step = make_step(Problem(Identity(shape), normal(rng, (2, *shape)), experts), 0.1)
    q, lin = normal(rng, (2, *shape)), step.linearize(normal(rng, (2, *shape)))
    exact, rounded = lin.field.jacobian, lin.rounded
    assert isinstance(exact, StencilJacobian) == (filters == 30) and type(rounded) is type(lin)
    monkeypatch.delattr("refimpl.engine.fused.FusedExperts.jacobian")
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
    experts = FieldOfExperts(FilterBank(shape, (filters, 3, 3)), LogCosh(), A)
    step = make_step(Problem(Identity(shape), np.zeros((1, *shape)), experts), 0.1)
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
    huge = changed(step, y=1e200 * step.problem.y)
    assert huge.rough.dtype == np.float32


@pytest.mark.parametrize(
    "change",
    [
        lambda step: changed(step, lam=1e-6),
        lambda step: changed(step, operator=1.0 * Identity(IMAGE)),
        lambda step: random_step(generator(0), operator=Identity(IMAGE), dense=True),
        lambda step: random_step(generator(0), operator=Identity(IMAGE), dtype=np.float32),
        lambda step: changed(step, experts=step.problem.experts.with_theta(tiny(step))),
        lambda step: random_step(generator(0), operator=Matrix(np.full((7, 40), 1e-30), IMAGE)),
    ],
    ids=[
        "not mild", "operator of another kind", "dense", "float32 already",
        "filters beyond float32", "operator beyond float32",
    ],
)
def test_other_steps_are_rough_already(change):
    step = change(random_step(generator(0), operator=Identity(IMAGE)))
    lin = step.linearize(step.operator.adjoint(step.problem.y))
    assert step.rough is step and lin.rounded is lin


def tiny(step):
    """Parameters with filters that float32 would make subnormal."""
    theta = step.problem.theta
    return replace(theta, A=1e-40 * theta.A)
