"""Reconstruction: every solver finds one fixed point, image by image, and says what went wrong."""

import functools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from refimpl import solvers
from refimpl.engine.step import make_step
from refimpl.equilibrium import state as equilibrium
from refimpl.equilibrium.norms import largest_safe_step
from refimpl.equilibrium.state import ANY_MODEL, TIED_ONLY, reconstruct
from refimpl.kernels.vectors import norm
from refimpl.paper.operators import DenseBank, FilterBank, Mask, Matrix
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import LogCosh
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.results import BreakdownError
from refimpl.verification.identities.known_problems import OPERATORS, problem
from strategies import KIND, changed, generator, normal, seeds

METHODS = {True: ANY_MODEL + TIED_ONLY, False: ANY_MODEL}
PAIRS = [(tied, method) for tied in METHODS for method in METHODS[tied]]
EPS = np.finfo(float).eps


def make(*, seed=0, **kind):
    return problem(KIND | kind, generator(seed))


def relative_residual(step, u, u0):
    return norm(step.apply(u) - u) / np.maximum(norm(u), norm(u0))


# Fixed points


@settings(max_examples=3)
@given(seeds())
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_solver_finds_the_fixed_point_of_the_dense_oracle(operator, tied, seed):
    made = make(tied=tied, operator=operator, seed=seed)
    expected = made.outputs()["fixed_point"]
    for method in METHODS[tied]:
        # SciPy's line search compares energies and stalls at √eps of the gradient.
        tol, bound = (1e-7, 1e-4) if method == "lbfgs" else (1e-12, 1e-9)
        result = reconstruct(made.step, method=method, residual_tol=tol)
        assert result.all_converged, result.message
        assert np.linalg.norm(result.x - expected) <= bound * np.linalg.norm(expected)


@pytest.mark.parametrize(("tied", "method"), PAIRS)
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_tolerance_is_the_relative_residual_of_each_image(tied, method, tol):
    step = make(tied=tied, operator="convolution").step
    u0 = step.operator.adjoint(step.problem.y)
    result = reconstruct(step, method=method, residual_tol=tol)
    residuals = relative_residual(step, result.x, u0)
    assert (residuals <= tol * (1 + 1e-6)).all()
    np.testing.assert_allclose(result.residuals, residuals, rtol=1e-6, atol=16 * EPS)


@pytest.mark.parametrize("method", ["newton", "newton_krylov"])
@pytest.mark.parametrize("preconditioner", ["jacobi", "circulant"])
def test_preconditioned_newton_finds_the_same_point(method, preconditioner):
    made = make(operator="convolution")
    result = reconstruct(
        made.step, method=method, residual_tol=1e-12, preconditioner=preconditioner
    )
    expected = made.outputs()["fixed_point"]
    assert np.linalg.norm(result.x - expected) <= 1e-9 * np.linalg.norm(expected)


def test_the_start_is_the_adjoint_of_the_data_when_left_out():
    step = make(operator="matrix").step
    u0 = step.operator.adjoint(step.problem.y)
    one = reconstruct(step, method="picard", residual_tol=1e-12, max_iterations=3)
    two = reconstruct(step, u0, method="picard", residual_tol=1e-12, max_iterations=3)
    assert np.array_equal(one.x, two.x)


# Batches and precision


@pytest.mark.parametrize(("tied", "method"), PAIRS)
def test_image_n_alone_is_bit_for_bit_image_n_of_the_batch(tied, method):
    step = make(tied=tied, operator="convolution").step
    tol = 1e-6 if method == "lbfgs" else 1e-9
    batch = reconstruct(step, method=method, residual_tol=tol)
    assert len(batch.x) > 1
    for n in range(len(batch.x)):
        alone = reconstruct(step.image(n), method=method, residual_tol=tol)
        assert np.array_equal(alone.x[0], batch.x[n])
        assert alone.iterations[0] == batch.iterations[n]


@pytest.mark.parametrize("method", ANY_MODEL)
def test_images_of_a_dense_model_are_independent_to_rounding(method):
    step = make(analysis="dense", tied=False).step
    batch = reconstruct(step, method=method, residual_tol=1e-10)
    for n in range(len(batch.x)):
        alone = reconstruct(step.image(n), method=method, residual_tol=1e-10)
        assert np.linalg.norm(alone.x[0] - batch.x[n]) <= 1e-8 * np.linalg.norm(batch.x[n])


@pytest.mark.parametrize(("tied", "method"), [pair for pair in PAIRS if "lbfgs" not in pair])
def test_a_callback_cannot_change_the_iterate_nor_the_data(tied, method):
    def clip(k, u, residuals):
        with pytest.raises(ValueError, match="read-only"):
            np.clip(u, 0, 1, out=u)

    step = make(tied=tied).step
    result = reconstruct(step, method=method, residual_tol=1e-6, callback=clip)
    assert np.array_equal(result.x, reconstruct(step, method=method, residual_tol=1e-6).x)


