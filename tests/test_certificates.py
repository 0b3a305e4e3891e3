"""Certificates: true errors stay below them, and they are infinite where nothing is known."""

from dataclasses import replace

import numpy as np
import pytest
from extended import adjoint, direction_vjp, fixed_point, params_vjp, random_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.engine.step import make_step
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.equilibrium.certificates import (
    Norms,
    adjoint_bound,
    bilinear_norm,
    certify,
    gradient_bounds,
    state_bound,
)
from refimpl.equilibrium.proved import (
    proved_monotonicity,
    rounding_of_direction,
    smallest_eigenvalue,
)
from refimpl.equilibrium.state import reconstruct
from refimpl.kernels.vectors import norm
from refimpl.paper.loss import squared_loss_gradient
from refimpl.paper.operators import (
    Convolution,
    DenseBank,
    FilterBank,
    Identity,
    Mask,
    Matrix,
    row_mask,
)
from refimpl.paper.operators.banks import Analysis
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import POTENTIALS
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.verification.checks import dense_matrix
from refimpl.verification.identities.known_problems import problem
from strategies import (
    KIND,
    boundaries,
    changed,
    filter_shapes,
    generator,
    image_shapes,
    normal,
    precisions,
    seeds,
)

IMAGE = (2, 5, 4)


def make(*, seed=0, **kind):
    return problem(KIND | {"operator_boundary": "periodic"} | kind, generator(seed))


# Bounds hold


@settings(max_examples=25)
@given(
    st.sampled_from(tuple(POTENTIALS)), st.sampled_from(("identity", "convolution", "matrix")),
    boundaries(), st.booleans(), st.booleans(), st.sampled_from((0, 1, 3, 30, 300)),
    st.sampled_from((1e-1, 1e-6, 1e-14)), precisions(), seeds(),
)
def test_true_errors_stay_below_the_certificates(
    potential, operator, boundary, dense, tied, iterations, adjoint_tol, dtype, seed
):
    """States and adjoint states stopped anywhere, up to rounding; the truth is longdouble."""
    boundary = "periodic" if operator == "convolution" else boundary
    problem = random_problem(
        generator(seed), (2, 1, 3, 4), (2, 1, 3, 3), boundary=boundary, potential=potential,
        operator=operator, dense=dense, tied=tied, dtype=dtype, scale=0.3, gamma=0.1,
    )
    step = make_step(problem)
    mu = proved_monotonicity(step)
    u = reconstruct(step, method="picard", residual_tol=1e-15, max_iterations=iterations + 1).x
    lin = step.linearize(u)
    truth = normal(generator(seed + 1), u.shape, dtype)
    gradient = squared_loss_gradient(u, truth)
    q = solve_adjoint(lin, gradient, method="gmres", residual_tol=adjoint_tol).x
    bounds = certify(step, u, q, gradient)
    assert set(bounds.kinds.values()) == {"proved"} and bounds.monotonicity == mu
    if mu <= 0:
        assert np.isinf(bounds.state).all()
        return
    star = fixed_point(problem, u)
    assert (norm((u - star).astype(float)) <= bounds.state).all()
    assert (norm((u - star).astype(float)) <= state_bound(step, u)).all()
    if not np.isfinite(bounds.adjoint).all():
        assert not step.problem.potential.smooth
        return
    p = adjoint(problem, star, 2 * (star - truth) / u.size)
    assert (norm((step.tau * q - p).astype(float)) <= bounds.adjoint).all()
    exact = dict(params_vjp(problem, star, -p).items())
    for name, bound in bounds.gradient.items():
        error = getattr(lin.params_vjp(q), name) - exact[name]
        assert np.linalg.norm(error.astype(float)) <= bound, name


@settings(max_examples=30)
@given(
    st.sampled_from(("quadratic", "log_cosh", "lorentzian", "smoothed_l1")), boundaries(),
    st.booleans(), st.booleans(), precisions(), seeds(),
)
def test_rounding_of_adjoint_residuals_and_gradients_is_covered(
    potential, boundary, dense, tied, dtype, seed
):
    """At one u and p, e = δ = 0: what is computed against longdouble."""
    rng, shape = generator(seed), (2, 2, 4, 5)
    problem = random_problem(
        rng, shape, (3, 2, 3, 5), boundary=boundary, potential=potential, operator="convolution",
        dense=dense, tied=tied, dtype=dtype,
    )
    u, p = (normal(rng, shape, dtype) for _ in range(2))
    lin, none = replace(make_step(problem), tau=1.0).linearize(u), np.zeros(2)
    norms, b = Norms.of(lin, p), lin.direction_vjp(p)  # so that ∇ℓ − Jᵀp is rounding alone
    bound = adjoint_bound(lin, p, b, none, 1.0, norms)
    assert (norm((b - direction_vjp(problem, u, p)).astype(float)) <= bound).all()
    exact = dict(params_vjp(problem, u, -p).items())
    for name, bound in gradient_bounds(lin, p, none, none, norms).items():
        error = getattr(lin.params_vjp(p), name) - exact[name]
        assert 0 < np.linalg.norm(error.astype(float)) <= bound, name


