"""Banks and fields through compiled kernels against the plain NumPy definitions.

In float32 kernels and definitions add in different orders, so the definitions are evaluated in
float64, and the kernels may differ from them by what float32 rounds.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.fields_of_experts import make_field
from refimpl.operators import FilterBank
from refimpl.parameters import make_parameters
from refimpl.potentials import POTENTIALS
from strategies import (
    boundaries,
    filter_shapes,
    generator,
    image_shapes,
    near,
    normal,
    precisions,
    seeds,
)


def banks(image_shape, filters, boundary):
    F, _, h, w = filters
    return (FilterBank(image_shape, (F, h, w), boundary, compiled=c) for c in (True, False))


def assert_close(given, expected, dtype, scale=1.0):
    """To 64 eps √n of `scale` or of ‖expected‖, whichever is larger; same dtype as asked for."""
    assert given.dtype == dtype
    size = max(np.linalg.norm(expected), scale)
    bound = 64 * np.finfo(dtype).eps * np.sqrt(max(expected.size, 64))
    assert np.linalg.norm(given - expected) <= bound * size


@given(image_shapes(max_side=6), st.data(), boundaries(), precisions(), seeds())
def test_bank_kernels_compute_the_definitions(shape, data, boundary, dtype, seed):
    filters = data.draw(filter_shapes(shape[1]))
    fast, plain = banks(shape[1:], filters, boundary)
    rng = generator(seed)
    A, u = normal(rng, filters, dtype), normal(rng, shape, dtype)
    z = normal(rng, (shape[0], *fast.response_shape), dtype)
    for method, arrays in (("apply", (A, u)), ("adjoint", (A, z)), ("adjoint_filters", (u, z))):
        expected = getattr(plain, method)(*(x.astype(float) for x in arrays))
        scale = np.prod([np.linalg.norm(x) for x in arrays])
        assert_close(getattr(fast, method)(*arrays), expected, dtype, scale)


def pair_of_fields(shape, filters, boundary, potential, tied, dtype, seed):
    """The same field compiled in `dtype` and as definition in float64, with u and q."""
    rng = generator(seed)
    A, C = normal(rng, filters, dtype), normal(rng, filters, dtype)
    b, w = normal(rng, filters[:1], dtype), normal(rng, filters[:1], dtype)
    u, q = normal(rng, shape, dtype), normal(rng, shape, dtype)
    made = []
    for bank, kind in zip(banks(shape[1:], filters, boundary), (dtype, float)):
        arrays = [x.astype(kind) for x in (A, C, b, w)]
        theta = make_parameters(
            arrays[0], None if tied else arrays[1], b=arrays[2], weights=arrays[3], gamma=0.7
        )
        made.append((make_field(bank, potential, theta), u.astype(kind), q.astype(kind)))
    return made


@pytest.mark.parametrize("name", POTENTIALS)
@given(image_shapes(max_side=6), st.data(), boundaries(), st.booleans(), precisions(), seeds())
def test_field_kernels_compute_the_definitions(name, shape, data, boundary, tied, dtype, seed):
    filters = data.draw(filter_shapes(shape[1]))
    # A slope of 10 (ν = 0.1) would amplify float32 rounding of A u beyond 64 eps.
    potential = POTENTIALS[name](nu=1.0) if name == "smoothed_l1" else POTENTIALS[name]()
    fields = pair_of_fields(shape, filters, boundary, potential, tied, dtype, seed)
    (fast, u, q), (plain, u64, q64) = fields
    if dtype == np.float32 and not potential.smooth:
        return  # σ′ jumps where float32 rounding of A u crosses a kink
    lin, plain_lin = fast.linearize(u), plain.linearize(u64)
    scale = np.sqrt(filters[0]) * np.linalg.norm(fast.parameters.A) ** 2 * np.linalg.norm(u64)
    scale = max(scale, np.linalg.norm(plain_lin.params_vjp(q64).A)) * max(1, np.linalg.norm(q64))
    assert_close(fast.value(u), plain.value(u64), dtype, scale)
    assert_close(lin.jvp(q), plain_lin.jvp(q64), dtype, scale)
    assert_close(lin.vjp(q), plain_lin.vjp(q64), dtype, scale)
    for key, gradient in lin.params_vjp(q).items():
        assert_close(gradient, getattr(plain_lin.params_vjp(q64), key), dtype, scale)
    if tied:
        assert_close(fast.energy(u), plain.energy(u64), dtype, scale * np.linalg.norm(u64))


@pytest.mark.parametrize("name", POTENTIALS)
@given(st.data())
def test_field_kernels_agree_with_the_definition_at_kinks(name, data):
    potential = POTENTIALS[name]()
    z = data.draw(st.lists(near((0.0, *potential.kinks)), min_size=6, max_size=6))
    u = np.array(z).reshape(1, 1, 2, 3)
    fast, plain = (
        make_field(bank, potential, np.ones((1, 1, 1, 1))).linearize(u)
        for bank in banks((1, 2, 3), (1, 1, 1, 1), "zero")
    )
    for result, expected in zip(fast.responses, plain.responses, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-14, atol=0)


def test_kernels_take_read_only_and_transposed_images():
    fast, plain = banks((2, 5, 4), (3, 2, 3, 3), "symmetric")
    rng = generator(0)
    A, u = normal(rng, (3, 2, 3, 3)), np.asfortranarray(normal(rng, (2, 2, 5, 4)))
    u.flags.writeable = False
    assert_close(fast.apply(A, u), plain.apply(A, u), np.float64)
    fields = [make_field(bank, POTENTIALS["log_cosh"](), A) for bank in (fast, plain)]
    assert_close(fields[0].value(u), fields[1].value(u), np.float64)
