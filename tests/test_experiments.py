"""Presets: the grid is complete, settings are the paper's, building is reproducible."""

import json
from dataclasses import replace

import numpy as np
import pytest

from refimpl.equilibrium.norms import operator_norm
from refimpl.experiments import (
    EXPERIMENTS,
    METHODS,
    NOISE_LEVELS,
    PROBLEMS,
    SEEDS,
    get_experiment,
    load_run,
    run,
    run_total_variation,
    save_run,
    set_up,
    summarize,
    with_paper_solvers,
)
from refimpl.experiments.presets import ACTIVATIONS
from refimpl.experiments.setup import objectives, total_variation
from refimpl.paper.filters import total_variation_filters
from refimpl.paper.operators import FilterBank
from refimpl.paper.operators.banks import Analysis
from strategies import generator, normal


def tiny(name: str):
    """A preset cut down to one step on a few images."""
    preset = get_experiment(name)
    training = replace(preset.training, max_iterations=1)
    if preset.model == "dense":
        return replace(preset, training=training, train_images=2, test_images=1)
    return replace(preset, training=training, train_images=1, test_images=1, image_size=16)


def test_every_problem_has_its_presets():
    for problem in PROBLEMS:
        names = [f"conv-{problem}-3x3", f"dense-{problem}-tanh"]
        names += [f"noise-{problem}-{level:g}" for level in NOISE_LEVELS]
        names += [f"sigma-{problem}-{activation}" for activation in ACTIVATIONS]
        assert all(EXPERIMENTS[name].problem == problem for name in names)
    assert len(EXPERIMENTS) == 3 * (2 + len(NOISE_LEVELS) + len(ACTIVATIONS)) + 1 + len(SEEDS)


def test_names_are_keys_and_settings_are_json():
    for name, preset in EXPERIMENTS.items():
        assert preset.name == name
        assert json.loads(json.dumps(preset.settings()))["name"] == name


def test_convolutional_presets_have_the_settings_of_the_paper():
    for preset in EXPERIMENTS.values():
        if preset.model == "convolutional":
            assert preset.lam == 18.156
            inpaints = preset.problem == "inpainting"
            assert set_up(tiny(preset.name)).model.potential.parameter == (10 if inpaints else 100)


def test_the_three_ways_train_the_same_parameters_on_the_same_data():
    for preset in EXPERIMENTS.values():
        assert {"A", "C", "weights"} <= set(preset.training.trained)
        assert preset.tied_solvers == preset.untied_solvers


@pytest.mark.parametrize("method", METHODS[:2])
def test_the_paper_s_solvers_lead_to_the_same_first_losses(method):
    preset = tiny("sigma-deconvolution-softshrink")
    ours, theirs = (run(e, method).records for e in (preset, with_paper_solvers(preset)))
    # Tolerances of 1e-5, 1e-4 at first, and a step that the condition number multiplies by 100.
    assert ours[0]["loss_train"] == pytest.approx(theirs[0]["loss_train"], rel=1e-2)
    assert ours[0]["loss_train"] != theirs[0]["loss_train"]


def test_unknown_preset_names_its_neighbours():
    with pytest.raises(ValueError, match="sigma-denoising-relu"):
        get_experiment("sigma-denoising-rely")


@pytest.mark.parametrize("name", ["sigma-inpainting-relu", "conv-denoising-11x11"])
def test_set_up_is_the_same_on_every_call(name):
    first, second = set_up(tiny(name)), set_up(tiny(name))
    assert np.array_equal(first.y, second.y) and np.array_equal(first.start.A, second.start.A)


def test_random_and_total_variation_starts_have_the_norm_of_total_variation():
    for start in ("total_variation", "random"):
        setup = set_up(replace(tiny("conv-denoising-3x3"), start=start))
        norm = operator_norm(Analysis(setup.model.bank, setup.start.A))
        assert norm == pytest.approx(np.sqrt(8), rel=1e-9)


def test_total_variation_takes_differences_of_every_channel_alone():
    A = total_variation_filters((6, 3, 3, 5))
    u = normal(generator(0), (1, 3, 6, 7))
    z = FilterBank((3, 6, 7), (6, 3, 5), "replicate").apply(A, u)
    assert A.shape == (6, 3, 3, 5)
    assert np.array_equal(z[:, :3, :-1], np.diff(u, axis=2))
    assert np.array_equal(z[:, 3:, :, :-1], np.diff(u, axis=3))
    with pytest.raises(ValueError, match="1 x 3, expected at least 3 x 3"):
        total_variation_filters((2, 1, 1, 3))


def test_images_of_the_dense_presets_are_in_the_range_of_the_paper():
    setup = set_up(tiny("dense-denoising-tanh"))
    assert setup.images.value_range == (-1.0, 1.0) and setup.images.train.min() < -0.5


