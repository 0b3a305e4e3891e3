"""The rivals of `make bench` solve the same problem: states and hypergradients of refimpl.

Two images of 14 × 12 pixels and five filters. Times are never asserted.
"""

import json
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from figures import draw
from figures.benchmarks import __main__ as main
from figures.benchmarks import dense, iteration, problems, report, scaling, single, tasks, timing
from figures.benchmarks.jax_products import PRODUCTS
from figures.benchmarks.plain import plain
from figures.benchmarks.problems import LAM, TAU
from figures.benchmarks.torch_model import FORMS, TorchModel
from figures.benchmarks.torch_solvers import plain_hypergradient
from figures.benchmarks.variants import make_jax, make_refimpl, make_scipy, make_torch, variants
from figures.scripts import benchmark as script
from refimpl.paper.parameters import make_parameters
from refimpl.results import NotConvergedError

SIZE, IMAGES = (14, 12), 2
# A residual r of the state leaves an error of at most r / (τ μ), μ ≥ λ when nothing is missing; for
# blur and mask the smallest eigenvalue is that of the prior on what K hides.
TOL, BOUND = 1e-11, 1e-6
TASKS = [("denoising", True), ("deblurring", True), ("inpainting", True)]
UNTIED = [("denoising", False), ("deblurring", False)]


@pytest.fixture(autouse=True, scope="module")
def double_precision_on_one_thread():
    before = jax.config.jax_enable_x64, torch.get_num_threads()
    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)
    yield
    jax.config.update("jax_enable_x64", before[0])
    torch.set_num_threads(before[1])


def filters(tied=True):
    """Total variation and three weak random filters."""
    rng = np.random.default_rng(1)
    A = 0.05 * rng.standard_normal((5, 1, 3, 3))
    A[0, 0, 1:, 1] = A[1, 0, 1, 1:] = (-0.9, 0.9)
    return make_parameters(A, None if tied else A + 0.02 * rng.standard_normal(A.shape))


@cache
def reference():
    """That of the tied denoising problem."""
    return problems.solve_reference(problem())


def problem(task="denoising", tied=True):
    return problems.make_problem(task, filters(tied), size=SIZE, images=IMAGES)


def error(solve, task, tied):
    """Relative distances of state and hypergradient to refimpl's."""
    ours, found = make_refimpl(problem(task, tied))(1e-12), solve(problem(task, tied))(TOL)
    return (
        problems.distance(found.state, ours.state),
        problems.distance(found.gradient, ours.gradient),
    )


@pytest.mark.parametrize(
    ("task", "tied", "product"),
    [
        *(("denoising", tied, product) for tied in (True, False) for product in PRODUCTS),
        ("deblurring", True, "stencil"),
        ("deblurring", False, "shifts"),
        ("inpainting", True, "stencil"),
    ],
)
def test_jax_finds_the_hypergradient_of_refimpl(task, tied, product):
    assert max(error(partial(make_jax, product=product), task, tied)) < BOUND


@pytest.mark.parametrize(
    ("task", "tied", "form"),
    [*(("denoising", True, form) for form in FORMS), *((*row, FORMS[0]) for row in TASKS + UNTIED)],
)
def test_torch_newton_finds_the_hypergradient_of_refimpl(task, tied, form):
    assert max(error(partial(make_torch, method="newton", form=form), task, tied)) < BOUND


@pytest.mark.parametrize(("task", "tied"), TASKS + UNTIED)
def test_torch_anderson_finds_the_hypergradient_of_refimpl(task, tied):
    assert max(error(partial(make_torch, method="anderson"), task, tied)) < BOUND


@pytest.mark.parametrize(("task", "tied"), TASKS)
def test_torch_lbfgs_and_scipy_find_the_hypergradient_of_refimpl(task, tied):
    for solve in (partial(make_torch, method="lbfgs"), make_scipy):
        ours, found = make_refimpl(problem(task))(1e-12), solve(problem(task))(1e-8)
        # Energies are compared, so half of the digits of a state are lost to rounding.
        assert problems.distance(found.gradient, ours.gradient) < 1e-3


@pytest.mark.parametrize("tied", [True, False])
def test_torch_plain_iteration_finds_the_hypergradient_of_refimpl(tied):
    chosen = problem("denoising", tied)
    ours = make_refimpl(chosen)(1e-12)
    found = plain_hypergradient(TorchModel(plain(chosen.step, chosen.truth)), 500, 600)
    # Both parts shrink by a factor of at most 1 − τ λ in each iteration.
    assert problems.distance(found.gradient, ours.gradient) < 1e2 * (1 - TAU * LAM) ** 500


