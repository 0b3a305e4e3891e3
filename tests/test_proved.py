"""What is proved in floating point is never below the truth, which extended precision has."""

from dataclasses import fields

import numpy as np
import pytest
from extended import direction, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.engine import make_step
from refimpl.engine.fused import CODES
from refimpl.engine.safe_steps import bank_norm_bound
from refimpl.equilibrium.proved import (
    ACTIVATION,
    proved_bank_norm,
    proved_monotonicity,
    rounding_of_direction,
    smallest_eigenvalue,
    symbol,
    symbol_error,
)
from refimpl.kernels.activations import activate, slope
from refimpl.kernels.vectors import norm
from refimpl.paper.operators import (
    Convolution,
    DenseBank,
    FilterBank,
    FromScipy,
    Identity,
    Mask,
    Matrix,
    row_mask,
)
from refimpl.paper.operators.banks import Analysis
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import POTENTIALS, LogCosh
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.verification.checks import dense_matrix
from strategies import boundaries, filter_shapes, generator, image_shapes, normal, precisions, seeds

OPERATORS = ("identity", "mask", "convolution", "matrix", "product", "sum")
IMAGE = (2, 5, 4)


# Rounding of G


@settings(max_examples=60)
@given(
    image_shapes(min_side=2, max_side=7), st.data(), boundaries(),
    st.sampled_from(tuple(POTENTIALS)), st.sampled_from(OPERATORS), st.booleans(), st.booleans(),
    st.booleans(), precisions(), seeds(),
)
def test_rounding_of_G_is_below_its_bound(
    shape, data, boundary, potential, operator, tied, dense, steep, dtype, seed
):
    filters, rng = data.draw(filter_shapes(shape[1])), generator(seed)
    problem = random_problem(
        rng, shape, filters, boundary=boundary, potential=potential, tied=tied, operator=operator,
        dtype=dtype, dense=dense, steep=steep,
    )
    u = normal(rng, shape, dtype) * dtype(10.0 ** rng.uniform(-3, 3))
    lin = make_step(problem, 1.0).linearize(u)
    bound, error = rounding_of_direction(lin), lin.direction - direction(problem, u)
    assert (norm(error.astype(float)) <= bound).all()
    assert np.isfinite(bound).all() and bound.dtype == np.float64


