"""Preconditioners: what they invert exactly, that they change work and not solutions."""

from dataclasses import replace

import numpy as np
import pytest

from refimpl.engine.preconditioners import (
    PRECONDITIONERS,
    central_impulse,
    cholesky,
    circulant,
    jacobi,
    mean_kernels,
)
from refimpl.engine.step import make_step
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.equilibrium.automatic import choose_preconditioner
from refimpl.equilibrium.state import reconstruct
from refimpl.paper.operators import Convolution, DenseBank, FilterBank, Identity, Mask, row_mask
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import LogCosh, Quadratic
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.results import BreakdownError
from refimpl.verification.checks import dense_matrix
from strategies import changed, generator, normal


def linearization(
    operator, *, boundary="periodic", tied=True, potential=None, dense=False, dtype=np.float64
):
    rng = generator(0)
    image = operator.domain_shape
    bank = DenseBank(image, 200) if dense else FilterBank(image, (3, 3, 3), boundary)
    A, C = (normal(rng, bank.coefficients_shape, dtype) for _ in range(2))
    theta = make_parameters(A, None if tied else A + np.asarray(0.2, dtype) * C, gamma=0.3)
    y = normal(rng, (2, *operator.range_shape), dtype)
    experts = FieldOfExperts(bank, potential or LogCosh(), theta)
    step = make_step(Problem(operator, y, experts, 1.3), 0.1)
    return step.linearize(normal(rng, (2, *image), dtype))


def jacobians(lin):
    """The dense J of each image."""
    for n in range(len(lin.u)):
        alone = lin.step.image(n).linearize(lin.u[n : n + 1])
        yield dense_matrix(alone.direction_jvp, alone.u.shape)


IMAGE = (2, 8, 7)
MASK = Mask(row_mask(IMAGE[1:]), IMAGE)


@pytest.mark.parametrize("operator", [Identity(IMAGE), MASK], ids=["identity", "mask"])
@pytest.mark.parametrize("boundary", ["zero", "periodic"])
@pytest.mark.parametrize("tied", [True, False])
def test_jacobi_divides_by_the_diagonal(operator, boundary, tied):
    lin = linearization(operator, boundary=boundary, tied=tied)
    inverse = jacobi(lin)(np.ones_like(lin.u))
    diagonals = np.stack([np.diag(J) for J in jacobians(lin)]).reshape(lin.u.shape)
    positive = diagonals > 0
    np.testing.assert_allclose(inverse[positive], 1 / diagonals[positive], rtol=1e-12)


@pytest.mark.parametrize("operator", [Identity(IMAGE), MASK], ids=["identity", "mask"])
def test_cholesky_inverts_a_quadratic_prior_exactly(operator):
    lin = linearization(operator, potential=Quadratic(), dense=True)
    r = normal(generator(1), lin.u.shape)
    back = cholesky(lin)(lin.direction_jvp(r))
    # The shift is 1e-6 of the diagonal, and the condition number below 1e3.
    assert np.linalg.norm(back - r) <= 1e-3 * np.linalg.norm(r)


def test_cholesky_uses_the_mean_of_both_banks_and_of_the_images():
    lin = linearization(Identity(IMAGE), tied=False, dense=True)
    theta = lin.step.problem.theta
    B, d = (theta.A + theta.C) / 2, np.maximum(lin.field.mean_slopes.mean(axis=0), 0)
    M = 1.3 * np.eye(lin.u[0].size) + B.T @ (d[:, None] * B)
    M += 1e-6 * np.diag(M).max() * np.eye(len(M))
    r = normal(generator(1), lin.u.shape)
    expected = np.linalg.solve(M, r.reshape(len(r), -1).T).T.reshape(r.shape)
    np.testing.assert_allclose(cholesky(lin)(r), expected, rtol=1e-10)


@pytest.mark.parametrize("count", [1, 40])
def test_cholesky_survives_rounding_where_most_is_hidden(count):
    image = (1, 16, 16)
    mask = np.zeros(image[1:], bool)
    mask[0, 0] = True
    rng = generator(0)
    A = (normal(rng, (count, 256)) / 256 + 3 / 256).astype(np.float32)
    y = normal(rng, (1, *image), np.float32)
    experts = FieldOfExperts(DenseBank(image, count), Quadratic(), make_parameters(A))
    lin = make_step(Problem(Mask(mask, image), y, experts), 0.1).linearize(y)
    assert np.isfinite(cholesky(lin)(y)).all()


def test_cholesky_of_infinity_breaks_down():
    lin = linearization(Identity(IMAGE), potential=Quadratic(), dense=True)
    theta = replace(lin.step.problem.theta, A=1e200 * lin.step.problem.theta.A)
    experts = FieldOfExperts(lin.step.problem.bank, Quadratic(), theta)
    step = changed(lin.step, experts=experts)
    with pytest.raises(BreakdownError, match="jacobi"), np.errstate(over="ignore"):
        cholesky(step.linearize(lin.u))


def test_cholesky_refuses_a_filter_bank():
    with pytest.raises(ValueError, match="dense bank"):
        cholesky(linearization(Identity(IMAGE)))


