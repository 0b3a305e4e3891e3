"""Every check accepts what is right and refuses a planted error, and says what it found."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import ndimage

from refimpl.results import Check
from refimpl.verification.checks import (
    bilinear_test,
    complex_step,
    dot_test,
    jvp_vjp,
    symmetry,
    taylor,
)
from refimpl.verification.checks.derivatives import observed_order
from strategies import generator, normal, precisions, seeds

EPS = np.finfo(float).eps


def matrix_pair(seed, dtype=np.float64, rows=30, columns=40):
    rng = generator(seed)
    K = normal(rng, (rows, columns), dtype)
    return K, normal(rng, (columns,), dtype), normal(rng, (rows,), dtype)


def bank(A, u):
    return np.einsum("fn,n->f", A, u)


def bank_adjoint(A, z):
    return np.einsum("fn,f->n", A, z)


def bank_adjoint_filters(u, z):
    return np.multiply.outer(z, u)


# Check


@pytest.mark.parametrize(
    ("measured", "passed"), [(1.0, True), (1.1, False), (-np.inf, True), (np.nan, False)]
)
def test_check_passes_up_to_its_bound_and_fails_on_nan(measured, passed):
    assert Check("x", measured, 1.0).passed is passed


# dot test


@given(seeds(), precisions())
def test_dot_test_accepts_the_transpose_in_both_precisions(seed, dtype):
    K, u, z = matrix_pair(seed, dtype)
    check = dot_test(lambda x: K @ x, lambda x: K.T @ x, u, z, name="matrix")
    assert check.name == "matrix"
    assert check.passed
    assert check.bound == 64 * np.finfo(dtype).eps * np.sqrt(40)


@given(seeds(), st.sampled_from((1 + 1e-9, 1 - 1e-9)))
def test_dot_test_finds_a_factor_of_one_plus_1e_9(seed, factor):
    K, u, _ = matrix_pair(seed)
    z = K @ u
    check = dot_test(lambda x: K @ x, lambda x: factor * (K.T @ x), u, z)
    shrunk = z @ z / (np.linalg.norm(u) * np.linalg.norm(K.T @ z))
    assert not check.passed
    assert check.measured == pytest.approx(1e-9 * min(shrunk, 1), rel=1e-3)


@given(seeds())
def test_dot_test_finds_a_wrong_entry(seed):
    K, u, z = matrix_pair(seed)
    wrong = K.T.copy()
    wrong[3, 5] += 1e-6
    assert not dot_test(lambda x: K @ x, lambda x: wrong @ x, u, z).passed


@given(seeds(), st.sampled_from(("constant", "wrap", "nearest")))
def test_dot_test_finds_a_correlation_taken_for_its_own_adjoint(seed, mode):
    rng = generator(seed)
    kernel, u, z = normal(rng, (3, 3)), normal(rng, (6, 7)), normal(rng, (6, 7))

    def correlate(x):
        return ndimage.correlate(x, kernel, mode=mode)

    assert not dot_test(correlate, correlate, u, z).passed


def test_dot_test_of_the_zero_map_measures_zero():
    u = np.ones(3)
    assert dot_test(np.zeros_like, np.zeros_like, u, u) == ("dot test", 0, 64 * EPS * np.sqrt(3))
    assert not dot_test(np.zeros_like, np.ones_like, u, u).passed


def test_dot_test_fails_on_nan():
    u = np.ones(3)
    assert not dot_test(lambda x: x * np.nan, lambda x: x, u, u).passed


def test_dot_test_refuses_results_of_the_wrong_shape():
    K, u, z = matrix_pair(0)
    with pytest.raises(ValueError, match=r"K: adjoint\(z\): shape is \(30,\), expected \(40,\)"):
        dot_test(lambda x: K @ x, lambda x: x, u, z, name="K")


# three-way test


@given(seeds(), precisions())
def test_bilinear_test_accepts_a_matrix(seed, dtype):
    check = bilinear_test(bank, bank_adjoint, bank_adjoint_filters, *matrix_pair(seed, dtype))
    assert check.passed
    assert check.name == "bilinear"


@given(seeds(), st.sampled_from(("apply", "adjoint", "adjoint_filters")))
def test_bilinear_test_names_the_map_that_is_wrong(seed, wrong):
    maps = {"apply": bank, "adjoint": bank_adjoint, "adjoint_filters": bank_adjoint_filters}
    right = maps[wrong]
    maps[wrong] = lambda x, y: right(x, y) * 1.001
    check = bilinear_test(*maps.values(), *matrix_pair(seed), name="dense bank")
    assert not check.passed
    assert check.name == f"dense bank ({wrong} disagrees with the other two)"


def test_bilinear_test_finds_flipped_filters():
    rng = generator(0)
    A, u, z = normal(rng, (3, 3)), normal(rng, (6, 7)), normal(rng, (6, 7))

    def windows(u):
        return np.lib.stride_tricks.sliding_window_view(np.pad(u, 1, mode="wrap"), (3, 3))

    def apply(A, u):
        return np.einsum("ijde,de->ij", windows(u), A)

    def adjoint(A, z):
        return np.einsum("ijde,de->ij", windows(z), A[::-1, ::-1])

    def adjoint_filters(u, z):
        return np.einsum("ijde,ij->de", windows(u), z)

    def flipped(u, z):
        return adjoint_filters(u, z)[::-1, ::-1]

    assert bilinear_test(apply, adjoint, adjoint_filters, A, u, z).passed
    check = bilinear_test(apply, adjoint, flipped, A, u, z)
    assert check.name == "bilinear (adjoint_filters disagrees with the other two)"


def test_bilinear_test_says_when_no_two_sides_agree():
    A, u, z = matrix_pair(0)
    check = bilinear_test(
        bank,
        lambda A, z: 2 * bank_adjoint(A, z),
        lambda u, z: 3 * bank_adjoint_filters(u, z),
        A,
        u,
        z,
    )
    assert check.name == "bilinear (no two sides agree)"


# symmetry and Jacobians


@given(seeds())
def test_symmetry_accepts_gram_matrices_and_refuses_others(seed):
    K, v, _ = matrix_pair(seed)
    w, H = v[::-1].copy(), K.T @ K
    skew = H.copy()
    skew[0, 1] += 1e-4
    assert symmetry(lambda x: H @ x, v, w).passed
    assert not symmetry(lambda x: skew @ x, v, w).passed


def tanh_layer(A):
    def function(u):
        return A.T @ np.tanh(A @ u)

    def jvp(u, v):
        return A.T @ ((1 - np.tanh(A @ u) ** 2) * (A @ v))

    return function, jvp


@given(seeds())
def test_jvp_vjp_finds_an_activation_in_place_of_its_derivative(seed):
    A, u, _ = matrix_pair(seed)
    rng = generator(seed)
    v, w = normal(rng, u.shape), normal(rng, u.shape)
    _, jvp = tanh_layer(A)
    assert jvp_vjp(lambda x: jvp(u, x), lambda x: jvp(u, x), v, w).passed
    wrong = jvp_vjp(lambda x: jvp(u, x), lambda x: A.T @ (np.tanh(A @ u) * (A @ x)), v, w)
    assert wrong.name == "jvp against vjp"
    assert not wrong.passed


# complex step


@given(seeds())
def test_complex_step_accepts_the_derivative(seed):
    A, u, _ = matrix_pair(seed)
    v = normal(generator(seed), u.shape)
    function, jvp = tanh_layer(A / 10)
    assert complex_step(function, lambda x: jvp(u, x), u, v).passed


@given(seeds())
def test_complex_step_measures_a_wrong_factor(seed):
    A, u, _ = matrix_pair(seed)
    v = normal(generator(seed), u.shape)
    function, jvp = tanh_layer(A / 10)
    check = complex_step(function, lambda x: (1 + 1e-9) * jvp(u, x), u, v)
    assert not check.passed
    assert check.measured == pytest.approx(1e-9, rel=1e-3)


def test_complex_step_of_an_energy_is_its_directional_derivative():
    u, v = np.array([1.0, -2.0]), np.array([0.5, 3.0])
    check = complex_step(lambda x: (x**2).sum() / 2, lambda x: u @ x, u, v)
    assert check == ("complex step", 0.0, 1e-12)


def test_complex_step_refuses_functions_that_drop_the_imaginary_part():
    u = np.ones(2)
    with pytest.raises(TypeError, match=r"f\(complex\) is float64, expected complex; .* abs"):
        complex_step(np.abs, lambda v: v, u, u)


def test_complex_step_and_taylor_refuse_float32():
    u = np.ones(2, np.float32)
    with pytest.raises(TypeError, match="complex step: x is float32, expected float64"):
        complex_step(np.sin, lambda v: v, u, u)
    with pytest.raises(TypeError, match="taylor: x is float32, expected float64"):
        taylor(np.sin, [np.cos(u) * u], u, u)


# Taylor remainders


def energy_of(A):
    def function(u):
        return np.log1p((A @ u) ** 2).sum()

    def derivatives(u, v):
        z, Av = A @ u, A @ v
        first = (2 * z / (1 + z**2)) @ Av
        return first, (2 * (1 - z**2) / (1 + z**2) ** 2) @ Av**2

    return function, derivatives


@given(seeds(), st.integers(1, 2))
def test_taylor_order_of_an_energy_is_one_more_than_the_derivatives_given(seed, count):
    A, u, _ = matrix_pair(seed)
    v = normal(generator(seed), u.shape)
    function, derivatives = energy_of(A)
    result = taylor(function, derivatives(u, v)[:count], u, v, name="energy")
    assert result.check.passed
    assert result.check.name.startswith("energy: order ")
    assert result.order >= count + 0.9
    assert result.steps.shape == result.remainders.shape == (24,)


@given(seeds())
def test_taylor_order_of_a_map_is_two(seed):
    A, u, _ = matrix_pair(seed)
    v = normal(generator(seed), u.shape)
    function, jvp = tanh_layer(A / 10)
    result = taylor(function, [jvp(u, v)], u, v)
    assert 1.9 <= result.order <= 2.1
    assert result.check.measured == 2 - result.order


@given(seeds(), st.sampled_from((0.0, 0.5, 1 + 1e-3, 1 - 1e-5)))
def test_taylor_finds_a_wrong_first_derivative_as_order_one(seed, factor):
    A, u, _ = matrix_pair(seed)
    v = normal(generator(seed), u.shape)
    function, jvp = tanh_layer(A / 10)
    result = taylor(function, [factor * jvp(u, v)], u, v)
    assert not result.check.passed
    assert result.order < 1.9
    if abs(factor - 1) > 1e-4:
        assert result.check.name == "taylor: order 1.00, expected 2"


@given(seeds(), st.sampled_from((-1.0, 0.0, 0.9)))
def test_taylor_finds_a_wrong_second_derivative_as_order_two(seed, factor):
    A, u, _ = matrix_pair(seed)
    v = normal(generator(seed), u.shape)
    function, derivatives = energy_of(A)
    first, second = derivatives(u, v)
    assume(abs(second) > 1)  # else its terms, of about 100 in all, cancel and hide a share of 0.1
    result = taylor(function, [first, factor * second], u, v)
    assert not result.check.passed
    assert result.order == pytest.approx(2, abs=0.1)


def test_taylor_ignores_large_steps_and_rounding():
    # A slope of 100: steps above 1e-2 saturate tanh, steps below 1e-6 show rounding.
    u = np.linspace(-0.02, 0.02, 50)
    v = np.cos(np.arange(50.0))
    first = 100 * v / np.cosh(100 * u) ** 2
    second = -2 * 1e4 * v**2 * np.tanh(100 * u) / np.cosh(100 * u) ** 2
    result = taylor(lambda x: np.tanh(100 * x), [first, second], u, v)
    assert result.check.passed
    assert result.order == pytest.approx(3, abs=0.1)


def test_taylor_passes_a_remainder_of_zero_and_says_so():
    u, v = np.array([1.0, -2.0, 0.3]), np.array([0.5, 3.0, -1.0])
    linear = taylor(lambda x: 3 * x, [3 * v], u, v, name="linear")
    quadratic = taylor(lambda x: x @ x, [2 * u @ v, 2 * v @ v], u, v, name="quadratic")
    constant = taylor(np.zeros_like, [0 * v], u, v, name="zero")
    for result in (linear, quadratic, constant):
        assert result.check.passed
        assert result.check.name.endswith(": remainder is zero to rounding")
        assert result.order == np.inf


def test_taylor_passes_kinks_away_from_x_and_says_so():
    u, v = np.array([0.02, -0.03, 1.0]), np.array([-1.0, 1.0, 0.5])
    relu = taylor(lambda x: np.maximum(x, 0), [(u > 0) * v], u, v, name="relu")
    assert relu.check == ("relu: remainder is zero to rounding", 0.0, 0.1)
    wrong = taylor(lambda x: np.maximum(x, 0), [(u > 0.5) * v], u, v, name="relu")
    assert wrong.check.name == "relu: order 1.00, expected 2"
    assert not wrong.check.passed


def test_taylor_that_reaches_rounding_early_bounds_the_error_of_the_last_term():
    u, v = np.zeros(3), np.array([1.0, -2.0, 0.5])

    def function(x):
        return 3 * x + 1e-9 * np.abs(x) ** 1.5

    result = taylor(function, [3 * v], u, v, name="almost linear")
    assert result.order == pytest.approx(1.5, abs=0.01)
    assert result.check.passed
    assert result.check.name == "almost linear: remainder over term 1, before rounding"
    assert not taylor(function, [3 * v * (1 + 1e-5)], u, v).check.passed


def test_taylor_fails_on_nan():
    u = np.ones(2)
    assert not taylor(lambda x: x * np.nan, [u], u, u).check.passed


@given(st.floats(0.5, 4), st.floats(-3, 3))
def test_observed_order_is_the_exponent_of_a_power(exponent, log_factor):
    steps = 2.0 ** -np.arange(1, 25)
    remainders = 10**log_factor * steps**exponent
    assert observed_order(steps, remainders, 0.0, expected=2) == pytest.approx(exponent, rel=1e-6)


def test_observed_order_is_that_of_the_smallest_usable_steps():
    steps = 2.0 ** -np.arange(1, 25)
    remainders = np.maximum(steps**2 + steps / 100, 1e-9)
    assert observed_order(steps, steps**2 + steps / 100, 1e-12, expected=2) == pytest.approx(
        1, abs=0.05
    )
    assert observed_order(steps, remainders, 1e-9, expected=2) < 1.5
