"""Denoising, inpainting and deconvolution of one image: minimisers, weights, types, refusals."""

import logging
from functools import partial

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve
from skimage import data
from skimage.restoration import inpaint_biharmonic

from refimpl import restoration
from refimpl.images import add_noise, estimate_noise, psnr, ssim
from refimpl.results import NotConvergedError
from strategies import generator, seeds

# All of this is about total variation.
denoise, inpaint, deconvolve = (
    partial(function, model="tv")
    for function in (restoration.denoise, restoration.inpaint, restoration.deconvolve)
)
TASKS = {"denoise": denoise, "inpaint": inpaint, "deconvolve": deconvolve}

PSF = np.outer([1, 2, 3, 2, 1], [1, 3, 1]) / 45
PHOTOS = [
    image[top : top + 160, left : left + 160] / 255
    for image, top, left in (
        (data.camera(), 60, 150),
        (data.chelsea()[..., 1], 60, 100),
        (data.astronaut()[..., 1], 0, 150),
        (data.coffee()[..., 1], 100, 200),
        (data.rocket()[..., 1], 150, 200),
    )
]
PHOTO = PHOTOS[0]


def missing_at(shape, fraction=0.5, seed=0):
    return generator(seed).random(shape) < fraction


def change(monkeypatch, task, **changes):
    """Another rule for a task."""
    monkeypatch.setitem(restoration.RULES, task, restoration.RULES[task]._replace(**changes))


def blurred(u):
    return convolve(u, PSF, mode="reflect")


CALLS = {
    "denoise": lambda y, *given, **options: denoise(y, *given, **options),
    "inpaint": lambda y, *given, **options: inpaint(y, missing_at(SIZE, 0.1), *given, **options),
    "deconvolve": lambda y, *given, **options: deconvolve(y, PSF, *given, **options),
}
SIZE = (12, 9)


# What is computed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", CALLS)
def test_result_minimises_the_energy_written_out_with_differences(task, seed, monkeypatch):
    y, eps, tol = generator(seed).random(SIZE), 0.1, 1e-9
    rule, there = restoration.RULES[task], np.ones(SIZE)
    if task == "inpaint":
        there = 1.0 - missing_at(SIZE, 0.1)
    keep = [there[1:] * there[:-1], there[:, 1:] * there[:, :-1]]
    squares = sum(np.sum(k * np.diff(y, axis=a) ** 2) for a, k in enumerate(keep))
    g = np.sqrt(squares / sum(k.sum() for k in keep) - 2 * eps**2)
    kappa = np.sum(PSF**2) if task == "deconvolve" else 1
    lam = rule.a * g**rule.q / eps**rule.p / kappa**rule.r

    def energy(x):
        u = x.reshape(SIZE)
        fit = (blurred(u) if task == "deconvolve" else u) - y
        z = [rule.slope * np.diff(u, axis=a) for a in (0, 1)]
        experts = sum(np.sum(np.logaddexp(d, -d) - np.log(2)) for d in z) / rule.slope
        return lam / 2 * np.sum(there * fit**2) + experts

    change(monkeypatch, task, tol=tol)
    u = CALLS[task](y, eps).ravel()
    options = {"maxiter": 10}
    lower = scipy.optimize.minimize(energy, u, method="L-BFGS-B", options=options)
    # E is convex: E(u) − E(x) ≤ ‖∇E(u)‖ ‖u − x‖, and τ ‖∇E(u)‖ is at most tol times ‖u‖ or ‖u0‖.
    gradient = tol * 8 * rule.slope * max(np.linalg.norm(u), np.linalg.norm(y))
    rounding = y.size * np.finfo(float).eps * energy(u)
    assert energy(u) - lower.fun <= gradient * np.linalg.norm(u - lower.x) + rounding


