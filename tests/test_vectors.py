"""Inner products, norms and sums of batches, image by image."""

import numpy as np
import pytest
from hypothesis import given

from refimpl.kernels.vectors import dot, norm, plus, unit_and_size
from strategies import PRECISIONS, generator, image_shapes, normal, precisions, seeds


@given(image_shapes(max_batch=4), seeds(), precisions())
def test_dot_and_norm_are_those_of_each_image(shape, seed, dtype):
    rng = generator(seed)
    x, y = normal(rng, shape, dtype), normal(rng, shape, dtype)
    bound = 64 * np.finfo(dtype).eps * np.sqrt(x[0].size)
    assert dot(x, y).dtype == norm(x).dtype == dtype
    for n in range(shape[0]):
        exact = np.vdot(x[n].astype(float), y[n].astype(float))
        lengths = np.linalg.norm(x[n].astype(float)), np.linalg.norm(y[n].astype(float))
        assert abs(dot(x, y)[n] - exact) <= bound * lengths[0] * lengths[1]
        assert abs(norm(x)[n] - lengths[0]) <= bound * lengths[0]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("shape", [(3, 5), (2, 1, 1, 1), (2, 3, 200, 230)])
def test_sums_of_vectors_are_those_of_numpy(shape, dtype):
    rng = generator(0)
    x, y, a = (normal(rng, s, dtype) for s in (shape, shape, shape[:1]))
    wide = [v.astype(float).reshape(len(v), -1) for v in (x, y)]
    products = wide[0] * wide[1]
    bound = np.finfo(float).eps * products.shape[1] * np.abs(products).sum(axis=1)
    assert (np.abs(dot(x, y, dtype=float) - products.sum(axis=1)) <= bound).all()
    total = plus(y, a, x)
    exact = wide[1] + a[:, None].astype(float) * wide[0]
    size = np.abs(wide[1]) + np.abs(a[:, None] * wide[0])
    assert total.dtype == dtype and total.shape == shape
    assert (np.abs(total.reshape(exact.shape) - exact) <= 2 * np.finfo(dtype).eps * size).all()


@given(image_shapes(), seeds())
def test_dot_and_norm_of_an_image_do_not_depend_on_its_batch(shape, seed):
    rng = generator(seed)
    x, y = normal(rng, shape), normal(rng, shape)
    assert dot(x, y)[0] == dot(x[:1], y[:1])[0]
    assert norm(x)[0] == norm(x[:1])[0]


def test_dot_does_not_conjugate():
    x = np.array([[1j, 2.0]])
    assert dot(x, x)[0] == 3.0


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_norm_neither_overflows_nor_underflows(dtype):
    info = np.finfo(dtype)
    x = np.array([[3, 4], [0, 0]], dtype)
    exponents = np.linspace(np.log2(info.tiny), np.log2(info.max) - 4, 97).astype(int)
    for scale in np.ldexp(np.ones(97, dtype), exponents):
        assert norm(x * scale)[0] == pytest.approx(5 * float(scale), rel=4 * float(info.eps))
    assert norm(x)[1] == 0
    assert norm(np.array([[np.inf, 1], [np.nan, 1]], dtype))[0] == np.inf
    assert np.isnan(norm(np.array([[np.inf, 1], [np.nan, 1]], dtype))[1])


def test_the_norm_of_whole_numbers_is_not_cut():
    assert norm(np.array([[1, 1]])).tolist() == [np.sqrt(2)]


def test_sums_of_a_dtype_are_added_in_float64():
    x = np.array([[1.0, 2.0**-24, 2.0**-24]], np.float32)
    ones = np.ones_like(x)
    assert dot(x, ones, dtype=np.float64).tolist() == [1 + 2.0**-23]
    assert dot(x, ones).tolist() == [np.float32(1 + 2.0**-23)]


def test_arrays_need_not_be_contiguous():
    x, a = normal(generator(0), (4, 6, 5)), np.arange(8.0)[::2]
    y = x[:, ::-1].swapaxes(1, 2)
    x = x.swapaxes(1, 2)
    np.testing.assert_allclose(dot(x, y), (x * y).sum((1, 2)), rtol=1e-14)
    np.testing.assert_allclose(norm(y), np.sqrt((y * y).sum((1, 2))), rtol=1e-14)
    # Two roundings there, one here, each of half a unit of at most the sum of sizes.
    error = np.abs(plus(y, a, x) - (y + a[:, None, None] * x))
    assert (error <= 1.5 * np.finfo(float).eps * (np.abs(y) + np.abs(a[:, None, None] * x))).all()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_unit_and_size_make_up_the_vector_and_float32_holds_the_unit(dtype):
    x = np.array([[3, 4], [0, 0]], dtype)
    for scale in (np.sqrt(np.finfo(dtype).tiny), 1, np.sqrt(np.finfo(dtype).max)):
        unit, size = unit_and_size(x * dtype(scale), np.float32)
        assert unit.dtype == np.float32 and size.dtype == dtype
        np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0]], rtol=1e-6)
        np.testing.assert_allclose(size, [5 * scale, 0], rtol=1e-6)


def test_other_shapes_are_refused():
    x = np.ones((2, 3))
    for product in (lambda y: dot(x, y), lambda y: plus(x, np.ones(2), y)):
        for y in (x[:1], x[:, :2], x[None]):
            with pytest.raises(ValueError, match=r"shapes are .* expected the same twice"):
                product(y)
