"""The matrices of the dense oracle are those of scipy.ndimage; its padding is np.pad's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from refimpl.verification.checks import dense_matrix
from refimpl.verification.checks.dense_matrices import (
    analysis_matrix,
    convolution_matrix,
    correlation_matrix,
    operator_matrix,
    source_indices,
)
from strategies import BOUNDARIES, bank_shapes, boundaries, generator, normal, seeds

EPS = np.finfo(float).eps
NDIMAGE = {
    "zero": "constant",
    "periodic": "wrap",
    "symmetric": "reflect",
    "reflect": "mirror",
    "replicate": "nearest",
}


def test_dense_matrix_has_the_images_of_unit_vectors_as_columns():
    K = normal(generator(0), (4, 6))
    found = dense_matrix(lambda x: (K @ x.ravel()).reshape(1, 2, 2), (1, 2, 3))
    np.testing.assert_array_equal(found, K)


def test_dense_matrix_keeps_the_precision():
    assert dense_matrix(lambda x: x, (2,), np.float32).dtype == np.float32


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        ("zero", [-1, -1, 0, 1, 2, -1, -1]),
        ("periodic", [1, 2, 0, 1, 2, 0, 1]),
        ("symmetric", [1, 0, 0, 1, 2, 2, 1]),
        ("reflect", [2, 1, 0, 1, 2, 1, 0]),
        ("replicate", [0, 0, 0, 1, 2, 2, 2]),
    ],
)
def test_padding_reads_these_pixels(boundary, expected):
    assert source_indices(3, 2, boundary).tolist() == expected


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="boundary: given 'wrap', expected one of .*'periodic'"):
        source_indices(3, 1, "wrap")
    with pytest.raises(ValueError, match="operator: given 'blur'"):
        operator_matrix({"operator": "blur"}, {}, (1, 2, 2))
    with pytest.raises(ValueError, match="analysis: given 'fft'"):
        analysis_matrix({"analysis": "fft"}, np.ones((1, 4)), (1, 2, 2))


@given(bank_shapes(), boundaries(), seeds())
def test_correlation_matrix_is_that_of_ndimage(shapes, boundary, seed):
    (_, *image_shape), filter_shape = shapes
    rng = generator(seed)
    u, A = normal(rng, tuple(image_shape)), normal(rng, filter_shape)
    mode = NDIMAGE[boundary]
    expected = [sum(ndimage.correlate(x, a, mode=mode) for x, a in zip(u, f)) for f in A]
    given_ = correlation_matrix(A, tuple(image_shape), boundary) @ u.ravel()
    # 64 eps √n, relative to ‖A‖‖u‖ as in the dot test: no entry is a larger sum than that.
    bound = 64 * EPS * np.sqrt(u.size) * np.linalg.norm(A) * np.linalg.norm(u)
    assert np.abs(given_ - np.ravel(expected)).max() <= bound


@given(bank_shapes(), boundaries(), seeds(), st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_convolution_matrix_is_that_of_ndimage_for_odd_and_even_kernels(
    shapes, boundary, seed, kernel_shape
):
    image_shape = shapes[0][1:]
    rng = generator(seed)
    u, k = normal(rng, image_shape), normal(rng, kernel_shape)
    expected = [ndimage.convolve(x, k, mode=NDIMAGE[boundary]) for x in u]
    given_ = convolution_matrix(k, image_shape, boundary) @ u.ravel()
    bound = 64 * EPS * np.sqrt(u.size) * np.linalg.norm(k) * np.linalg.norm(u)
    assert np.abs(given_ - np.ravel(expected)).max() <= bound


@pytest.mark.parametrize("mask_shape", [(2, 3), (2, 2, 3)])
def test_mask_matrix_is_diagonal_and_broadcasts_over_channels(mask_shape):
    mask = generator(0).integers(0, 2, mask_shape).astype(bool)
    u = normal(generator(1), (2, 2, 3))
    K = operator_matrix({"operator": "mask"}, {"mask": mask}, (2, 2, 3))
    np.testing.assert_array_equal(K @ u.ravel(), (mask * u).ravel())


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_correlation_matrix_sees_flipped_filters(boundary):
    A = normal(generator(0), (2, 1, 3, 3))
    matrices = [correlation_matrix(f, (1, 5, 4), boundary) for f in (A, A[..., ::-1, ::-1])]
    assert np.abs(matrices[0] - matrices[1]).max() > 0.1