@pytest.mark.parametrize("task", CALLS)
@pytest.mark.parametrize("eps", [0.02, 0.1])
def test_weight_is_near_the_best_one_on_photographs(task, eps, monkeypatch):
    rule, values = restoration.RULES[task], []
    for factor in (1, 0.5, 0.7, 1.4, 2):
        change(monkeypatch, task, a=factor * rule.a)
        values.append([psnr(restored(task, photo, eps), photo) for photo in PHOTOS])
    # Somewhat above the averages that `Rule` states, for five images at one noise level.
    bound = {"denoise": 0.16, "inpaint": 0.1, "deconvolve": 0.32}[task]
    assert np.mean(np.max(values, axis=0) - values[0]) <= bound


def restored(task, photo, eps):
    y = add_noise(blurred(photo) if task == "deconvolve" else photo, eps, 0)
    more = {"inpaint": (missing_at(photo.shape),), "deconvolve": (PSF,)}.get(task, ())
    return TASKS[task](y, *more, eps)


@pytest.mark.parametrize("task", CALLS)
def test_noise_falls_by_at_least_a_decibel(task):
    for photo in PHOTOS:
        assert psnr(restored(task, photo, 0.1), photo) >= psnr(add_noise(photo, 0.1, 0), photo) + 1


def test_inpainting_follows_the_mask_convention_of_scikit_image_and_is_as_good():
    missing = missing_at(PHOTO.shape, 0.3)
    y = np.where(missing, 0, PHOTO)
    ours, theirs = inpaint(y, missing, 0), inpaint_biharmonic(y, missing)
    assert psnr(ours, PHOTO) >= psnr(theirs, PHOTO) - 1
    assert np.abs(ours - PHOTO)[~missing].max() < np.abs(ours - PHOTO)[missing].max()


@pytest.mark.parametrize("fraction", [0.1, 0.7])
@pytest.mark.parametrize("eps", [0.01, 0.1])
def test_inpainted_image_does_not_depend_on_the_tolerance(fraction, eps, monkeypatch):
    missing, y = missing_at(PHOTO.shape, fraction), add_noise(PHOTO, eps, 0)
    first = inpaint(y, missing, eps)
    change(monkeypatch, "inpaint", tol=1e-10)
    second = inpaint(y, missing, eps)
    # What `Rule` states: single pixels between two edges are hardly determined.
    assert np.sqrt(np.mean((first - second) ** 2)) <= 0.13 / 255
    assert abs(psnr(first, PHOTO) - psnr(second, PHOTO)) <= 0.01


def test_what_is_missing_is_not_used():
    y, missing = add_noise(PHOTO, 0.05, 0), missing_at(PHOTO.shape, 0.4)
    nan = np.where(missing, np.nan, y)
    assert np.array_equal(inpaint(nan, missing), inpaint(np.where(missing, 9, y), missing))
    assert np.array_equal(inpaint(y, missing), inpaint(y, missing.astype(int).tolist()))


def test_blur_of_one_pixel_and_mask_without_gaps_leave_denoising():
    y = add_noise(PHOTO, 0.1, 0)
    assert psnr(deconvolve(y, [[1]], 0.1), PHOTO) > psnr(y, PHOTO) + 3
    assert psnr(inpaint(y, np.zeros(y.shape, bool), 0.1), PHOTO) > psnr(y, PHOTO) + 3


# What goes in and comes out


@pytest.mark.parametrize("task", CALLS)
@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (np.uint8, np.float64),
        (np.uint16, np.float64),
        (bool, np.float64),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
    ],
)
def test_pixels_of_every_type_are_in_units_of_white(task, dtype, result):
    white = np.iinfo(dtype).max if np.issubdtype(dtype, np.unsignedinteger) else 1
    y = (white * generator(0).random(SIZE) + (dtype is bool) / 2).astype(dtype)
    u = CALLS[task](y, 0.1)
    assert u.dtype == result and u.shape == y.shape
    expected = CALLS[task](y.astype(np.float64) / white, 0.1)
    assert np.abs(u - expected).max() <= 8 * np.finfo(result).eps


@pytest.mark.parametrize("task", CALLS)
def test_strides_and_byte_order_make_no_difference(task):
    y = generator(0).random(SIZE)
    expected = CALLS[task](y, 0.1)
    wide = np.zeros((24, 18))
    wide[::2, ::-2] = y
    swapped = y.astype(y.dtype.newbyteorder())
    readonly = y.copy()
    readonly.flags.writeable = False
    for same in (wide[::2, ::-2], np.asfortranarray(y), swapped, readonly, y.tolist()):
        assert np.array_equal(CALLS[task](same, 0.1), expected)


