"""What all solvers promise: residuals, counts, independent images, precision, and refusals."""

import numpy as np
import pytest
from solver_problem import FIXED_POINT, KRYLOV, NEWTON, SIZE, SOLVERS, Quadratic, plain_map, run

from refimpl.kernels.vectors import norm
from refimpl.solvers import bicgstab, lbfgs

EPS = np.finfo(float).eps

every_solver = pytest.mark.parametrize("solver", SOLVERS)


def residual(solver, problem, x, u0):
    """As the docstrings define it, by the same operations in the same order."""
    if solver in KRYLOV:
        return norm(problem.b - problem.product(x)) / norm(problem.b)
    change = problem.step(x) - x if solver in FIXED_POINT else problem.gradient(x)
    return norm(change) / np.maximum(norm(x), norm(u0))


@every_solver
@pytest.mark.parametrize("tol", [1e-3, 1e-7, 1e-13])
def test_reported_residual_is_that_of_the_result_and_meets_the_tolerance(solver, tol):
    if solver is lbfgs and tol < EPS**0.5:
        pytest.skip("SciPy's line search compares energies, which lose such digits")
    problem, u0 = Quadratic([10, 1e3 if solver in KRYLOV else 100]), np.ones((2, SIZE))
    result = run(solver, problem, u0, tol=tol)
    measured = residual(solver, problem, result.x, u0)
    assert result.all_converged and (result.residuals <= tol).all()
    if solver is lbfgs:
        np.testing.assert_allclose(result.residuals, measured, rtol=1e-6)
    else:
        assert np.array_equal(result.residuals, measured)
    assert result.history.shape == (result.iterations.max() + 1, 2)
    # The row before the last is still above it for the image that took longest.
    assert solver in KRYLOV or result.history[-2, result.iterations.argmax()] > tol


@every_solver
def test_solution_is_that_of_the_dense_solve(solver):
    conditions, tol = np.array([5, 100]), 1e-8 if solver is lbfgs else 1e-12
    problem = Quadratic(conditions)
    result = run(solver, problem, np.zeros((2, SIZE)), tol=tol)
    # ‖u − u*‖ ≤ ‖H⁻¹‖ ‖∇E(u)‖ with ‖H⁻¹‖ = condition, and rounding in the same proportion.
    size = norm(problem.b) if solver in KRYLOV else norm(result.x)
    assert result.all_converged
    bound = conditions * (1.001 * tol + SIZE * EPS) * size
    assert (norm(result.x - problem.exact) <= bound).all()


@every_solver
def test_every_call_is_counted(solver):
    problem = Quadratic([50])
    result = run(solver, problem, np.zeros((1, SIZE)), tol=1e-6)
    assert result.all_converged and len(result.history) == result.iterations[0] + 1
    if solver in KRYLOV:
        least = 2 if solver is bicgstab else 1
        assert result.products == problem.calls >= least * result.iterations[0] + 1
    else:
        assert result.evaluations == problem.calls


@every_solver
def test_result_does_not_depend_on_the_batch(solver):
    problem = Quadratic([2, 30, 500])
    together = run(solver, problem, np.ones((3, SIZE)), tol=1e-7)
    assert together.all_converged and (solver in NEWTON or len(set(together.iterations)) == 3)
    for n in range(3):
        part = slice(n, n + 1)
        alone = run(solver, problem.images(part), np.ones((1, SIZE)), tol=1e-7)
        assert np.array_equal(alone.x[0], together.x[n])
        assert alone.iterations[0] == together.iterations[n]
        assert alone.residuals[0] == together.residuals[n]
        if solver not in KRYLOV:  # whose last row is measured anew when all sweeps have ended
            history = together.history[: len(alone.history), n]
            assert np.array_equal(alone.history[:, 0], history)


