"""Picard and Anderson iteration against closed forms and dense solves."""

import numpy as np
import pytest

from refimpl.kernels.vectors import norm
from refimpl.results import BreakdownError
from refimpl.solvers import anderson, picard
from refimpl.solvers.fixed_point import mixing_weights

EPS = np.finfo(float).eps
SOLVERS = (picard, anderson)


def contraction(factors, n=30, dtype=np.float64, seed=0):
    """T(u) = M u + c, M symmetric with largest eigenvalue factors[k]; and its fixed point."""
    rng = np.random.default_rng(seed)
    matrices = []
    for factor in factors:
        Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
        matrices.append(Q @ np.diag(factor * np.linspace(0.05, 1, n)) @ Q.T)
    M, c = np.array(matrices), rng.standard_normal((len(factors), n))
    exact = np.linalg.solve(np.eye(n) - M, c[..., None])[..., 0]
    M, c = M.astype(dtype), c.astype(dtype)
    return (
        lambda u: np.stack([m @ row for m, row in zip(M[: len(u)], u, strict=True)]) + c[: len(u)]
    ), exact


def test_picard_contracts_by_the_largest_eigenvalue():
    apply, _ = contraction([0.9])
    history = picard(apply, np.zeros((1, 30)), tol=1e-12).history[:, 0]
    # The slowest mode alone remains: the next eigenvalue is smaller by (1 − 0.95/29)^100.
    assert history[-1] / history[-2] == pytest.approx(0.9, rel=1e-3)


def test_anderson_with_full_memory_solves_linear_problem_in_one_step_per_dimension():
    apply, exact = contraction([0.99], n=6)
    result = anderson(apply, np.zeros((1, 6)), memory=7, ridge=1e-14, tol=1e-10)
    assert result.all_converged and result.iterations[0] <= 8
    assert norm(result.x - exact)[0] <= 1e-10 / (1 - 0.99) * norm(exact)[0]


def test_anderson_needs_fewer_evaluations_than_picard():
    apply, _ = contraction([0.99])
    u0 = np.zeros((1, 30))
    accelerated, plain = anderson(apply, u0, tol=1e-12), picard(apply, u0, tol=1e-12)
    assert accelerated.all_converged and accelerated.evaluations < plain.evaluations / 4


def test_memory_of_one_is_picard():
    apply, _ = contraction([0.8])
    u0 = np.zeros((1, 30))
    accelerated, plain = anderson(apply, u0, memory=1), picard(apply, u0)
    assert accelerated.iterations == plain.iterations
    np.testing.assert_allclose(accelerated.x, plain.x, rtol=1e-12)


def in_other_units(apply, size):
    """T_s(u) = s T(u / s); exact in floating point when s is a power of two."""
    return lambda u: size * apply(u / size)


@pytest.mark.parametrize("ridge_scale, invariant", [("gram", True), ("absolute", False)])
def test_gram_ridge_is_invariant_under_scaling_and_absolute_ridge_is_not(ridge_scale, invariant):
    apply, _ = contraction([0.99])
    size, options = 2.0**-10, {"ridge_scale": ridge_scale, "ridge": 1e-4, "max_iterations": 100}
    zero = np.zeros((1, 30))
    unit = anderson(apply, apply(zero), **options)
    small = anderson(in_other_units(apply, size), size * apply(zero), **options)
    assert np.array_equal(unit.history, small.history) == invariant
    assert np.array_equal(size * unit.x, small.x) == invariant


def test_absolute_ridge_stalls_where_the_gram_ridge_converges():
    apply, _ = contraction([0.995])
    options = {"tol": 1e-10, "max_iterations": 600, "ridge": 1e-4}
    gram = anderson(apply, np.zeros((1, 30)), **options)
    absolute = anderson(apply, np.zeros((1, 30)), ridge_scale="absolute", **options)
    assert gram.all_converged and absolute.residuals[0] > 1e-4
    assert "change memory or ridge" in absolute.message


def test_mixing_weights_solve_the_bordered_system():
    rng = np.random.default_rng(3)
    F = rng.standard_normal((2, 4, 9))
    gram, ridge = F @ F.swapaxes(1, 2), 1e-3
    for k in range(2):
        bordered = np.zeros((5, 5))
        bordered[0, 1:] = bordered[1:, 0] = 1
        bordered[1:, 1:] = gram[k] + ridge * np.eye(4)
        expected = np.linalg.solve(bordered, np.eye(5)[0])[1:]
        np.testing.assert_allclose(mixing_weights(gram, ridge, False)[k], expected, rtol=1e-10)


