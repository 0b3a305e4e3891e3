"""The truth behind `make errors` is the truth, and its judgements say what they should.

`make errors` runs all problems; here are a few, and what is known of them by other means.
"""

import numpy as np
import pytest
from errors import answers, gradients, runs, table
from errors.extended import EPS, LONG, Factors, length, sigma
from errors.hard import KINDS, hard_task
from errors.judgement import judge_image, judged
from errors.problems import random_task
from errors.truth import EPS64, Zero, dense, zero_near

from refimpl.engine import make_step
from refimpl.equilibrium import hypergradient, reconstruct
from refimpl.paper import equations
from refimpl.paper.filters import total_variation
from refimpl.paper.loss import squared_loss, squared_loss_gradient
from refimpl.paper.operators import Identity, Mask
from refimpl.paper.parameters import pack, unpack
from refimpl.paper.potentials import POTENTIALS, make_potential
from refimpl.paper.problem import Problem

SEEDS = range(24)


def with_truth(seed):
    """A random task, its images as matrices, and the zeros from a good state, or None."""
    task = random_task(seed)
    images = [dense(task.problem, n) for n in range(len(task.problem.y))]
    start = task.problem.operator.adjoint(task.problem.y)
    zeros = [zero_near(d, u) for d, u in zip(images, start)]
    return task, images, zeros


@pytest.fixture(scope="module")
def well_conditioned():
    """A few random tasks whose truth is known, with J of condition below 1e4."""
    found = [with_truth(seed) for seed in SEEDS]
    found = [x for x in found if all(z.kind == "zero" and z.condition < 1e4 for z in x[2])]
    assert len(found) >= 6
    return found


@pytest.mark.parametrize("name", POTENTIALS)
def test_sigma_is_that_of_the_paper_in_every_digit_of_float64(name):
    z = np.concatenate([-np.geomspace(1e-8, 20, 60), [0.0], np.geomspace(1e-8, 20, 60)])
    potential = make_potential(name)
    found = sigma(potential, z.astype(LONG))
    for value, right in (
        (found.value, potential.derivative(z)), (found.slope, potential.second_derivative(z)),
    ):  # fmt: skip
        assert (abs(value - right) <= 100 * EPS64 * abs(right) + 1e-300).all()


def mpf(x):
    """A longdouble without loss; mpmath reads float64."""
    import mpmath

    head = float(x)
    return mpmath.mpf(head) + mpmath.mpf(float(x - LONG(head)))


def exact_sigma(potential):
    """σ in mpmath, for smooth potentials of which it is more than products."""
    import mpmath

    p = mpmath.mpf(potential.parameter)
    return {
        "log_cosh": lambda x: mpmath.tanh(p * x),
        "smoothed_l1": lambda x: x / mpmath.sqrt(x * x + p * p),
        "lorentzian": lambda x: 2 * x / (1 + x * x),
    }[potential.name]


@pytest.mark.parametrize("name", ["log_cosh", "smoothed_l1", "lorentzian"])
def test_sigma_and_its_slope_are_right_to_the_digits_of_longdouble(name):
    mpmath = pytest.importorskip("mpmath")
    exact = exact_sigma(make_potential(name))
    with mpmath.workdps(40):
        for x in (1e-6, 0.03, 0.4, 1.7, 9.0):
            found = sigma(make_potential(name), np.array([x], LONG))
            rest = exact(mpmath.mpf(x)) - mpf(found.saturated[0])
            for value, right in ((found.rest, rest), (found.slope, mpmath.diff(exact, x))):
                assert abs(mpf(value[0]) - right) <= 50 * EPS * abs(right), x


def test_direction_is_that_of_the_paper():
    for seed in SEEDS:
        task = random_task(seed)
        u = np.random.default_rng(seed).standard_normal(task.target.shape)
        right = equations.direction(task.problem, u)
        v = np.random.default_rng(seed + 1).standard_normal(u.shape)
        Jv = equations.field_jvp(task.problem, u, v)
        for n in range(len(u)):
            d, x = dense(task.problem, n), u[n].ravel().astype(LONG)
            sizes = d.term_sizes(x)[0]
            assert (abs(d.direction(x) - right[n].ravel()) <= 100 * EPS64 * sizes).all(), seed
            product = (d.jacobian(x) - d.KtK) @ v[n].ravel()
            assert length(product - Jv[n].ravel()) <= 1e-12 * (1 + length(Jv[n].ravel())), seed


def test_direction_vanishes_at_the_truth_to_the_digits_of_longdouble(well_conditioned):
    for task, images, zeros in well_conditioned:
        for d, zero in zip(images, zeros):
            assert zero.own < 1e-14, task.name
            bound = 20 * EPS * d.term_sizes(zero.u)[0]
            assert (abs(d.direction(zero.u)) <= bound).all(), task.name


