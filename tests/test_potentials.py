"""The seven potentials against 60-digit arithmetic, and against each other's derivatives."""

import math
from decimal import Context, Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.paper.potentials import (
    POTENTIALS,
    HalfSquaredReLU,
    Huber,
    LogCosh,
    Lorentzian,
    Quadratic,
    SmoothedL1,
    SoftShrinkage,
    make_potential,
)
from strategies import magnitudes, near

EXACT = Context(prec=60, Emin=-(10**8), Emax=10**8)

CASES = [
    Quadratic(),
    HalfSquaredReLU(),
    SoftShrinkage(),
    SoftShrinkage(0.5),
    LogCosh(),
    LogCosh(100.0),
    LogCosh(0.3),
    Lorentzian(),
    SmoothedL1(),
    SmoothedL1(1.0),
    Huber(),
    Huber(0.3),
]
SMOOTH = [potential for potential in CASES if potential.smooth]
KINKED = [potential for potential in CASES if not potential.smooth]
METHODS = ("value", "derivative", "second_derivative")


def exact_quadratic(z, _):
    return z * z / 2, z, Decimal(1)


def exact_half_squared_relu(z, _):
    p = max(z, Decimal(0))
    return p * p / 2, p, Decimal(int(z > 0))


def exact_soft_shrinkage(z, t):
    p = max(abs(z) - t, Decimal(0))
    return p * p / 2, p.copy_sign(z), Decimal(int(abs(z) > t))


def exact_log_cosh(z, slope):
    """By exponentials for |x| > 1e-10, and three terms of the series below, where they cancel."""
    x = abs(slope * z)
    e = (-2 * x).exp()
    if x > Decimal("1e-10"):
        phi, tanh = x + ((1 + e) / 2).ln(), (1 - e) / (1 + e)
    else:
        phi, tanh = x**2 / 2 - x**4 / 12 + x**6 / 45, x - x**3 / 3 + 2 * x**5 / 15
    return phi / slope, tanh.copy_sign(z), slope * 4 * e / (1 + e) ** 2


def exact_lorentzian(z, _):
    q = z * z
    phi = (1 + q).ln() if q > Decimal("1e-20") else q - q**2 / 2 + q**3 / 3
    return phi, 2 * z / (1 + q), 2 * (1 - q) / (1 + q) ** 2


def exact_smoothed_l1(z, nu):
    phi = (z * z + nu * nu).sqrt()
    return phi, z / phi, nu * nu / phi**3


def exact_huber(z, delta):
    if abs(z) <= delta:
        return z * z / (2 * delta), z / delta, Decimal(int(abs(z) < delta)) / delta
    return abs(z) - delta / 2, Decimal(1).copy_sign(z), Decimal(0)


ORACLES = {name: globals()[f"exact_{name}"] for name in POTENTIALS}


def identify(potential):
    """Name and parameter, for test identifiers."""
    return f"{potential.name}-{potential.parameter:g}"


def all_potentials(cases=CASES):
    """Run a test for every potential of `cases`."""
    return pytest.mark.parametrize("potential", cases, ids=identify)


def switches(potential):
    """Points where a formula changes from one form to another."""
    corner = {"log_cosh": 1 / potential.parameter if potential.parameter else 1, "lorentzian": 1.0}
    return potential.kinks or (corner.get(potential.name, potential.parameter or 1.0),)


def relative_errors(measured, exact, dtype):
    """|measured - exact| / max(|exact|, smallest normal number), in units of eps of the dtype.

    Where |exact| exceeds the largest number, an infinite result of its sign is exact.
    """
    limits = np.finfo(dtype)
    if abs(exact) > Decimal(float(limits.max)):
        return 0.0 if measured == math.copysign(math.inf, exact) else math.inf
    scale = max(abs(exact), Decimal(float(limits.tiny)))
    return float(abs(Decimal(float(measured)) - exact) / scale) / float(limits.eps)


def assert_exact(potential, z):
    """φ, σ and σ′ at every number of z, to 8 + 4χ|z| units of rounding.

    Rounding x = χz once changes sech²x by 2x tanh(x) units; no other formula is ill-conditioned.
    """
    parameter = Decimal(float(z.dtype.type(potential.parameter)))
    measured = [getattr(potential, method)(z) for method in METHODS]
    amplification = potential.parameter if potential.name == "log_cosh" else 0.0
    with localcontext(EXACT):
        for index, number in enumerate(z):
            exact = ORACLES[potential.name](Decimal(float(number)), parameter)
            bound = 8 + 4 * amplification * min(abs(float(number)), 400 / (amplification or 1))
            for method, row, truth in zip(METHODS, measured, exact, strict=True):
                error = relative_errors(row[index], truth, z.dtype)
                assert error <= bound, f"{method}({number!r}): {error} units, bound {bound}"


@all_potentials()
@given(data=st.data())
def test_formulas_keep_all_digits_from_1e_minus_300_to_1e300(potential, data):
    numbers = st.one_of(magnitudes(), near(switches(potential)))
    assert_exact(potential, np.array(data.draw(st.lists(numbers, min_size=1, max_size=20))))


@all_potentials()
def test_formulas_keep_all_digits_on_a_grid(potential):
    grid = 10.0 ** np.linspace(-300, 300, 121)
    middle = np.linspace(-6, 6, 97) * (potential.parameter or 1.0)
    assert_exact(potential, np.concatenate([grid, -grid, middle, middle / 100, np.zeros(1)]))