@pytest.mark.parametrize("name", ["sigma-denoising-softshrink", "conv-denoising-3x3"])
def test_run_can_be_kept_and_read_back(name, tmp_path):
    preset = tiny(name)
    kept = summarize(preset, "bilevel", run(preset, "bilevel"))
    save_run(tmp_path / "run.npz", kept)
    back = load_run(tmp_path / "run.npz")
    assert back.settings["method"] == "bilevel" and back.converged.all()
    assert np.array_equal(back.parameters.A, kept.parameters.A) and back.parameters.tied
    assert np.array_equal(back.reconstruction, kept.reconstruction)
    assert len(back.records) == 2 and back.psnr[0] > 5
    assert sum(record.get("kept", False) for record in back.records) == 1


def test_untied_method_starts_from_the_tied_solution():
    preset = tiny("conv-denoising-3x3")
    tied = run(preset, "bilevel").parameters
    result = run(preset, "deq_from_bilevel", start=tied)
    assert result.records[0]["asymmetry"] == 0 and not result.parameters.tied


def test_methods_are_checked():
    preset = tiny("conv-denoising-3x3")
    with pytest.raises(ValueError, match=", ".join(METHODS)):
        run(preset, "deep")
    with pytest.raises(ValueError, match="needs start"):
        run(preset, "deq_from_bilevel")


def test_damaged_run_is_refused_with_its_name(tmp_path):
    (tmp_path / "run.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="run.npz: not a complete npz"):
        load_run(tmp_path / "run.npz")


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_dense_models_begin_with_the_quadratic_prior_of_differences(activation):
    """The field at the start is 16 γ DᵀD u, by differences of the image itself."""
    setup = set_up(tiny(f"sigma-denoising-{activation}"))
    u = setup.images.train[:1]
    step = setup.model.step(setup.start, setup.y[:1])
    down, across = np.diff(u, axis=2), np.diff(u, axis=3)
    expected = np.zeros_like(u)
    expected[:, :, 1:] += down
    expected[:, :, :-1] -= down
    expected[..., 1:] += across
    expected[..., :-1] -= across
    expected *= 16 * setup.start.gamma
    # eigh, qr and the products each lose about √n units of rounding, n = 144.
    error = np.linalg.norm(step.field.value(u) - expected)
    assert error <= 1e4 * np.finfo(float).eps * np.linalg.norm(expected)


def test_dense_tanh_begins_as_total_variation():
    setup = set_up(tiny("dense-denoising-tanh"))
    down, across = np.split(setup.model.bank.apply(setup.start.A, setup.images.train[:1])[0], 2)
    u = setup.images.train[0, 0]
    assert np.array_equal(down.reshape(25, 25)[:-1], np.diff(u, axis=0))
    assert np.array_equal(across.reshape(25, 25)[:, :-1], np.diff(u, axis=1))


def test_strength_of_the_start_is_the_best():
    """No other γ, 10 % from it, has a lower loss."""
    preset = tiny("conv-denoising-3x3")
    setup = set_up(preset)
    objective, _ = objectives(preset, setup, tied=True)
    best, *others = (
        objective.loss(replace(setup.start, gamma=factor * setup.start.gamma)).loss
        for factor in (1, 0.9, 1.1)
    )
    assert best < min(others)


def test_weights_stay_positive_and_their_gradient_is_that_of_the_logarithm():
    preset = tiny("noise-denoising-0.1")
    setup = set_up(preset)
    precise = replace(preset.tied_solvers, forward_tol=1e-12, adjoint_tol=1e-10)
    objective, _ = objectives(replace(preset, tied_solvers=precise), setup, tied=True)
    raw = replace(setup.start, weights=np.linspace(-1, 1, 8))
    assert (setup.model.effective(raw).weights > 0).all()
    d, h = np.linspace(1, 2, 8), 1e-4
    up, down = (objective.loss(replace(raw, weights=raw.weights + s * d)).loss for s in (h, -h))
    slope = objective.gradient(raw).gradient.weights @ d
    assert slope == pytest.approx((up - down) / (2 * h), rel=1e-6)  # of order h²


def test_validation_images_are_in_neither_other_set_and_decide_what_is_kept():
    preset = get_experiment("sigma-inpainting-tanh")
    preset = replace(
        preset, train_images=4, validation_images=4, test_images=4,
        training=replace(preset.training, max_iterations=30),
    )  # fmt: skip
    setup = set_up(preset)
    truth, _ = setup.validation
    others = np.concatenate((setup.images.train, setup.images.test))
    assert not any((u == v).all() for u in truth for v in others)
    result = run(preset, "bilevel")
    losses = [record["loss_validation"] for record in result.records]
    kept = [record.get("kept", False) for record in result.records]
    assert kept.index(True) == int(np.argmin(losses)) and sum(kept) == 1
    # Four faces: the validation loss rises soon, and training does not go on for long after.
    assert "validation" in result.ended and len(losses) < 30


def test_total_variation_has_its_best_weight_for_the_test_images():
    preset = tiny("noise-denoising-0.1")
    baseline = run_total_variation(preset)
    _, test = total_variation(preset, set_up(preset))
    for factor in (0.8, 1.25):
        other = replace(baseline.parameters, gamma=factor * baseline.parameters.gamma)
        assert test.loss(other).loss > baseline.records[0]["loss_test"]


def test_start_uses_a_row_for_every_feature():
    with pytest.raises(ValueError, match="289 features, expected at most 288"):
        set_up(replace(tiny("sigma-denoising-relu"), filters=(289,)))
