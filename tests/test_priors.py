"""Pictures with trained models: names, noise levels, channels, ranges, tiles, tolerances."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from skimage import data

import refimpl as ri
from refimpl.paper.filters import cosine_filters
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import Lorentzian
from refimpl.restoration import RULES, priors
from refimpl.restoration.mosaic import CHANGE, mosaic
from refimpl.training import TrainedModel, library
from strategies import generator

EPS = 0.1
PSF = np.outer([1, 2, 1], [1, 3, 1]) / 20
PHOTO = data.camera()[60:188, 150:262] / 255
NOISY = ri.add_noise(PHOTO, EPS, 0)
MISSING = generator(0).random(PHOTO.shape) < 0.3


def cosine_model(channels=1, noise_level=EPS, **changes) -> TrainedModel:
    """Cosines whose scale is that of the noise, with the Lorentzian: about as good as TV."""
    A = cosine_filters(3, channels) / noise_level
    theta = make_parameters(A, gamma=0.15)
    model = TrainedModel(theta, Lorentzian(), "symmetric", noise_level**-2, noise_level)
    return replace(model, **changes)


def with_its_own_C(model: TrainedModel) -> TrainedModel:
    """A model without an energy, near to a given one."""
    A = model.theta.A
    C = A + 0.3 * generator(2).normal(size=A.shape)
    return replace(model, theta=replace(model.theta, C=C))


MODEL = cosine_model()
CALLS = {
    "denoise": lambda y, **options: ri.denoise(y, EPS, **options),
    "inpaint": lambda y, **options: ri.inpaint(
        y, MISSING[: y.shape[0], : y.shape[1]], EPS, **options
    ),
    "deconvolve": lambda y, **options: ri.deconvolve(y, PSF, EPS, **options),
}


@pytest.fixture
def exact(monkeypatch):
    """Solves that end far below what anybody sees."""
    monkeypatch.setattr(priors, "SETTLED", 1e-7)
    for task in CALLS:
        monkeypatch.setitem(RULES, task, RULES[task]._replace(tol=1e-10))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Models that ship: grey ones for two noise levels, and one in colour."""
    monkeypatch.setattr(library, "MODELS", tmp_path)
    for name, model in {
        "tied-25": cosine_model(noise_level=25 / 255),
        "tied-50": cosine_model(noise_level=50 / 255),
        "tied-colour": cosine_model(3, noise_level=25 / 255),
        "untied-25": cosine_model(noise_level=25 / 255).untie(),
    }.items():
        model.save(tmp_path / f"{name}.npz")
    return tmp_path


# Which model


def test_a_family_gives_the_model_for_the_channels_and_the_nearest_noise_level(shelf):
    assert library.families() == ["tied", "untied"]
    for level, expected in ((10, 25), (34, 25), (37, 50), (200, 50)):
        assert library.find_model("tied", 1, level / 255).noise_level == expected / 255
    assert library.find_model("tied", 3, 50 / 255).channels == 3
    assert library.find_model("tied", 4, 50 / 255).channels == 1
    assert library.find_model("tied-25", 3, 50 / 255).noise_level == 25 / 255
    assert not library.find_model("untied", 3, 0.1).theta.tied


def test_a_model_is_found_by_name_family_path_or_as_it_is(shelf, tmp_path):
    expected = ri.denoise(NOISY, EPS, model=ri.load_model("tied-25"))
    for same in ("tied-25", "tied", shelf / "tied-25.npz", str(shelf / "tied-25.npz"), None):
        np.testing.assert_array_equal(ri.denoise(NOISY, EPS, model=same), expected)
    assert np.abs(ri.denoise(NOISY, EPS, model="tv") - expected).max() > 0.01


def test_without_models_that_ship_total_variation_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "MODELS", tmp_path / "none")
    np.testing.assert_array_equal(ri.denoise(NOISY, EPS), ri.denoise(NOISY, EPS, model="tv"))


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (
            "best",
            ValueError,
            r"'best' is no file, and not one of those shipped \(tied, untied, tie",
        ),
        ("no/file.npz", ValueError, "no/file.npz: not readable"),
        (3, TypeError, "model: given 3, expected None, 'tv', the name or file"),
        (cosine_model(3), ValueError, "act on 3 channels, the image has 1; take a model of grey"),
    ],
)
@pytest.mark.parametrize("task", CALLS)
def test_what_is_no_model_for_the_image_is_refused(task, given, kind, words, shelf):
    with pytest.raises(kind, match=words):
        CALLS[task](NOISY, model=given)


# What is computed


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("task", CALLS)
def test_the_result_is_the_reconstruction_of_the_model_at_the_noise_level(task, untied, exact):
    model = cosine_model(noise_level=0.15)
    model = with_its_own_C(model) if untied else model
    K = {
        "denoise": ri.Identity(PHOTO.shape), "inpaint": ri.Mask(~MISSING),
        "deconvolve": ri.Convolution(PSF, PHOTO.shape),
    }[task]  # fmt: skip
    y = np.where(MISSING, 0, NOISY) if task == "inpaint" else NOISY
    star = ri.reconstruct(K, y[None, None], model.at(EPS), residual_tol=1e-9)
    assert np.abs(CALLS[task](NOISY, model=model) - star.x[0, 0]).max() <= 1e-4


def test_little_noise_changes_the_weight_of_the_data_and_not_the_regulariser(exact):
    level, least = 0.03, priors.LEAST_LEVEL["inpaint"]
    model = MODEL.at(least)
    model = replace(model, lam=(least / level) ** 2 * model.lam)
    star = ri.reconstruct(
        ri.Mask(~MISSING), np.where(MISSING, 0, NOISY)[None, None], model, residual_tol=1e-10
    )
    result = ri.inpaint(NOISY, MISSING, level, model=MODEL)
    assert ri.psnr(result, star.x[0, 0], 1.0) > 60