def test_plain_refuses_what_rivals_do_not_know():
    chosen = problem()
    theta = make_parameters(filters().A, gamma=2.0)
    other = problems.make_problem("denoising", theta, size=SIZE, images=IMAGES)
    assert plain(chosen.step, chosen.truth).tied
    with pytest.raises(ValueError, match="weights and gamma 1"):
        plain(other.step, other.truth)


def test_reference_agrees_with_the_second_method_and_is_read_from_the_cache(tmp_path, monkeypatch):
    first = problems.find_reference(problem(), tmp_path)
    assert first.state_distance < 1e-9 and first.gradient_distance < 1e-9
    monkeypatch.setattr(problems, "solve_reference", None)
    again = problems.find_reference(problem(), tmp_path)
    assert np.array_equal(first.gradient, again.gradient) and first[2:] == again[2:]
    with pytest.raises(TypeError):
        problems.find_reference(problem("inpainting"), tmp_path)


def test_few_images_are_the_first_ones():
    few = problem().few(1)
    assert len(few.truth) == len(few.step.problem.y) == 1
    assert np.array_equal(few.step.problem.y, problem().step.problem.y[:1])


def test_counted_iterations_reach_the_target():
    chosen = problem()
    counts = iteration.count_evaluations(chosen, reference(), (1e-3, 1e-5), budget=60)
    assert not any(row["estimated"] for part in counts.values() for row in part.values())
    row = {
        "evaluations": counts["state"][1e-5]["count"],
        "adjoint_products": counts["adjoint"][1e-5]["count"],
        "precision": "float64",
    }
    assert iteration.reached(chosen, reference(), row) <= 1e-5
    assert iteration.reached(chosen, reference(), row | {"adjoint_products": 1}) > 1e-5


def test_counts_beyond_the_budget_follow_the_line_of_the_logarithms():
    errors = [(10, 1e-1), (20, 1e-2)]
    assert iteration.crossing(errors, 1e-4) == {"count": 40, "estimated": True}
    assert iteration.crossing(errors, 10**-1.5) == {"count": 15, "estimated": False}
    assert iteration.crossing([(10, 1e-2), (20, 2e-2)], 1e-4)["count"] is None


def test_loosest_tolerance_that_reaches_the_target_is_chosen():
    chosen = problem()
    solve = make_refimpl(chosen)
    row, _ = tasks.fit(solve, reference(), 1e-4, first=1e-5)
    assert row["gradient_error"] <= 1e-4
    looser = solve(row["tolerance"] / tasks.TIGHTEN)
    first = row["tolerance"] == 1e-5
    assert first or problems.distance(looser.gradient, reference().gradient) > 1e-4
    with pytest.raises(NotConvergedError):
        tasks.fit(lambda tol: solve(1e-2), reference(), 1e-6, first=1e-6)


def test_rows_of_a_task_hold_ratios_and_counts_and_failures():
    chosen = problem()
    made = tasks.Made((chosen, chosen), (reference(), reference()))

    def broken(_):
        def solve(tol):
            if tol < 1e-3:
                raise NotConvergedError("no")
        return solve

    listed = (variants("conv2d", "shifts")[0], tasks.Variant("broken", broken))
    rows = tasks.compare(listed, made, 1e-3, lambda text: None)
    assert rows["broken"] == {"failed": "no"}
    assert rows["refimpl"]["ratio"] == 1 and rows["refimpl"]["products"] > 0
    paper = {"seconds": 2 * rows["refimpl"]["seconds"]}
    tasks.add_ratio(paper, rows)
    assert paper["ratio"] == pytest.approx(2)


def test_ratio_is_the_median_over_common_rounds():
    assert timing.ratio([2.0, 9.0, 4.0], [1.0, 3.0]) == 2.5
    calls = []
    rounds = timing.interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, {"a": 3, "b": 1}
    )
    assert calls == ["a", "b", "a", "a"] and len(rounds["a"]) == 3


