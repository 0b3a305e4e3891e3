"""Spectral normalisation: the norm it gives, its exact derivative, and what freezing leaves out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.equilibrium.norms import bank_norm
from refimpl.paper.operators import DenseBank, FilterBank
from refimpl.paper.operators.banks import Analysis
from refimpl.training.normalization import Normalization
from refimpl.verification.checks import dense_matrix, taylor
from refimpl.verification.identities.normalized import difference_quotient
from strategies import BOUNDARIES, boundaries, generator, normal, seeds

BANKS = {
    **{name: FilterBank((2, 6, 5), (3, 3, 3), name) for name in BOUNDARIES},
    "dense": DenseBank((2, 4, 3), 6),
}


def svd(bank, A):
    """Leading singular triplet of the whole operator by a dense SVD."""
    matrix = dense_matrix(Analysis(bank, A).matvec, (1, *bank.image_shape))
    left, values, right = np.linalg.svd(matrix)
    shapes = (1, *bank.response_shape), (1, *bank.image_shape)
    return values[0], left[:, 0].reshape(shapes[0]), right[0].reshape(shapes[1])


@pytest.mark.parametrize("name", BANKS)
def test_the_norm_of_the_result_is_the_one_asked_for(name):
    bank = BANKS[name]
    raw = normal(generator(0), bank.coefficients_shape)
    A = Normalization(bank, norm=0.7).apply(raw)
    assert svd(bank, A)[0] == pytest.approx(0.7, rel=1e-10)
    assert np.allclose(A / raw, A.flat[0] / raw.flat[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", BANKS)
@settings(max_examples=5)
@given(seeds(), st.floats(0.01, 100))
def test_the_scale_of_the_raw_coefficients_does_not_matter(name, seed, factor):
    bank = BANKS[name]
    raw = normal(generator(seed), bank.coefficients_shape)
    normalization = Normalization(bank)
    np.testing.assert_allclose(
        normalization.apply(factor * raw), normalization.apply(raw), rtol=1e-9
    )


@pytest.mark.parametrize("name", BANKS)
def test_exact_derivative_is_that_of_the_dense_singular_value(name):
    """g ↦ (s/‖Â‖)(g − ⟨g, Â⟩/‖Â‖ ∇‖Â‖) with ∇‖Â‖ = B*(q, p) from a dense SVD."""
    bank, rng = BANKS[name], generator(1)
    raw, g = normal(rng, (2, *bank.coefficients_shape))
    value, left, right = svd(bank, raw)
    slope = bank.adjoint_filters(right, left)
    expected = 0.7 / value * (g - np.sum(g * raw) / value * slope)
    given = Normalization(bank, norm=0.7).vjp(raw, g)
    assert np.linalg.norm(given - expected) <= 1e-9 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", BANKS)
def test_exact_derivative_is_the_difference_quotient(name):
    bank, rng = BANKS[name], generator(2)
    raw, g, d = normal(rng, (3, *bank.coefficients_shape))
    normalization = Normalization(bank)

    def paired(x):
        return np.sum(g * normalization.apply(x))

    exact = normalization.vjp(raw, g)
    error = np.sum(exact * d) - difference_quotient(paired, raw, d)
    assert abs(error) <= 1e-8 * np.linalg.norm(exact) * np.linalg.norm(d)


@pytest.mark.parametrize("name", ["symmetric", "dense"])
def test_taylor_remainder_has_order_two_with_the_exact_derivative_and_one_with_the_frozen(name):
    bank, rng = BANKS[name], generator(3)
    raw, d = normal(rng, (2, *bank.coefficients_shape))
    exact, frozen = (Normalization(bank, which) for which in ("exact", "frozen"))

    def paired(x):
        return np.sum((raw + d) * exact.apply(x))

    def order(normalization):
        slope = np.sum(normalization.vjp(raw, raw + d) * d)
        return taylor(paired, [slope], raw, d, steps=2.0 ** -np.arange(3, 12)).order

    assert order(exact) == pytest.approx(2, abs=0.1)
    assert order(frozen) == pytest.approx(1, abs=0.1)


@settings(max_examples=10)
@given(boundaries(), seeds())
def test_along_the_coefficients_only_the_frozen_derivative_moves(boundary, seed):
    """A(tÂ) = A(Â): the derivative along Â is 0, and freezing the norm makes it ⟨g, A⟩."""
    bank, rng = BANKS[boundary], generator(seed)
    raw, g = normal(rng, (2, *bank.coefficients_shape))
    exact, frozen = (Normalization(bank, which).vjp(raw, g) for which in ("exact", "frozen"))
    size = np.linalg.norm(g)
    A = Normalization(bank).apply(raw)
    assert abs(np.sum(exact * raw)) <= 1e-9 * size * np.linalg.norm(raw)
    assert np.sum(frozen * raw) == pytest.approx(np.sum(g * A), abs=1e-9 * size)


def test_the_norm_depends_on_the_image_size():
    raw = normal(generator(4), (2, 1, 11, 11))
    small, large = (
        bank_norm(FilterBank((1, 33, 33), (2, 11, 11)), Normalization(bank).apply(raw))
        for bank in (FilterBank((1, 11, 11), (2, 11, 11)), FilterBank((1, 33, 33), (2, 11, 11)))
    )
    assert large == pytest.approx(1, rel=1e-10)
    assert small > 1.1


@pytest.mark.parametrize("which", ["exact", "frozen"])
def test_precision_is_kept(which):
    bank = BANKS["symmetric"]
    raw = normal(generator(5), bank.coefficients_shape, np.float32)
    normalization = Normalization(bank, which, norm=np.float64(1.0))
    assert normalization.apply(raw).dtype == np.float32
    assert normalization.vjp(raw, raw).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"derivative": "constant"}, "'constant', expected 'exact' or 'frozen'"),
        ({"norm": 0.0}, "norm: given 0.0"),
        ({"norm": np.inf}, "norm: given inf"),
    ],
)
def test_bad_values_are_refused_with_what_was_given_and_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normalization(BANKS["dense"], **arguments)


def test_coefficients_that_are_zero_have_no_normalization():
    with pytest.raises(ArithmeticError, match="zero"):
        Normalization(BANKS["dense"]).apply(np.zeros((6, 24)))