@pytest.mark.parametrize("task", CALLS)
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_channels_may_be_on_any_axis(task, axis):
    y = generator(0).random((3, *SIZE))
    expected = CALLS[task](y, 0.1, channel_axis=0)
    u = CALLS[task](np.moveaxis(y, 0, axis), 0.1, channel_axis=axis)
    assert np.array_equal(np.moveaxis(u, axis, 0), expected)


@pytest.mark.parametrize("task", CALLS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2)])
def test_arguments_are_left_alone_and_small_images_work(task, size):
    y = generator(0).random(size)
    before = y.copy()
    more = {"inpaint": (np.arange(y.size).reshape(size) == 1,), "deconvolve": ([[1]],)}
    u = TASKS[task](y, *more.get(task, ()), 0.1)
    assert u.shape == size and np.isfinite(u).all() and np.array_equal(y, before)


@pytest.mark.parametrize("task", CALLS)
def test_noise_that_is_not_given_is_estimated_and_said(task, caplog):
    y = generator(0).normal(0.5, 0.1, SIZE)
    missing = missing_at(SIZE, 0.1) if task == "inpaint" else None
    with caplog.at_level(logging.INFO, "refimpl"):
        u = CALLS[task](y)
    level = estimate_noise(y, mask=missing)
    assert np.array_equal(u, CALLS[task](y, level))
    said = f"noise_level is estimated as {level:.4g} ({255 * level:.3g} of 255)"
    assert caplog.messages == [said]


def test_a_flat_image_without_noise_stays():
    y = np.full((16, 16), 0.25)
    assert np.abs(denoise(y) - y).max() <= 1e-12


@pytest.mark.parametrize("task", CALLS)
def test_a_solve_that_misses_its_tolerance_raises(task, monkeypatch):
    change(monkeypatch, task, tol=1e-30)
    with pytest.raises(NotConvergedError, match=rf"{task}: .*relative residual .* > 1e-30"):
        CALLS[task](generator(0).random(SIZE), 0.1)


# The estimate of the noise


@given(seeds(), st.floats(0.01, 0.5))
@settings(max_examples=20)
def test_noise_of_known_level_is_estimated(seed, level):
    y = add_noise(np.full((128, 128), 0.5), level, seed)
    # The median of n values |d| has the relative standard error 1.17 / √n; about a quarter of the
    # windows are independent. Five of them, for both filters.
    for mask in (None, missing_at(y.shape, 0.1, seed)):
        error = estimate_noise(y, mask=mask) / level - 1
        assert abs(error) <= 5 * 1.17 / np.sqrt(y.size / 4 if mask is None else y.size / 16)
    half = missing_at(y.shape, 0.5, seed)  # leaves y.size / 16 windows of Haar
    error = estimate_noise(np.where(half, np.nan, y), mask=half) / level - 1
    assert abs(error) <= 5 * 1.17 / np.sqrt(y.size / 64)


def test_ramps_are_no_noise():
    ramp = np.add.outer(np.linspace(0, 0.5, 32), np.linspace(0, 0.5, 40))
    assert estimate_noise(ramp) <= 8 * np.finfo(float).eps
    assert estimate_noise(np.zeros((8, 8))) == 0


# Bad input

