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
    get_experiment,
    load_run,
    run,
    save_run,
    set_up,
    summarize,
    with_paper_solvers,
)
from refimpl.paper.filters import total_variation_filters
from refimpl.paper.operators import FilterBank
from refimpl.paper.operators.banks import Analysis
from strategies import generator, normal


def tiny(name: str):
    """A preset cut down to one epoch on a few images."""
    preset = get_experiment(name)
    training = replace(preset.training, epochs=1)
    if preset.model == "dense":
        return replace(preset, training=training, train_images=2, test_images=1)
    return replace(preset, training=training, train_images=1, test_images=1, image_size=16)


def test_grid_has_45_dense_and_12_convolutional_presets():
    models = [preset.model for preset in EXPERIMENTS.values()]
    assert models.count("dense") == 3 * 3 * len(NOISE_LEVELS)
    assert models.count("convolutional") == 3 * 2 * 2


def test_names_are_keys_and_settings_are_json():
    for name, preset in EXPERIMENTS.items():
        assert preset.name == name
        assert json.loads(json.dumps(preset.settings()))["name"] == name


def test_convolutional_presets_have_the_settings_of_the_paper():
    for preset in EXPERIMENTS.values():
        if preset.model == "convolutional":
            assert preset.lam == 18.156 and preset.tau == 1 / 800
            assert set_up(tiny(preset.name)).model.potential.parameter == 100


def test_dense_presets_use_adam_from_1e_3_to_1e_6_and_the_paper_s_solvers_are_anderson_s():
    for preset in EXPERIMENTS.values():
        if preset.model == "dense":
            settings = preset.training
            solvers = with_paper_solvers(preset).untied_solvers
            assert solvers.forward == "anderson" and solvers.forward_options["memory"] == 5
            rates = (settings.learning_rate, settings.final_learning_rate)
            assert rates == (1e-3, 1e-6) and settings.schedule == "cosine"


@pytest.mark.parametrize("method", METHODS[:2])
def test_the_paper_s_solvers_lead_to_the_same_first_losses(method):
    preset = tiny("dense-deconvolution-softshrink-0.1")
    ours, theirs = (run(e, method).records for e in (preset, with_paper_solvers(preset)))
    # Tolerances of 1e-6 and 1e-5, and a step that the condition number multiplies by about 100.
    assert ours[0]["loss_train"] == pytest.approx(theirs[0]["loss_train"], rel=1e-3)
    assert ours[0]["loss_train"] != theirs[0]["loss_train"]


def test_unknown_preset_names_its_neighbours():
    with pytest.raises(ValueError, match="dense-denoising-relu-0.1"):
        get_experiment("dense-denoising-relu-0.01")


@pytest.mark.parametrize("name", ["dense-inpainting-relu-0.1", "conv-deconvolution-11x11-random"])
def test_set_up_is_the_same_on_every_call(name):
    first, second = set_up(tiny(name)), set_up(tiny(name))
    assert np.array_equal(first.y, second.y) and np.array_equal(first.start.A, second.start.A)


def test_random_and_total_variation_starts_have_the_norm_of_total_variation():
    for start in ("tv", "random"):
        setup = set_up(tiny(f"conv-denoising-3x3-{start}"))
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
    setup = set_up(tiny("dense-denoising-identity-0.1"))
    assert setup.images.value_range == (-1.0, 1.0) and setup.images.train.min() < -0.5


@pytest.mark.parametrize("name", ["dense-denoising-softshrink-0.1", "conv-denoising-3x3-tv"])
def test_run_can_be_kept_and_read_back(name, tmp_path):
    preset = tiny(name)
    kept = summarize(preset, "bilevel", run(preset, "bilevel"))
    save_run(tmp_path / "run.npz", kept)
    back = load_run(tmp_path / "run.npz")
    assert back.settings["method"] == "bilevel" and back.converged.all()
    assert np.array_equal(back.parameters.A, kept.parameters.A) and back.parameters.tied
    assert np.array_equal(back.reconstruction, kept.reconstruction)
    assert len(back.records) == 2 and back.psnr[0] > 10


def test_untied_method_starts_from_the_tied_solution():
    preset = tiny("conv-denoising-3x3-tv")
    tied = run(preset, "bilevel").parameters
    result = run(preset, "deq_from_bilevel", start=tied)
    assert result.records[0]["asymmetry"] == 0 and not result.parameters.tied


def test_methods_are_checked():
    preset = tiny("conv-denoising-3x3-tv")
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
    """The field at the start is DᵀD u / 4, by differences of the image itself."""
    setup = set_up(tiny(f"dense-denoising-{activation}-0.1"))
    u = setup.images.train[:1]
    field = setup.model.step(setup.start, setup.y[:1]).field.value(u)
    down, across = np.diff(u, axis=2), np.diff(u, axis=3)
    expected = np.zeros_like(u)
    expected[:, :, 1:] += down / 4
    expected[:, :, :-1] -= down / 4
    expected[..., 1:] += across / 4
    expected[..., :-1] -= across / 4
    # eigh, qr and the products each lose about √n units of rounding, n = 625.
    assert np.linalg.norm(field - expected) <= 1e4 * np.finfo(float).eps * np.linalg.norm(u)


def test_start_uses_a_row_for_every_feature():
    with pytest.raises(ValueError, match="1251 features, expected at most 1250"):
        set_up(replace(tiny("dense-denoising-relu-0.1"), filters=(1251,)))
