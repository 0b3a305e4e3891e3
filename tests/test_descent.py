"""Nesterov's method and L-BFGS against dense solves, closed forms and SciPy."""

import numpy as np
import pytest
import scipy.optimize

from refimpl.results import BreakdownError
from refimpl.solvers import lbfgs, nesterov, picard
from refimpl.vectors import norm

SIZE = 30


class Quadratic:
    """E(u) = ½ ⟨u, H u⟩ − ⟨b, u⟩ for each image, with eigenvalues of H from 1 / condition to 1."""

    def __init__(self, conditions, seed=0, dtype=np.float64):
        rng = np.random.default_rng(seed)
        Q = [np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0] for _ in conditions]
        spectra = [np.geomspace(1 / condition, 1, SIZE) for condition in conditions]
        self.H = np.array([q @ np.diag(s) @ q.T for q, s in zip(Q, spectra, strict=True)]).astype(
            dtype
        )
        self.b = rng.standard_normal((len(conditions), SIZE)).astype(dtype)
        self.exact = np.linalg.solve(self.H, self.b[..., None])[..., 0]

    def gradient(self, u):
        return np.stack([H @ row for H, row in zip(self.H, u, strict=True)]) - self.b

    def image(self, n):
        alone = object.__new__(Quadratic)
        alone.H, alone.b, alone.exact = self.H[n : n + 1], self.b[n : n + 1], self.exact[n : n + 1]
        return alone

    def objective(self, u):
        return float(u[0] @ self.H[0] @ u[0] / 2 - self.b[0] @ u[0]), self.gradient(u)

    @property
    def objectives(self):
        return [self.image(n).objective for n in range(len(self.b))]


def run(solver, problem, u0, **options):
    """Either solver on a `Quadratic`, with step 1 = 1 / L."""
    callables = problem.gradient if solver is nesterov else problem.objectives
    return solver(callables, u0, step=1.0, **options)


