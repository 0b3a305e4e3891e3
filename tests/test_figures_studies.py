"""What the figures on solvers, tolerances, hypergradients and gradient checks say in words.

One image of 12 × 12 pixels and five filters stand for the trained presets.
"""

import numpy as np
import pytest

from figures.scripts import gradient_checks as draw_checks
from figures.scripts import hypergradient_methods as draw_methods
from figures.scripts import solver_convergence as draw_convergence
from figures.scripts import tolerance as draw_tolerance
from figures.studies import (
    gradient_checks,
    hypergradient_methods,
    solver_convergence,
    tolerance,
    trained,
)
from figures.task import Task
from refimpl import FilterBank, Identity, make_parameters, reconstruct
from refimpl.equilibrium.certificates import proved_monotonicity
from refimpl.paper.potentials import LogCosh
from refimpl.solvers import anderson, picard
from refimpl.training.model import Model
from refimpl.training.objective import Objective

SHAPE, LAM, TAU = (1, 12, 12), 18.156, 1 / 800
MODEL = Model(Identity(SHAPE), FilterBank(SHAPE, (5, 3, 3)), LogCosh(100.0), LAM, TAU)


def problem(tied=True):
    """A noisy square; total variation and three weak random filters, of joint norm below √8."""
    rng = np.random.default_rng(1)
    truth = np.zeros((1, *SHAPE))
    truth[0, 0, 3:9, 4:10] = 1
    A = 0.05 * rng.standard_normal((5, 1, 3, 3))
    A[0, 0, 1:, 1] = A[1, 0, 1, 1:] = (-0.9, 0.9)
    C = None if tied else A + 0.02 * rng.standard_normal(A.shape)
    step = MODEL.step(make_parameters(A, C), truth + 0.1 * rng.standard_normal(truth.shape))
    return Task("", step, truth)


@pytest.fixture(scope="module")
def tied():
    return problem()


@pytest.fixture(scope="module")
def errors_and_bounds(tied):
    return tolerance.measure(tied, tolerance.TOLERANCES, proved_monotonicity(tied.step))


@pytest.fixture(scope="module")
def curves(tied):
    return hypergradient_methods.curves_of(tied, hypergradient_methods.KRYLOV_METHODS["tied"])


@pytest.fixture(scope="module")
def checks(tied):
    rng = np.random.default_rng(0)
    theta, y = tied.step.problem.theta, tied.step.problem.y
    objective = Objective(MODEL, tied.truth, y, gradient_checks.EXACT)
    loss = gradient_checks.loss_remainders(objective, theta, rng)
    return loss, *gradient_checks.energy_remainders(tied.step, rng)


@pytest.mark.parametrize("method", ["picard", "anderson", "nesterov", "newton", "newton_krylov"])
def test_recorded_work_is_what_the_solver_reports(tied, method):
    step, record = trained.recording(tied.step)
    result = reconstruct(step, method=method, residual_tol=1e-8)
    assert record.work == result.evaluations + result.products


def test_last_state_seen_has_the_residual_that_the_solver_reports(tied):
    step, record = trained.recording(tied.step)
    result = reconstruct(step, method="anderson", residual_tol=1e-8)
    residual = trained.relative_residuals(tied.step, record.visits[-1][1])
    np.testing.assert_allclose(residual, result.residuals, rtol=1e-6)


def test_state_error_lags_the_residual_of_the_plain_iteration(errors_and_bounds):
    """By more than ten times; ‖u − u*‖ ≤ ‖T(u) − u‖/(τλ), and no image here has twice ‖u*‖."""
    (residual, state, _), _ = errors_and_bounds
    assert (state > 10 * residual).all()
    assert (state < 2 / (TAU * LAM) * residual).all()


def test_hypergradient_error_lags_the_residual_by_orders_of_magnitude(errors_and_bounds):
    (residual, _, gradient), _ = errors_and_bounds
    assert (gradient > 100 * residual).all()


def test_certified_bounds_hold(errors_and_bounds):
    errors, bounds = errors_and_bounds
    assert (errors[1:, tolerance.CERTIFIED] <= bounds[1:]).all()


def test_absolute_ridge_slows_anderson_to_half_its_memory_of_plain_steps():
    """With α = 1/m and T(u) = q u, iterates go as z^k with m z^m = q (1 + z + … + z^(m−1)).

    For q near 1 this is 1 − z = 2 (1 − q) / (m + 1).
    """
    q, m, start = 0.99, 5, np.full((1, 3), 1e-4)
    z = np.abs(np.roots([m, *[-q] * m])).max()
    slow = anderson(
        lambda u: q * u, start, memory=m, ridge=1e-4, ridge_scale="absolute", max_iterations=600
    )
    plain = picard(lambda u: q * u, start, max_iterations=600)
    rates = [np.log(r.history[400, 0] / r.history[600, 0]) / 200 for r in (slow, plain)]
    np.testing.assert_allclose(rates, [-np.log(z), -np.log(q)], rtol=1e-3)
    assert rates[1] / rates[0] == pytest.approx((m + 1) / 2, rel=0.02)


def test_solvers_reach_one_state(tied):
    star = trained.solution(tied.step).x
    for options in solver_convergence.SOLVERS["tied"].values():
        work, residual, error = solver_convergence.trace(tied.step, star, options)
        assert (np.diff(work) > 0).all()
        # The error is at most max(‖u‖, ‖u0‖)/‖u*‖ / (τλ) times the residual.
        assert error[-1] <= 2 / (TAU * LAM) * residual[-1] + 1e-12


def test_exact_methods_agree_and_the_others_do_not(curves):
    for name in ("cg", "cg (circulant)", "cg (jacobi)", "gmres", "bicgstab", "anderson"):
        assert curves[name][1, -1] < 1e-9, name
    assert curves["jacobian_free"][1, 0] > 0.5
    assert curves["unrolled"][1, 0] > 0.5


def test_first_neumann_term_is_the_jacobian_free_gradient(curves):
    np.testing.assert_allclose(curves["neumann"][:, 0], curves["jacobian_free"][:, 0], rtol=1e-10)


def test_remainders_have_slopes_two_two_and_three(checks):
    for result, order in zip(checks, (2, 2, 3)):
        assert result.check.passed
        assert abs(result.order - order) < 0.1


def test_complex_step_is_flat_at_rounding_and_differences_are_not(tied):
    results = gradient_checks.difference_errors(tied.step, np.random.default_rng(0))
    small = results["differences/steps"] <= 1e-11
    assert results["differences/complex"][small].max() < 1e-13
    for name in ("forward", "central"):
        assert results[f"differences/{name}"].min() > 1e-12
        assert results[f"differences/{name}"][-1] > 0.1


def test_untied_problem_is_recorded_too():
    untied = problem(tied=False)
    star = trained.solution(untied.step).x
    work, residual, _ = solver_convergence.trace(untied.step, star, {"method": "newton_krylov"})
    assert residual[-1] <= solver_convergence.TOLERANCE


SCRIPTS = {
    "solver_convergence": (solver_convergence, draw_convergence),
    "tolerance": (tolerance, draw_tolerance),
    "hypergradient_methods": (hypergradient_methods, draw_methods),
    "gradient_checks": (gradient_checks, draw_checks),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_figures_without_trained_presets_are_drawn(tmp_path, name):
    study, script = SCRIPTS[name]
    (tmp_path / "studies").mkdir()
    np.savez(tmp_path / "studies" / f"{name}.npz", **study.compute(tmp_path / "runs"))
    script.draw(tmp_path)
    assert (tmp_path / f"{name}.png").exists() and (tmp_path / f"{name}.pdf").exists()
