"""Parametrisations: derivatives against differences, adjoints by the dot test, inverses."""

import numpy as np
import pytest

from refimpl.paper.operators import FilterBank
from refimpl.paper.parameters import make_parameters, pack
from refimpl.training.normalization import Normalization
from refimpl.training.parametrisations import (
    Chain,
    Cosines,
    Exponential,
    Parametrisation,
    Scaled,
    ZeroMean,
)
from refimpl.verification.checks import taylor
from strategies import generator, normal

FILTERS, EPS = (3, 2, 5, 3), np.finfo(float).eps
BANK = FilterBank((2, 9, 8), (3, 5, 3))
MAPS = {
    "mean zero": (ZeroMean(), FILTERS),
    "cosines": (Cosines((5, 3)), (3, 2, 14)),
    "exponential": (Exponential(), (4,)),
    "size": (Scaled(30.0), FILTERS),
    "norm": (Normalization(BANK, norm=2.0), FILTERS),
    "cosines of a norm": (Chain(Cosines((5, 3)), Normalization(BANK)), (3, 2, 14)),
}


@pytest.fixture(params=MAPS)
def given(request):
    """A map, a point, and two directions: in its domain and in its range."""
    P, shape = MAPS[request.param]
    rng = generator(7)
    raw, d = normal(rng, (2, *shape))
    return P, raw, d, normal(rng, P.apply(raw).shape)


def adjoint_error(P, raw, d, g) -> float:
    """|⟨DP d, g⟩ − ⟨d, DPᵀ g⟩| relative to the sizes of both factors."""
    ahead = P.jvp(raw, d)
    gap = np.vdot(ahead, g) - np.vdot(d, P.vjp(raw, g))
    return abs(gap) / (np.linalg.norm(ahead) * np.linalg.norm(g))


def remainder_order(P, raw, d, g) -> float:
    """Order of the remainder of t ↦ ⟨g, P(θ̂ + t d)⟩ after the first derivative."""
    slope = float(np.vdot(g, P.jvp(raw, d)))
    return taylor(
        lambda x: float(np.vdot(g, P.apply(x))), [slope], raw, d, steps=2.0 ** -np.arange(2, 10)
    ).order


def test_vjp_is_the_adjoint_of_jvp(given):
    assert adjoint_error(*given) <= 1e-12


def test_jvp_is_the_derivative(given):
    """Of linear maps nothing remains but rounding, whose order is anything."""
    P, raw, d, g = given
    linear = np.abs(P.apply(raw + d) - P.apply(raw) - P.jvp(raw, d)).max() <= 1e-13
    assert linear or remainder_order(P, raw, d, g) >= 1.9


def test_the_derivative_of_the_exponential_is_its_complex_step():
    raw, d = normal(generator(1), (2, 6))
    step = np.imag(Exponential().apply(raw + 1e-30j * d)) / 1e-30
    np.testing.assert_allclose(Exponential().jvp(raw, d), step, rtol=1e-14)


def test_inverse_gives_what_the_map_takes_back(given):
    P, raw, *_ = given
    value = P.apply(raw)
    assert np.abs(P.apply(P.inverse(value)) - value).max() <= 16 * EPS * np.abs(value).max()


def test_precision_is_kept(given):
    P, *arrays = given
    raw, d, g = (x.astype(np.float32) for x in arrays)
    value = P.apply(raw)
    assert {x.dtype for x in (value, P.jvp(raw, d), P.vjp(raw, g), P.inverse(value))} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize("P", [ZeroMean(), Cosines((5, 3))], ids=["mean zero", "cosines"])
def test_filters_have_mean_zero(P):
    raw = P.inverse(normal(generator(2), FILTERS))
    A = P.apply(raw)
    assert np.abs(A.mean(axis=(2, 3))).max() <= 4 * EPS * np.abs(A).max()


def test_cosines_are_orthonormal():
    basis = Cosines((5, 3)).apply(np.eye(14)[None]).reshape(14, 15)
    # Unit vectors of 15 entries: each product is rounded by EPS / 2, and its sum as often.
    np.testing.assert_allclose(basis @ basis.T, np.eye(14), atol=7.5 * EPS, rtol=0)


class Wrong(Exponential):
    """A planted error: an adjoint, or a derivative, that is not that of the map."""

    def __init__(self, what: str):
        setattr(self, what, lambda raw, d: d)


def test_a_wrong_derivative_and_a_wrong_adjoint_are_found():
    raw, d, g = normal(generator(3), (3, 5))
    assert adjoint_error(Wrong("vjp"), raw, d, g) > 1e-3
    assert remainder_order(Wrong("jvp"), raw, d, g) < 1.5


@pytest.mark.parametrize("tied", [True, False])
def test_all_parameters_together_pass_the_same_tests(tied):
    P = Parametrisation(Cosines((5, 3)), Exponential(), Exponential())
    rng = generator(4)
    A, C = normal(rng, (2, *FILTERS))
    A, C = (ZeroMean().apply(x) for x in (A, C))
    theta = make_parameters(
        A, None if tied else C, b=normal(rng, (3,)), weights=rng.uniform(1, 2, 3), gamma=0.3
    )
    raw = P.inverse(theta)
    x = pack(theta)
    assert np.abs(pack(P.apply(raw)) - x).max() <= 16 * EPS * np.abs(x).max()
    d, g = P.inverse(theta), P.apply(raw)
    left = pack(P.jvp(raw, d)) @ pack(g)
    assert left == pytest.approx(pack(d) @ pack(P.vjp(raw, g)), rel=1e-12)


def test_without_maps_nothing_changes():
    theta = make_parameters(normal(generator(5), FILTERS))
    assert Parametrisation().apply(theta) is theta


def test_weights_that_are_not_positive_have_no_logarithm():
    with pytest.raises(ValueError, match="smallest entry is 0, expected positive"):
        Exponential().inverse(np.array([1.0, 0.0]))
