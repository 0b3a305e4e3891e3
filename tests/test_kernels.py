"""Every kernel against its definition by SciPy's correlation and convolution, in double precision.

Bounds are elementwise: a sum of n products is off by at most n eps times the same sum of
absolute values, so the definition applied to absolute values gives the scale of the error.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_problem import NAMES, POTENTIALS, Problem, settings_of
from scipy.signal import convolve, correlate

from refimpl import kernels
from refimpl.kernels.taps import LINE, aligned, strips_of
from refimpl.paper.potentials import make_potential
from strategies import filter_shapes, image_shapes, precisions, seeds

potentials = pytest.mark.parametrize(
    "potential", POTENTIALS, ids=lambda potential: f"{potential.name}-{potential.parameter:g}"
)


def definition_correlate(up, A):
    """Au: the sum over channels of SciPy's valid correlations."""
    return np.array([[sum(map(valid, image, bank)) for bank in A] for image in up])


def definition_adjoint(z, A):
    """Aᵀz: the sum over filters of SciPy's full convolutions."""
    return np.array([[sum(map(full, image, A[:, c])) for c in range(A.shape[1])] for image in z])


def definition_adjoint_filters(up, z):
    """B*(u, z): the correlation of each channel with each response, summed over the images."""
    pairs = zip(up, z, strict=True)
    return sum(np.array([[valid(x, row) for x in image] for row in rows]) for image, rows in pairs)


def valid(x, a):
    """Correlation of two matrices without padding."""
    return correlate(x, a, mode="valid", method="direct")


def full(x, a):
    """Convolution of two matrices with all overlaps."""
    return convolve(x, a, mode="full", method="direct")


def per_filter(values):
    """(F,) against (N, F, H, W)."""
    return values[:, None, None]


def definition_parameters(up, qp, C, s, d, w):
    """E6 from s = σ and d = w ⊙ σ′: (g_A, g_C, g_b, g_w)."""
    Cq = definition_correlate(qp, C)
    r = d * Cq
    g_A = definition_adjoint_filters(up, r)
    g_C = definition_adjoint_filters(qp, per_filter(w) * s)
    return g_A, g_C, r.sum((0, 2, 3)), (s * Cq).sum((0, 2, 3))


@st.composite
def problems(draw):
    """Images from 1 × 1 pixel on, and odd filters that may be larger than the image."""
    images = draw(image_shapes(max_side=9))
    filters = draw(filter_shapes(images[1], max_side=11))
    return Problem(images, filters, draw(seeds()), draw(precisions()))


@given(problems())
def test_correlate_is_its_definition(problem):
    problem.assert_multilinear(kernels.correlate, definition_correlate, "up A")


@given(problems())
def test_correlate_adjoint_is_its_definition(problem):
    problem.assert_multilinear(kernels.correlate_adjoint, definition_adjoint, "z A")


@given(problems())
def test_correlate_adjoint_filters_is_its_definition(problem):
    problem.assert_multilinear(
        kernels.correlate_adjoint_filters, definition_adjoint_filters, "up z"
    )


@given(problems())
def test_tangent_is_its_definition(problem):
    def definition(vp, A, C, d):
        return definition_adjoint(d * definition_correlate(vp, A), C)

    problem.assert_multilinear(kernels.tangent, definition, "qp A C d")


def preactivation(problem):
    """z = Au + b in double precision, and the same of absolute values."""
    up, A, b = problem.inputs("up A b", "double")
    sizes = definition_correlate(np.abs(up), np.abs(A)) + per_filter(np.abs(b))
    return definition_correlate(up, A) + per_filter(b), sizes


def slopes(up, A, b, potential):
    """σ′ at all responses."""
    return kernels.slopes(up, A, b, *settings_of(potential))


def energy(up, A, b, w, potential):
    """The second term of E2, with the field at C = A that is computed beside it left out."""
    return kernels.field(up, A, A, b, w, *settings_of(potential), True)[1]


@potentials
@given(problem=problems())
def test_field_is_its_definition(potential, problem):
    z, size = preactivation(problem)
    _, _, C, _, w = problem.inputs("up A C b w", "double")
    settings = settings_of(potential)
    result, nothing = kernels.field(*problem.inputs("up A C b w"), *settings, False)
    np.testing.assert_array_equal(nothing, 0)
    truth = definition_adjoint(per_filter(w) * potential.derivative(z), C)
    # |σ(z)| ≤ |z| sup σ′, and an error of z reaches σ(z) with at most that factor.
    size = definition_adjoint(per_filter(np.abs(w)) * potential.sup_second * size, np.abs(C))
    problem.assert_close(result, truth, size)


