"""Nesterov's method and L-BFGS against dense solves, closed forms and SciPy."""

import numpy as np
import pytest
import scipy.optimize
from solver_problem import SIZE, Quadratic, run

from refimpl.kernels.vectors import norm
from refimpl.results import BreakdownError
from refimpl.solvers import lbfgs, nesterov, picard

SOLVERS = (nesterov, lbfgs)


def test_step_scales_the_residual():
    problem, u0 = Quadratic([10]), np.ones((1, SIZE))
    for solver in SOLVERS:
        callables = problem.callable(solver)
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


def test_lbfgs_reports_lost_digits_of_the_energy():
    problem = Quadratic([1e3])
    result = run(lbfgs, problem, np.zeros((1, SIZE)), tol=1e-15)
    assert not result.all_converged
    assert "lost to rounding" in result.message or "rounding errors" in result.message
    measured = norm(problem.gradient(result.x)) / norm(result.x)
    np.testing.assert_allclose(result.residuals, measured, rtol=1e-12)


def test_too_large_step_raises_with_iteration_and_value():
    problem = Quadratic([10])
    with pytest.raises(
        BreakdownError, match=r"nesterov: iteration \d+: .* is (inf|nan).*; reduce step"
    ):
        nesterov(problem.gradient, np.ones((1, SIZE)), step=1e3)


def test_nan_energy_raises_with_iteration():
    with pytest.raises(BreakdownError, match="lbfgs: iteration 0: energy of image 0 is nan"):
        lbfgs([lambda u: (np.nan, u)], np.ones((1, 3)), step=1.0)


def test_lbfgs_refuses_wrong_objectives():
    objectives, u0 = Quadratic([10]).callable(lbfgs), np.zeros((2, SIZE))
    with pytest.raises(ValueError, match="given 1 objectives for 2 images"):
        lbfgs(objectives, u0, step=1.0)
    with pytest.raises(ValueError, match="returned shape"):
        lbfgs([lambda u: (0.0, u[0])] * 2, u0, step=1.0)
    with pytest.raises(ValueError, match="memory"):
        lbfgs(objectives, u0[:1], step=1.0, memory=0)