def test_cholesky_factors_once_in_a_newton_solve(monkeypatch):
    calls = []
    monkeypatch.setitem(PRECONDITIONERS, "cholesky", lambda lin: calls.append(lin) or cholesky(lin))
    step = linearization(Identity(IMAGE), dense=True).step
    result = reconstruct(step, method="newton", preconditioner="cholesky", residual_tol=1e-6)
    assert result.all_converged and result.iterations.max() > 1 and len(calls) == 1


def test_jacobi_divides_by_the_diagonal_of_a_dense_bank():
    lin = linearization(Identity(IMAGE), dense=True)
    diagonals = np.stack([np.diag(J) for J in jacobians(lin)]).reshape(lin.u.shape)
    np.testing.assert_allclose(jacobi(lin)(np.ones_like(lin.u)), 1 / diagonals, rtol=1e-12)


@pytest.mark.parametrize("size", [(8, 7), (7, 8), (5, 5), (6, 6)])
def test_circulant_inverts_a_periodic_quadratic_model_exactly(size):
    """One channel, periodic, σ′ = 1: J is a circular convolution, which the FFT inverts."""
    blur = Convolution(np.full((3, 3), 1 / 9), (1, *size), "periodic")
    lin = linearization(blur, potential=Quadratic())
    v = normal(generator(1), lin.u.shape)
    recovered = circulant(lin)(lin.direction_jvp(v))
    assert np.linalg.norm(recovered - v) <= 1e-9 * np.linalg.norm(v)


def test_circulant_trusts_a_blur_as_far_as_the_slopes_are_alike():
    """S⁻¹ Q⁻¹ S⁻¹ written out, Q no smaller than 0.6 s max|Q_F|; much of it is lifted here."""
    size = (12, 10)
    blur = Convolution(np.full((5, 5), 1 / 25), (1, *size), "periodic")
    lin = linearization(blur, potential=LogCosh(3.0))
    own = lin.field.diagonal
    kernels = np.zeros((2, 1, *size))
    kernels[:, :, :5, :5] = mean_kernels(lin)
    prior = np.fft.fft2(np.roll(kernels, (-2, -2), axis=(2, 3))).real
    average = np.zeros(size)
    average[:5, :5] = 1 / 25
    Q = prior + 1.3 * np.abs(np.fft.fft2(average)) ** 2
    spread = np.abs(own / own.mean(axis=(2, 3), keepdims=True) - 1).mean(axis=(2, 3), keepdims=True)
    least = 0.6 * spread * np.abs(prior).max(axis=(2, 3), keepdims=True)
    assert (Q < least).mean() > 0.1
    diagonal = own + 1.3 / 25
    scaling = (diagonal / diagonal.mean(axis=(2, 3), keepdims=True)) ** 0.25
    r = normal(generator(1), lin.u.shape)
    expected = np.fft.ifft2(np.fft.fft2(r / scaling) / np.maximum(Q, least)).real / scaling
    # A transform of n values rounds by eps log2 n of its norm: two of r, and one of Q's kernels,
    # for each side; Q⁻¹ ≤ 1/least passes those of r on once and those of Q, of max|Q|, twice.
    rounding = 2 * np.finfo(float).eps * np.log2(Q[0].size)
    passed = (2 + np.abs(Q).max() / least.min()) / least.min()
    size = np.linalg.norm(r / scaling) / scaling.min()
    assert np.linalg.norm(circulant(lin)(r) - expected) <= rounding * passed * size


def test_circulant_is_of_use_where_the_mean_slope_cancels():
    """Weights of opposite signs: diag(∂F) has mean 0, and counts as varying by all of itself."""
    image = (1, 8, 7)
    step = linearization(Convolution(np.full((3, 3), 1 / 9), image, "periodic")).step.image(0)
    u, A = normal(generator(1), (1, *image)), normal(generator(2), (2, 1, 3, 3))
    A /= np.linalg.norm(A, axis=(2, 3), keepdims=True)

    def lin(second):
        theta = replace(make_parameters(A), weights=np.array([1.0, second]))
        experts = FieldOfExperts(FilterBank(image, (2, 3, 3), "periodic"), LogCosh(), theta)
        return make_step(replace(step.problem, experts=experts), 0.1).linearize(u)

    first, other = lin(1.0).field.mean_slopes[0]
    cancelled = lin(-first / other)
    diagonal = cancelled.field.diagonal
    assert abs(diagonal.mean()) <= 1e-12 * np.abs(diagonal).max()
    assert np.linalg.norm(circulant(cancelled)(u)) >= 0.1 * np.linalg.norm(circulant(lin(0.0))(u))