PARAMETERS = (1e-2, 1.0, 100.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", POTENTIALS)
def test_activations_and_slopes_are_as_accurate_as_proofs_assume(name, dtype):
    """To 0.6 of what is assumed, compiled and in NumPy: |σ̂ − σ| against s̄ |z|, |σ̂′ − σ′| to s̄."""
    rng, unit = generator(5), np.finfo(dtype).eps / 2
    sizes = np.concatenate([10.0 ** rng.uniform(-30, 4, 20_000), rng.uniform(0, 3, 20_000)])
    z = np.concatenate([sizes, -sizes]).astype(dtype)
    exact = z.astype(np.longdouble)
    for parameter in PARAMETERS if fields(POTENTIALS[name]) else (None,):
        phi = POTENTIALS[name]() if parameter is None else POTENTIALS[name](parameter)
        compiled, slopes = z.copy(), np.empty_like(z)
        activate(compiled, CODES[type(phi)], phi.parameter)
        slope(z, slopes, CODES[type(phi)], phi.parameter)
        most = ACTIVATION * unit * phi.sup_second * 0.6
        for sigma, bent in ((compiled, slopes), (phi.derivative(z), phi.second_derivative(z))):
            assert (abs(sigma - phi.derivative(exact)) <= most * abs(exact)).all()
            assert (abs(bent - phi.second_derivative(exact)) <= most).all()


def test_the_bound_on_rounding_is_within_some_thousand_times_the_truth():
    rng = generator(1)
    problem = random_problem(rng, (1, 1, 16, 16), (4, 1, 3, 3), boundary="reflect")
    lin = make_step(problem, 1.0).linearize(normal(rng, (1, 1, 16, 16)))
    error = norm((lin.direction - direction(problem, lin.u)).astype(float))
    assert rounding_of_direction(lin) <= 3000 * error


def own(kind):
    """A problem of which one part is the user's own."""

    class Mine(LogCosh if kind == "potential" else FilterBank):
        pass

    bank = Mine(IMAGE, (2, 3, 3)) if kind == "bank" else FilterBank(IMAGE, (2, 3, 3))
    potential = Mine() if kind == "potential" else LogCosh()
    A = normal(generator(0), bank.coefficients_shape)
    K = FromScipy(np.eye(40), IMAGE, IMAGE) if kind == "operator" else Identity(IMAGE)
    theta = make_parameters(A, A / 2, gamma=1e-3)
    return Problem(K, np.zeros((1, *IMAGE)), FieldOfExperts(bank, potential, theta))


@pytest.mark.parametrize("kind", ["operator", "bank", "potential"])
def test_of_parts_of_ones_own_no_rounding_is_proved(kind):
    step = make_step(own(kind))
    assert np.isinf(rounding_of_direction(step.linearize(step.problem.y + 1))).all()


def test_numbers_that_overflow_prove_nothing():
    rng = generator(2)
    problem = random_problem(rng, (1, 1, 4, 4), (2, 1, 3, 3), boundary="zero", operator="matrix")
    lin = make_step(problem, 1.0).linearize(np.full((1, 1, 4, 4), 1e308))
    assert np.isinf(rounding_of_direction(lin)).all()


# Norms


@given(image_shapes(max_side=8), st.data(), boundaries(), st.booleans(), precisions(), seeds())
def test_proved_norms_are_norms_or_more(shape, data, boundary, dense, dtype, seed):
    filters, rng = data.draw(filter_shapes(shape[1])), generator(seed)
    bank = FilterBank(shape[1:], (filters[0], *filters[2:]), boundary)
    bank = DenseBank(shape[1:], 4) if dense else bank
    A = normal(rng, bank.coefficients_shape, dtype)
    matrix = dense_matrix(Analysis(bank, A.astype(float)).matvec, (1, *shape[1:]))
    assert np.linalg.norm(matrix, 2) * (1 - 1e-13) <= proved_bank_norm(bank, A)


@given(image_shapes(max_batch=1, max_side=8), st.data(), seeds())
def test_a_periodic_bank_of_one_channel_has_its_norm_proved_to_six_digits(shape, data, seed):
    filters = data.draw(filter_shapes(1))
    bank = FilterBank((1, *shape[2:]), (filters[0], *filters[2:]), "periodic")
    A = normal(generator(seed), bank.coefficients_shape)
    truth = np.linalg.norm(dense_matrix(Analysis(bank, A).matvec, (1, 1, *shape[2:])), 2)
    assert proved_bank_norm(bank, A) == pytest.approx(truth, rel=2e-6)


@given(image_shapes(max_side=25), st.data(), boundaries(), seeds())
def test_sums_of_a_bank_on_a_small_image_are_those_on_the_whole(shape, data, boundary, seed):
    filters = data.draw(filter_shapes(shape[1]))
    bank = FilterBank(shape[1:], (filters[0], *filters[2:]), boundary)
    A = normal(generator(seed), bank.coefficients_shape)
    sizes = dense_matrix(Analysis(bank, abs(A)).matvec, (1, *shape[1:]))
    expected = np.sqrt(sizes.sum(axis=0).max() * sizes.sum(axis=1).max())
    assert bank_norm_bound(bank, A) == pytest.approx(expected, rel=1e-13)


def hidden_filters():
    """Two rows, the larger orthogonal to the start of the Lanczos iteration."""
    shape = (1, 4, 4)
    start = np.random.default_rng(0).standard_normal((1, *shape)).ravel()
    start /= np.linalg.norm(start)
    large = np.eye(16)[0] - start[0] * start
    return DenseBank(shape, 2), np.stack([10 * large / np.linalg.norm(large), 0.1 * start])


def test_norms_that_lanczos_iteration_misses_are_proved():
    bank, A = hidden_filters()
    assert proved_bank_norm(bank, A) >= 10


# μ


@settings(max_examples=40)
@given(
    image_shapes(min_side=2, max_side=4), st.data(), boundaries(),
    st.sampled_from(tuple(POTENTIALS)), st.sampled_from(("identity", "convolution", "matrix")),
    st.booleans(), st.booleans(), precisions(), seeds(),
)
def test_monotonicity_is_below_the_lowest_eigenvalue(
    shape, data, boundary, potential, operator, tied, dense, dtype, seed
):
    filters, rng = data.draw(filter_shapes(shape[1], max_side=3)), generator(seed)
    problem = random_problem(
        rng, shape, filters, boundary=boundary, potential=potential, tied=tied, operator=operator,
        dtype=dtype, dense=dense, scale=0.1,
    )
    step = make_step(problem, 1.0).image(0)
    u = normal(rng, (1, *shape[1:]), dtype)
    J = dense_matrix(step.linearize(u).direction_jvp, u.shape, dtype)
    lowest = np.linalg.eigvalsh((J + J.T).astype(float) / 2)[0]
    assert proved_monotonicity(step) <= lowest + 20 * np.finfo(dtype).eps * np.linalg.norm(J)


def test_nothing_is_proved_of_a_bank_of_ones_own_that_is_untied():
    assert proved_monotonicity(make_step(own("bank"))) == -np.inf
    assert proved_monotonicity(make_step(own("operator"))) <= 0


def test_weights_whose_product_with_gamma_underflows_are_still_negative():
    bank = FilterBank(IMAGE, (2, 3, 3))
    A, weights = 1e150 * normal(generator(0), bank.coefficients_shape), np.array([1.0, -1e-200])
    experts = FieldOfExperts(bank, LogCosh(), make_parameters(A, weights=weights, gamma=1e-200))
    step = make_step(Problem(Identity(IMAGE), np.zeros((1, *IMAGE)), experts))
    assert proved_monotonicity(step) < 0


# λ_min(KᵀK)


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e7, 1e9, 1e17])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_smallest_eigenvalue_of_a_matrix_is_proved(condition, dtype):
    rng = generator(3)
    left, right = (np.linalg.qr(normal(rng, (n, 40)))[0] for n in (50, 40))
    matrix = ((left * np.geomspace(1, 1 / condition, 40)) @ right.T).astype(dtype)
    truth = np.linalg.svd(matrix.astype(float), compute_uv=False)[-1] ** 2
    given_ = smallest_eigenvalue(Matrix(matrix, IMAGE))
    assert 0 <= given_ <= truth * (1 + 1e-9) + 1e-32
    assert given_ >= truth - 2e-12  # 2 γ_138 ‖M‖_F², and ‖M‖_F² ≤ 40


