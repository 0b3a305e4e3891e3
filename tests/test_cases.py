"""Portable cases: every output against autodiff with dense solves, and what a report says."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from backend_problem import oracle_outputs
from case_factory import POTENTIALS, make_case

from refimpl import cli
from refimpl.verification.cases import CaseError, evaluate, read_case, write_case
from strategies import BOUNDARIES

# torch compiles parts of itself with an interface that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

TOLERANCE = 1e-9  # relative, norm-wise: what the exchange format promises
# Estimates carry random residuals of the size of rounding; true errors are below them but for
# a small factor, here that of the largest of a few hundred draws.
ESTIMATE_FACTOR = 20
OPERATORS = ("identity", "mask", "convolution", "matrix")
CASES = list(itertools.product(range(7), range(5), ("convolution", "dense"), ("tied", "untied")))


def chosen_case(potential, boundary, analysis, tied):
    """A case; operator, channels and optional arrays cycle so that all pairs occur."""
    dense = analysis == "dense"
    return make_case(
        list(POTENTIALS)[potential],
        boundary=BOUNDARIES[boundary],
        analysis=analysis,
        tied=tied == "tied",
        operator=OPERATORS[(potential + boundary) % 4],
        channels=(1, 3)[(boundary // 2 + dense) % 2],
        optional=(potential + 2 * boundary + dense) % 3 > 0,
        seed=potential + 7 * boundary,
    )


def describe(potential, boundary, analysis, tied):
    return f"{list(POTENTIALS)[potential]}-{BOUNDARIES[boundary]}-{analysis}-{tied}"


def relative_errors(given, expected):
    """‖x − expected‖ / ‖expected‖ of every output; names and shapes must be the same."""
    assert {k: x.shape for k, x in given.items()} == {k: x.shape for k, x in expected.items()}
    return {k: np.linalg.norm(given[k] - x) / np.linalg.norm(x) for k, x in expected.items()}


def load(path):
    with np.load(path) as data:
        return dict(data)


@pytest.mark.parametrize("choice", CASES, ids=lambda choice: describe(*choice))
def test_every_output_equals_autodiff_with_dense_solves(choice, tmp_path):
    case = chosen_case(*choice)
    write_case(tmp_path, case)
    assert cli.main(["oracle", str(tmp_path)]) == 0
    errors = relative_errors(load(tmp_path / "outputs.npz"), oracle_outputs(case))
    assert max(errors.values()) <= TOLERANCE, errors
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["converged"]
    check_accuracy(report, errors)


def check_accuracy(report, errors):
    """Errors are within the bounds and the estimates of the report."""
    for name, entry in report["accuracy"].items():
        error = errors[name] * entry["norm"]
        assert entry["bound"] is None or error <= entry["bound"], (name, error, entry)
        assert error <= ESTIMATE_FACTOR * entry["estimate"], (name, error, entry)


def test_oracle_notices_flipped_filters_and_a_batch_size_too_many():
    case = make_case("quadratic")
    expected = oracle_outputs(case)
    flipped = case.arrays | {"A": case.arrays["A"][..., ::-1, ::-1].copy()}
    errors = relative_errors(evaluate(replace(case, arrays=flipped)).outputs, expected)
    assert min(errors[k] for k in ("map", "vjp_A", "fixed_point", "hypergradient_A")) > 1e-3
    doubled = evaluate(case).outputs["hypergradient_A"] * len(case.arrays["u"])
    assert relative_errors({"x": doubled}, {"x": expected["hypergradient_A"]})["x"] > 0.5


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("tied", [True, False])
def test_normalised_case_equals_autodiff_through_the_norm_of_a_matrix(boundary, tied):
    analysis = "dense" if boundary == "zero" else "convolution"
    settings = {"norm": 0.8, "tied": tied, "boundary": boundary, "analysis": analysis}
    case = make_case("log_cosh", operator="convolution", channels=2, **settings)
    result = evaluate(case)
    errors = relative_errors(result.outputs, oracle_outputs(case))
    assert max(errors.values()) <= TOLERANCE, errors
    check_accuracy(result.report, errors)


def test_a_normalised_case_has_estimates_for_no_iteration_proves_a_norm():
    accuracy = evaluate(make_case("log_cosh", norm=0.8)).report["accuracy"]
    assert len(accuracy) == 5
    for entry in accuracy.values():
        assert entry["bound"] is None and "proves no norm" in entry["no_bound"]
        assert entry["estimate"] < 1e-11 * entry["norm"]


def test_normalised_case_does_not_depend_on_the_size_of_its_filters():
    case = make_case("huber", norm=2.0)
    doubled = replace(case, arrays=case.arrays | {"A": 2 * case.arrays["A"]})
    given, expected = evaluate(doubled).outputs, evaluate(case).outputs
    # Exact, since 2 is a power of two; a gradient along A vanishes, another one is halved.
    assert np.array_equal(given["fixed_point"], expected["fixed_point"])
    assert np.array_equal(2 * given["hypergradient_A"], expected["hypergradient_A"])
    along = np.vdot(expected["hypergradient_A"], case.arrays["A"])
    sizes = [np.linalg.norm(x) for x in (expected["hypergradient_A"], case.arrays["A"])]
    assert abs(along) <= 1e-12 * np.prod(sizes)


def test_frozen_norm_fails_the_comparison_with_autodiff():
    from refimpl.verification.cases.case import build_model, raw_parameters

    case = make_case("log_cosh", norm=0.8)
    model, theta = build_model(case), raw_parameters(case)
    model.parametrisation.filters.derivative = "frozen"
    lin = model.step(theta, case.arrays["y"]).linearize(case.arrays["u"])
    frozen = model.pull_back(theta, lin.params_vjp(case.arrays["w"])).A
    exact = oracle_outputs(case)["vjp_A"]
    assert np.linalg.norm(frozen - exact) > 0.01 * np.linalg.norm(exact)


def test_filters_that_are_zero_have_no_norm_to_divide_by():
    case = make_case("log_cosh")
    zero = case.arrays | {"A": np.zeros_like(case.arrays["A"])}
    with pytest.raises(CaseError, match="operator is zero"):
        replace(case, norm=1.0, arrays=zero)


HARD = {
    "steep tanh, blur": {
        "potential": "log_cosh",
        "potential_parameters": {"slope": 100.0},
        "operator": "convolution",
        "lam": 18.156,
        "tau": 1 / 800,
    },
    "nearly total variation": {
        "potential": "smoothed_l1",
        "potential_parameters": {"nu": 1e-3},
        "operator": "mask",
    },
    "filters larger than the image": {
        "potential": "log_cosh",
        "size": (2, 3),
        "filter_size": (7, 5),
        "boundary": "reflect",
    },
    "one pixel": {"potential": "huber", "size": (1, 1), "boundary": "symmetric"},
    "weak data term": {"potential": "log_cosh", "lam": 1e-3, "tau": 1e3},
    "tiny step": {"potential": "soft_shrinkage", "tau": 1e-9, "tied": False},
}


@pytest.mark.parametrize("name", HARD)
def test_hard_cases_keep_the_accuracy(name):
    settings = dict(HARD[name])
    case = make_case(settings.pop("potential"), **settings)
    result = evaluate(case)
    errors = relative_errors(result.outputs, oracle_outputs(case))
    assert max(errors.values()) <= TOLERANCE, errors
    check_accuracy(result.report, errors)


def test_certified_case_has_finite_bounds_and_says_so():
    report = evaluate(make_case("log_cosh")).report
    assert all(entry["bound"] < 1e-9 * entry["norm"] for entry in report["accuracy"].values())
    assert not any("no_bound" in entry for entry in report["accuracy"].values())


def test_uncertified_case_has_estimates_and_the_reason():
    report = evaluate(make_case("log_cosh", operator="mask", seed=2)).report
    for entry in report["accuracy"].values():
        assert entry["bound"] is None and "monotonicity" in entry["no_bound"]
        assert entry["estimate"] < 1e-11 * entry["norm"]


def test_bounds_of_kinked_potentials_need_a_distance_to_the_kinks():
    case = make_case("half_squared_relu", size=(3, 3))
    far = evaluate(case).report["accuracy"]["hypergradient_A"]
    # u* = 0 for y = 0 and b = 0, and there every response is at the kink of ReLU.
    zero = {"y": np.zeros_like(case.arrays["y"]), "b": np.zeros_like(case.arrays["b"])}
    near = evaluate(replace(case, arrays=case.arrays | zero)).report["accuracy"]
    assert far["bound"] is not None
    assert (
        near["hypergradient_A"]["bound"] is None and "kink" in near["hypergradient_A"]["no_bound"]
    )


def test_float32_case_gives_float32_outputs_close_to_float64():
    case = make_case("log_cosh", operator="convolution")
    single = {name: array.astype(np.float32) for name, array in case.arrays.items()}
    result, exact = evaluate(replace(case, arrays=single)), evaluate(case)
    assert result.converged
    # Single precision carries 7 digits; the conditioning of these cases costs at most two.
    for name, x in exact.outputs.items():
        assert result.outputs[name].dtype == np.float32 or name == "loss"
        assert np.linalg.norm(result.outputs[name] - x) <= 1e-5 * np.linalg.norm(x), name


def test_larger_images_use_lanczos_for_the_smallest_singular_value():
    from refimpl.verification.cases.accuracy import DENSE_LIMIT

    case = make_case("quadratic", channels=3, size=(13, 14), operator="matrix", tied=False, batch=1)
    assert case.arrays["u"].size > DENSE_LIMIT
    result = evaluate(case)
    matrix = dense_jacobian(case)
    smallest = np.linalg.svd(matrix, compute_uv=False)[-1]
    # Two digits of the eigenvalue of J⁻¹J⁻ᵀ are asked for.
    assert result.report["smallest_singular_value"][0] == pytest.approx(smallest, rel=1e-2)


def dense_jacobian(case):
    """J of a case with quadratic potential, from the package's dense builders."""
    from refimpl.verification.checks.dense_matrices import analysis_matrix, operator_matrix

    description = case.description()
    K = operator_matrix(description, case.arrays, case.image_shape)
    A, C = (analysis_matrix(description, case.arrays[k], case.image_shape) for k in "AC")
    weights = np.repeat(case.arrays["weights"], len(A) // len(case.arrays["weights"]))
    return case.lam * K.T @ K + case.gamma * C.T @ (weights[:, None] * A)


def test_point_that_is_not_isolated_leaves_out_the_hypergradient(tmp_path, capsys):
    # Below the threshold σ' = 0, so nothing determines the pixels that the mask hides.
    parameters = {"threshold": 100.0}
    case = make_case("soft_shrinkage", operator="mask", potential_parameters=parameters)
    write_case(tmp_path, case)
    assert cli.main(["oracle", str(tmp_path)]) == 1
    outputs = load(tmp_path / "outputs.npz")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert {"map", "vjp_A", "hvp", "fixed_point", "loss"} <= outputs.keys()
    assert not any(name.startswith("hypergradient") for name in outputs)
    assert report["isolated"] == [False, False] and not report["converged"]
    assert "report.json" in capsys.readouterr().err


def test_case_without_fixed_point_leaves_out_what_is_solved(tmp_path):
    write_case(tmp_path, hopeless_case())
    assert cli.main(["oracle", str(tmp_path)]) == 1
    outputs = load(tmp_path / "outputs.npz")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert outputs.keys() == {"map", "jvp", "vjp", "vjp_A", "vjp_C", "vjp_b", "vjp_weights"}
    assert report["fixed_point"]["converged"] == [False]
    assert len(report["fixed_point"]["messages"]) > 1


def hopeless_case():
    """Two pixels, K sees the first, and G = γ at the second whatever u is."""
    from refimpl.verification.cases import Case

    image = np.ones((1, 1, 1, 2))
    arrays = {name: image for name in ("target", "u", "v", "w")}
    arrays |= {"y": np.ones((1, 1)), "matrix": np.array([[1.0, 0.0]]), "b": np.array([1.0, 0.0])}
    arrays |= {"A": np.array([[0.0, 1], [0, 1]]), "C": np.array([[0.0, 1], [0, -1]])}
    return Case("matrix", "dense", "quadratic", False, 0.1, 1.0, 1.0, arrays)


def test_zero_data_have_the_fixed_point_zero():
    case = make_case("log_cosh")
    zeros = {name: np.zeros_like(case.arrays[name]) for name in ("y", "target", "b")}
    result = evaluate(replace(case, arrays=case.arrays | zeros))
    assert result.converged
    for name in ("fixed_point", "loss", "hypergradient_A", "hypergradient_b"):
        assert not result.outputs[name].any(), name


@pytest.mark.parametrize("factor", [2.0**-990, 2.0**-300, 2.0**300])
def test_quadratic_case_scales_with_its_data(factor):
    # Without b everything is homogeneous of degree 1, 2 or 0 in the data.
    case = make_case("quadratic", optional=False)
    scaled = {name: factor * case.arrays[name] for name in ("y", "target", "u")}
    given = evaluate(replace(case, arrays=case.arrays | scaled)).outputs
    expected = evaluate(case).outputs
    for name in ("map", "fixed_point", "gradient"):
        assert np.allclose(given[name] / factor, expected[name], rtol=1e-12, atol=0), name


def test_overflow_is_reported(tmp_path):
    case = make_case("log_cosh")
    huge = {"y": 1e300 * case.arrays["y"]}
    write_case(tmp_path, replace(case, arrays=case.arrays | huge))
    assert cli.main(["oracle", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert "energy" in report["not_finite"] and not report["converged"]


@pytest.mark.parametrize("zero", ["A", "weights", "kernel"])
def test_zero_filters_weights_or_operators_are_no_exception(zero):
    case = make_case("log_cosh", operator="convolution")
    arrays = case.arrays | {zero: np.zeros_like(case.arrays[zero])}
    assert evaluate(replace(case, arrays=arrays)).report["fixed_point"]["converged"] == [True] * 2


def test_evaluation_is_reproducible_bit_for_bit():
    case = make_case("smoothed_l1", operator="convolution", tied=False)
    first, second = evaluate(case), evaluate(case)
    assert all(np.array_equal(first.outputs[k], x) for k, x in second.outputs.items())
    assert first.report == second.report


def test_images_of_a_batch_do_not_influence_each_other():
    case = make_case("log_cosh", operator="convolution")
    images = {k: x[:1] for k, x in case.arrays.items() if k in ("y", "target", "u", "v", "w")}
    alone = evaluate(replace(case, arrays=case.arrays | images)).outputs
    both = evaluate(case).outputs
    for name in ("map", "jvp", "vjp", "energy", "gradient", "hvp", "fixed_point"):
        assert np.array_equal(alone[name], both[name][:1]), name


def test_case_written_and_read_is_the_same(tmp_path):
    case = make_case("huber", operator="mask", potential_parameters={"delta": 0.5}, norm=1.5)
    write_case(tmp_path, case, {"map": np.ones(3)})
    again = read_case(tmp_path)
    assert again.description() == case.description()
    assert again.arrays.keys() == case.arrays.keys()
    assert all(np.array_equal(again.arrays[k], x) for k, x in case.arrays.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["case.json", "inputs.npz", "outputs.npz"]