@pytest.mark.parametrize("untied", [False, True])
def test_another_noise_level_is_another_unit(untied):
    model = MODEL.untie() if untied else MODEL
    y = NOISY[None, None]
    scaled = ri.reconstruct(model.at(EPS / 2).problem(y), residual_tol=1e-10).x
    same = ri.reconstruct(model.problem(2 * y), residual_tol=1e-10).x / 2
    assert np.abs(scaled - same).max() <= 1e-6
    assert model.at(EPS).lam == pytest.approx(model.lam, rel=1e-15)


@pytest.mark.parametrize("task", CALLS)
def test_noise_falls_and_twice_the_noise_too(task):
    for level in (EPS, 2 * EPS):
        y = ri.add_noise(PHOTO, level, 0)
        call = {"denoise": partial(ri.denoise, y), "inpaint": partial(ri.inpaint, y, MISSING),
                "deconvolve": partial(ri.deconvolve, y, [[1.0]])}[task]  # fmt: skip
        assert ri.psnr(call(level, model=MODEL), PHOTO) > ri.psnr(y, PHOTO) + 4


@pytest.mark.parametrize("task", CALLS)
def test_grey_models_take_luminance_and_differences_of_channels(task, exact):
    basis = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    colour = np.stack([NOISY, NOISY[::-1], 1 - NOISY], axis=-1)
    result = CALLS[task](colour, model=MODEL, channel_axis=-1)
    for row in basis:
        alone = CALLS[task](colour @ row, model=MODEL)
        assert np.abs(result @ row - alone).max() <= 1e-5


def test_the_channels_of_a_photograph_help_each_other():
    photo = data.astronaut()[100:228, 100:228] / 255
    y = ri.add_noise(photo, EPS, 0)
    apart = np.stack([ri.denoise(y[..., c], EPS, model=MODEL) for c in range(3)], axis=-1)
    together = ri.denoise(y, EPS, model=MODEL, channel_axis=-1)
    assert ri.psnr(together, photo) > ri.psnr(apart, photo) + 0.5


@pytest.mark.parametrize("task", CALLS)
def test_the_range_of_the_training_images_makes_no_difference(task, exact):
    s = 2  # the length of [-1, 1]
    theta = replace(MODEL.theta, A=MODEL.theta.A / s)
    wide = replace(
        MODEL, theta=theta, lam=MODEL.lam / s**2, noise_level=s * EPS, value_range=(-1.0, 1.0)
    )
    difference = CALLS[task](NOISY, model=wide) - CALLS[task](NOISY, model=MODEL)
    assert np.abs(difference).max() <= 1e-5


@pytest.mark.parametrize("model", ["tv", MODEL])
@pytest.mark.parametrize("task", CALLS)
def test_psnr_has_settled_to_a_hundredth_of_a_decibel(task, model, request):
    first = CALLS[task](NOISY, model=model)
    request.getfixturevalue("exact")
    last = CALLS[task](NOISY, model=model)
    assert abs(ri.psnr(first, PHOTO) - ri.psnr(last, PHOTO)) <= 0.01


# Tiles


@pytest.mark.parametrize("size", [(1, 1), (10, 90), (64, 64), (65, 130), (200, 47)])
@pytest.mark.parametrize("overlap", [0, 7, 40])
def test_tiles_cover_each_pixel_once_and_reach_as_far_as_they_overlap(size, overlap):
    count = np.zeros(size, int)
    for tile in mosaic(size, 32, overlap):
        count[tile.kept] += 1
        solved = np.zeros(size, bool)
        solved[tile.solved] = True
        inside = np.zeros(size, bool)
        inside[tile.kept] = True
        assert (solved[tile.solved][tile.middle] == inside[tile.solved][tile.middle]).all()
        assert inside[tile.solved].sum() == inside[tile.kept].size
        for kept, part, length in zip(tile.kept, tile.solved, size):
            assert part.start == max(kept.start - overlap, 0)
            assert part.stop == min(kept.stop + overlap, length)
    assert (count == 1).all()


@pytest.mark.parametrize("model", ["tv", MODEL])
@pytest.mark.parametrize("task", CALLS)
def test_tiles_change_no_pixel_by_more_than_is_stated(task, model, exact, monkeypatch):
    photo = np.tile(PHOTO, (1, 3))
    y = ri.add_noise(photo, EPS, 1)
    missing = generator(3).random(y.shape) < 0.3
    call = {"denoise": partial(ri.denoise, y), "inpaint": partial(ri.inpaint, y, missing),
            "deconvolve": partial(ri.deconvolve, y, PSF)}[task]  # fmt: skip
    whole = call(EPS, model=model)
    for name in ("TILE", "TV_TILE"):
        monkeypatch.setattr(priors, name, 16)
    tiled = call(EPS, model=model)
    difference = np.abs(tiled - whole).max()
    assert 0 < difference <= CHANGE  # 0: nothing was cut


def test_tiles_reach_beyond_gaps(monkeypatch):
    missing = np.zeros(PHOTO.shape, bool)
    missing[30:90, 20:90] = True
    monkeypatch.setattr(priors, "TILE", 16)
    monkeypatch.setattr(priors, "OVERLAP", 4)
    assert np.isfinite(ri.inpaint(NOISY, missing, EPS, model=MODEL)).all()