@every_solver
def test_start_at_the_solution_takes_no_iteration(solver):
    problem, u0 = Quadratic([10, 10]), np.zeros((2, SIZE))
    u0[0] = np.random.default_rng(1).standard_normal(SIZE)
    problem.b[0] = problem.product(u0)[0]  # by the same operations, so that the residual is 0
    result = run(solver, problem, u0, tol=1e-7)
    assert result.all_converged and result.iterations[0] == 0 < result.iterations[1]
    assert np.array_equal(result.x[0], u0[0]) and result.residuals[0] == 0
    assert not np.shares_memory(result.x, u0)


@every_solver
def test_iterations_are_limited_for_each_image_and_this_is_reported(solver):
    limit = 1 if solver in NEWTON else 15
    problem = Quadratic([1 if solver in NEWTON else 2, 1e4])
    result = run(solver, problem, np.zeros((2, SIZE)), tol=1e-4, max_iterations=limit)
    assert result.converged.tolist() == [solver not in NEWTON, False]
    assert result.iterations[1] == limit
    assert f"raise max_iterations above {limit}" in result.message and "0.0001" in result.message
    assert solver in NEWTON or "image 1" in result.message


@every_solver
def test_float32_gives_float32(solver):
    problem, u0 = Quadratic([10], np.float32), np.zeros((1, SIZE), np.float32)
    result = run(solver, problem, u0, tol=1e-3 if solver is lbfgs else 1e-5)
    assert result.all_converged and result.x.dtype == result.residuals.dtype == np.float32


@every_solver
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tolerance_below_rounding_ends_and_says_so(solver, dtype):
    problem, u0, eps = Quadratic([10], dtype), np.zeros((1, SIZE), dtype), np.finfo(dtype).eps
    tol = 1e-20 if dtype is np.float64 else 1e-12
    result = run(solver, problem, u0, tol=tol, max_iterations=2000)
    assert not result.all_converged and result.x.dtype == dtype
    assert solver is lbfgs or result.residuals[0] <= 100 * eps
    lost = solver is lbfgs and "differences of energies are lost to rounding" in result.message
    assert lost or f"rounding errors of {dtype.__name__}" in result.message
    ends = solver in KRYLOV or (solver in NEWTON and dtype is np.float64)
    assert not ends or result.iterations[0] < 500


BAD_OPTIONS = [("tol", value) for value in (0.0, -1.0, np.nan, np.inf)]
BAD_OPTIONS += [("max_iterations", value) for value in (0, True, 2.5)]


@every_solver
def test_bad_options_are_refused(solver):
    for name, value in BAD_OPTIONS:
        with pytest.raises(ValueError, match=f"{name}: given"):
            run(solver, Quadratic([10]), np.zeros((1, SIZE)), **{name: value})
    if solver not in (*FIXED_POINT, *KRYLOV):
        with pytest.raises(ValueError, match="step: given"):
            solver(Quadratic([10]).callable(solver), np.zeros((1, SIZE)), step=0.0)


@every_solver
@pytest.mark.parametrize(
    ("u0", "error", "message"),
    [
        (np.ones(SIZE), ValueError, "batch axis"),
        (np.full((1, SIZE), np.nan), ValueError, "NaN"),
        (np.ones((1, SIZE), int), TypeError, "int64"),
    ],
)
def test_bad_starts_are_refused(solver, u0, error, message):
    with pytest.raises(error, match=message):
        run(solver, Quadratic([10]), u0)


@every_solver
def test_callables_that_return_another_shape_or_precision_are_refused(solver):
    def returning(change):
        problem = Quadratic([10])
        name = plain_map(solver)
        honest = getattr(problem, name)
        setattr(problem, name, lambda u: change(honest(u)))
        return problem

    with pytest.raises(ValueError, match="returned shape"):
        run(solver, returning(lambda x: x[:, :2]), np.ones((1, SIZE)))
    with pytest.raises(TypeError, match="returned float32"):
        run(solver, returning(lambda x: x.astype(np.float32)), np.ones((1, SIZE)))