def test_truth_agrees_with_refimpl_at_tight_tolerances(well_conditioned):
    compared = 0
    for task, images, zeros in well_conditioned:
        step = make_step(task.problem)
        state = reconstruct(step, method="newton_krylov", residual_tol=1e-16, max_iterations=60)
        far = [length(u.ravel() - z.u) / length(z.u) for u, z in zip(state.x, zeros)]
        if max(far) > 1e-2:  # another zero, or none found
            continue
        assert all(e <= 20 * z.rounding for e, z in zip(far, zeros)), task.name
        loss = squared_loss_gradient(state.x, task.target)
        found = hypergradient(step, state, loss, residual_tol=1e-14, allow_unconverged=True)
        right = gradients.hypergradient(task.problem, images, zeros, task.target)
        away = length(pack(found.gradient) - right.value) / length(right.value)
        assert away <= max(1e-9, 20 * right.rounding), task.name
        compared += 1
    assert compared >= 5


def test_true_hypergradient_is_the_difference_quotient_of_the_loss(well_conditioned):
    for task, images, zeros in well_conditioned[:6]:
        if not task.problem.potential.smooth:
            continue
        right = gradients.hypergradient(task.problem, images, zeros, task.target).value
        theta = task.problem.theta
        x = pack(theta)
        v = np.random.default_rng(0).standard_normal(x.shape) * np.maximum(abs(x), 0.1)
        h, losses = 1e-5, []
        for sign in (1, -1):
            moved = task.problem.with_theta(unpack(x + sign * h * v, theta))
            u = [zero_near(dense(moved, n), z.u.astype(float)).u for n, z in enumerate(zeros)]
            u = np.array(u).reshape(task.target.shape).astype(float)
            losses.append(squared_loss(u, task.target))
        quotient = (losses[0] - losses[1]) / (2 * h)
        assert abs(quotient - right @ v) <= 1e-5 * length(right) * length(v), task.name


def edge_problem(u):
    """Total variation of slope 100 on 8 × 8 pixels of which (3, 4) is missing."""
    shown = np.ones((8, 8), bool)
    shown[3, 4] = False
    K, u = Mask(shown, (1, 8, 8)), u[None, None].astype(float)
    return Problem(K, K.matvec(u), total_variation((8, 8), slope=100.0), 200.0)


def test_missing_pixel_on_an_exactly_symmetric_edge_is_a_half():
    i, j = np.indices((8, 8))
    problem = edge_problem((1 + np.sign(i + j - 7)) / 2)
    start = problem.y[0].copy()
    start[0, 3, 4] = 0.065
    zero = zero_near(dense(problem, 0), start)
    assert zero.kind == "zero" and zero.rounding > 1 and zero.condition > 1e30
    assert abs(zero.u.reshape(8, 8)[3, 4] - 0.5) < 1e-15


def test_zero_below_the_rounding_of_float64_is_one_in_eighty_digits():
    mpmath = pytest.importorskip("mpmath")
    i, j = np.indices((8, 8))
    problem = edge_problem(i + j >= 8)
    d = dense(problem, 0)
    zero = zero_near(d, problem.y[0])
    exact = exact_sigma(problem.potential)
    with mpmath.workdps(80):
        u, rows = [mpf(x) for x in zero.u], list(zip(*np.nonzero(d.A)))
        z = [mpmath.mpf(0)] * len(d.A)
        for k, n in rows:
            z[k] += mpf(d.A[k, n]) * u[n]
        s = [exact(x) for x in z]
        shown = np.diag(d.K).astype(float)
        G = [mpf(d.lam) * m * (x - mpf(y)) for m, x, y in zip(shown, u, d.y)]
        for k, n in rows:
            G[n] += mpf(d.gamma) * mpf(d.A[k, n]) * s[k]
        correction = [sum(mpf(a) * g for a, g in zip(row, G)) for row in zero.inverse]
        size = mpmath.sqrt(sum(x * x for x in correction))
    assert zero.condition > 1e30 and float(size) <= 10 * zero.own * length(zero.u)
    assert abs(zero.u.reshape(8, 8)[3, 4] - 0.5) < 2e-3


def test_no_zero_is_found_where_there_is_none():
    for seed in range(KINDS.index(_kind("untied_without_fixed_point")), 80, len(KINDS)):
        task = hard_task(seed)
        start = task.problem.operator.adjoint(task.problem.y)
        assert zero_near(dense(task.problem, 0), start[0]).kind == "none", seed


