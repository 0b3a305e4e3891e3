"""What a portable case does not determine is left out of the oracle's outputs, with the reason."""

import json
from dataclasses import replace

import numpy as np
import pytest
from case_factory import POTENTIALS, make_case

from refimpl import cli
from refimpl.kernels.vectors import norm
from refimpl.paper.filters import total_variation_filters
from refimpl.paper.loss import squared_loss_gradient
from refimpl.verification.cases import Case, evaluate, write_case
from refimpl.verification.cases.evaluation import unknown_outputs

# An edge of eight pixels, and crops of it around the pixel that is missing.
CROPS = {"whole": (0, 8, 0, 8), "4 x 6": (2, 6, 1, 7), "3 x 3": (2, 5, 3, 6)}


def edge_case(crop="whole", *, tied=True, slope=100.0):
    """A diagonal edge with pixel (3, 4), which lies on it, missing; 1/2 by symmetry."""
    top, bottom, left, right = CROPS[crop]
    image = (np.add.outer(np.arange(8), np.arange(8)) >= 8).astype(float)
    mask = np.ones((8, 8), bool)
    mask[3, 4] = False
    image, mask = (x[top:bottom, left:right] for x in (image, mask))
    x, A = image[None, None], total_variation_filters((2, 1, 3, 3))
    arrays = {"y": x * mask, "target": x, "u": x, "v": x, "w": x, "A": A, "mask": mask}
    arrays |= {} if tied else {"C": A.copy()}
    return Case(
        "mask", "convolution", "log_cosh", tied, 1 / 800, 200.0, 1.0, arrays,
        potential_parameters={"slope": slope}, boundary="symmetric",
    )  # fmt: skip


@pytest.mark.parametrize(("crop", "tied"), [("whole", True), ("4 x 6", True), ("3 x 3", False)])
def test_a_missing_pixel_that_rounding_moves_has_no_hypergradient(crop, tied, tmp_path, capsys):
    write_case(tmp_path, edge_case(crop, tied=tied))
    assert cli.main(["oracle", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    names = np.load(tmp_path / "outputs.npz").keys()
    assert not any(name.startswith("hypergradient") for name in names)
    assert report["isolated"] == [False] and not report["converged"]
    assert "not known to be isolated" in report["left_out"]["hypergradient_A"]
    assert "smaller slope" in report["left_out"]["hypergradient_A"]
    captured = capsys.readouterr()
    assert "not converged" in captured.err and "hypergradient" not in captured.out


def test_the_same_edge_is_known_at_a_smaller_slope():
    result = evaluate(edge_case(slope=10.0))
    assert result.converged and result.report["left_out"] == {}
    assert result.outputs["fixed_point"][0, 0, 3, 4] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("crop", CROPS)
def test_no_adjoint_state_passes_by_being_zero(crop):
    case = edge_case(crop)
    report = evaluate(case).report
    assert report["adjoint"]["residual_limit"][0] <= 1e-3 * gradient_norm(case)


def gradient_norm(case):
    """‖∇ℓ‖ at the fixed point, rounded as the oracle rounds it: the limit may be equal to it."""
    u = evaluate(case).outputs["fixed_point"]
    return norm(squared_loss_gradient(u, case.arrays["target"]))[0]


def test_a_singular_value_that_is_not_found_is_not_taken_for_regular(monkeypatch):
    from refimpl.verification.cases import evaluation

    monkeypatch.setattr(evaluation, "local_monotonicity", lambda lin: np.full(len(lin.u), np.nan))
    report = evaluate(make_case("log_cosh", operator="mask", batch=1)).report
    assert report["isolated"] == [False] and not report["converged"]
    assert report["smallest_singular_value"] == [None]
    # One fixed point is proved: nothing has to be found.
    assert evaluate(make_case("log_cosh", batch=1)).report["isolated"] == [True]


@pytest.mark.parametrize(
    ("estimate", "word"), [(None, "not known"), (0.9, "not below it"), (7.0, "not below it")]
)
def test_an_output_whose_error_is_not_below_it_is_unknown(estimate, word):
    entry = {"norm": 1.0, "estimate": estimate, "no_estimate": "…"}
    accuracy = {"hypergradient_A": entry, "loss": entry | {"estimate": 0.4}}
    left_out = unknown_outputs(accuracy, {"hypergradient_A": 1.0, "loss": 1.0})
    assert list(left_out) == ["hypergradient_A"] and word in left_out["hypergradient_A"]


def test_an_output_whose_terms_cancel_is_known():
    accuracy = {"hypergradient_b": {"norm": 0.0, "estimate": 1e-15}}
    assert unknown_outputs(accuracy, {"hypergradient_b": 1.0}) == {}
    assert list(unknown_outputs(accuracy, {"hypergradient_b": 1e-10})) == ["hypergradient_b"]


# Energies that are unbounded below

BOUNDED = ("log_cosh", "smoothed_l1", "huber")


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_negative_weights_on_a_missing_pixel_have_no_state_at_infinity(potential, scale, tmp_path):
    case = make_case(potential, operator="mask", size=(3, 4), batch=1)
    weights = {"weights": -scale * case.arrays["weights"]}
    write_case(tmp_path, replace(case, arrays=case.arrays | weights))
    code = cli.main(["oracle", str(tmp_path)])
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["fixed_point"]["residual_limit"][0] is not None
    if potential in BOUNDED:  # G tends to a constant, and vanishes nowhere
        assert code == 1 and report["fixed_point"]["converged"] == [False]
    if report["fixed_point"]["converged"] == [True]:
        u = np.load(tmp_path / "outputs.npz")["fixed_point"]
        assert np.abs(u).max() < 1e6 * scale


def test_an_infinite_limit_is_met_by_nothing():
    from refimpl.verification.cases.evaluation import Solve

    one = np.ones(1)
    assert not Solve(one, one, np.inf * one).converged.any()
    assert not Solve(one, one, np.nan * one).converged.any()
    assert Solve(one, one, one).converged.all()


# A limit that a default tolerance does not reach


@pytest.mark.parametrize("seed", [6, 26, 33, 52, 62, 92])
def test_six_pixels_have_a_hypergradient_at_every_seed(seed):
    case = make_case("log_cosh", size=(1, 6), batch=1, lam=10.0, gamma=0.01, seed=seed)
    report = evaluate(case).report
    assert report["converged"], report["left_out"]
