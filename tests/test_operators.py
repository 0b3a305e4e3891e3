"""Operators and banks against scipy.ndimage and dense transposes; algebra, norms, bad input."""

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from refimpl.equilibrium.norms import bank_norm, operator_norm
from refimpl.paper.operators import (
    Convolution,
    DenseBank,
    FilterBank,
    FromScipy,
    Identity,
    Mask,
    Matrix,
    block_mask,
    random_mask,
    row_mask,
)
from refimpl.paper.operators.banks import Analysis
from refimpl.paper.operators.convolution import diagonal_kernel
from refimpl.verification.checks import bilinear_test, dense_matrix, dot_test
from refimpl.verification.identities import registry
from strategies import (
    boundaries,
    filter_shapes,
    generator,
    image_shapes,
    normal,
    precisions,
    seeds,
)

NDIMAGE_MODES = {
    "zero": "constant",
    "periodic": "grid-wrap",
    "symmetric": "reflect",
    "reflect": "mirror",
    "replicate": "nearest",
}
COLOUR = (3, 5, 4)


def rounding(*arrays, eps=None):
    """64 eps √n of the largest array, relative to its norm."""
    largest = max(arrays, key=np.size)
    eps = np.finfo(largest.dtype).eps if eps is None else eps
    return 64 * eps * np.sqrt(largest.size)


def assert_close(given, expected, bound):
    assert given.shape == expected.shape
    assert np.linalg.norm(given - expected) <= bound * np.linalg.norm(expected)