@pytest.mark.parametrize("shape", single.FILTERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_gradients_are_those_of_refimpl(shape, dtype):
    calls = single.gradient_calls(problem().truth, shape, dtype)
    ours = calls.pop("refimpl")()
    for call in calls.values():
        assert problems.distance(call(), ours) < 100 * np.finfo(dtype).eps * shape[1] ** 2


def test_products_and_fractions_have_a_row_for_every_form():
    found = single.compare_products(problem(), 1)
    assert {f"torch {form}" for form in FORMS} <= set(found["seconds"])
    assert found["shortest_seconds"] == found["seconds"]["refimpl"]  # of one round
    gradients = {"30x3x3 float64": {"shortest_seconds": 0.5}}
    shares = single.fractions(gradients, {"gflops_float64": 100.0}, 10**9)
    assert shares["30x3x3 float64"]["gflops_filters"] == pytest.approx(36 * 30 * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dense_anderson_finds_the_hypergradient_of_refimpl(dtype):
    chosen = dense.make_problem(2)
    goal = dense.reference(chosen)
    assert max(goal[2:]) < 1e-9
    found = dense.solve_torch(chosen, dtype, 1e-10, 1e3 * torch.finfo(dtype).eps)
    assert problems.distance(found.state, goal.state) < 1e6 * torch.finfo(dtype).eps


def test_mosaic_begins_with_its_first_tile_and_filters_keep_their_size():
    base = np.random.default_rng(0).uniform(size=(3, 1, 4, 5))
    image = scaling.mosaic(base, np.array([[[0, 1], [2, 0]]]))
    assert image.shape == (1, 1, 8, 10)
    assert np.array_equal(image[0, 0, :4, :5], base[0, 0])
    assert np.array_equal(image[0, 0, 4:, :5], base[2, 0])
    A = filters().A
    twice = scaling.make_problem(scaling.Point(16, 10, 1), A).step.problem.theta.A
    assert np.sum(twice**2) == pytest.approx(np.sum(A**2))


def test_scaling_leaves_out_what_does_not_fit(monkeypatch):
    monkeypatch.setattr(scaling, "measure", lambda point, A: {"hypergradient_seconds": 1.0})
    points = [scaling.Point(size, 1, 1) for size in (8, 16, 64)]
    said = []
    assert len(scaling.along(points, None, 10.0, said.append)) == 2
    assert "left out" in said[-1]


RESULTS = {
    "tasks": {
        "denoising": {
            "cross_check": [1e-12, 1e-11],
            "targets": {
                "1e-06": {
                    "refimpl": {"seconds": 1.0, "ratio": 1.0, "images": 10},
                    "torch plain iteration": {
                        "seconds": 90.0, "ratio": 90.0, "extrapolated": True,
                        "precision": "float64",
                    },
                    "torch newton": {"seconds": 30.0, "ratio": 30.0},
                    "torch lbfgs": {"seconds": 12.0, "ratio": 12.0, "scaled": True, "images": 2},
                    "scipy": {"failed": "no"},
                }
            },
        }
    },
    "scaling": {
        "size": [
            {"size": n, "filters": 30, "batch": 1, "gradient_seconds": n / 1e4,
             "hypergradient_seconds": n / 1e2, "gradient_nanoseconds_per_pixel": 1.0}
            for n in (64, 128)
        ]
    },
}  # fmt: skip


def test_targets_take_the_best_torch_and_say_what_was_not_measured():
    rows = report.target_rows(RESULTS)
    verdicts = {(row["against"], row["work"]): row["verdict"] for row in rows}
    what = "denoising, error 1e-06"
    assert verdicts["torch plain iteration", what] == "missed"
    assert verdicts["torch, best (torch lbfgs)", what] == "reached"
    assert verdicts["jax stencil", what] == "not measured"
    assert len(report.target_rows({})) == len(rows)


def test_report_marks_extrapolated_and_scaled_times():
    said = []
    report.print_results(RESULTS, said.append)
    text = "\n".join(said)
    assert "extrapolated, float64" in text and "timed on 2 images" in text


def test_figure_is_drawn_from_what_is_saved_and_skipped_without(tmp_path, monkeypatch):
    said = []
    assert draw.draw_all(tmp_path, ["benchmark"], said.append) == 0
    assert "skipped benchmark" in said[0]
    (tmp_path / "benchmark.json").write_text(json.dumps(RESULTS))
    saved = []
    monkeypatch.setattr(script, "save", lambda figure, folder, name: saved.append(name))
    script.draw(tmp_path)
    assert saved == ["benchmark"]


def test_every_section_is_a_method():
    assert all(callable(getattr(main.Bench, section)) for section in main.SECTIONS)
    assert main.parse(["--quick", "--only", "dense"]).only == ["dense"]


def test_peak_memory_is_that_of_the_process_and_not_of_its_parent():
    child = "from figures.benchmarks.processes import *; x = 'x' * 2**25; print(peak_resident())"
    parent = "import subprocess as s, sys; x = 'x' * 2**28; s.run([sys.executable, *sys.argv[1:]])"
    command, root = [sys.executable, "-c", parent, "-c", child], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert 32 < float(done.stdout) < 200