@all_potentials()
def test_formulas_keep_all_digits_in_single_precision(potential):
    grid = 10.0 ** np.linspace(-37, 37, 75)
    z = np.concatenate([grid, -grid, np.linspace(-6, 6, 97), np.zeros(1)]).astype(np.float32)
    assert_exact(potential, z)


def away_from_kinks(potential, rng):
    """Numbers of all magnitudes from 1e-100 to 1e100, none within 1 % of a kink."""
    z = np.concatenate([10.0 ** rng.uniform(-100, 100, 300), rng.uniform(0, 5, 300)])
    z = np.concatenate([z, -z, z[300:] / (potential.parameter or 1.0)])
    for kink in potential.kinks:
        z = z[np.abs(z - kink) > 0.01 * abs(kink)]
    return z


@all_potentials()
@pytest.mark.parametrize("order", [0, 1])
def test_complex_step_of_each_formula_is_the_next_one(potential, order):
    z = away_from_kinks(potential, np.random.default_rng(order))
    h = 1e-20 * np.abs(z)
    step = getattr(potential, METHODS[order])(z + 1j * h).imag / h
    derivative = getattr(potential, METHODS[order + 1])(z)
    # σ′ of the Lorentzian passes through zero, where its two terms of size σ/z cancel.
    scale = np.abs(derivative) + np.abs(potential.derivative(z) / z) * (order == 1)
    tiny = np.finfo(float).tiny / np.finfo(float).eps
    assert np.all(np.abs(step - derivative) <= 1e-12 * scale + tiny)


def scan(potential):
    """A dense grid around zero, at the scale where the potential bends."""
    unit = 1 / potential.parameter if potential.name == "log_cosh" else potential.parameter or 1.0
    return np.linspace(-5, 5, 20001) * unit


@all_potentials()
def test_sup_second_bounds_the_slope_and_is_attained(potential):
    largest = np.abs(potential.second_derivative(scan(potential))).max()
    assert potential.sup_second * (1 - 1e-6) <= largest
    assert largest <= potential.sup_second * (1 + 8 * np.finfo(float).eps)


@all_potentials(SMOOTH)
def test_sup_third_bounds_the_bend_and_is_attained(potential):
    h = 1e-30
    largest = np.abs(potential.second_derivative(scan(potential) + 1j * h).imag / h).max()
    assert potential.sup_third * (1 - 1e-6) <= largest <= potential.sup_third * (1 + 1e-12)


@all_potentials(KINKED)
def test_kinks_are_where_the_slope_jumps_to_zero_on_the_flat_side(potential):
    assert potential.sup_third == math.inf
    for kink in potential.kinks:
        sides = np.nextafter(kink, np.array([-math.inf, kink, math.inf]))
        slopes = potential.second_derivative(sides)
        assert slopes[1] == 0.0
        assert sorted(slopes) == [0.0, 0.0, potential.sup_second]


@all_potentials()
def test_convex_means_a_slope_that_is_nowhere_negative(potential):
    assert potential.convex == bool(np.all(potential.second_derivative(scan(potential)) >= 0))


@all_potentials()
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 1, 3)])
def test_dtype_and_shape_are_kept_and_arguments_left_alone(potential, dtype, shape):
    z = np.full(shape, 0.7, dtype)
    before = z.copy()
    for method in METHODS:
        result = getattr(potential, method)(z)
        assert result.dtype == dtype
        assert result.shape == shape
    np.testing.assert_array_equal(z, before)


@all_potentials()
def test_nan_is_not_hidden(potential):
    assert np.isnan(potential.value(np.array([math.nan]))).all()
    assert np.isnan(potential.derivative(np.array([math.nan]))).all()


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_potential_is_found_by_its_name(name):
    assert make_potential(name) == POTENTIALS[name]()
    assert make_potential(name).name == name


def test_parameters_are_passed_by_name():
    assert make_potential("log_cosh", slope=100) == LogCosh(100.0)
    assert make_potential("log_cosh", slope=100).parameter == 100.0


def test_defaults_are_those_of_the_portable_cases():
    assert (SoftShrinkage().threshold, LogCosh().slope) == (0.1, 1.0)
    assert (SmoothedL1().nu, Huber().delta) == (0.1, 1.0)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"given 'tanh', expected one of quadratic, .*, huber"):
        make_potential("tanh")


def test_an_unknown_parameter_names_the_known_one():
    with pytest.raises(ValueError, match=r"potential huber: given nu, expected .* delta"):
        make_potential("huber", nu=0.1)
    with pytest.raises(ValueError, match=r"potential quadratic: given nu, expected no parameters"):
        make_potential("quadratic", nu=0.1)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("soft_shrinkage", "threshold"),
        ("log_cosh", "slope"),
        ("smoothed_l1", "nu"),
        ("huber", "delta"),
    ],
)
def test_a_parameter_that_is_not_positive_is_refused(name, parameter, value):
    with pytest.raises(ValueError, match=rf"{parameter}: given .*, expected a finite number"):
        make_potential(name, **{parameter: value})


@pytest.mark.parametrize("potential", CASES, ids=repr)
@pytest.mark.parametrize("method", METHODS)
def test_a_number_is_taken_as_an_array_without_axes(potential, method):
    for z in (0.5, -2.0, 0.5 + 1e-30j):
        expected = getattr(potential, method)(np.array([z]))
        given = np.asarray(getattr(potential, method)(z))
        assert given.shape == () and given.dtype == expected.dtype and given == expected[0]