def odd_sides(largest=7):
    return st.integers(0, largest // 2).map(lambda half: 2 * half + 1)


# Convolution and banks against other libraries


@given(image_shapes(max_side=6), odd_sides(), odd_sides(), boundaries(), precisions(), seeds())
def test_convolution_is_that_of_ndimage(shape, h, w, boundary, dtype, seed):
    rng = generator(seed)
    kernel, u = normal(rng, (h, w), dtype), normal(rng, shape, dtype)
    given = Convolution(kernel, shape[1:], boundary).matvec(u)
    expected = ndimage.convolve(
        u.astype(float), kernel[None, None].astype(float), mode=NDIMAGE_MODES[boundary]
    )
    assert given.dtype == dtype
    scale = np.abs(kernel).sum() * np.abs(u).max()
    assert np.abs(given - expected).max() <= rounding(u, kernel) * scale


@given(image_shapes(max_side=6), st.data(), boundaries(), seeds())
def test_filter_bank_is_the_correlation_of_ndimage_summed_over_channels(
    shape, data, boundary, seed
):
    filters = data.draw(filter_shapes(shape[1], max_side=7))
    rng = generator(seed)
    A, u = normal(rng, filters), normal(rng, shape)
    given = FilterBank(shape[1:], (filters[0], *filters[2:]), boundary).apply(A, u)
    mode = NDIMAGE_MODES[boundary]
    expected = np.array(
        [
            [sum(ndimage.correlate(x, a, mode=mode) for x, a in zip(image, A_k)) for A_k in A]
            for image in u
        ]
    )
    assert np.abs(given - expected).max() <= rounding(u, A) * np.abs(A).sum() * np.abs(u).max()


# Adjoints


@pytest.mark.parametrize("name", [name for name, _ in registry.operators()])
def test_adjoint_is_the_transposed_matrix(name):
    operator = dict(registry.operators())[name]
    K = dense_matrix(operator.matvec, (1, *operator.domain_shape))
    transposed = dense_matrix(operator.adjoint, (1, *operator.range_shape))
    assert np.abs(K - transposed.T).max() <= 64 * np.finfo(float).eps * np.abs(K).max()


@given(image_shapes(), odd_sides(), odd_sides(), boundaries(), precisions(), seeds())
def test_dot_test_of_convolution_holds_in_both_precisions(shape, h, w, boundary, dtype, seed):
    rng = generator(seed)
    K = Convolution(normal(rng, (h, w), dtype), shape[1:], boundary)
    u, z = normal(rng, shape, dtype), normal(rng, shape, dtype)
    assert K.matvec(u).dtype == K.adjoint(z).dtype == dtype
    assert dot_test(K.matvec, K.adjoint, u, z).passed


@given(image_shapes(), st.data(), boundaries(), precisions(), seeds())
def test_bilinear_test_of_banks_holds_in_both_precisions(shape, data, boundary, dtype, seed):
    filters = data.draw(filter_shapes(shape[1], max_side=7))
    rng = generator(seed)
    for bank in (
        FilterBank(shape[1:], (filters[0], *filters[2:]), boundary),
        DenseBank(shape[1:], filters[0]),
    ):
        A = normal(rng, bank.coefficients_shape, dtype)
        u, z = normal(rng, shape, dtype), normal(rng, (shape[0], *bank.response_shape), dtype)
        results = bank.apply(A, u), bank.adjoint(A, z), bank.adjoint_filters(u, z)
        assert [x.dtype for x in results] == [dtype] * 3
        assert bilinear_test(bank.apply, bank.adjoint, bank.adjoint_filters, A, u, z).passed


@pytest.mark.parametrize("name", [name for name, _ in registry.operators()])
def test_operators_leave_their_arguments_as_they_are(name):
    operator, rng = dict(registry.operators())[name], generator(0)
    u, z = normal(rng, (2, *operator.domain_shape)), normal(rng, (2, *operator.range_shape))
    u0, z0 = u.copy(), z.copy()
    u.flags.writeable = z.flags.writeable = False
    operator.matvec(u), operator.adjoint(z)
    assert np.array_equal(u, u0)
    assert np.array_equal(z, z0)


# Algebra and SciPy


def test_compositions_sums_and_multiples_are_those_of_matrices():
    rng = generator(2)
    blur, mask = Convolution(normal(rng, (3, 3)), COLOUR), Mask(rng.random(COLOUR) < 0.5, COLOUR)
    B, M = (dense_matrix(op.matvec, (1, *COLOUR)) for op in (blur, mask))
    for combined, expected in (
        (mask @ blur, M @ B),
        (blur @ mask, B @ M),
        (blur + mask, B + M),
        (blur - mask, B - M),
        (-2.5 * blur, -2.5 * B),
        (2 * (mask @ (blur + mask)), 2 * M @ (B + M)),
    ):
        matrix = dense_matrix(combined.matvec, (1, *COLOUR))
        assert_close(matrix, expected, rounding(expected))


def test_operators_go_to_scipy_and_back():
    rng = generator(3)
    K = Convolution(normal(rng, (3, 5)), COLOUR, "periodic")
    flat = K.as_scipy()
    u, z = normal(rng, (2, *COLOUR)), normal(rng, (2, *COLOUR))
    back = FromScipy(flat, COLOUR, COLOUR)
    assert np.array_equal(back.matvec(u), K.matvec(u))
    assert np.array_equal(back.adjoint(z), K.adjoint(z))
    largest = scipy.sparse.linalg.svds(flat, k=1, return_singular_vectors=False)[0]
    assert largest == pytest.approx(np.abs(K.symbol()).max(), rel=1e-10)


def test_from_scipy_keeps_the_precision_of_the_image():
    K = FromScipy(scipy.sparse.linalg.aslinearoperator(np.eye(60)[:7]), COLOUR)
    assert K.matvec(np.ones((2, *COLOUR), np.float32)).dtype == np.float32
    assert K.matvec(np.ones((2, *COLOUR))).shape == (2, 7)


@given(image_shapes(max_batch=4), boundaries(), seeds())
def test_convolution_of_one_image_does_not_depend_on_the_batch(shape, boundary, seed):
    rng = generator(seed)
    K, u = Convolution(normal(rng, (3, 5)), shape[1:], boundary), normal(rng, shape)
    alone = np.concatenate([K.matvec(u[n : n + 1]) for n in range(len(u))])
    assert np.array_equal(K.matvec(u), alone)


# Spectral norms


@pytest.mark.parametrize(
    "name", [name for name, _ in registry.operators() if "padding" not in name]
)
def test_operator_norm_is_the_largest_singular_value(name):
    operator = dict(registry.operators())[name]
    K = dense_matrix(operator.matvec, (1, *operator.domain_shape))
    assert operator_norm(operator) == pytest.approx(np.linalg.norm(K, 2), rel=1e-10)


@given(image_shapes(max_side=6), st.data(), boundaries(), seeds())
def test_bank_norm_is_the_largest_singular_value(shape, data, boundary, seed):
    filters = data.draw(filter_shapes(shape[1]))
    bank = FilterBank(shape[1:], (filters[0], *filters[2:]), boundary)
    A = normal(generator(seed), filters)
    matrix = dense_matrix(Analysis(bank, A).matvec, (1, *shape[1:]))
    assert bank_norm(bank, A) == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-10)