@given(image_shapes(max_side=5), st.data(), boundaries(), seeds())
def test_bilinear_norm_bounds_every_product(shape, data, boundary, seed):
    filters = data.draw(filter_shapes(shape[1]))
    rng = generator(seed)
    for bank in (
        FilterBank(shape[1:], (filters[0], *filters[2:]), boundary),
        DenseBank(shape[1:], filters[0]),
    ):
        A, u = normal(rng, bank.coefficients_shape), normal(rng, (1, *shape[1:]))
        size = np.linalg.norm(A) * np.linalg.norm(u)
        assert np.linalg.norm(bank.apply(A, u)) <= bilinear_norm(bank) * size * (1 + 1e-12)


@given(image_shapes(max_side=6), boundaries())
def test_bilinear_norm_is_that_of_taking_all_patches(shape, boundary):
    """One filter for each tap: ‖B(A, u)‖² is then the sum of all ‖patch‖²."""
    image = (1, *shape[2:])
    bank = FilterBank(image, (15, 3, 5), boundary)
    deltas = np.eye(15).reshape(15, 1, 3, 5)
    patches = dense_matrix(Analysis(bank, deltas).matvec, (1, *image))
    assert bilinear_norm(bank) == pytest.approx(np.linalg.norm(patches, 2), rel=1e-12)


# Where they come from


def test_smallest_eigenvalues_are_those_of_dense_matrices_or_zero():
    rng = generator(1)
    blur = Convolution(normal(rng, (3, 3)), IMAGE, "periodic")
    tall, wide = Matrix(normal(rng, (50, 40)), IMAGE), Matrix(normal(rng, (7, 40)), IMAGE)
    for operator in (Identity(IMAGE), blur, tall):
        values = np.linalg.svd(dense_matrix(operator.matvec, (1, *IMAGE)), compute_uv=False)
        assert smallest_eigenvalue(operator) == pytest.approx(values[-1] ** 2, rel=1e-9)
    nothing_known = Convolution(normal(rng, (3, 3)), IMAGE, "zero")
    for operator in (wide, nothing_known, Mask(row_mask(IMAGE[1:]), IMAGE), blur @ blur):
        assert smallest_eigenvalue(operator) == 0


def test_a_tied_convex_model_is_as_monotone_as_its_data():
    step = make(operator="matrix").step
    data = step.problem.lam * smallest_eigenvalue(step.problem.operator)
    assert data * (1 - 1e-14) <= proved_monotonicity(step) <= data


def test_negative_weights_or_a_potential_that_is_not_convex_cost_monotonicity():
    step = make().step
    theta = step.problem.theta
    negative = step.problem.experts.with_theta(replace(theta, weights=-theta.weights))
    bent = FieldOfExperts(step.problem.bank, POTENTIALS["lorentzian"](), theta)
    for experts in (negative, bent):
        assert proved_monotonicity(changed(step, experts=experts)) < proved_monotonicity(step)


def test_an_untied_model_at_C_equal_to_A_is_as_monotone_as_the_tied_one():
    step = make().step
    experts = step.problem.experts.with_theta(step.problem.theta.untie())
    assert proved_monotonicity(changed(step, experts=experts)) == proved_monotonicity(step)


def test_the_state_bound_is_the_residual_over_the_monotonicity():
    step = make(operator="convolution").step
    u = normal(generator(2), step.problem.y.shape)
    size = norm(step.direction(u)) + rounding_of_direction(step.linearize(u))
    expected = size / proved_monotonicity(step)
    np.testing.assert_allclose(state_bound(step, u), expected, rtol=2e-4)
    assert (state_bound(step, u) >= expected).all()


# Where Lanczos iteration fails