@pytest.mark.parametrize("boundary", ["periodic", "symmetric", "zero"])
@pytest.mark.parametrize(
    "operator",
    [Identity(IMAGE), MASK, Convolution(np.eye(5) / 5, IMAGE)],
    ids=["identity", "mask", "convolution"],
)
def test_circulant_is_symmetric_positive_definite(operator, boundary):
    """Pᵀ Q⁻¹ P with zero padding P is a principal block of the definite Q⁻¹."""
    lin = linearization(operator, boundary=boundary)
    alone = lin.step.image(0).linearize(lin.u[:1])
    M = dense_matrix(circulant(alone), alone.u.shape)
    rounding = 64 * np.finfo(np.float32 if boundary != "periodic" else float).eps
    assert np.abs(M - M.T).max() <= rounding * np.abs(M).max()
    values = np.linalg.eigvalsh((M + M.T) / 2)
    assert values[0] > 1e-4 * values[-1] > 0


@pytest.mark.parametrize("tied", [True, False])
def test_mean_kernels_are_the_answer_to_an_impulse(tied):
    lin = linearization(Identity((1, 11, 12)), boundary="zero", tied=tied)
    theta, bank = lin.step.problem.theta, lin.step.problem.bank
    slopes = lin.field.mean_slopes[:, :, None, None]
    answer = bank.adjoint(theta.synthesis, slopes * bank.apply(theta.A, central_impulse(lin.u)))
    # The impulse at (5, 6): the symmetric part of the answer within two pixels of it.
    around = answer[:, :, 3:8, 4:9]
    even = (around + around[:, :, ::-1, ::-1]) / 2
    kernels = mean_kernels(lin)
    given = (kernels + kernels[:, :, ::-1, ::-1]) / 2
    np.testing.assert_allclose(given, even, rtol=1e-12, atol=1e-12 * np.abs(even).max())


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_circulant_holds_residuals_of_all_sizes(size):
    lin = linearization(Identity(IMAGE), boundary="symmetric")
    r = normal(generator(6), lin.u.shape)
    np.testing.assert_allclose(circulant(lin)(size * r) / size, circulant(lin)(r), rtol=1e-5)


@pytest.mark.parametrize("name", PRECONDITIONERS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "operator",
    [Identity(IMAGE), MASK, Convolution(np.eye(5) / 5, IMAGE)],
    ids=["identity", "mask", "convolution"],
)
def test_preconditioners_do_not_change_the_solution(operator, tied, name):
    dense = name == "cholesky"
    lin = linearization(
        operator, tied=tied, boundary="symmetric", potential=LogCosh(0.1), dense=dense
    )
    g = normal(generator(2), lin.u.shape)
    methods = ("cg", "gmres", "bicgstab") if tied else ("gmres", "bicgstab")
    for method in methods:
        plain, preconditioned = (
            solve_adjoint(lin, g, method=method, residual_tol=1e-12, preconditioner=p)
            for p in (None, name)
        )
        assert plain.all_converged
        assert preconditioned.all_converged
        assert np.linalg.norm(plain.x - preconditioned.x) <= 1e-9 * np.linalg.norm(plain.x)


def test_circulant_saves_iterations_on_a_blurred_problem():
    blur = Convolution(np.full((5, 5), 1 / 25), (1, 24, 24), "symmetric")
    lin = linearization(blur, boundary="symmetric", potential=LogCosh(0.1))
    g = normal(generator(3), lin.u.shape)
    plain, better = (
        solve_adjoint(lin, g, method="cg", preconditioner=name) for name in (None, "circulant")
    )
    assert better.iterations.max() < 0.6 * plain.iterations.max()


def test_jacobi_saves_iterations_where_the_mask_is_strong():
    lin = linearization(Mask(row_mask((24, 24)), (1, 24, 24)))
    step = changed(lin.step, lam=1e3)
    strong, g = step.linearize(lin.u), normal(generator(4), lin.u.shape)
    plain, better = (
        solve_adjoint(strong, g, method="cg", preconditioner=name) for name in (None, "jacobi")
    )
    assert better.iterations.max() < 0.7 * plain.iterations.max()


@pytest.mark.parametrize("name", PRECONDITIONERS)
@pytest.mark.parametrize("operator", [Identity(IMAGE), MASK], ids=["identity", "mask"])
def test_precision_is_kept(operator, name):
    lin = linearization(operator, dtype=np.float32, dense=name == "cholesky")
    r = normal(generator(5), lin.u.shape, np.float32)
    assert PRECONDITIONERS[name](lin)(r).dtype == np.float32
    adjoint = solve_adjoint(lin, r, method="cg", residual_tol=1e-4, preconditioner=name)
    assert adjoint.x.dtype == np.float32
    assert adjoint.all_converged


def test_circulant_refuses_a_dense_bank():
    with pytest.raises(ValueError, match="dense bank has no convolution structure"):
        circulant(linearization(Identity(IMAGE), dense=True))


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize(("gap", "name"), [(20, "jacobi"), (21, "circulant")])
def test_a_mask_is_met_by_the_circulant_model_where_its_gaps_are_wide(gap, name, channels):
    """In any channel; at a border, where data are on one side only, half the width is enough."""
    mask = np.ones((2, 40, 44), bool)
    mask[1, 5 : 5 + gap, 9 : 9 + gap] = False
    mask[0, : gap - 10, : gap - 10] = mask[0, 30::2] = False
    step = linearization(Mask(mask if channels else mask[1], (2, 40, 44))).step
    assert choose_preconditioner(step) == name