def test_norm_of_a_small_patch_underestimates_that_of_the_image():
    A = normal(generator(5), (2, 1, 11, 11))
    norms = [bank_norm(FilterBank((1, n, n), (2, 11, 11), "zero"), A) for n in (5, 11, 33)]
    assert norms[0] < 0.9 * norms[1] < 0.9 * norms[2]


def test_norms_of_float32_operators_are_those_of_float64():
    kernel = normal(generator(6), (3, 3), np.float32)
    norms = [
        operator_norm(Convolution(k, COLOUR), tol=1e-6, dtype=k.dtype)
        for k in (kernel, kernel.astype(float))
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


# Masks and kernels


def test_row_mask_misses_the_first_third_of_the_rows():
    mask = row_mask((9, 4))
    assert not mask[:3].any()
    assert mask[3:].all()


def test_block_mask_misses_the_centre():
    mask = block_mask((9, 12), 1 / 3)
    assert not mask[3:6, 4:8].any()
    assert mask.sum() == 9 * 12 - 12


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.99), seeds())
def test_random_mask_misses_exactly_its_fraction(H, W, fraction, seed):
    mask = random_mask((H, W), fraction, generator(seed))
    assert mask.size - mask.sum() == round(fraction * H * W)


def test_mask_keeps_what_it_observes_in_every_colour():
    u, mask = normal(generator(7), (2, *COLOUR), np.float32), row_mask(COLOUR[1:])
    masked = Mask(mask, COLOUR).matvec(u)
    assert masked.dtype == np.float32
    assert np.array_equal(masked[..., mask], u[..., mask])
    assert not masked[..., ~mask].any()


def test_convolution_says_which_shape_it_wants():
    with pytest.raises(ValueError, match=r"image_shape: given \(2, 1, 64, 64\), expected \(H, W\)"):
        Convolution(np.ones((5, 5)), (2, 1, 64, 64))
    assert Convolution(np.ones((5, 5)), (64, 64)).domain_shape == (1, 64, 64)


def test_diagonal_kernel_adds_up_to_one_along_the_diagonal():
    assert np.array_equal(diagonal_kernel(5), np.eye(5) / 5)


# Bad input


