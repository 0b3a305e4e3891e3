"""Certificates: true errors stay below them, and they are infinite where nothing is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.engine.step import make_step
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.equilibrium.certificates import (
    bilinear_norm,
    certify,
    monotonicity,
    smallest_singular_value,
    state_bound,
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
from refimpl.verification.identities.certified import monotone, solved
from refimpl.verification.identities.known_problems import problem
from strategies import (
    KIND,
    boundaries,
    changed,
    filter_shapes,
    generator,
    image_shapes,
    normal,
    seeds,
)

SMOOTH = ("quadratic", "log_cosh", "lorentzian", "smoothed_l1")
IMAGE = (2, 5, 4)


def make(*, seed=0, **kind):
    return problem(KIND | {"operator_boundary": "periodic"} | kind, generator(seed))


# Bounds hold


@settings(max_examples=10)
@given(
    st.sampled_from(SMOOTH),
    st.sampled_from(("identity", "convolution", "matrix")),
    st.sampled_from(("convolution", "dense")),
    st.booleans(),
    st.integers(0, 30),
    st.sampled_from((1e-1, 1e-3, 1e-8)),
    seeds(),
)
def test_true_errors_stay_below_the_certificates(
    potential, operator, analysis, tied, iterations, adjoint_tol, seed
):
    made = make(tied=tied, operator=operator, potential=potential, analysis=analysis, seed=seed)
    step = monotone(made.step)
    truth = solved(step, made)
    u = reconstruct(step, method="picard", tol=1e-15, max_iterations=iterations + 1).x
    lin, gradient = step.linearize(u), squared_loss_gradient(u, made.target)
    q = solve_adjoint(lin, gradient, method="bicgstab", tol=adjoint_tol).x
    bounds = certify(step, u, q, gradient)
    slack = 1e-11  # bounds are for exact arithmetic, and `truth` is known to rounding
    assert (norm(u - truth.u) <= bounds.state + slack * norm(truth.u)).all()
    assert (norm(step.tau * q - truth.p) <= bounds.adjoint + slack * norm(truth.p)).all()
    given_gradient = lin.params_vjp(q)
    for name, bound in bounds.gradient.items():
        expected = getattr(truth.gradient, name)
        error = np.linalg.norm(getattr(given_gradient, name) - expected)
        assert error <= bound + slack * np.linalg.norm(expected), name


@settings(max_examples=10)
@given(st.sampled_from(tuple(POTENTIALS)), st.booleans(), seeds())
def test_monotonicity_is_below_the_lowest_eigenvalue(potential, tied, seed):
    step = monotone(make(tied=tied, potential=potential, operator="matrix", seed=seed).step)
    u = normal(generator(seed), (1, *step.problem.bank.image_shape))
    J = dense_matrix(step.image(0).linearize(u).direction_jvp, u.shape)
    assert monotonicity(step) <= np.linalg.eigvalsh((J + J.T) / 2)[0] * (1 + 1e-10)


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


def test_smallest_singular_values_are_those_of_dense_matrices_or_zero():
    rng = generator(1)
    blur = Convolution(normal(rng, (3, 3)), IMAGE, "periodic")
    tall, wide = Matrix(normal(rng, (50, 40)), IMAGE), Matrix(normal(rng, (7, 40)), IMAGE)
    for operator in (Identity(IMAGE), blur, tall):
        values = np.linalg.svd(dense_matrix(operator.matvec, (1, *IMAGE)), compute_uv=False)
        assert smallest_singular_value(operator) == pytest.approx(values[-1], rel=1e-9)
    nothing_known = Convolution(normal(rng, (3, 3)), IMAGE, "zero")
    for operator in (wide, nothing_known, Mask(row_mask(IMAGE[1:]), IMAGE), blur @ blur):
        assert smallest_singular_value(operator) == 0


def test_a_tied_convex_model_is_as_monotone_as_its_data():
    step = make(operator="matrix").step
    data = step.problem.lam * smallest_singular_value(step.problem.operator) ** 2
    assert monotonicity(step) == data


def test_negative_weights_or_a_potential_that_is_not_convex_cost_monotonicity():
    step = make().step
    theta = step.problem.theta
    negative = step.problem.experts.with_theta(replace(theta, weights=-theta.weights))
    bent = FieldOfExperts(step.problem.bank, POTENTIALS["lorentzian"](), theta)
    for experts in (negative, bent):
        assert monotonicity(changed(step, experts=experts)) < monotonicity(step)


def test_an_untied_model_at_C_equal_to_A_is_as_monotone_as_the_tied_one():
    step = make().step
    experts = step.problem.experts.with_theta(step.problem.theta.untie())
    assert monotonicity(changed(step, experts=experts)) == monotonicity(step)


def test_the_state_bound_is_the_residual_over_the_monotonicity():
    step = make(operator="convolution").step
    u = normal(generator(2), step.problem.y.shape)
    expected = norm(step.direction(u)) / monotonicity(step)
    np.testing.assert_allclose(state_bound(step, u), expected, rtol=1e-14)


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
    np.testing.assert_allclose(bounds.state, norm(lin.direction) / 0.25, rtol=1e-14)
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
        assert 0 < monotonicity(step) <= 1
        assert np.isfinite(state_bound(step, y)).all()