def hidden_step(bank):
    """Tied rows, of which the larger is orthogonal to the start of the Lanczos iteration."""
    shape = (1, 4, 4)
    start = np.random.default_rng(0).standard_normal((1, *shape)).ravel()
    start /= np.linalg.norm(start)
    large = np.eye(16)[0] - start[0] * start
    A = np.stack([10 * large / np.linalg.norm(large), 0.1 * start])

    theta = make_parameters(A, weights=-0.05 * np.ones(2), gamma=1.0)
    experts = FieldOfExperts(bank(shape, 2), POTENTIALS["log_cosh"](), theta)
    return make_step(Problem(Identity(shape), np.zeros((1, *shape)), experts))


def test_two_fixed_points_have_no_certificate_for_one_row_is_missed():
    """E = ‖u‖²/2 − 0.05 Σ log cosh(A u): 0 is stationary, and so are two states beside it."""

    class Rows(DenseBank):
        pass

    for step in (hidden_step(DenseBank), hidden_step(Rows)):
        assert proved_monotonicity(step) <= 0
        zero = np.zeros_like(step.problem.y)
        start = step.problem.theta.A[:1].reshape(zero.shape) / 20
        beside = reconstruct(step, start, residual_tol=1e-12)
        assert beside.all_converged and np.abs(beside.x).max() > 0.1
        for u in (zero, beside.x):
            assert np.isinf(certify(step, u, zero, zero).state).all()


def test_what_parts_of_ones_own_leave_is_called_an_estimate():
    class Mine(POTENTIALS["log_cosh"]):
        convex, sup_second = True, 1.0

    made = make()
    experts = replace(made.step.problem.experts, potential=Mine())
    step = changed(made.step, experts=experts)
    inputs = (made.inputs[name] for name in "uwv")
    bounds = certify(step, *inputs)
    assert bounds.kinds == {
        "monotonicity": "proved", "state": "estimated", "adjoint": "estimated",
        "gradient": "estimated",
    }
    assert 0 < bounds.state.max() < np.inf
    assert np.isinf(state_bound(step, made.inputs["u"])).all()


# Where nothing is known


def test_a_mask_certifies_nothing():
    made = make(operator="mask")
    lin = made.step.linearize(made.inputs["u"])
    bounds = certify(lin.step, lin.u, made.inputs["w"], made.inputs["v"])
    assert bounds.monotonicity == 0
    assert np.isinf(state_bound(made.step, lin.u)).all()
    assert np.isinf(bounds.state).all()
    assert np.isinf(bounds.adjoint).all()
    assert all(np.isinf(bound) for bound in bounds.gradient.values())


@pytest.mark.parametrize("potential", ["half_squared_relu", "soft_shrinkage", "huber"])
def test_kinks_leave_only_the_state_certified(potential):
    made = make(potential=potential)
    bounds = certify(made.step, made.inputs["u"], made.inputs["w"], made.inputs["v"])
    assert np.isfinite(bounds.state).all()
    assert np.isinf(bounds.adjoint).all()
    assert all(np.isinf(bound) for bound in bounds.gradient.values())


def test_a_given_constant_replaces_the_certified_one():
    made = make(operator="mask")
    lin = made.step.linearize(made.inputs["u"])
    bounds = certify(lin.step, lin.u, made.inputs["w"], made.inputs["v"], mu=0.25)
    np.testing.assert_allclose(bounds.state, norm(lin.direction) / 0.25, rtol=2e-4)
    assert set(bounds.kinds.values()) == {"estimated"}
    assert np.isfinite(bounds.adjoint).all()


def test_bounds_name_C_only_when_untied():
    for tied in (True, False):
        made = make(tied=tied)
        bounds = certify(made.step, made.target, made.target, made.target, mu=1.0)
        assert ("C" in bounds.gradient) is not tied


@pytest.mark.parametrize("boundary", ["zero", "symmetric"])
def test_float32_models_are_certified_too(boundary):
    rng = generator(3)
    bank = FilterBank(IMAGE, (2, 3, 3), boundary)
    A = normal(rng, bank.coefficients_shape, np.float32) / 10
    y = normal(rng, (2, *IMAGE), np.float32)
    for C in (None, A, A * np.float32(0.99)):
        experts = FieldOfExperts(bank, POTENTIALS["log_cosh"](), make_parameters(A, C))
        step = make_step(Problem(Identity(IMAGE), y, experts), 0.5)
        assert 0 < proved_monotonicity(step) <= 1
        assert np.isfinite(state_bound(step, y)).all()
