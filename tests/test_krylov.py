"""Conjugate gradients, GMRES and BiCGStab against dense solves and SciPy's iterations."""

import numpy as np
import pytest
import scipy.sparse.linalg

from refimpl.kernels.vectors import norm
from refimpl.results import BreakdownError
from refimpl.solvers import bicgstab, cg, gmres

SOLVERS = (cg, gmres, bicgstab)
NONSYMMETRIC = (gmres, bicgstab)
SIZE = 40


def spd(conditions, dtype=np.float64, seed=0):
    """Symmetric positive definite matrices (N, n, n) with eigenvalues from 1 / condition to 1."""
    rng = np.random.default_rng(seed)
    matrices = []
    for condition in conditions:
        Q = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
        matrices.append(Q @ np.diag(np.geomspace(1 / condition, 1, SIZE)) @ Q.T)
    return np.array(matrices).astype(dtype)


def general(shifts, seed=1):
    """Nonsymmetric matrices with complex eigenvalues in discs of radius 1 around the shifts."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((len(shifts), SIZE, SIZE)) / np.sqrt(SIZE)
    return noise + np.array(shifts)[:, None, None] * np.eye(SIZE)


def product(matrices):
    """x ↦ M x, image by image, so that it does not depend on the batch."""
    return lambda x: np.stack([m @ row for m, row in zip(matrices, x, strict=True)])


def right_hand_side(images, dtype=np.float64, seed=2):
    return np.random.default_rng(seed).standard_normal((images, SIZE)).astype(dtype)


def true_residual(matrices, b, x):
    return norm(b - product(matrices)(x)) / norm(b)


@pytest.mark.parametrize("solver", SOLVERS)
def test_solution_is_that_of_the_dense_solve(solver):
    conditions = np.array([5, 1e2, 1e4])
    M, b = spd(conditions), right_hand_side(3)
    result = solver(product(M), b, tol=1e-12, max_iterations=5000)
    exact = np.linalg.solve(M, b[..., None])[..., 0]
    # ‖x − x*‖ ≤ ‖M⁻¹‖ ‖r‖ with ‖M⁻¹‖ = condition.
    assert result.all_converged
    assert (norm(result.x - exact) <= 2 * conditions * 1e-12 * norm(b)).all()


@pytest.mark.parametrize("solver", NONSYMMETRIC)
def test_nonsymmetric_solution_is_that_of_the_dense_solve(solver):
    M, b = general([1.5, 2.0, 4.0]), right_hand_side(3)
    result = solver(product(M), b, tol=1e-12)
    exact = np.linalg.solve(M, b[..., None])[..., 0]
    smallest = np.linalg.svd(M, compute_uv=False)[:, -1]
    assert result.all_converged
    assert (norm(result.x - exact) <= 2e-12 * norm(b) / smallest).all()


def test_cg_takes_the_iterations_of_scipy():
    M, b = spd([50]), right_hand_side(1)
    ours = cg(product(M), b, tol=1e-8)
    steps = []
    theirs, _ = scipy.sparse.linalg.cg(M[0], b[0], rtol=1e-8, atol=0, callback=steps.append)
    assert ours.iterations[0] == len(steps)
    np.testing.assert_allclose(ours.x[0], theirs, rtol=1e-6)


def test_gmres_takes_the_iterations_of_scipy_through_restarts():
    M, b = general([1.3]), right_hand_side(1)
    ours = gmres(product(M), b, tol=1e-8, restart=7)
    norms = []
    theirs, _ = scipy.sparse.linalg.gmres(
        M[0], b[0], rtol=1e-8, atol=0, restart=7, callback=norms.append, callback_type="pr_norm"
    )
    assert ours.iterations[0] == len(norms) > 14
    np.testing.assert_allclose(ours.history[1:, 0], norms, rtol=1e-6)
    np.testing.assert_allclose(ours.x[0], theirs, rtol=1e-6)


def test_bicgstab_iterates_are_those_of_scipy():
    M, b = general([3.0]), right_hand_side(1)
    theirs = []
    scipy.sparse.linalg.bicgstab(
        M[0], b[0], rtol=1e-8, atol=0, callback=lambda x: theirs.append(x.copy())
    )
    for k in (1, 3, len(theirs)):
        ours = bicgstab(product(M), b, max_iterations=k)
        np.testing.assert_allclose(ours.x[0], theirs[k - 1], rtol=1e-8)
    # SciPy also stops after half an iteration, which is one of ours.
    assert bicgstab(product(M), b, tol=1e-8).iterations[0] - len(theirs) in (0, 1)


def test_cg_finishes_in_one_iteration_per_distinct_eigenvalue():
    Q = np.linalg.qr(np.random.default_rng(5).standard_normal((SIZE, SIZE)))[0]
    M = (Q @ np.diag(np.repeat([1.0, 2.0, 5.0, 9.0], SIZE // 4)) @ Q.T)[None]
    result = cg(product(M), right_hand_side(1), tol=1e-12)
    assert result.all_converged and result.iterations[0] == 4


@pytest.mark.parametrize("solver", SOLVERS)
def test_exact_preconditioner_takes_one_iteration(solver):
    M, b = spd([1e3, 1e2]), right_hand_side(2)
    inverse = np.linalg.inv(M)
    inverse = (inverse + inverse.swapaxes(1, 2)) / 2
    result = solver(product(M), b, preconditioner=product(inverse), tol=1e-9)
    assert result.all_converged and (result.iterations == 1).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_preconditioner_saves_iterations_and_keeps_the_solution(solver):
    scale = np.geomspace(1, 1e4, SIZE)
    M, b = spd([20]) * np.sqrt(scale[:, None] * scale), right_hand_side(1)
    plain = solver(product(M), b, tol=1e-9, max_iterations=5000)
    better = solver(product(M), b, tol=1e-9, preconditioner=lambda r: r / scale)
    assert better.all_converged and better.iterations[0] < plain.iterations[0] / 2
    assert true_residual(M, b, better.x)[0] <= 1e-9


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_model_in_float32_gives_the_float64_answer(solver):
    M, b = spd([10, 1e3]), right_hand_side(2)
    dtypes = []

    def matvec(x):
        dtypes.append(x.dtype)
        return product(M)(x)

    whole = {"restart": SIZE} if solver is gmres else {}
    result = solver(matvec, b, tol=1e-12, model=product(M.astype(np.float32)), **whole)
    assert result.all_converged
    assert np.array_equal(result.residuals, true_residual(M, b, result.x))
    # One product of M measures each sweep. A sweep gains four digits of twelve, but for what
    # float32 loses by the condition.
    assert len(dtypes) <= 6
    assert set(dtypes) == {np.dtype(float)}


@pytest.mark.parametrize("factor", [-1.0, 0.3, np.nan], ids=["indefinite", "far off", "NaN"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_model_that_fails_leaves_the_result_without_it(solver, factor):
    M, b = spd([10, 1e2]), right_hand_side(2)
    wrong = (np.array([1.0, factor])[:, None, None] * M).astype(np.float32)
    both = solver(product(M), b, tol=1e-10, model=product(wrong))
    first = solver(product(M[:1]), b[:1], tol=1e-10, model=product(wrong[:1]))
    second = solver(product(M[1:]), b[1:], tol=1e-10)
    assert both.all_converged
    assert np.array_equal(both.x[0], first.x[0]) and np.array_equal(both.x[1], second.x[0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sweep_with_the_model_that_is_cut_short_is_kept(solver):
    M, b = spd([1e3]), right_hand_side(1)
    model = product(M.astype(np.float32))
    result = solver(product(M), b, tol=1e-10, max_iterations=25, model=model)
    plain = solver(product(M), b, tol=1e-10, max_iterations=25)
    assert not result.all_converged and 25 < result.iterations[0] <= 50
    assert result.residuals[0] < plain.residuals[0]


@pytest.mark.parametrize(("condition", "tol"), [(1e6, 1e-10), (1e7, 1e-8)])
def test_too_bad_a_condition_for_float32_takes_no_iterations_from_the_solve(condition, tol):
    """‖x‖ may be κ ‖b‖ / ‖M‖: at κ = 1e7 rounding alone may leave κ eps ‖b‖ = 2e-9 ‖b‖."""
    M, b = spd([condition]), right_hand_side(1)
    needed = cg(product(M), b, tol=tol, max_iterations=9000).iterations[0]
    model = product(M.astype(np.float32))
    assert cg(product(M), b, tol=tol, max_iterations=2 * needed, model=model).all_converged


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_result_with_a_model_does_not_depend_on_the_batch(solver):
    M, b = spd([3, 1e2, 1e3]), right_hand_side(3) * np.array([1e-9, 1, 1e9])[:, None]
    single = M.astype(np.float32)
    together = solver(product(M), b, tol=1e-11, model=product(single))
    assert together.all_converged
    for n in range(3):
        part = slice(n, n + 1)
        alone = solver(product(M[part]), b[part], tol=1e-11, model=product(single[part]))
        assert np.array_equal(alone.x[0], together.x[n])


@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_right_hand_side_gives_zero(solver):
    M, b = spd([10, 10]), right_hand_side(2)
    b[0] = 0
    for x0 in (None, np.ones_like(b)):
        result = solver(product(M), b, x0=x0)
        assert result.all_converged and not result.x[0].any()
        assert result.iterations[0] == 0 and result.residuals[0] == 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_large_images_do_not_depend_on_the_batch(solver):
    rng = np.random.default_rng(6)
    b, d = (
        rng.standard_normal((3, 1, 99, 101)),
        rng.uniform(1, [[[[2]]], [[[5]]], [[[20]]]], (3, 1, 99, 101)),
    )
    together = solver(lambda x: d * x, b)
    for n in range(3):
        alone = solver(lambda x, n=n: d[n : n + 1] * x, b[n : n + 1])
        assert np.array_equal(alone.x[0], together.x[n])


def test_restarts_lose_no_accuracy_when_the_recurrence_drifts():
    # At condition 1e10 the recurrence of cg claims 1e-13 long before the residual is there.
    M, b = spd([1e10]), spd([1e10])[0] @ right_hand_side(1)[0]
    result = cg(product(M), b[None], tol=1e-9, max_iterations=20_000)
    assert result.all_converged and true_residual(M, b[None], result.x)[0] <= 1e-9


def test_indefinite_matrix_raises_in_cg_with_iteration_and_value():
    M, b = spd([10, 10]), right_hand_side(2)
    M[1] -= 0.5 * np.eye(SIZE)
    with pytest.raises(BreakdownError, match=r"cg: iteration \d+: ⟨p, M p⟩ = -\S+ for image 1"):
        cg(product(M), b)


def test_nonsymmetric_matrix_raises_in_cg():
    M, b = spd([10]), right_hand_side(1)
    M[0] += 1e-4 * np.triu(np.random.default_rng(3).standard_normal((SIZE, SIZE)))
    with pytest.raises(
        BreakdownError, match="cg: iteration 2: .* not symmetric; use gmres or bicgstab"
    ):
        cg(product(M), b)


def test_symmetric_matrix_with_rounding_errors_passes_in_cg():
    M, b = spd([1e6], np.float32), right_hand_side(1, np.float32)
    assert cg(product(M), b, tol=1e-3, max_iterations=5000).products > 2


def test_indefinite_preconditioner_raises_in_cg():
    M, b = spd([10]), right_hand_side(1)
    with pytest.raises(BreakdownError, match="the preconditioner is not positive definite"):
        cg(product(M), b, preconditioner=lambda r: -r)


@pytest.mark.parametrize("solver", NONSYMMETRIC)
def test_indefinite_systems_are_solved_without_symmetry(solver):
    Q = np.linalg.qr(np.random.default_rng(3).standard_normal((SIZE, SIZE)))[0]
    M, b = (
        (Q @ np.diag(np.repeat([-2.0, 1.0, 3.0, 4.0], SIZE // 4)) @ Q.T)[None],
        right_hand_side(1),
    )
    result = solver(product(M), b, tol=1e-11)
    assert result.all_converged and true_residual(M, b, result.x)[0] <= 1e-11


def test_bicgstab_breakdown_is_reported_as_not_converged():
    skew = np.kron(np.eye(SIZE // 2), [[0.0, 1.0], [-1.0, 0.0]])[None]
    b = np.ones((1, SIZE))
    result = bicgstab(product(skew), b)
    assert not result.all_converged and "use gmres" in result.message
    assert result.residuals[0] == true_residual(skew, b, result.x)[0]
    assert gmres(product(skew), b).all_converged


def test_singular_system_is_reported_as_not_converged():
    M = np.diag(np.r_[np.zeros(3), np.ones(SIZE - 3)])[None]
    for solver in NONSYMMETRIC:
        result = solver(product(M), np.ones((1, SIZE)))
        assert not result.all_converged and "no further step lowers the residual" in result.message
    assert not gmres(lambda x: 0 * x, np.ones((1, SIZE))).all_converged


def test_stagnating_restarts_end():
    # A cyclic shift: GMRES makes no progress before step n, so GMRES(5) never does.
    result = gmres(
        lambda x: np.roll(x, 1, axis=1), np.eye(1, SIZE), restart=5, max_iterations=100_000
    )
    assert (
        not result.all_converged
        and result.iterations[0] == 10
        and "raise restart" in result.message
    )
    assert gmres(lambda x: np.roll(x, 1, axis=1), np.eye(1, SIZE), restart=SIZE).all_converged


@pytest.mark.parametrize("solver", SOLVERS)
def test_nan_raises_with_iteration(solver):
    with pytest.raises(
        BreakdownError,
        match=f"{solver.__name__}: iteration 1: .* nan for image 0|of image 0 is nan",
    ):
        solver(lambda x: x * np.nan, np.ones((1, SIZE)))


@pytest.mark.parametrize("solver", SOLVERS)
def test_bad_arguments_are_refused(solver):
    b = np.ones((2, 3))
    with pytest.raises(ValueError, match="x0"):
        solver(lambda x: x, b, x0=np.ones((1, 3)))
    with pytest.raises(TypeError, match="x0 is float32"):
        solver(lambda x: x, b, x0=np.ones((2, 3), np.float32))
    with pytest.raises(TypeError, match="preconditioner: returned float32"):
        solver(lambda x: x, b, preconditioner=lambda r: r.astype(np.float32))
    with pytest.raises(ValueError, match="restart"):
        gmres(lambda x: x, b, restart=0)