def single(step):
    """The same step in float32."""
    experts = step.problem.experts.with_theta(step.problem.theta.astype(np.float32))
    return changed(step, y=step.problem.y.astype(np.float32), experts=experts)


@pytest.mark.parametrize(("tied", "method"), PAIRS)
def test_float32_stays_float32_and_comes_close(tied, method):
    step = make(tied=tied).step
    expected = reconstruct(step, method="newton_krylov", residual_tol=1e-12).x
    tol = 1e-3 if method == "lbfgs" else 1e-5  # as above, √eps
    result = reconstruct(single(step), method=method, residual_tol=tol)
    assert result.all_converged, result.message
    assert result.x.dtype == np.float32
    assert np.linalg.norm(result.x - expected) <= 100 * tol * np.linalg.norm(expected)


# What went wrong


def test_a_step_size_too_large_is_reported_with_the_largest_safe_one():
    step = make(potential="quadratic").step
    safe = largest_safe_step(step)
    steep = replace(step, tau=3 * safe)
    with pytest.raises(
        BreakdownError, match=rf"tau is {3 * safe:.3g}; .* every tau < {safe:.3g} conv"
    ):
        reconstruct(steep, method="picard", max_iterations=100_000)
    result = reconstruct(steep, method="picard", max_iterations=20)
    assert not result.converged.any()
    assert f"every tau < {safe:.3g} converges" in result.message


def test_an_oscillating_iteration_is_reported_with_the_largest_safe_step():
    """Bounded σ: beyond 2/L the iterates need not grow without bound, they can oscillate."""
    step = make(potential="smoothed_l1").step
    step = changed(step, lam=1e-3)
    safe = largest_safe_step(step)
    long = replace(step, tau=20 * safe)
    result = reconstruct(long, method="picard", max_iterations=2_000)
    assert not result.converged.any()
    assert f"tau < {safe:.3g}" in result.message


def test_an_untied_step_size_too_large_is_reported_without_a_promise():
    step = make(tied=False, potential="quadratic").step
    steep = replace(step, tau=3 * largest_safe_step(step))
    with pytest.raises(BreakdownError, match="no tau is safe for every untied model"):
        reconstruct(steep, method="picard", max_iterations=100_000)


@pytest.mark.parametrize("method", TIED_ONLY)
def test_methods_that_need_an_energy_are_refused_to_untied_models(method):
    with pytest.raises(TypeError, match=f"'{method}' minimises an energy.*picard, anderson"):
        reconstruct(make(tied=False).step, method=method)


def test_unknown_names_and_options_are_refused():
    step = make().step
    with pytest.raises(ValueError, match="'gradient' is unknown; choose one of auto, picard"):
        reconstruct(step, method="gradient")
    with pytest.raises(ValueError, match="'ilu' is unknown; choose one of jacobi, circulant"):
        reconstruct(step, method="newton", preconditioner="ilu")
    with pytest.raises(ValueError, match="'picard' takes no preconditioner"):
        reconstruct(step, method="picard", preconditioner="jacobi")
    with pytest.raises(TypeError, match="memory"):
        reconstruct(step, memory=5)


WRONG = {
    "picard: option 'memry' is unknown; did you mean 'memory' of anderson, lbfgs?; picard takes ": (
        "picard", {"memry": 5}
    ),
    "anderson: option 'ridge_size' is unknown; did you mean 'ridge_scale'?; anderson takes": (
        "anderson", {"ridge_size": 5}
    ),
    "picard: option 'mixing' is an option of anderson; picard takes reference": (
        "picard", {"mixing": 0.5}
    ),
    "newton: option 'xyz' is unknown; newton takes max_products, callback": ("newton", {"xyz": 0}),
    "options: max_iterations is an argument of its own; pass max_iterations=... beside it": (
        "picard", {"max_iterations": 5}
    ),
    "options: given a list, expected a mapping": ("picard", ["memory"]),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_option_is_met_by_what_is_right(message):
    method, options = WRONG[message]
    with pytest.raises(TypeError, match=re.escape(message)):
        reconstruct(make().step, method=method, options=options)


def test_a_callback_is_refused_by_the_method_that_cannot_call_it():
    with pytest.raises(TypeError, match="'callback' is an option of picard, anderson, newton_kry"):
        reconstruct(make().step, method="lbfgs", callback=print)


def test_options_reach_the_method():
    step = make().step
    short, long = (
        reconstruct(step, method="anderson", residual_tol=1e-9, options={"memory": m})
        for m in (1, 8)
    )
    assert short.all_converged and long.iterations.max() < short.iterations.max()


def test_bad_starts_are_refused():
    step = make().step
    u0 = normal(generator(1), step.problem.y.shape)
    bad = u0.copy()
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="u0: 1 of 48 values are NaN"):
        reconstruct(step, bad)
    with pytest.raises(ValueError, match=r"u0: images are \(2, 3, 4\), expected \(2, 4, 3\)"):
        reconstruct(step, u0.swapaxes(2, 3))
    with pytest.raises(ValueError, match="1 images, but y holds data of 2"):
        reconstruct(step, u0[:1])
    with pytest.raises(TypeError, match="mixed precision"):
        reconstruct(step, u0.astype(np.float32))