BAD = {
    "mask shape": (
        lambda: Mask(np.ones((64, 64)), (1, 64, 63)),
        r"Mask: image is \(1, 64, 63\), mask is \(64, 64\); pass a mask of shape \(64, 63\)",
    ),
    "mask values": (lambda: Mask(np.full((4, 4), 0.5), (1, 4, 4)), "other than 0 and 1"),
    "mask empty": (lambda: Mask(np.zeros((4, 4)), (1, 4, 4)), "no pixel is observed"),
    "mask fraction": (lambda: row_mask((4, 4), 1.0), "missing fraction is 1.0"),
    "even kernel": (lambda: Convolution(np.ones((4, 3)), COLOUR), r"kernel is \(4, 3\).*odd"),
    "kernel with channels": (lambda: Convolution(np.ones((1, 3, 3)), COLOUR), "kernel is"),
    "kernel not finite": (lambda: Convolution(np.full((3, 3), np.nan), COLOUR), "NaN"),
    "kernel boundary": (
        lambda: Convolution(np.ones((3, 3)), COLOUR, "mirror"),
        "'mirror' is unknown",
    ),
    "even filter": (lambda: FilterBank(COLOUR, (2, 3, 4)), "3 x 4; both sides must be odd"),
    "no filter": (lambda: FilterBank(COLOUR, (0, 3, 3)), "filter_shape: given 0"),
    "bank boundary": (
        lambda: FilterBank(COLOUR, (2, 3, 3), "circular"),
        "choose one of zero, periodic",
    ),
    "no features": (lambda: DenseBank(COLOUR, 0), "features: given 0"),
    "matrix columns": (lambda: Matrix(np.ones((3, 59)), COLOUR), r"\(3, 59\).*need \(M, 60\)"),
    "scipy shape": (lambda: FromScipy(scipy.sparse.eye_array(59), COLOUR), r"\(59, 59\)"),
    "composition": (lambda: Identity(COLOUR) @ Identity((1, 5, 4)), "these must be equal"),
    "sum": (lambda: Identity(COLOUR) + Identity((1, 5, 4)), "must be equal"),
    "multiple": (lambda: np.nan * Identity(COLOUR), "finite real number"),
    "image shape": (
        lambda: Identity(COLOUR).matvec(np.ones((2, 3, 4, 5))),
        r"expected \(N,\) \+ \(3, 5, 4\)",
    ),
    "no batch axis": (
        lambda: Mask(np.ones((5, 4)), COLOUR).matvec(np.ones(COLOUR)),
        "counts the images",
    ),
    "filters shape": (
        lambda: FilterBank(COLOUR, (2, 3, 3)).apply(np.ones((2, 1, 3, 3)), np.ones((1, *COLOUR))),
        r"coefficients are \(2, 1, 3, 3\), expected \(2, 3, 3, 3\)",
    ),
    "responses shape": (
        lambda: FilterBank(COLOUR, (2, 3, 3)).adjoint(np.ones((2, 3, 3, 3)), np.ones((1, 3, 5, 4))),
        r"z has shape \(1, 3, 5, 4\), expected \(N,\) \+ \(2, 5, 4\)",
    ),
    "batches differ": (
        lambda: FilterBank(COLOUR, (2, 3, 3)).adjoint_filters(
            np.ones((2, *COLOUR)), np.ones((1, 2, 5, 4))
        ),
        "2 images but responses of 1",
    ),
    "even diagonal": (lambda: diagonal_kernel(4), "expected an odd number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_refused_with_what_was_given_and_expected(case):
    build, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build()


def test_mixed_precision_is_refused():
    single = np.ones((1, *COLOUR), np.float32)
    bank, dense = FilterBank(COLOUR, (2, 3, 3)), DenseBank(COLOUR, 2)
    for call in (
        lambda: Convolution(np.ones((3, 3)), COLOUR).matvec(single),
        lambda: Matrix(np.ones((2, 60)), COLOUR).matvec(single),
        lambda: bank.apply(np.ones((2, 3, 3, 3)), single),
        lambda: bank.adjoint(np.ones((2, 3, 3, 3)), np.ones((1, 2, 5, 4), np.float32)),
        lambda: bank.adjoint_filters(single, np.ones((1, 2, 5, 4))),
        lambda: dense.apply(np.ones((2, 60)), single),
        lambda: dense.adjoint(np.ones((2, 60)), np.ones((1, 2), np.float32)),
        lambda: Convolution(np.ones((3, 3), np.int64), COLOUR),
    ):
        with pytest.raises(TypeError, match="float32|int64"):
            call()


@pytest.mark.parametrize("image, filters", [((1, 1, 8, 8), (2, 3, 3)), ((1, 8, 8), (2, 1, 3, 3))])
def test_a_bank_says_which_shape_has_an_axis_too_many(image, filters):
    with pytest.raises(ValueError, match=r"expected \((H, W\) or \(C, H, W|F, h, w)\)"):
        FilterBank(image, filters)
