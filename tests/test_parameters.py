"""Parameters: packing and its inverse, the tie and its adjoint, bad input."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from refimpl.paper.parameters import NAMES, add, make_parameters, pack, unpack
from strategies import generator, normal, precisions, seeds


def random_parameters(rng, *, tied=False, dtype=np.float64, shape=(3, 2, 3, 5)):
    A, C = normal(rng, (2, *shape), dtype)
    b, weights = normal(rng, (2, shape[0]), dtype)
    return make_parameters(A, None if tied else C, b=b, weights=weights, gamma=0.7)


def inner(x, y):
    return sum(np.sum(a * getattr(y, name)) for name, a in x.items())


def assert_same(given, expected):
    assert [name for name, _ in given.items()] == [name for name, _ in expected.items()]
    for name, array in given.items():
        assert np.array_equal(array, getattr(expected, name)), name


subsets = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)


@given(st.booleans(), precisions(), seeds())
def test_unpack_inverts_pack(tied, dtype, seed):
    theta = random_parameters(generator(seed), tied=tied, dtype=dtype)
    vector = pack(theta)
    assert vector.dtype == dtype
    zero = unpack(0 * vector, theta)
    assert_same(unpack(vector, zero), theta)


@given(st.booleans(), subsets, seeds())
def test_unpack_takes_the_chosen_parameters_and_keeps_the_others(tied, names, seed):
    rng = generator(seed)
    theta, other = random_parameters(rng, tied=tied), random_parameters(rng, tied=tied)
    assume(not (tied and names == ("C",)))
    mixed = unpack(pack(theta, names), other, names)
    for name, array in mixed.items():
        assert np.array_equal(array, getattr(theta if name in names else other, name))


def test_pack_follows_the_order_of_the_names():
    theta = make_parameters(np.full((1, 2), 1.0), np.full((1, 2), 2.0), gamma=5.0)
    assert pack(theta).tolist() == [1, 1, 2, 2, 0, 1, 5]
    assert pack(theta, ("gamma", "C")).tolist() == [2, 2, 5]


@given(seeds())
def test_adjoint_of_the_tie_adds_the_gradients(seed):
    """⟨tie(θ), g⟩ = ⟨θ, tieᵀ g⟩ for every θ and g."""
    rng = generator(seed)
    theta, g = random_parameters(rng, tied=True), random_parameters(rng)
    left, right = inner(theta.untie(), g), inner(theta, g.adjoint_tie())
    assert left == pytest.approx(right, abs=64 * np.finfo(float).eps * inner(g, g))
    assert np.array_equal(g.adjoint_tie().A, g.A + g.C)


def test_untie_copies_so_that_the_two_never_share_memory():
    theta = random_parameters(generator(0), tied=True)
    untied = theta.untie()
    assert theta.tied
    assert not untied.tied
    assert np.array_equal(untied.C, theta.A)
    assert not np.shares_memory(untied.C, theta.A)


@given(st.booleans(), precisions(), seeds())
def test_add_is_that_of_packed_vectors(tied, dtype, seed):
    rng = generator(seed)
    x, y = (random_parameters(rng, tied=tied, dtype=dtype) for _ in range(2))
    total = add(x, y)
    assert pack(total).dtype == dtype
    assert np.array_equal(pack(total), pack(x) + pack(y))


def test_defaults_are_no_bias_unit_weights_and_unit_gamma():
    theta = make_parameters(np.ones((3, 4)))
    assert theta.tied
    assert theta.synthesis is theta.A
    assert (theta.b == 0).all()
    assert (theta.weights == 1).all()
    assert theta.gamma == 1


BAD = {
    "C": (
        lambda: make_parameters(np.ones((2, 4)), np.ones((2, 5))),
        r"C: shape is \(2, 5\).*\(2, 4\)",
    ),
    "b": (lambda: make_parameters(np.ones((2, 4)), b=np.ones(3)), r"b: shape is \(3,\).*\(2,\)"),
    "weights": (
        lambda: make_parameters(np.ones((2, 4)), weights=np.ones((2, 1))),
        "weights: shape",
    ),
    "NaN": (lambda: make_parameters(np.full((2, 4), np.nan)), "A: 8 of 8 values are NaN"),
    "gamma": (lambda: make_parameters(np.ones((2, 4)), gamma=0.0), "gamma: given 0.0"),
    "gamma NaN": (lambda: make_parameters(np.ones((2, 4)), gamma=np.nan), "gamma"),
    "length": (
        lambda: unpack(np.ones(3), make_parameters(np.ones((2, 4))), ("A",)),
        r"vector has shape \(3,\).*\(8,\)",
    ),
    "name to pack": (
        lambda: pack(make_parameters(np.ones((2, 4))), ("A", "lambda")),
        "'lambda'.*A, C, b, weights, gamma",
    ),
    "nothing to pack": (lambda: pack(make_parameters(np.ones((2, 4))), ("C",)), "none of"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_refused_with_what_was_given_and_expected(case):
    build, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", ["C", "b", "weights"])
def test_mixed_precision_is_refused(name):
    array = np.ones((2, 4) if name == "C" else 2, np.float32)
    with pytest.raises(TypeError, match="mixed precision"):
        make_parameters(np.ones((2, 4)), **{name: array})