GOOD = generator(0).random(SIZE)
IMAGES = {  # kind -> image, error, fragment
    "none": (None, TypeError, "given dtype object, no numbers, expected an array"),
    "text": ("photo.png", TypeError, "no numbers"),
    "dict": ({}, TypeError, "no numbers"),
    "objects": (GOOD.astype(object), TypeError, "given dtype object"),
    "ragged": ([[0.0, 1.0], [0.0]], ValueError, "lists of unequal lengths"),
    "masked": (np.ma.masked_array(GOOD, GOOD > 2), TypeError, "masked array, whose mask would"),
    "complex": (GOOD + 0j, TypeError, "given complex128 numbers, expected an array of real"),
    "dates": (np.zeros(SIZE, "datetime64[s]"), TypeError, "no numbers"),
    "int64": ((9 * GOOD).astype(np.int64), TypeError, "dtype is int64, which does not say what"),
    "empty": (np.zeros((0, 4)), ValueError, r"shape is \(0, 4\), expected no axis of length 0"),
    "number": (0.5, ValueError, r"shape is \(\), expected \(H, W\)"),
    "line": (GOOD[0], ValueError, r"shape is \(9,\), expected \(H, W\)"),
    "nan": (np.where(GOOD > 0.5, np.nan, GOOD), ValueError, "values are NaN or infinite"),
    "inf": (np.where(GOOD > 0.5, np.inf, GOOD), ValueError, "values are NaN or infinite"),
    "colour": (np.zeros((12, 9, 3)), ValueError, "for colour .* channel_axis=-1"),
    "batch": (np.zeros((1, 12, 9, 3)), ValueError, r"expected \(H, W\); pass one image"),
    "scale": (255 * GOOD, ValueError, r"expected about 0 to 1; divide .* 255"),
}
FUNCTIONS = {
    **{task: (lambda x, call=call: call(x, 0.1)) for task, call in CALLS.items()},
    "estimate_noise": estimate_noise,
    "add_noise": lambda x: add_noise(x, 0.1),
    "psnr": lambda x: psnr(x, x),
    "ssim": lambda x: ssim(x, x),
}
WELCOME = {  # functions for which a kind of image is good
    "colour": ("add_noise", "psnr"),
    "batch": ("add_noise", "psnr", "ssim"),
    "scale": ("add_noise", "estimate_noise", "psnr", "ssim"),
}


@pytest.mark.parametrize(
    ("function", "kind"),
    [(f, kind) for f in FUNCTIONS for kind in IMAGES if f not in WELCOME.get(kind, ())],
)
def test_bad_images_are_refused_by_every_function(function, kind):
    image, error, fragment = IMAGES[kind]
    with pytest.raises(error, match=f"image.*{fragment}"):
        FUNCTIONS[function](image)


