"""Images: sets and their ranges, crops, noise, and quality measured against oracles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from refimpl import images
from refimpl.images import sets, shipped
from strategies import generator, image_shapes, precisions, seeds

EPS = np.finfo(np.float64).eps
RANGES = (images.UNIT_RANGE, images.PAPER_RANGE, (0.1, 0.3), (-5.0, 250.0))


def uniform(seed, shape, dtype=np.float64):
    return generator(seed).random(shape).astype(dtype)


# Sets and ranges


@given(image_shapes(), seeds(), precisions(), st.sampled_from(RANGES), st.sampled_from(RANGES))
def test_rescaling_to_a_range_and_back_is_the_identity(shape, seed, dtype, source, target):
    u = images.rescale(uniform(seed, shape, dtype), images.UNIT_RANGE, source)
    there = images.rescale(u, source, target)
    back = images.rescale(there, target, source)
    assert there.dtype == back.dtype == dtype
    # Each map loses RANGE_SLACK units of the larger end; the way back magnifies the first loss.
    spans = [high - low for low, high in (source, target)]
    ends = [max(map(abs, r)) for r in (source, target)]
    unit = sets.RANGE_SLACK * np.finfo(dtype).eps
    assert np.abs(back - u).max() <= 2 * unit * (ends[0] + ends[1] * spans[0] / spans[1])


def test_rescaling_maps_black_and_white_to_the_ends():
    assert np.array_equal(
        images.rescale(np.array([0.0, 0.5, 1.0, 2.0]), images.UNIT_RANGE, images.PAPER_RANGE),
        [-1, 0, 1, 3],
    )


@given(seeds(), st.sampled_from(RANGES))
def test_rescaled_set_states_its_range_and_keeps_to_it(seed, target):
    u = uniform(seed, (2, 1, 4, 5))
    u[0, 0, 0, :2] = 0, 1
    rescaled = images.ImageSet(u, u, images.UNIT_RANGE, "u").rescaled(target)
    assert rescaled.value_range == target
    assert np.array_equal(rescaled.train, images.rescale(u, images.UNIT_RANGE, target))


@pytest.mark.parametrize("value_range", [(1, 0), (0, 0), (0, np.nan), (0, np.inf), (1,), (0, 1, 2)])
def test_range_that_is_not_low_and_high_is_refused(value_range):
    with pytest.raises(ValueError, match=r"value_range: given .*, expected \(low, high\)"):
        images.rescale(np.zeros(3), images.UNIT_RANGE, value_range)


def test_set_with_values_outside_its_range_is_refused():
    good, bad = np.zeros((1, 1, 2, 2)), np.full((1, 1, 2, 2), 255.0)
    with pytest.raises(ValueError, match=r"pets: values are from 255 to 255, expected \[0, 1\]"):
        images.ImageSet(good, bad, images.UNIT_RANGE, "pets")


def test_set_of_two_shapes_or_two_precisions_is_refused():
    train = np.zeros((1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"expected \(1, 2, 2\)"):
        images.ImageSet(train, np.zeros((1, 1, 2, 3)), images.UNIT_RANGE, "u")
    with pytest.raises(TypeError, match="mixed precision"):
        images.ImageSet(train, train.astype(np.float32), images.UNIT_RANGE, "u")


def test_subset_takes_the_first_and_says_how_many_there_are():
    faces = images.faces()
    some = faces.subset(3, 2)
    assert np.array_equal(some.train, faces.train[:3])
    assert np.array_equal(some.test, faces.test[:2])
    with pytest.raises(ValueError, match="faces: given test=21, expected 1 to 20"):
        faces.subset(1, 21)


# Images that scikit-image ships


def test_faces_are_the_hundred_faces_split_in_order():
    faces = images.faces()
    assert (faces.train.shape, faces.test.shape) == ((80, 1, 25, 25), (20, 1, 25, 25))
    both = np.concatenate([faces.train, faces.test])
    assert both.dtype == np.float64
    assert len(np.unique(both.reshape(100, -1), axis=0)) == 100


def test_photograph_crops_of_training_and_test_come_from_different_photographs():
    assert not set(shipped.TRAIN_PHOTOGRAPHS) & set(shipped.TEST_PHOTOGRAPHS)


def test_shrinking_takes_the_means_of_blocks():
    u = np.arange(24.0).reshape(1, 4, 6)
    assert np.array_equal(shipped.block_means(u, 2), [[[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]])
    assert images.photograph_crops(32, shrink=4).test.shape[1:] == (1, 32, 32)
    with pytest.raises(ValueError, match="shrink: given 0"):
        images.photograph_crops(32, shrink=0)


@pytest.mark.parametrize(("colour", "channels", "train"), [(False, 1, 6), (True, 3, 3)])
def test_photograph_crops_take_turns_among_photographs(colour, channels, train):
    crops = images.photograph_crops((120, 100), colour=colour)
    assert crops.train.shape[1:] == (channels, 120, 100)
    centre = shipped.tiles(shipped._photograph("chelsea", colour), (120, 100), "chelsea")[0]
    assert np.array_equal(crops.train[1], centre)
    assert len(np.unique(crops.train[:train].reshape(train, -1), axis=0)) == train


def test_grey_crop_is_the_luminance_of_the_colour_crop():
    colour = images.photograph_crops(128, colour=True).test[0]
    grey = images.photograph_crops(128).test[1, 0]
    weights = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709, as skimage.color.rgb2gray documents
    assert np.abs(np.tensordot(weights, colour, 1) - grey).max() <= 4 * EPS


def test_crop_larger_than_a_photograph_is_refused():
    with pytest.raises(ValueError, match=r"chelsea: image is \(300, 451\), crops are \(301, 64\)"):
        images.photograph_crops((301, 64))


@pytest.mark.parametrize("size", [0, -1, 2.5, (3, 0), (1, 2, 3), "64", True])
def test_size_that_is_not_positive_integers_is_refused(size):
    with pytest.raises(ValueError, match="size: given .*, expected one or two positive integers"):
        images.photograph_crops(size)


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), seeds())
def test_tiles_are_blocks_of_the_image_that_do_not_overlap(channels, height, width, side, seed):
    h, w = min(side, height), min(side + 1, width)
    image = np.arange(channels * height * width, dtype=np.float64).reshape(channels, height, width)
    tiles = shipped.tiles(image, (h, w), "image")
    assert len(np.unique(tiles)) == tiles.size == channels * (height // h) * h * (width // w) * w
    for tile in tiles:
        channel, top, left = np.unravel_index(int(tile[0, 0, 0]), image.shape)
        assert channel == 0
        assert np.array_equal(tile, image[:, top : top + h, left : left + w])


def test_tiles_nearest_the_centre_come_first():
    image = np.arange(25.0).reshape(1, 5, 5)
    assert shipped.tiles(image, 1, "image")[:5].ravel().tolist() == [12, 7, 11, 13, 17]


@pytest.mark.parametrize(
    ("pixels", "alpha", "expected"),
    [
        (np.array([[0, 51, 255]], np.uint8), None, [[[0, 0.2, 1]]]),
        (np.array([[0, 13107, 65535]], np.uint16), None, [[[0, 0.2, 1]]]),
        (np.array([[False, True]]), None, [[[0, 1]]]),
        (np.array([[0.25, 1]], np.float32), None, [[[0.25, 1]]]),
        (np.uint8([[[0, 0, 0], [9, 9, 9]]]), np.uint8([[0, 255]]), [[[1, 9 / 255]]]),
        (np.uint8([[0, 51]]), np.uint8([[51, 255]]), [[[0.8, 0.2]]]),
    ],
)
def test_pixels_of_every_type_become_unit_images(pixels, alpha, expected):
    image = sets.unit_image(pixels, "image", False, alpha)
    assert image.dtype == np.float64
    assert np.abs(image - expected).max() <= 4 * EPS


# Noise


@given(image_shapes(max_batch=4), seeds(), precisions())
def test_noise_of_an_image_does_not_depend_on_the_others(shape, seed, dtype):
    u = uniform(seed, shape, dtype)
    y = images.add_noise(u, 0.1, generator(seed))
    assert y.dtype == dtype
    assert np.array_equal(images.add_noise(u[:1], 0.1, generator(seed)), y[:1])
    others = np.concatenate([u[:1], 1 - u[1:]])
    assert np.array_equal(images.add_noise(others, 0.1, generator(seed))[:1], y[:1])


@given(image_shapes(), seeds())
def test_noise_of_level_zero_leaves_an_equal_copy(shape, seed):
    u = uniform(seed, shape)
    y = images.add_noise(u, 0, generator(seed))
    assert np.array_equal(u, y) and not np.shares_memory(u, y)


def test_noise_has_the_stated_mean_and_standard_deviation():
    n = 10**6
    noise = images.add_noise(np.zeros((1, 1, 1000, 1000)), 0.5, generator(0)) / 0.5
    # Standard errors are 1/√n of the mean and √(2/n) of the variance; five of them.
    assert abs(noise.mean()) <= 5 / np.sqrt(n)
    assert abs(noise.var() - 1) <= 5 * np.sqrt(2 / n)


def test_second_call_with_the_same_generator_gives_other_noise():
    rng, u = generator(0), np.zeros((1, 1, 2, 2))
    assert not np.array_equal(images.add_noise(u, 1, rng), images.add_noise(u, 1, rng))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"noise_level": -0.1}, ValueError, "noise_level: given -0.1, expected a finite number"),
        ({"noise_level": np.nan}, ValueError, "noise_level: given nan"),
        ({"rng": "0"}, TypeError, "rng: given str, expected None, a seed or np.random.Generator"),
        ({"image": np.zeros(3)}, ValueError, r"image: shape is \(3,\), expected \(H, W\)"),
        ({"image": np.full((1, 2), np.inf)}, ValueError, "image: 2 of 2 values are NaN or inf"),
    ],
)
def test_bad_noise_is_refused(change, error, message):
    arguments = {"image": np.zeros((1, 1, 2, 2)), "noise_level": 0.1, "rng": generator(0)} | change
    with pytest.raises(error, match=message):
        images.add_noise(**arguments)


@given(seeds(), st.sampled_from([(5, 4), (5, 4, 3), (3, 5, 4)]), precisions())
def test_an_image_gets_the_noise_of_a_batch_of_one(seed, shape, dtype):
    u = uniform(seed, shape, dtype)
    batch = images.add_noise(u.reshape(1, 1, -1, shape[-1]), 0.1, generator(seed))
    y = images.add_noise(u, 0.1, generator(seed))
    assert y.dtype == dtype and np.array_equal(y, batch.reshape(shape))
    assert np.array_equal(y, images.add_noise(u, 0.1, seed))


def test_integers_get_noise_in_units_of_white_and_no_seed_gives_other_noise():
    pixels = np.array([[0, 51], [102, 255]], np.uint8)
    assert np.array_equal(images.add_noise(pixels, 0.1, 1), images.add_noise(pixels / 255, 0.1, 1))
    assert not np.array_equal(images.add_noise(pixels, 0.1), images.add_noise(pixels, 0.1))


# Quality


@given(seeds(), st.sampled_from([None, 0, 2]), st.sampled_from([np.uint8, np.float32, float]))
def test_quality_of_an_image_is_that_of_scikit_image(seed, axis, dtype):
    white = 255 if dtype is np.uint8 else 1
    shape = (8, 9) if axis is None else (3, 8, 9) if axis == 0 else (8, 9, 3)
    u, truth = ((white * uniform(seed + n, shape)).astype(dtype) for n in (0, 1))
    given = {"data_range": white}
    exact = [x.astype(float) for x in (u, truth)]
    eps = np.finfo(np.float32 if dtype is np.float32 else float).eps
    value = images.psnr(u, truth, white)
    assert type(value) is float
    # As for batches: the roundings of squares and their sum, in dB; and float32's of the result.
    bound = (5 * (u.size + 4) + 8 * abs(value)) * eps
    assert abs(value - peak_signal_noise_ratio(*exact, **given)) <= bound
    assert abs(images.psnr(u, truth) - value) <= bound
    value = images.ssim(u, truth, white, channel_axis=axis)
    expected = structural_similarity(u, truth, win_size=7, channel_axis=axis, **given)
    assert type(value) is float and abs(value - expected) <= 4 * 53 * eps / 1e-4
    assert abs(images.ssim(u, truth, channel_axis=axis) - value) <= 4 * 53 * eps / 1e-4


def test_images_of_two_types_are_compared_in_units_of_white():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert images.psnr(pixels, pixels / 255) == np.inf
    assert images.psnr(pixels[None, None], pixels[None, None]).shape == (1,)


@given(image_shapes(), seeds(), st.sampled_from(RANGES))
def test_psnr_is_that_of_scikit_image(shape, seed, value_range):
    u, truth = uniform(seed, shape), uniform(seed + 1, shape)
    span = value_range[1] - value_range[0]
    expected = [peak_signal_noise_ratio(t, x, data_range=span) for t, x in zip(truth, u)]
    # Squares and their sum: n + 4 roundings relative in ‖·‖², 10/ln 10 < 5 turns them into dB.
    bound = 5 * (u[0].size + 4) * EPS + 8 * EPS * np.abs(expected)
    assert np.all(np.abs(images.psnr(u, truth, value_range) - expected) <= bound)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_psnr_of_equal_images_is_infinite_and_tiny_errors_do_not_vanish(dtype):
    truth = np.zeros((2, 1, 2, 2), dtype)
    u = truth.copy()
    u[1] = 1e-30
    values = images.psnr(u, truth, images.UNIT_RANGE)
    assert values.dtype == dtype and values[0] == np.inf
    assert abs(values[1] - 600) <= 600 * 8 * np.finfo(dtype).eps


@given(image_shapes(min_side=7, max_side=9), seeds(), precisions())
def test_ssim_is_symmetric_and_one_for_equal_images(shape, seed, dtype):
    u, truth = uniform(seed, shape, dtype), uniform(seed + 1, shape, dtype)
    forth, back = (images.ssim(*pair, images.UNIT_RANGE) for pair in ((u, truth), (truth, u)))
    assert forth.dtype == dtype and forth.shape == shape[:1]
    assert np.array_equal(forth, back)
    assert np.abs(images.ssim(u, u, images.UNIT_RANGE) - 1).max() <= 8 * np.finfo(dtype).eps


@pytest.mark.parametrize("window", [1, 2, 4, 9])
def test_ssim_window_that_does_not_fit_is_refused(window):
    u = np.zeros((1, 1, 8, 8))
    with pytest.raises(ValueError, match=rf"window is {window}, images are \(8, 8\)"):
        images.ssim(u, u, images.UNIT_RANGE, window=window)


@pytest.mark.parametrize("measure", [images.psnr, images.ssim])
def test_batches_that_do_not_match_are_refused(measure):
    u = np.zeros((2, 1, 7, 7))
    with pytest.raises(ValueError, match=r"image has shape .*, reference has shape \(1, 1, 7, 7\)"):
        measure(u, u[:1], images.UNIT_RANGE)
    with pytest.raises(TypeError, match="mixed precision"):
        measure(u, u.astype(np.float32), images.UNIT_RANGE)
