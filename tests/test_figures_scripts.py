"""Scripts and studies of the figures: the claims they print, from runs made up for the purpose.

Not here: training (`test_experiments`) and what the figures look like.
"""

from importlib import import_module

import numpy as np
import pytest
from architecture import ROOT, cycles, parse, past_a_door, shared_classes

from figures import draw, saved, studies
from figures.scripts import filters, losses, noise_levels, normalization, reconstructions, table
from figures.studies import eigenvalues as eigenvalues_study
from figures.studies import normalization as normalization_study
from figures.studies import robustness as robustness_study
from refimpl.experiments import METHODS, Run, get_experiment, load_run, save_run, set_up
from refimpl.experiments.runs import ARRAYS
from refimpl.paper.parameters import make_parameters

NAME = "dense-denoising-relu-0.1"
LOSSES = {  # of each epoch; the last of bilevel is a failed evaluation
    "bilevel": (4e-2, 2e-2, np.nan),
    "deq": (4e-2, 3e-2, 1e-2),
    "deq_from_bilevel": (2e-2, 1e-2, 3e-2),
}


def synthetic_run(method, train_losses, problem="denoising"):
    """A run of the dense model on two images, with these training losses."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, (2, 1, 25, 25))
    A = rng.standard_normal(get_experiment(NAME).filters + (625,))
    theta = make_parameters(A, None if method == "bilevel" else 1.1 * A)
    records = tuple(
        {"epoch": k, "loss_train": x, "loss_test": 2 * x, "asymmetry": 0.1, "seconds": 0.5}
        for k, x in enumerate(train_losses)
    )
    settings = {
        "problem": problem,
        "model": "dense",
        "noise_level": 0.1,
        "value_range": (-1.0, 1.0),
        "method": method,
    }
    noisy = truth + 0.1 * rng.standard_normal(truth.shape)
    quality = np.array([20.0, 22.0]), np.array([0.5, 0.7])
    return Run(settings, records, theta, theta, truth, noisy, truth, *quality, np.ones(2, bool))


@pytest.fixture
def output(tmp_path):
    """A folder with the three runs of one preset, as an interrupted training leaves it."""
    for method, values in LOSSES.items():
        save_run(tmp_path / "runs" / f"{NAME}-{method}.npz", synthetic_run(method, values))
    return tmp_path


def test_modules_keep_the_rules_of_the_package():
    package, modules = parse(ROOT / "refimpl"), parse(ROOT / "figures")
    assert cycles(modules, "figures") == []
    assert past_a_door(modules, package) == []
    assert shared_classes(package + modules) == []


@pytest.mark.parametrize("name", draw.SCRIPTS)
def test_every_script_has_a_module_that_draws(name):
    assert callable(import_module(f"figures.scripts.{name}").draw)


@pytest.mark.parametrize("name", studies.STUDIES)
def test_every_study_has_a_module_that_computes(name):
    assert callable(import_module(f"figures.studies.{name}").compute)


def test_summary_is_the_run_without_its_parameters(output):
    path = output / "runs" / f"{NAME}-deq.npz"
    summary, run = load_run(path, parameters=False), load_run(path)
    assert summary.parameters is None and summary.effective is None
    assert summary.settings == run.settings and summary.records == run.records
    assert all(np.array_equal(getattr(summary, n), getattr(run, n)) for n in ARRAYS)


def test_kept_record_is_that_of_the_lowest_training_loss_and_skips_failures():
    assert saved.kept(synthetic_run("bilevel", LOSSES["bilevel"]))["epoch"] == 1


def test_row_reports_means_over_images_and_total_time():
    row = table.row(NAME, "deq", synthetic_run("deq", LOSSES["deq"]))
    assert (row["PSNR [dB]"], row["SSIM"]) == ("21.00", "0.600")
    assert (row["training loss"], row["test loss"]) == ("1.0000e-02", "2.0000e-02")
    assert row["time [s]"] == "1.5"


def test_verdict_is_lower_equal_or_higher():
    assert table.verdict(tied=1.0, start=1.0, untied=0.9) == table.LOWER
    assert table.verdict(tied=1.0, start=1.0, untied=1.0) == table.EQUAL
    assert table.verdict(tied=1.0, start=1.001, untied=1.0005) == table.EQUAL
    assert table.verdict(tied=1.0, start=1.001, untied=1.002) == table.HIGHER


def test_claim_holds_for_these_runs_and_fails_for_a_planted_higher_loss():
    runs = {method: synthetic_run(method, values) for method, values in LOSSES.items()}
    pair = table.warm_start(NAME, runs)
    assert pair["verdict"] == table.LOWER and pair["change [%]"] == "-50.000"
    denoising, inpainting, _ = table.claim([pair])
    assert "holds" in denoising and "no run" in inpainting
    planted = {**pair, "verdict": table.HIGHER}
    assert "fails" in table.claim([pair, planted])[0]


def test_tables_hold_every_saved_run(output, monkeypatch):
    monkeypatch.setattr(table, "save", lambda *_: None)
    table.draw(output)
    lines = (output / "table.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == list(METHODS)
    assert "**holds** (1 lower, 0 equal, 0 HIGHER)" in (output / "warm_start.md").read_text()


@pytest.mark.parametrize("script", [reconstructions, losses, noise_levels, filters])
def test_scripts_draw_what_there_is_when_presets_are_missing(script, output, monkeypatch):
    saved = []
    monkeypatch.setattr(script, "save", lambda figure, folder, name: saved.append(name))
    script.draw(output)
    assert saved


def test_failed_evaluations_are_gaps_in_the_loss():
    epochs, values = losses.curve(synthetic_run("bilevel", LOSSES["bilevel"]), "test")
    assert list(epochs) == [0, 1, 2]
    np.testing.assert_array_equal(values, [8e-2, 4e-2, np.nan])


def test_mosaic_scales_each_filter_to_its_largest_tap():
    bank = np.array([[[2.0]], [[-4.0]], [[0.0]]])
    np.testing.assert_array_equal(filters.mosaic(bank, 2)[::2, ::2], [[1, -1], [0, np.nan]])


def test_wrong_signs_are_only_those_that_point_the_other_way():
    predicted, measured = np.array([1.0, -1.0, 1.0, 1.0]), np.array([2.0, 1.0, 0.0, -1.0])
    assert list(normalization.wrong_signs(predicted, measured)) == [False, True, False, True]


def test_exact_gradient_matches_difference_quotients_and_frozen_does_not(monkeypatch):
    monkeypatch.setattr(normalization_study, "SIZE", 12)
    result = normalization_study.compare(get_experiment("conv-denoising-3x3-random"))
    frozen, exact, measured = result["slopes"].T / result["size"]
    along = normalization_study.direction_names().index("A")
    # The quotient's error: truncation h² times third derivatives of tanh(100 z), and 1e-12 / h.
    assert np.abs(exact - measured).max() < 1e-4
    assert abs(exact[along]) < 1e-10 and abs(frozen[along]) > 1e-2
    assert result["difference"] > 0.01


def test_spectrum_is_real_when_tied_and_asymmetric_when_not(monkeypatch):
    monkeypatch.setattr(eigenvalues_study, "CROP", 10)
    experiment = get_experiment("conv-denoising-3x3-tv")
    tied = set_up(experiment).start
    untied = make_parameters(tied.A, tied.A + 0.05 * np.roll(tied.A, 1, axis=2))
    spectra = [
        eigenvalues_study.spectrum_at_fixed_point(
            *eigenvalues_study.trained_step(experiment, theta)
        )
        for theta in (tied, untied)
    ]
    # Eigenvalues of a matrix symmetric to rounding: within sqrt(eps) of real, were it defective.
    assert np.abs(spectra[0]["eigenvalues"].imag).max() < 1e-8
    assert spectra[0]["asymmetry"] < 1e-14 and spectra[1]["asymmetry"] > 1e-3
    assert all(s["residual"].max() < eigenvalues_study.TOLERANCE for s in spectra)


def test_spectrum_is_left_out_where_no_fixed_point_is_found(monkeypatch):
    monkeypatch.setattr(eigenvalues_study, "CROP", 10)
    monkeypatch.setattr(eigenvalues_study, "MAX_ITERATIONS", 1)
    experiment = get_experiment("conv-denoising-3x3-tv")
    step, start = eigenvalues_study.trained_step(experiment, set_up(experiment).start)
    spectrum = eigenvalues_study.spectrum_at_fixed_point(step, start)
    assert list(spectrum) == ["residual"]
    assert spectrum["residual"] > eigenvalues_study.TOLERANCE


def test_data_at_the_trained_noise_level_are_the_saved_data():
    run = synthetic_run("deq", LOSSES["deq"])
    trained = robustness_study.NOISE_LEVELS.index(run.settings["noise_level"])
    # y − u† rounds once, and so do the quotient, the product and the sum.
    np.testing.assert_allclose(
        robustness_study.noisy_data(run)[trained], run.y, rtol=0, atol=8 * np.finfo(float).eps
    )