BIG = np.zeros((1, 300, 40, 3))
ARGUMENTS = {  # what is wrong -> call, error, fragment
    "channel_axis beyond": (lambda: denoise(BIG[0], 0.1, channel_axis=3), ValueError, "-3 to 2"),
    "channel_axis of text": (lambda: denoise(BIG[0], 0.1, channel_axis="C"), TypeError, "integer"),
    "channel_axis of grey": (
        lambda: denoise(GOOD, 0.1, channel_axis=-1),
        ValueError,
        "leave channel_axis out",
    ),
    "wrong channel_axis": (
        lambda: denoise(BIG[0], 0.1, channel_axis=0),
        ValueError,
        "pass channel_axis=2",
    ),
    "batch with channel_axis": (
        lambda: denoise(BIG, 0.1, channel_axis=-1),
        ValueError,
        "three axes.*one image at a time",
    ),
    "channels last in a batch": (lambda: ssim(BIG, BIG), ValueError, "300 channels of 40 x 3"),
    "negative noise": (lambda: denoise(GOOD, -0.1), ValueError, "noise_level: given -0.1"),
    "huge noise": (lambda: denoise(GOOD, 25), ValueError, "given 25, .* divide that of 8-bit"),
    "noise nan": (lambda: denoise(GOOD, np.nan), ValueError, "noise_level: given nan"),
    "noise of text": (lambda: denoise(GOOD, "0.1"), ValueError, "noise_level: given '0.1'"),
    "noise of arrays": (lambda: denoise(GOOD, [0.1]), ValueError, r"noise_level: given \[0.1\]"),
    "noise of truth": (lambda: denoise(GOOD, True), ValueError, "noise_level: given True"),
    "noise of a few pixels": (lambda: denoise(GOOD[:3, :3]), ValueError, "pass noise_level"),
    "noise of 255": (lambda: denoise(255 * GOOD), ValueError, "estimated .* by 255"),
    "mask of channels": (
        lambda: inpaint(BIG[0], BIG[0] > 1, 0.1, channel_axis=-1),
        ValueError,
        "one for all chann",
    ),
    "mask too small": (lambda: inpaint(GOOD, GOOD[1:] > 1, 0.1), ValueError, r"shape is \(11, 9\)"),
    "mask of 255": (
        lambda: inpaint(GOOD, np.uint8(255) * (GOOD > 0.5), 0.1),
        ValueError,
        "mask > 0",
    ),
    "mask nan": (lambda: inpaint(GOOD, GOOD * np.nan, 0.1), ValueError, "zeros and ones"),
    "mask none": (lambda: inpaint(GOOD, None, 0.1), TypeError, "mask: given dtype object"),
    "mask of text": (lambda: inpaint(GOOD, "m.png", 0.1), TypeError, "mask: .* no numbers"),
    "all missing": (lambda: inpaint(GOOD, GOOD >= 0, 0.1), ValueError, "every pixel is missing"),
    "few observed": (lambda: inpaint(GOOD, GOOD > 0.05), ValueError, "pass noise_level"),
    "nan that is observed": (
        lambda: inpaint(GOOD * np.nan, GOOD > 0.5, 0.1),
        ValueError,
        "where it is not missing",
    ),
    "psf zero": (lambda: deconvolve(GOOD, np.zeros((3, 3)), 0.1), ValueError, "values are 0"),
    "psf of sum 9": (lambda: deconvolve(GOOD, np.ones((3, 3)), 0.1), ValueError, "psf.sum()"),
    "psf even": (lambda: deconvolve(GOOD, np.ones((2, 3)) / 6, 0.1), ValueError, "odd sides; pad"),
    "psf flat": (lambda: deconvolve(GOOD, [0.5, 0.5], 0.1), ValueError, r"expected \(h, w\)"),
    "psf too large": (lambda: deconvolve(GOOD, np.eye(11) / 11, 0.1), ValueError, "no larger than"),
    "psf complex": (lambda: deconvolve(GOOD, [[1j]], 0.1), TypeError, "psf: given complex128"),
    "psf nan": (lambda: deconvolve(GOOD, [[np.nan]], 0.1), ValueError, "psf: 1 of 1 values"),
    "psf none": (lambda: deconvolve(GOOD, None, 0.1), TypeError, "psf: given dtype object"),
    "psf empty": (lambda: deconvolve(GOOD, np.zeros((0, 3)), 0.1), ValueError, "psf: shape is"),
    "rng of truth": (lambda: add_noise(GOOD, 0.1, True), TypeError, "rng: given bool"),
    "rng negative": (lambda: add_noise(GOOD, 0.1, -1), ValueError, "seed of 0 or more"),
    "other shapes": (lambda: psnr(GOOD, GOOD[1:]), ValueError, "reference has shape"),
    "data_range 0": (lambda: psnr(GOOD, GOOD, 0), ValueError, "data_range: given 0"),
    "data_range text": (lambda: psnr(GOOD, GOOD, "1"), ValueError, "data_range: given '1'"),
    "data_range missing": (lambda: psnr(GOOD, 2 * GOOD), ValueError, "data_range: not given"),
    "unit unclear": (
        lambda: psnr(GOOD, np.uint8(255 * GOOD), 255),
        TypeError,
        "reference is uint8; convert",
    ),
    "window of text": (lambda: ssim(GOOD, GOOD, window="7"), ValueError, "ssim: window is '7'"),
}


@pytest.mark.parametrize("wrong", ARGUMENTS)
def test_bad_arguments_are_refused_with_what_to_do(wrong):
    call, error, fragment = ARGUMENTS[wrong]
    with pytest.raises(error, match=fragment):
        call()


def test_a_mask_of_the_other_polarity_is_told_apart():
    y, missing = generator(0).random(SIZE), missing_at(SIZE)
    with pytest.raises(ValueError, match="pass ~mask"):
        inpaint(np.where(missing, 0, y), ~missing, 0.1)
