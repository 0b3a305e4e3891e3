"""Extremal eigenvalues and singular values against dense linear algebra and SciPy's ARPACK."""

import numpy as np
import pytest
import scipy.sparse.linalg

from refimpl.results import BreakdownError
from refimpl.solvers import lanczos, singular_triplet

EPS = np.finfo(float).eps


def symmetric(eigenvalues, seed=0):
    n = len(eigenvalues)
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    return Q @ np.diag(eigenvalues) @ Q.T, Q


def start(shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def product(M):
    """x ↦ M x for arrays of any shape."""
    return lambda x: (M @ x.ravel()).reshape(x.shape)


def laplacian(x):
    """Second differences of an image with zero boundary; eigenvalues in closed form."""
    p = np.pad(x, 1)
    return 4 * x - p[2:, 1:-1] - p[:-2, 1:-1] - p[1:-1, 2:] - p[1:-1, :-2]


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
def test_error_bound_is_the_residual_and_contains_an_eigenvalue(tol):
    values = np.r_[np.linspace(-1, 2, 39), 2.5]
    M, _ = symmetric(values)
    pair = lanczos(product(M), start(40), tol=tol)
    assert pair.converged and pair.error_bound <= tol * 2.5
    residual = np.linalg.norm(M @ pair.vector - pair.value * pair.vector)
    rounding = 40 * EPS * 2.5
    assert abs(residual - pair.error_bound) <= rounding
    assert np.linalg.norm(pair.vector) == pytest.approx(1, rel=40 * EPS)
    assert abs(pair.value - 2.5) <= pair.error_bound + rounding


def test_lanczos_finds_the_largest_by_value_not_by_modulus():
    M, _ = symmetric(np.r_[-5, np.linspace(-1, 2, 58), 3])
    pair = lanczos(product(M), start((3, 4, 5)), tol=1e-12)
    theirs = scipy.sparse.linalg.eigsh(M, k=1, which="LA", return_eigenvectors=False)[0]
    assert pair.converged and pair.vector.shape == (3, 4, 5)
    assert abs(pair.value - 3) <= 60 * EPS * 5
    assert pair.value == pytest.approx(theirs, rel=1e-12)


def test_lanczos_resolves_a_clustered_end_through_restarts():
    n = 60
    pair = lanczos(laplacian, start((n, n)), tol=1e-9)
    exact = 8 * np.cos(np.pi / (2 * (n + 1))) ** 2
    assert pair.converged and pair.products > 40
    assert abs(pair.value - exact) <= pair.error_bound + n * EPS * 8


def test_lanczos_finds_a_zero_eigenvalue():
    M, _ = symmetric(np.r_[0.0, np.linspace(-2, -1, 29)])
    pair = lanczos(product(M), start(30), tol=1e-12)
    assert pair.converged and abs(pair.value) <= 30 * EPS * 2


def test_invariant_space_ends_lanczos():
    M, Q = symmetric(np.arange(1.0, 11))
    pair = lanczos(product(M), Q[:, 2] + Q[:, 6])
    assert pair.converged and pair.products == 3
    assert abs(pair.value - 7) <= 100 * EPS


def test_identity_takes_one_product_and_a_check():
    pair = lanczos(lambda x: x.copy(), start((2, 3)))
    assert pair.value == pytest.approx(1, rel=4 * EPS) and pair.converged and pair.products == 2


def test_too_few_iterations_is_reported():
    pair = lanczos(laplacian, start((40, 40)), tol=1e-12, max_iterations=10)
    assert not pair.converged and pair.error_bound > 1e-12 * 8
    # The bound holds all the same: 8 is within 0.1 of the upper end of the spectrum.
    assert pair.value <= 8


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (25, 25)])
def test_singular_triplet_is_that_of_the_dense_decomposition(shape):
    M = start(shape, seed=2)
    triplet = singular_triplet(lambda x: M @ x, lambda z: M.T @ z, start(shape[1]))
    U, s, Vt = np.linalg.svd(M)
    rounding = 4 * max(shape) * EPS * s[0]
    assert triplet.error_bound <= 1e-12 * s[0]
    assert abs(triplet.value - s[0]) <= rounding
    # Angle of the vectors: residual over twice the gap, as in the docstring.
    angle = (1e-12 * s[0] + rounding) / (s[0] - s[1])
    sign = np.sign(Vt[0] @ triplet.right)
    assert np.linalg.norm(sign * triplet.right - Vt[0]) <= angle
    assert np.linalg.norm(sign * triplet.left - U[:, 0]) <= angle


def test_singular_triplet_agrees_with_svds_on_images():
    # Horizontal differences of an image have a range of another shape than the domain.
    shape = (12, 13)

    def adjoint(z):
        return -np.diff(z, axis=1, prepend=0, append=0)

    columns = [np.diff(e.reshape(shape)).ravel() for e in np.eye(156)]
    theirs = scipy.sparse.linalg.svds(np.array(columns).T, k=1, return_singular_vectors=False)[0]
    triplet = singular_triplet(np.diff, adjoint, start(shape))
    assert triplet.left.shape == (12, 12) and triplet.right.shape == (12, 13)
    assert triplet.value == pytest.approx(theirs, rel=1e-12)
    assert triplet.value == pytest.approx(2 * np.cos(np.pi / 26), rel=1e-12)


def test_unfinished_singular_triplet_shows_in_its_bound():
    D = np.linspace(1, 2, 500)
    triplet = singular_triplet(lambda x: D * x, lambda z: D * z, start(500), max_iterations=5)
    assert 1e-12 * triplet.value < triplet.error_bound
    assert abs(triplet.value - D).min() <= triplet.error_bound


def test_float32_gives_float32_and_reports_a_tolerance_below_its_rounding():
    D = np.linspace(1, 2, 100, dtype=np.float32)
    x0 = start(100).astype(np.float32)
    pair = lanczos(lambda x: D * x, x0, tol=1e-5)
    assert pair.converged and pair.vector.dtype == np.float32
    assert abs(pair.value - 2) <= 100 * np.finfo(np.float32).eps
    below = lanczos(lambda x: D * x, x0, tol=1e-12)
    assert not below.converged and below.products < 2_000
    triplet = singular_triplet(lambda x: D * x, lambda x: D * x, x0, tol=1e-5)
    assert triplet.left.dtype == np.float32 and triplet.error_bound <= 1e-5 * triplet.value


def test_zero_start_is_refused():
    with pytest.raises(ValueError, match="x0 is zero"):
        lanczos(lambda x: x, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        lanczos(lambda x: x, np.full(3, np.nan))
    with pytest.raises(TypeError, match="int64"):
        lanczos(lambda x: x, np.ones(3, int))


def test_nan_raises_with_iteration():
    with pytest.raises(BreakdownError, match="lanczos: iteration 1: .* nan"):
        lanczos(lambda x: x * np.nan, start(4))


def test_zero_operator_has_no_singular_triplet():
    with pytest.raises(BreakdownError, match="zero"):
        singular_triplet(lambda x: 0 * x, lambda z: 0 * z, start(4))


def test_bad_options_are_refused():
    for option in ("tol", "max_iterations"):
        with pytest.raises(ValueError, match=option):
            lanczos(laplacian, start((3, 3)), **{option: 0})
    with pytest.raises(ValueError, match="returned shape"):
        lanczos(lambda x: x[:1], start((3, 3)))