SOLVERS = (nesterov, lbfgs)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("tol", [1e-3, 1e-7])
def test_tolerance_is_the_relative_change_of_a_gradient_step(solver, tol):
    problem, u0 = Quadratic([10, 300]), np.ones((2, SIZE))
    result = run(solver, problem, u0, tol=tol)
    measured = norm(problem.gradient(result.x)) / np.maximum(norm(result.x), norm(u0))
    assert result.all_converged and (measured <= tol).all()
    np.testing.assert_allclose(result.residuals, measured, rtol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_minimum_is_that_of_the_dense_solve(solver):
    conditions = np.array([5, 100])
    problem = Quadratic(conditions)
    result = run(solver, problem, np.zeros((2, SIZE)), tol=1e-8)
    # ‖u − u*‖ ≤ ‖H⁻¹‖ ‖∇E(u)‖ with ‖H⁻¹‖ = condition.
    assert result.all_converged
    assert (norm(result.x - problem.exact) <= 1.001 * conditions * 1e-8 * norm(result.x)).all()


def test_step_scales_the_residual():
    problem, u0 = Quadratic([10]), np.ones((1, SIZE))
    for solver in SOLVERS:
        callables = problem.gradient if solver is nesterov else problem.objectives
        whole, half = (solver(callables, u0, step=step, max_iterations=1) for step in (1.0, 0.5))
        assert half.history[0, 0] == pytest.approx(whole.history[0, 0] / 2, rel=1e-15)


def test_restart_and_acceleration_each_save_iterations():
    problem, u0 = Quadratic([300]), np.zeros((1, SIZE))
    restarted = run(nesterov, problem, u0, tol=1e-6)
    plain = run(nesterov, problem, u0, tol=1e-6, restart=False)
    steepest = picard(lambda u: u - problem.gradient(u), u0, tol=1e-6)
    assert restarted.all_converged and plain.all_converged
    assert 2 * restarted.iterations[0] < plain.iterations[0] < steepest.iterations[0] / 2


def test_first_step_is_a_gradient_step():
    problem, u0 = Quadratic([10]), np.ones((1, SIZE))
    result = run(nesterov, problem, u0, max_iterations=1)
    np.testing.assert_array_equal(result.x, u0 - problem.gradient(u0))


def test_lbfgs_agrees_with_scipy():
    u0 = np.random.default_rng(2).uniform(-1, 1, (1, 6))

    def rosenbrock(u):
        return scipy.optimize.rosen(u[0]), scipy.optimize.rosen_der(u[0])[None]

    result = lbfgs([rosenbrock], u0, step=1e-3, tol=1e-9)
    theirs = scipy.optimize.minimize(
        scipy.optimize.rosen,
        u0[0],
        jac=scipy.optimize.rosen_der,
        method="L-BFGS-B",
        options={"maxiter": int(result.iterations[0]), "gtol": 0, "ftol": 0},
    )
    assert result.all_converged
    assert (result.iterations[0], result.evaluations) == (theirs.nit, theirs.nfev)
    np.testing.assert_array_equal(result.x[0], theirs.x)
    np.testing.assert_allclose(result.x[0], 1, rtol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_evaluations_count_every_call(solver):
    problem, calls = Quadratic([50]), []
    counted = problem.gradient if solver is nesterov else problem.objectives[0]

    def spy(u):
        calls.append(1)
        return counted(u)

    result = solver(spy if solver is nesterov else [spy], np.zeros((1, SIZE)), step=1.0, tol=1e-6)
    assert result.all_converged and result.evaluations == len(calls)
    assert len(result.history) == result.iterations[0] + 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_result_does_not_depend_on_the_batch(solver):
    problem = Quadratic([2, 30, 500])
    together = run(solver, problem, np.ones((3, SIZE)), tol=1e-7)
    assert together.all_converged and len(set(together.iterations)) == 3
    for n in range(3):
        alone = run(solver, problem.image(n), np.ones((1, SIZE)), tol=1e-7)
        assert np.array_equal(alone.x[0], together.x[n])
        assert alone.iterations[0] == together.iterations[n]
        assert np.array_equal(alone.history[:, 0], together.history[: len(alone.history), n])


@pytest.mark.parametrize("solver", SOLVERS)
def test_start_at_the_minimum_takes_no_iteration(solver):
    problem = Quadratic([10, 10])
    u0 = np.stack([problem.exact[0], np.zeros(SIZE)])
    result = run(solver, problem, u0, tol=1e-9)
    assert result.iterations[0] == 0 < result.iterations[1]
    assert np.array_equal(result.x[0], u0[0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_too_few_iterations_is_reported(solver):
    problem = Quadratic([2, 1e3])
    result = run(solver, problem, np.zeros((2, SIZE)), tol=1e-6, max_iterations=15)
    assert result.converged.tolist() == [True, False] and result.iterations[1] == 15
    assert "image 1" in result.message and "raise max_iterations above 15" in result.message


def test_lbfgs_reports_lost_digits_of_the_energy():
    problem = Quadratic([1e3])
    result = run(lbfgs, problem, np.zeros((1, SIZE)), tol=1e-15)
    assert not result.all_converged
    assert "lost to rounding" in result.message or "rounding errors" in result.message
    measured = norm(problem.gradient(result.x)) / norm(result.x)
    np.testing.assert_allclose(result.residuals, measured, rtol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_gives_float32_and_reports_a_tolerance_below_its_rounding(solver):
    problem, u0 = Quadratic([10], dtype=np.float32), np.zeros((1, SIZE), np.float32)
    result = run(solver, problem, u0, tol=1e-3)
    assert result.all_converged and result.x.dtype == result.residuals.dtype == np.float32
    below = run(solver, problem, u0, tol=1e-12, max_iterations=2_000)
    assert not below.all_converged and "round" in below.message


def test_too_large_step_raises_with_iteration_and_value():
    problem = Quadratic([10])
    with pytest.raises(
        BreakdownError, match=r"nesterov: iteration \d+: .* is (inf|nan).*; reduce step"
    ):
        nesterov(problem.gradient, np.ones((1, SIZE)), step=1e3)


def test_nan_energy_raises_with_iteration():
    with pytest.raises(BreakdownError, match="lbfgs: iteration 0: energy is nan"):
        lbfgs([lambda u: (np.nan, u)], np.ones((1, 3)), step=1.0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_bad_arguments_are_refused(solver):
    problem, u0 = Quadratic([10]), np.zeros((1, SIZE))
    callables = problem.gradient if solver is nesterov else problem.objectives
    for options in ({"step": 0.0}, {"step": 1.0, "tol": -1.0}, {"step": 1.0, "max_iterations": 0}):
        with pytest.raises(ValueError, match=list(options)[-1]):
            solver(callables, u0, **options)
    with pytest.raises(ValueError, match="batch axis"):
        solver(callables, u0[0], step=1.0)


def test_lbfgs_refuses_wrong_objectives():
    problem, u0 = Quadratic([10]), np.zeros((2, SIZE))
    with pytest.raises(ValueError, match="given 1 objectives for 2 images"):
        lbfgs(problem.objectives, u0, step=1.0)
    with pytest.raises(ValueError, match="returned shape"):
        lbfgs([lambda u: (0.0, u[0])] * 2, u0, step=1.0)
    with pytest.raises(ValueError, match="memory"):
        lbfgs(problem.objectives, u0[:1], step=1.0, memory=0)
