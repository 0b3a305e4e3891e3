"""Scripts and studies of the figures: the claims they print, from runs made up for the purpose.

Not here: training (`test_experiments`) and what the figures look like.
"""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from architecture import ROOT, cycles, parse, past_a_door, shared_classes

from figures import draw, saved, studies
from figures.saved import Difference, difference
from figures.scripts import (
    activations,
    filters,
    learning,
    normalization,
    optimisers,
    reconstructions,
    table,
    untying,
)
from figures.studies import eigenvalues as eigenvalues_study
from figures.studies import normalization as normalization_study
from figures.train import RUNS
from refimpl.experiments import (
    BASELINE,
    EXPERIMENTS,
    Run,
    get_experiment,
    load_run,
    save_run,
    set_up,
)
from refimpl.experiments.runs import ARRAYS
from refimpl.paper.parameters import make_parameters

NAME = "conv-denoising-3x3"
QUALITY = {BASELINE: 20.0, "bilevel": 21.0, "deq": 20.5, "deq_from_bilevel": 21.5}


def synthetic_run(method, quality=None, spread=0.1):
    """A run of 30 filters on four images with this mean PSNR, of two steps, the last one kept."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1, (4, 1, 16, 16))
    A = set_up_start()
    theta = make_parameters(A, 1.1 * A if method.startswith("deq") else None)
    mean = QUALITY[method] if quality is None else quality
    values = mean + spread * np.array([-1.5, -0.5, 0.5, 1.5])
    losses = 10 ** (-mean / 10) * np.array([2.0, np.nan, 1.0])
    records = [
        {"epoch": k, "loss_train": 10 ** (-mean / 10) * (3 - k), "loss_test": x, "seconds": 0.5,
         "cpu_seconds": 0.25}
        for k, x in enumerate(losses)
    ]  # fmt: skip
    records[-1]["kept"] = True
    settings = {"method": method, "value_range": (0.0, 1.0), "ended": "the gradient is small"}
    noisy = truth + 0.1 * rng.standard_normal(truth.shape)
    return Run(
        settings, tuple(records), theta, theta, truth, noisy, truth, values, values / 30,
        np.ones(4, bool),
    )  # fmt: skip


def set_up_start():
    return np.random.default_rng(1).standard_normal((30, 1, 3, 3))


@pytest.fixture
def output(tmp_path):
    """A folder with the runs of one preset, as an interrupted training leaves it."""
    for method in RUNS:
        save_run(tmp_path / "runs" / f"{NAME}-{method}.npz", synthetic_run(method))
    (tmp_path / "studies").mkdir()
    curves = {"L-BFGS": [[0, 9], [0, 1], [2, 1]], "Adam": [[0, 9], [0, 2], [2, 1.01]]}
    np.savez(tmp_path / "studies" / "optimisers.npz", **curves)
    rng = np.random.default_rng(2)
    pictures = {f"denoising-{c}": rng.uniform(0, 1, (2, 1, 8, 8)) for c in reconstructions.COLUMNS}
    np.savez(tmp_path / "studies" / "pictures.npz", **pictures)
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


def test_kept_record_is_the_one_that_says_so():
    assert saved.kept(synthetic_run("bilevel"))["epoch"] == 2


def test_row_reports_means_over_images_and_total_times():
    row = table.row(NAME, "deq", synthetic_run("deq"))
    assert (row["PSNR [dB]"], row["SSIM"]) == ("20.50", "0.683")
    assert (row["time [s]"], row["CPU time [s]"], row["steps"]) == ("1.5", "0.8", "2")


def test_table_holds_every_saved_run_and_total_variation(output):
    table.draw(output)
    lines = (output / "table.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == list(RUNS)


def test_difference_is_paired_and_its_interval_that_of_student():
    first, other = synthetic_run("bilevel"), synthetic_run(BASELINE)
    shifted = first._replace(psnr=other.psnr + np.array([1.0, 1.2, 0.8, np.nan]))
    found = difference(shifted, other)
    # Three pairs: t(2) = 4.30265273, standard deviation 0.2.
    assert found.mean == pytest.approx(1.0) and found.count == 3
    assert found.half == pytest.approx(4.30265273 * 0.2 / np.sqrt(3))
    assert found.sign == 1 and difference(other, shifted).sign == -1
    assert difference(first, first).sign == 0


@pytest.mark.parametrize(
    ("quality", "said"), [(21.5, "gains"), (20.5, "loses"), (21.0, "neither is shown")]
)
def test_untying_is_said_to_buy_what_it_buys(quality, said, output):
    """A planted loss, or no difference, is not called a gain."""
    run = synthetic_run("deq_from_bilevel", quality, spread=0.2)
    save_run(output / "runs" / f"{NAME}-deq_from_bilevel.npz", run)
    claim = untying.claim({NAME: untying.gains_of(output, NAME)})
    line = next(line for line in claim.splitlines() if line.startswith("untied from tied"))
    assert f"tied {said} in 1 of 1: {NAME} {quality - 21:+.2f} ±" in line


def test_learning_counts_who_beats_total_variation_and_who_ended_by_itself():
    runs = {method: synthetic_run(method) for method in RUNS}
    assert learning.claim({NAME: runs}).count("in 1 of 1 panels") == 3
    worse = synthetic_run("deq", 19.0)
    worse.settings["ended"] = "the limit of 2 iterations"
    claim = learning.claim({NAME: runs | {"deq": worse}})
    assert claim.startswith("2 of 3 runs ended") and "(DEQ): test loss below" in claim
    assert claim.count("in 0 of 1 panels") == 1


def test_times_of_the_untied_model_count_those_of_the_tied_one():
    runs = {method: synthetic_run(method) for method in RUNS}
    times = {method: list(x) for method, x, _ in learning.timed(runs)}
    assert times["deq"] == [0.5, 1.0, 1.5] and times["deq_from_bilevel"] == [2.0, 2.5, 3.0]


def test_best_method_of_a_row_is_the_one_with_the_highest_psnr():
    truth = np.zeros((1, 1, 4, 4))
    images = {"truth": truth, "data": truth + 0.2, BASELINE: truth + 0.05, "bilevel": truth + 0.1}
    claim = reconstructions.claim({"denoising": images}, (0.0, 1.0))
    assert claim.startswith("denoising: total variation is best; mean PSNR [dB]: data 13.98")


def test_best_activation_is_named_for_each_method():
    gains = {
        ("denoising", "relu", "bilevel"): Difference(-1.0, 0.1, 9),
        ("denoising", "tanh", "bilevel"): Difference(0.5, 0.1, 9),
    }
    assert "tied (bilevel): tanh is best, +0.50 ± 0.10 dB." in activations.claim(gains)


def test_fastest_optimiser_is_the_one_that_arrives_first():
    seen = np.arange(3.0)
    curves = {
        "slow": np.array([seen, 10 * seen, [3, 2, 1]]),
        "fast": np.array([seen, seen, [3, 2, 1.01]]),
        "never": np.array([seen, seen, [3, 2, 2]]),
    }
    claim = optimisers.claim(curves)
    assert "1.000e+00, is that of slow" in claim
    assert "fast after 2.0 s, slow after 20.0 s; not by never" in claim


def test_filters_that_only_grew_are_not_said_to_have_moved():
    start = set_up_start()[:, 0]
    claim = filters.claim("x", start, 3 * start, start, start)
    assert "no multiple of the start is 0% of it" in claim
    moved = start[:, ::-1]
    assert "= 0.00" in filters.claim("x", start, moved, moved, moved)


SCRIPTS = (reconstructions, learning, filters, untying, activations, optimisers)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_draw_what_there_is_when_presets_are_missing(script, output, monkeypatch):
    saved = []
    monkeypatch.setattr(script, "save", lambda figure, folder, name, caption: saved.append(caption))
    script.draw(output)
    assert all(saved)


def test_caption_stands_beside_the_figure(output):
    optimisers.draw(output)
    assert "L-BFGS after 1.0 s, Adam after 2.0 s" in (output / "optimisers.txt").read_text("utf-8")


def test_presets_of_the_figures_exist():
    names = [preset for preset, *_ in filters.ROWS.values()] + [name for name, _ in learning.PANELS]
    assert set(names) <= set(EXPERIMENTS)


def test_mosaic_scales_each_filter_to_its_largest_tap():
    bank = np.array([[[2.0]], [[-4.0]], [[0.0]]])
    np.testing.assert_array_equal(filters.mosaic(bank, 2)[::2, ::2], [[1, -1], [0, np.nan]])


def test_wrong_signs_are_only_those_that_point_the_other_way():
    predicted, measured = np.array([1.0, -1.0, 1.0, 1.0]), np.array([2.0, 1.0, 0.0, -1.0])
    assert list(normalization.wrong_signs(predicted, measured)) == [False, True, False, True]


def test_exact_gradient_matches_difference_quotients_and_frozen_does_not(monkeypatch):
    monkeypatch.setattr(normalization_study, "SIZE", 12)
    result = normalization_study.compare(get_experiment("conv-denoising-3x3"))
    frozen, exact, measured = result["slopes"].T / result["size"]
    along = normalization_study.direction_names().index("A")
    # The quotient's error: truncation h² times third derivatives of tanh(100 z), and 1e-12 / h.
    assert np.abs(exact - measured).max() < 1e-4
    assert abs(exact[along]) < 1e-10 and abs(frozen[along]) > 1e-3
    assert result["difference"] > 0.01


def test_spectrum_is_real_when_tied_and_asymmetric_when_not(monkeypatch):
    monkeypatch.setattr(eigenvalues_study, "CROP", 10)
    experiment = get_experiment("conv-denoising-3x3")
    tied = set_up(experiment).start
    untied = replace(tied, C=tied.A + 0.05 * np.roll(tied.A, 1, axis=2))
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
    experiment = get_experiment("conv-denoising-3x3")
    step, start = eigenvalues_study.trained_step(experiment, set_up(experiment).start)
    spectrum = eigenvalues_study.spectrum_at_fixed_point(step, start)
    assert list(spectrum) == ["residual"]
    assert spectrum["residual"] > eigenvalues_study.TOLERANCE
