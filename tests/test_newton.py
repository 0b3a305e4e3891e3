"""Newton's methods on energies with steep, flat and concave parts."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
from newton_problem import PARTS, SHAPE, Model, lorentzian

from refimpl.kernels.vectors import norm
from refimpl.paper.potentials import LogCosh, Quadratic
from refimpl.results import BreakdownError
from refimpl.solvers import nesterov, newton, newton_krylov

EPS = np.finfo(float).eps


def minimise(model, **options):
    return newton(model.linearize, model.m * model.y, step=model.step, **options)


def solve(model, **options):
    return newton_krylov(model.linearize, model.m * model.y, step=model.step, **options)


PROBLEMS = {
    "quadratic": dict(phi=Quadratic()),
    "log_cosh": dict(phi=LogCosh(100.0)),
    "log_cosh with missing pixels": dict(phi=LogCosh(100.0), observed=0.5),
    "soft log_cosh with missing pixels": dict(phi=LogCosh(10.0), observed=0.8),
    "lorentzian": dict(phi=lorentzian()),
    "lorentzian with missing pixels": dict(phi=lorentzian(), observed=0.5, lam=5.0),
}


def with_energy(model, change):
    """`model.linearize` with another energy."""

    def linearize(u):
        lin = model.linearize(u)
        lin.energy = change(lin.energy)
        return lin

    return linearize


def relative_residual(model, x):
    """r of the docstring, by the same operations in the same order."""
    return norm(model.step * model.direction(x)) / np.maximum(norm(x), norm(model.m * model.y))


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradient_vanishes_to_rounding(name):
    model = Model(**PROBLEMS[name])
    # Each entry of τ ∇E(u) sums PARTS products of size at most |u|, each rounded a few times.
    rounding = 5 * np.sqrt(PARTS) * EPS
    result = minimise(model, tol=rounding)
    assert result.all_converged
    assert np.array_equal(relative_residual(model, result.x), result.residuals)


@pytest.mark.parametrize("name", PROBLEMS)
def test_stationary_point_is_a_minimum(name):
    model = Model(**PROBLEMS[name], images=1)
    result = minimise(model, tol=1e-12)
    assert result.all_converged and np.linalg.eigvalsh(model.hessian(result.x))[0] > 0


@pytest.mark.parametrize("name", PROBLEMS)
def test_energy_never_increases(name):
    model, energies = Model(**PROBLEMS[name]), []
    minimise(model, tol=1e-13, callback=lambda k, u, r: energies.append(model.energy(u)))
    rounding = np.sqrt(PARTS) * EPS * np.abs(energies[0])
    assert len(energies) > 1 and (np.diff(energies, axis=0) <= rounding).all()


def test_convex_minimum_is_that_of_nesterov_and_scipy():
    model = Model(LogCosh(100.0), images=1)
    ours = minimise(model, tol=1e-12)
    first_order = nesterov(model.gradient, model.m * model.y, step=model.step, tol=1e-9)
    flat = [lambda x, f=f: f(x.reshape(1, *SHAPE)).ravel() for f in (model.energy, model.gradient)]
    trust_region = scipy.optimize.minimize(
        lambda x: flat[0](x)[0], np.zeros(60), method="trust-exact", jac=flat[1],
        hess=lambda x: model.hessian(x.reshape(1, *SHAPE)), options={"gtol": 1e-8},
    )  # fmt: skip
    # ‖u − u*‖ ≤ ‖∇E(u)‖ / λ: the data term makes E strongly convex.
    bound = (1e-12 + 1e-9) / (model.step * model.lam) * norm(model.y)[0]
    assert ours.all_converged and norm(ours.x - first_order.x)[0] <= 1.01 * bound
    assert np.linalg.norm(ours.x.ravel() - trust_region.x) <= 1.01e-8 / model.lam
    assert ours.products < first_order.evaluations


def test_quadratic_takes_few_steps_and_gives_the_dense_solution():
    model = Model(Quadratic(), images=1)
    result = minimise(model, tol=1e-13)
    exact = np.linalg.solve(model.hessian(result.x), (model.lam * model.m * model.y).ravel())
    assert result.iterations[0] <= 10
    np.testing.assert_allclose(result.x.ravel(), exact, rtol=1e-9)


def test_convergence_is_superlinear_at_the_end():
    history = minimise(Model(LogCosh(1.0), images=1), tol=1e-13).history[:, 0]
    logs = np.log(history[-4:-1])
    # The forcing √(‖g‖/‖g0‖) gives order 1.5.
    assert logs[2] / logs[1] >= 1.2 and history[-1] <= 1e-13


def test_negative_curvature_at_the_start_is_left_downhill():
    # E(u) = (u² − 1)²/4 for each pixel, started on the concave hill.
    def linearize(u):
        energy = ((u**2 - 1) ** 2 / 4).sum(axis=1)
        return SimpleNamespace(energy=energy, gradient=u**3 - u, hvp=lambda v: (3 * u**2 - 1) * v)

    u0 = np.array([[1e-3, -0.2, 0.5], [1e-8, 1e-8, 1e-8]])
    result = newton(linearize, u0, step=0.5, tol=1e-14)
    assert result.all_converged
    np.testing.assert_allclose(np.abs(result.x), 1, rtol=1e-13)


def test_line_search_does_not_blow_up_on_a_flat_energy():
    # √(1 + u²): the full Newton step from |u| > 1 overshoots and diverges.
    def linearize(u):
        root = np.sqrt(1 + u**2)
        return SimpleNamespace(
            energy=root.sum(axis=1), gradient=u / root, hvp=lambda v: v / root**3
        )

    u0, sizes = np.array([[50.0], [1.5]]), []
    result = newton(
        linearize,
        u0,
        step=1.0,
        tol=1e-12,
        callback=lambda k, u, r: sizes.append(np.abs(u).max()),
    )
    assert result.all_converged and max(sizes) <= 50 and np.abs(result.x).max() <= 1e-9


def test_preconditioner_saves_products_and_keeps_the_minimum():
    scale = np.geomspace(1, 1e4, 50)

    def linearize(u):
        return SimpleNamespace(
            energy=(scale * (np.cosh(u - 1) - 1)).sum(axis=1),
            gradient=scale * np.sinh(u - 1),
            hvp=lambda v: scale * np.cosh(u - 1) * v,
            u=u,
        )

    def jacobi(lin):
        return lambda r: r / (scale * np.cosh(lin.u - 1))

    u0, options = np.zeros((1, 50)), {"step": 1e-5, "tol": 1e-13}
    plain = newton(linearize, u0, **options)
    better = newton(linearize, u0, preconditioner=jacobi, **options)
    assert better.all_converged and better.products < plain.products / 3
    np.testing.assert_allclose(better.x, 1, rtol=1e-8)


@pytest.mark.parametrize(
    "name, asymmetry",
    [("quadratic", 0.3), ("log_cosh", 0.3), ("soft log_cosh with missing pixels", 0.1)],
)
def test_newton_krylov_finds_the_zero_of_the_direction(name, asymmetry):
    model = Model(**PROBLEMS[name], asymmetry=asymmetry)
    result = solve(model, tol=1e-7)
    exact = relative_residual(model, result.x)
    assert result.all_converged and np.array_equal(exact, result.residuals)


def test_both_newton_methods_agree_on_a_convex_energy():
    model = Model(LogCosh(100.0))
    first, second = minimise(model, tol=1e-12), solve(model, tol=1e-12)
    bound = 2e-12 / (model.step * model.lam) * norm(model.y)
    assert (norm(first.x - second.x) <= 1.01 * bound).all()


def test_newton_krylov_agrees_with_scipy_root():
    model = Model(LogCosh(5.0), images=1, asymmetry=0.3)
    ours = solve(model, tol=1e-12)
    theirs = scipy.optimize.root(
        lambda x: model.direction(x.reshape(1, *SHAPE)).ravel(), np.zeros(60), tol=1e-13
    )
    np.testing.assert_allclose(ours.x.ravel(), theirs.x, rtol=1e-7)


def test_newton_krylov_norm_never_increases():
    model, sizes = Model(LogCosh(100.0), asymmetry=0.3), []
    solve(model, callback=lambda k, u, r: sizes.append(norm(model.direction(u))))
    assert (np.diff(sizes, axis=0) <= 0).all()


@pytest.mark.parametrize("asymmetry, solver", [(0.0, newton), (0.3, newton_krylov)])
def test_directions_in_float32_lead_to_the_float64_answer(asymmetry, solver):
    model, single = (
        Model(LogCosh(100.0), asymmetry=asymmetry, dtype=d) for d in (np.float64, np.float32)
    )

    dtypes = set()

    def linearize(u):
        lin = model.linearize(u)
        lin.rough = single.linearize(u.astype(np.float32))
        return lin

    def safeguard(lin, previous):
        product = lin.rough.hvp

        def recorded(v):
            dtypes.add(v.dtype)
            return product(v)

        lin.rough.hvp = lin.rough.direction_jvp = recorded
        return lin.rough

    result = solver(
        linearize, model.m * model.y, step=model.step, tol=1e-12,
        safeguard=safeguard, precision=np.float32,
    )
    assert dtypes == {np.dtype(np.float32)}
    assert result.all_converged and result.x.dtype == np.float64
    assert np.array_equal(relative_residual(model, result.x), result.residuals)


@pytest.mark.parametrize("method", [minimise, solve])
def test_result_does_not_depend_on_the_batch(method):
    model = Model(LogCosh(100.0), images=3)
    together = method(model, tol=1e-11)
    assert together.all_converged and len(set(together.iterations)) > 1
    for n in range(3):
        alone = method(model.image(n), tol=1e-11)
        assert np.array_equal(alone.x[0], together.x[n])
        assert alone.iterations[0] == together.iterations[n]
        assert np.array_equal(alone.history[:, 0], together.history[: len(alone.history), n])


def test_counts_are_those_of_the_calls_and_no_point_is_tried_twice():
    model, tried, calls = Model(LogCosh(100.0)), [], {"hvp": 0}

    def linearize(u):
        tried.append(u.tobytes())
        lin = model.linearize(u)

        def hvp(v):
            calls["hvp"] += 1
            return lin.hvp(v)

        return SimpleNamespace(energy=lin.energy, gradient=lin.gradient, hvp=hvp)

    result = newton(linearize, model.y, step=model.step)
    assert result.evaluations == len(tried) == len(set(tried))
    assert result.products == calls["hvp"]


def test_of_a_point_rejected_for_its_energy_hessian_and_gradient_are_not_asked_for():
    """−log u + u from 30: the full step lands at u < 0, where the energy is NaN."""

    class Point:
        def __init__(self, u):
            self.u, self.energy = u, (u - np.log(u)).sum(axis=1)

        @property
        def gradient(self):
            assert (self.u > 0).all()
            return 1 - 1 / self.u

        def hvp(self, v):
            return v / self.u**2

    result = newton(Point, np.array([[30.0]]), step=1.0, tol=1e-14)
    assert result.all_converged and result.x[0, 0] == pytest.approx(1, rel=1e-13)
    assert result.evaluations > result.iterations[0] + 1


@pytest.mark.parametrize("method", [minimise, solve])
def test_tolerance_below_rounding_ends_and_says_so(method):
    result = method(Model(LogCosh(100.0)), tol=1e-30, max_iterations=10_000)
    assert not result.all_converged and result.iterations.max() < 200
    assert "rounding errors of float64" in result.message


def test_gradient_of_another_energy_stalls_and_is_reported():
    model = Model(Quadratic())
    wrong = newton(with_energy(model, np.negative), model.y, step=model.step)
    assert not wrong.converged.any() and "no further step lowers the residual" in wrong.message
    assert np.array_equal(wrong.x, model.y) and not wrong.iterations.any()


def test_nan_at_the_start_raises():
    model = Model(Quadratic())
    with pytest.raises(BreakdownError, match="newton: iteration 0: energy of image 0 is nan"):
        newton(with_energy(model, lambda E: np.full(2, np.nan)), model.y, step=1.0)
    with pytest.raises(
        BreakdownError, match="newton_krylov: iteration 0: residual norm of image 0 is nan"
    ):
        newton_krylov(
            lambda u: SimpleNamespace(direction=u * np.nan, direction_jvp=None),
            model.y,
            step=1.0,
        )


def test_wrong_shapes_are_refused():
    model = Model(Quadratic())
    with pytest.raises(ValueError, match=r"energy has shape \(\), expected \(2,\)"):
        newton(with_energy(model, np.sum), model.y, step=1.0)
    with pytest.raises(ValueError, match="gradient: returned shape"):
        newton(
            lambda u: SimpleNamespace(energy=model.energy(u), gradient=u[:1]), model.y, step=1.0
        )
    with pytest.raises(ValueError, match="restart"):
        solve(model, restart=0)