def test_a_singular_matrix_or_one_of_too_many_columns_proves_nothing():
    rng = generator(4)
    rows = normal(rng, (60, 40))
    rows[:, 0] = rows[:, 1:].sum(axis=1)
    assert smallest_eigenvalue(Matrix(rows, IMAGE)) == 0
    assert smallest_eigenvalue(Matrix(normal(rng, (39, 40)), IMAGE)) == 0
    tall = Matrix(normal(rng, (60, 40)), IMAGE)
    assert smallest_eigenvalue(tall, columns=39) == 0 < smallest_eigenvalue(tall, columns=40)


@given(image_shapes(max_side=9), st.data(), precisions(), seeds())
def test_the_symbol_is_the_discrete_fourier_transform(shape, data, dtype, seed):
    _, _, h, w = data.draw(filter_shapes(1))
    kernel = normal(generator(seed), (h, w), dtype)
    K = Convolution(kernel, shape[1:], "periodic")
    (values,), error = symbol(kernel[None].astype(float), shape[2:]), symbol_error(kernel[None])
    expected = abs(Convolution(kernel.astype(float), shape[1:], "periodic").symbol())
    assert abs(abs(values) - expected[: shape[2] // 2 + 1]).max() <= error
    assert smallest_eigenvalue(K) <= expected.min() ** 2 * (1 + 1e-14)
    assert smallest_eigenvalue(K) >= max(expected.min() - 1e-12, 0) ** 2 * (1 - 1e-14)


def test_a_mask_that_hides_nothing_is_the_identity():
    assert smallest_eigenvalue(Mask(np.ones(IMAGE[1:], bool), IMAGE)) == 1
    assert smallest_eigenvalue(Mask(row_mask(IMAGE[1:]), IMAGE)) == 0