@potentials
@given(problem=problems())
def test_energy_is_its_definition(potential, problem):
    z, size = preactivation(problem)
    up, A, C, b, w = problem.inputs("up A C b w")
    settings = settings_of(potential)
    field, result = kernels.field(up, A, C, b, w, *settings, True)
    np.testing.assert_array_equal(field, kernels.field(up, A, C, b, w, *settings, False)[0])
    weights = per_filter(w.astype(np.float64))
    truth = (weights * potential.value(z)).sum((1, 2, 3))
    bound = potential.value(size) + potential.sup_second * size**2
    problem.assert_close(result, truth, (np.abs(weights) * bound).sum((1, 2, 3)))


@potentials
@given(problem=problems())
def test_slopes_are_their_definition(potential, problem):
    z, size = preactivation(problem)
    d = slopes(*problem.inputs("up A b"), potential)
    bend = potential.sup_third if potential.smooth else 0.0
    problem.assert_close(d, potential.second_derivative(z), potential.sup_second + bend * size)


@potentials
@given(problem=problems())
def test_parameters_is_its_definition(potential, problem):
    z, size = preactivation(problem)
    results = kernels.parameters(
        *problem.inputs("up qp A C b w"), *settings_of(potential)
    )
    up, qp, C, w = problem.inputs("up qp C w", "double")
    s, d = potential.derivative(z), per_filter(w) * potential.second_derivative(z)
    exact = definition_parameters(up, qp, C, s, d, w)
    bend = potential.sup_third if potential.smooth else 0.0
    sizes = [np.abs(x) for x in (up, qp, C)]
    room = potential.sup_second * size, np.abs(per_filter(w)) * (potential.sup_second + bend * size)
    sizes = definition_parameters(*sizes, *room, np.abs(w))
    for result, truth, bound in zip(results, exact, sizes, strict=True):
        problem.assert_close(result, truth, bound)


def magnitudes(potential):
    """Numbers from 1e-300 to 1e300 of both signs, zero, kinks, and the range where σ bends."""
    rng = np.random.default_rng(0)
    grid = 10.0 ** rng.uniform(-300, 300, 2000)
    middle = rng.uniform(-20, 20, 4000) * (potential.parameter or 1.0)
    return np.concatenate([grid, -grid, middle, middle / 400, np.zeros(1), potential.kinks])


@potentials
def test_compiled_potentials_keep_all_digits_from_1e_minus_300_to_1e300(potential):
    z = magnitudes(potential)
    one, zero = np.ones((1, 1, 1, 1)), np.zeros(1)
    settings = settings_of(potential)
    row = z.reshape(1, 1, 1, -1)
    s, _ = kernels.field(row, one, one, zero, one[0, 0, 0], *settings, False)
    d = slopes(row, one, zero, potential)
    phi = energy(z.reshape(-1, 1, 1, 1), one, zero, one[0, 0, 0], potential)
    # Both sides round x = χz once, which changes sech²x by 2|x| units, |x| < 400 before it is 0.
    scale = potential.parameter if potential.name == "log_cosh" else 0.0
    units = 12 + 4 * np.minimum(scale * np.abs(z), 400)
    for compiled, truth in (
        (phi, potential.value(z)),
        (s.ravel(), potential.derivative(z)),
        (d.ravel(), potential.second_derivative(z)),
    ):
        equal = compiled == truth  # also where both are infinite
        near = np.abs(compiled[~equal] - truth[~equal])
        # Below 1e-300 the exponent of the compiled exponential ends.
        bound = units[~equal] * np.finfo(float).eps * np.abs(truth[~equal]) + 1e-300
        assert np.all(near <= bound)


def test_tanh_of_float32_keeps_its_digits_and_never_exceeds_one():
    """Each of two polynomials, their products, sum and quotient rounds once: five units in all."""
    sizes = np.concatenate([10.0 ** np.linspace(-37, 37, 4001), np.linspace(0, 12, 8001)])
    z = np.concatenate([sizes, -sizes]).astype(np.float32).reshape(1, 1, 1, -1)
    one, zero = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    settings = kernels.LOG_COSH, 1.0
    s, _ = kernels.field(z, one, one, zero, one[0, 0, 0], *settings, False)
    truth = np.tanh(z.astype(float))
    assert np.abs(s).max() == 1
    assert np.all(np.abs(s - truth) <= 5 * np.finfo(np.float32).eps * np.abs(truth))
    assert np.array_equal(s[..., : sizes.size], -s[..., sizes.size :])