def test_line_of_zeros_is_open():
    for seed in range(KINDS.index(_kind("untied_with_singular_jacobian")), 40, len(KINDS)):
        task = hard_task(seed)
        start = task.problem.operator.adjoint(task.problem.y)
        assert zero_near(dense(task.problem, 0), start[0]).kind == "open", seed


def _kind(name):
    return next(kind for kind in KINDS if kind.__name__ == name)


def test_badly_scaled_system_is_solved_row_by_row():
    M = np.array([[1.0, 2.0], [1e-30, -1e-30]], LONG)
    x = Factors(M).solve(M @ np.array([3.0, 4.0], LONG))
    assert abs(x - [3, 4]).max() < 1e-17
    with pytest.raises(ZeroDivisionError):
        Factors(np.ones((2, 2), LONG))


def easy_task():
    """Denoising whose J is between 1 and 3."""
    u = np.random.default_rng(0).random((1, 1, 3, 4))
    field = total_variation((3, 4), slope=1.0)
    problem = Problem(Identity((1, 3, 4)), u + 0.1, field, 10.0)
    return replace_task(random_task(0), problem, u)


def replace_task(task, problem, u):
    return task._replace(
        problem=problem, target=u, method="auto", tol=1e-6, residual_tol=None, max_iterations=None
    )


KIND_AND_FACTOR = [("proved", 0.5), ("estimated", 0.5), ("estimated", 10.0)]


@pytest.mark.parametrize("off", [1e-12, 1e-4])
@pytest.mark.parametrize("converged", [True, False])
@pytest.mark.parametrize(("kind", "factor"), KIND_AND_FACTOR)
def test_judgement_of_a_planted_answer(off, converged, kind, factor):
    task = easy_task()
    d = dense(task.problem, 0)
    zero = zero_near(d, task.target[0])
    u = (zero.u * (1 + off)).astype(float)
    j = judge_image(task, answers.Answer(u, converged, factor * off, kind), d, zero)
    assert abs(j.truth / off - 1) < 1e-2 and j.regular and j.near
    assert j.wrong == (converged and off > 1e-6)
    assert j.given_up == (not converged)
    assert j.compared and abs(j.ratio / factor - 1) < 1e-2
    assert j.too_small == (kind != "estimated")


def test_convergence_without_a_zero_is_wrong_and_to_an_open_one_is_said():
    task = easy_task()
    d, answer = dense(task.problem, 0), answers.Answer(task.target[0], True)
    assert judge_image(task, answer, d, Zero("none", d.y)).wrong
    j = judge_image(task, answer, d, Zero("open", d.y))
    assert j.open and not j.wrong


def test_table_counts_what_misses_the_goals(capsys):
    task = easy_task()
    d = dense(task.problem, 0)
    zero = zero_near(d, task.target[0])
    exact = zero.u.astype(float)
    stated = answers.Answer(exact * (1 + 1e-8), True, 1e-8, "estimated")
    right = judge_image(task, stated, d, zero)
    assert table.report("right", [right] * 100) == 0
    assert "100.0 %" in capsys.readouterr().out
    bad = [
        right._replace(error=1e-6), right._replace(truth=1.0, stated="unknown"),
        right._replace(converged=False), right._replace(zero="open"),
        right._replace(crashes=("ValueError: x",)), right._replace(stated="proved", error=1e-9),
    ]  # fmt: skip
    for j in bad:
        assert table.report("bad", [*[right] * 20, j]) == 1, j
    assert "crashed" in capsys.readouterr().out


def test_judgements_of_a_seed_are_the_same_again():
    for name in runs.SETS:
        first, second = (runs.judged_seed((name, 3)) for _ in range(2))
        # repr, because NaN is not equal to itself.
        assert repr(first) == repr(second) and first


def test_small_sets_are_judged(capsys):
    found = [j for seed in range(12) for j in judged(random_task(seed))]
    found += [j for seed in range(len(KINDS)) for j in judged(hard_task(seed))]
    assert len({j.kind for j in found}) > len(KINDS)
    table.report("small", found)
    assert "20 problems" in capsys.readouterr().out


def test_tolerances_have_the_names_of_either_version(monkeypatch):
    monkeypatch.setattr(answers, "takes_errors", lambda: False)
    assert answers.tolerances(1e-4, None) == {"tol": 1e-4}
    assert answers.tolerances(1e-4, 1e-9) == {"tol": 1e-9}
    monkeypatch.setattr(answers, "takes_errors", lambda: True)
    assert answers.tolerances(1e-4, None) == {"tol": 1e-4}
    assert answers.tolerances(1e-4, 1e-9) == {"residual_tol": 1e-9, "error": "estimate"}