def test_newton_krylov_that_runs_to_infinity_is_no_fixed_point(monkeypatch):
    """G vanishes at infinity for σ → 0, and then so does the relative residual."""
    step = make().step
    honest = equilibrium.solvers.newton_krylov

    def far(linearize, u0, **options):
        return honest(linearize, u0, **options)._replace(x=1e6 * u0)

    monkeypatch.setattr(equilibrium.solvers, "newton_krylov", far)
    result = reconstruct(step, method="newton_krylov")
    assert not result.converged.any() and "no fixed point" in result.message


def saturated(amplitude):
    """Dense rows, hidden pixels, and data at which σ is saturated: d̄ is near 0 at the start."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((50, 36)) / 6
    K = Mask(rng.random((6, 6)) < 0.6, (1, 6, 6))
    y = K.matvec(amplitude * rng.standard_normal((1, 1, 6, 6)))
    experts = FieldOfExperts(DenseBank((1, 6, 6), 50), LogCosh(), make_parameters(A, gamma=0.7))
    return make_step(Problem(K, y, experts), 0.1)


def test_images_that_ran_away_are_not_called_converged_and_auto_finds_the_fixed_point():
    step = saturated(30.0)
    away = reconstruct(step, method="anderson", preconditioner="cholesky", residual_tol=1e-10)
    found = reconstruct(step, method="auto", residual_tol=1e-10)
    # Residuals were small because ‖u‖ is large; relative to the start they are not.
    assert np.abs(away.x).max() > 1e6 and away.history[-1].max() <= 1e-10
    assert not away.all_converged and "ran away" in away.message and away.residuals.min() > 1e-10
    assert found.all_converged and np.abs(step.direction(found.x)).max() <= 1e-6


@pytest.mark.filterwarnings("error")
def test_auto_goes_on_where_the_first_solver_grew_to_the_largest_number(monkeypatch):
    """There the relative residual is 0, which looks like rounding that nothing improves."""
    step = make(analysis="dense").step
    u0 = step.operator.adjoint(step.problem.y)

    @functools.wraps(equilibrium.anderson)
    def huge(step, u0, **settings):
        return solvers.picard(lambda u: u, np.full_like(u0, 1e308), tol=1e-9)

    monkeypatch.setitem(equilibrium.METHODS, "anderson", huge)
    away, found = (reconstruct(step, u0, method=m, residual_tol=1e-9) for m in ("anderson", "auto"))
    assert not away.converged.any() and (away.residuals > 1).all() and "ran away" in away.message
    assert found.all_converged and "ran away" in found.message and ", then newton" in found.method


def test_a_small_start_is_no_sign_of_running_away():
    """With K = 0.001 I the start Kᵀy is far smaller than the solution."""
    K = Matrix(1e-3 * np.eye(36), (1, 6, 6))
    bank = FilterBank((1, 6, 6), (2, 3, 3))
    A = 0.1 * np.random.default_rng(1).standard_normal(bank.coefficients_shape)
    y = K.matvec(np.random.default_rng(0).standard_normal((1, 1, 6, 6)))
    step = make_step(Problem(K, y, FieldOfExperts(bank, LogCosh(), make_parameters(A)), 1e6), 0.1)
    result = reconstruct(step, method="newton", residual_tol=1e-9)
    assert np.linalg.norm(result.x) > 1e3 * np.linalg.norm(K.adjoint(y))
    assert result.all_converged


def test_a_residual_that_is_small_by_tau_alone_does_not_count():
    step = make().step
    result = reconstruct(replace(step, tau=1e-12), method="auto", residual_tol=1e-6)
    assert (result.residuals <= 1e-6).all() and not result.converged.any()
    assert "a small part of the safe" in result.message


def test_a_start_that_passes_is_mentioned():
    step = make().step
    result = reconstruct(step, method="auto", residual_tol=1e3)
    assert (result.iterations == 0).all() and "stopped at the start" in result.message