def test_log_cosh_of_float32_keeps_its_digits():
    """tanh is off by five units, its square by ten; the quotient, the series and the rest by two.

    One image of one pixel for each number, so that energies are values.
    """
    sizes = np.concatenate([10.0 ** np.linspace(-15, 30, 4001), np.linspace(0, 12, 8001)])
    z = np.concatenate([sizes, -sizes]).astype(np.float32).reshape(-1, 1, 1, 1)
    one, zero = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    _, phi = kernels.field(z, one, one, zero, one[0, 0, 0], kernels.LOG_COSH, 1.0, True)
    truth = make_potential("log_cosh").value(z.astype(float)).ravel()
    assert phi.dtype == np.float32
    assert np.all(np.abs(phi - truth) <= 12 * np.finfo(np.float32).eps * truth)


def test_the_lorentzian_of_float32_keeps_its_digits():
    """Each of z², 1 + z², the quotient and two products rounds once; the logarithm ten times.

    Near |z| = 1, where σ′ = 2 (2q - 1) q vanishes, its error is one of 1. z² of 1e19 overflows.
    """
    sizes = np.concatenate([10.0 ** np.linspace(-15, 18, 4001), np.linspace(0, 12, 8001)])
    z = np.concatenate([sizes, -sizes]).astype(np.float32).reshape(-1, 1, 1, 1)
    one, zero = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    lorentzian, eps = make_potential("lorentzian"), np.finfo(np.float32).eps
    truth = z.astype(float)
    s, phi = kernels.field(z, one, one, zero, one[0, 0, 0], kernels.LORENTZIAN, 0.0, True)
    sigma = lorentzian.derivative(truth)
    assert np.all(np.abs(s - sigma) <= 5 * eps * np.abs(sigma))
    alone, _ = kernels.field(z, one, one, zero, one[0, 0, 0], kernels.LORENTZIAN, 0.0, False)
    assert np.array_equal(s, alone)
    d = slopes(z, one, zero, lorentzian)
    bent, q = lorentzian.second_derivative(truth).ravel(), (1 / (1 + truth**2)).ravel()
    assert np.all(np.abs(d.ravel() - bent) <= 5 * eps * (np.abs(bent) + q))
    value = lorentzian.value(truth).ravel()
    assert phi.dtype == np.float32 and np.all(np.abs(phi - value) <= 12 * eps * value + 1e-37)
    huge = np.full((1, 1, 1, 1), 1e30, np.float32)
    _, phi = kernels.field(huge, one, one, zero, one[0, 0, 0], kernels.LORENTZIAN, 0.0, True)
    assert abs(phi[0] - 60 * np.log(10)) <= 12 * eps * phi[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@potentials
def test_compiled_potentials_do_not_hide_nan(potential, dtype):
    up, one = np.full((1, 1, 1, 5), np.nan, dtype), np.ones((1, 1, 1, 1), dtype)
    settings = settings_of(potential)
    s, _ = kernels.field(up, one, one, np.zeros(1, dtype), one[0, 0, 0], *settings, False)
    assert np.isnan(s).all()
    assert np.isnan(energy(up, one, np.zeros(1, dtype), one[0, 0, 0], potential)).all()


def test_codes_are_those_of_the_potentials():
    constants = [getattr(kernels, name.upper()) for name in NAMES]
    assert constants == [settings_of(make_potential(name))[0] for name in NAMES] == list(range(7))


def test_an_image_does_not_depend_on_its_batch():
    problem = Problem((3, 2, 7, 5), (4, 2, 3, 3), 3, np.float64)
    up, A, C, b, w = problem.inputs("up A C b w")
    settings = kernels.LOG_COSH, 100.0, True
    batch = kernels.field(up, A, C, b, w, *settings)
    for n in range(3):
        alone = kernels.field(up[n : n + 1].copy(), A, C, b, w, *settings)
        for together, one in zip(batch, alone, strict=True):
            np.testing.assert_array_equal(together[n : n + 1], one)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_strips_begin_cache_lines(dtype):
    """Column `lead` of every row; the matrices are kept, so that each is at another address."""
    rows, kept = 7, []
    for lead in range(12):
        # Filters of lead + 1 columns on images of widths that are no multiples of a line.
        length = strips_of(rows, 3, lead + 1, 40, 60 + lead)[3]
        matrix = aligned(rows, length, lead, np.empty(0, dtype))
        assert matrix.shape == (rows, length) and matrix.dtype == dtype and not matrix.any()
        assert {row[lead:].ctypes.data % LINE for row in matrix} == {0}
        kept.append(matrix)