@pytest.mark.parametrize("broken", [np.full((3, 3), value) for value in (0, 1, np.nan, np.inf)])
def test_singular_small_system_gives_a_plain_step_for_its_image_only(broken):
    rng = np.random.default_rng(4)
    F = rng.standard_normal((3, 5))
    gram = np.stack([F @ F.T, broken])
    weights = mixing_weights(gram, 1e-300, False)
    np.testing.assert_array_equal(weights[1], [0, 0, 1])
    np.testing.assert_array_equal(weights[0], mixing_weights(gram[:1], 1e-300, False)[0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_large_images_do_not_depend_on_the_batch(solver):
    rng, shape = np.random.default_rng(1), (3, 101, 97)
    rates = np.linspace(0.1, 0.9, shape[0])[:, None, None]
    offsets, u0 = rng.standard_normal(shape), rng.standard_normal(shape)
    together = solver(lambda u: rates * np.sin(u) + offsets, u0, tol=1e-9)
    assert len(set(together.iterations)) == shape[0]
    for n in range(shape[0]):
        alone = solver(
            lambda u, n=n: rates[n : n + 1] * np.sin(u) + offsets[n : n + 1],
            u0[n : n + 1],
            tol=1e-9,
        )
        assert np.array_equal(alone.x[0], together.x[n])
        assert alone.iterations[0] == together.iterations[n]
        assert alone.residuals[0] == together.residuals[n]


@pytest.mark.parametrize("solver", SOLVERS)
def test_converged_images_are_frozen(solver):
    apply, _ = contraction([0.1, 0.95])
    seen = []
    result = solver(
        apply, np.zeros((2, 30)), callback=lambda k, u, r: seen.append((k, u.copy(), r))
    )
    stop = result.iterations[0]
    assert stop < result.iterations[1]
    assert [k for k, _, _ in seen] == list(range(len(result.history)))
    for _, u, r in seen[stop:]:
        assert np.array_equal(u[0], result.x[0]) and r[0] == result.residuals[0]


def test_zero_start_has_infinite_relative_residual_and_goes_on():
    result = picard(lambda u: u / 2 + 1, np.zeros((1, 3)))
    assert result.history[0, 0] == np.inf and result.all_converged


def test_reference_replaces_the_size_of_the_iterate():
    apply, _ = contraction([0.9])
    reference = np.array([1e-3])
    for solver in SOLVERS:
        result = solver(apply, np.zeros((1, 30)), tol=1e-6, reference=reference)
        assert result.residuals[0] == norm(apply(result.x) - result.x)[0] / 1e-3 <= 1e-6


def test_cycle_is_reported_with_the_remedy():
    result = picard(lambda u: -u, np.ones((1, 4)), max_iterations=50)
    assert not result.all_converged and "reduce the step size" in result.message


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_gives_float32_and_reports_a_tolerance_below_its_rounding(solver):
    apply, exact = contraction([0.9], dtype=np.float32)
    result = solver(apply, np.zeros((1, 30), np.float32), tol=1e-5)
    assert result.all_converged and result.x.dtype == result.residuals.dtype == np.float32
    eps = np.finfo(np.float32).eps
    assert norm(result.x - exact)[0] <= (1e-5 + 30 * eps) / (1 - 0.9) * norm(exact)[0]
    # Pixels of offset - sin(u) / 2 end in cycles of the last bit.
    offset = np.random.default_rng(0).uniform(0.5, 2, (1, 500)).astype(np.float32)
    unreachable = solver(
        lambda u: offset - np.float32(0.5) * np.sin(u), 0 * offset, tol=1e-12, max_iterations=100
    )
    assert not unreachable.all_converged
    assert "rounding errors of float32" in unreachable.message


def test_divergence_raises_with_iteration_and_value():
    with pytest.raises(
        BreakdownError, match=r"picard: iteration \d+: residual norm of image 1 is inf"
    ):
        picard(lambda u: np.array([[0.5], [1e40]]) * u + 1, np.ones((2, 3)))


def test_nan_raises_only_for_the_image_that_still_runs():
    def apply(u):
        return np.where(np.array([[True], [False]]), u, np.nan)

    with pytest.raises(BreakdownError, match="image 1 is nan"):
        picard(apply, np.ones((2, 3)))
    frozen_then_nan = iter([1.0, np.nan, np.nan])
    rates = np.array([[0.0], [0.5]])
    result = picard(
        lambda u: np.where(rates == 0, u * next(frozen_then_nan, np.nan), rates * u),
        np.ones((2, 3)),
        tol=0.3,
    )
    assert result.converged[0] and np.array_equal(result.x[0], np.ones(3))


@pytest.mark.parametrize("reference", [np.ones(3), -np.ones(2)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_bad_references_are_refused(solver, reference):
    with pytest.raises(ValueError, match="reference"):
        solver(lambda u: u / 2, np.ones((2, 3)), reference=reference)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"memory": 0}, "memory"),
        ({"ridge": -1.0}, "ridge"),
        ({"ridge_scale": "grm"}, "grm"),
        ({"mixing": 0.0}, "mixing"),
    ],
)
def test_bad_anderson_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        anderson(lambda u: u / 2, np.ones((2, 3)), **options)


def test_anderson_with_the_exact_preconditioner_takes_one_step_and_keeps_its_residual():
    """T(u) = u − τ (D u − b): with P = (τ D)⁻¹ the first step solves it."""
    scale, b, tau = np.geomspace(1, 1e3, 40), np.ones((2, 40)), 1e-3

    def apply(u):
        return u - tau * (scale * u - b)

    u0 = np.full((2, 40), 0.5)
    result = anderson(apply, u0, preconditioner=lambda f: f / (tau * scale), tol=1e-12)
    assert result.all_converged and (result.iterations == 1).all()
    residual = norm(apply(result.x) - result.x) / np.maximum(norm(result.x), norm(u0))
    np.testing.assert_allclose(result.residuals, residual, rtol=1e-12)
