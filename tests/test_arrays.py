"""The image contract: what is accepted and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refimpl as ri
from refimpl.arrays import as_finite, as_image_shape, as_images, per_image, positive, same_dtype
from strategies import generator, image_shapes, normal, precisions, seeds


@given(image_shapes(), seeds(), precisions())
def test_valid_images_pass_unchanged(shape, seed, dtype):
    u = normal(generator(seed), shape, dtype)
    assert as_images(u, shape=shape[1:]) is u


@pytest.mark.parametrize("shape", [(), (4,), (4, 4), (1, 4, 4), (1, 1, 1, 4, 4), (0, 1, 4, 4)])
def test_other_than_four_axes_is_refused_with_the_shape(shape):
    with pytest.raises(ValueError, match=r"image: shape is .*expected \(N, C, H, W\)"):
        as_images(np.zeros(shape), "image")


def test_channels_that_come_last_are_not_taken_for_rows():
    with pytest.raises(ValueError, match=r"300 channels of 40 x 3 pixels; .*np.moveaxis"):
        as_images(np.zeros((1, 300, 40, 3)))
    assert as_images(np.zeros((1, 300, 40, 5))).shape == (1, 300, 40, 5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_shape_of_a_photograph_with_channels_last_is_no_image_shape(channels):
    shape = (300, 40, channels)
    words = rf"\(300, 40, {channels}\), .* is 300 channels of 40 x {channels} pixels; put the chan"
    for make in (
        as_image_shape, ri.Identity, ri.total_variation, lambda s: ri.FilterBank(s, (2, 3, 3)),
        lambda s: ri.DenseBank(s, 3), lambda s: ri.Convolution(np.ones((3, 3)), s),
        lambda s: ri.Mask(np.ones(s)), lambda s: ri.Matrix(np.ones((1, 12000 * channels)), s),
        lambda s: ri.FromScipy(np.ones((1, 12000 * channels)), s),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            make(shape)


@pytest.mark.parametrize(
    "shape", [(3, 300, 40), (200, 3, 3), (16, 40, 3), (64, 1, 1), (31, 3, 500), (5, 5, 3)]
)
def test_shapes_of_images_with_channels_first_are_taken(shape):
    assert as_image_shape(shape) == shape


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"y: images are \(1, 4, 5\), expected \(1, 5, 4\)"):
        as_images(np.zeros((2, 1, 4, 5)), "y", shape=(1, 5, 4))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.complex128, bool])
def test_other_dtypes_are_refused_with_the_remedy(dtype):
    with pytest.raises(TypeError, match=r"u: dtype is .* expected float32 or float64; .*astype"):
        as_images(np.zeros((1, 1, 2, 2), dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_refused(value):
    u = np.zeros((1, 1, 2, 3))
    u[0, 0, 1, 1:] = value
    with pytest.raises(ValueError, match="y: 2 of 6 values are NaN or infinite"):
        as_finite(u, "y")


def test_masked_arrays_are_refused_since_their_mask_would_be_lost():
    with pytest.raises(TypeError, match="y: given a masked array.*Mask operator"):
        as_finite(np.ma.masked_array(np.ones(3), [True, False, False]), "y")


def test_mixed_precision_is_refused_and_names_the_arrays():
    u, A = np.zeros(2), np.zeros(2, np.float32)
    with pytest.raises(TypeError, match="u is float64, A is float32"):
        same_dtype(u=u, A=A)
    assert same_dtype(u=u, b=None) == np.float64


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "1", None, np.ones(1)])
def test_positive_refuses_everything_but_finite_positive_numbers(value):
    with pytest.raises((ValueError, TypeError)):
        positive(value, "tau")


def test_positive_returns_a_float():
    assert type(positive(np.float32(0.5), "tau")) is float


@given(st.integers(1, 4), st.integers(1, 4))
def test_per_image_values_scale_images(batch, axes):
    x = np.ones((batch,) + (2,) * axes)
    scaled = per_image(np.arange(batch), x) * x
    assert [row.max() for row in scaled] == list(range(batch))
