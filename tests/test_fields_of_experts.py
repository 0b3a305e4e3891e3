"""Fields of experts: closed forms and torch, ties, batches, precisions and bad input."""

from dataclasses import FrozenInstanceError, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.engine.field import Field, TiedField, make_field
from refimpl.engine.jacobians import ResponseJacobian, StencilJacobian
from refimpl.kernels.vectors import dot
from refimpl.paper import equations
from refimpl.paper.operators import DenseBank, FilterBank
from refimpl.paper.operators.padding import index_map
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import POTENTIALS, LogCosh, Quadratic
from refimpl.paper.problem import FieldOfExperts
from refimpl.verification.checks import complex_step, jvp_vjp
from strategies import boundaries, filter_shapes, generator, image_shapes, normal, precisions, seeds

EPS = np.finfo(float).eps


def random_field(bank, rng, *, tied=True, potential=None, dtype=np.float64):
    F = bank.coefficients_shape[0]
    A, C = (normal(rng, bank.coefficients_shape, dtype) for _ in range(2))
    b, weights = (normal(rng, (F,), dtype) for _ in range(2))
    theta = make_parameters(A, None if tied else C, b=b, weights=weights, gamma=0.7)
    return make_field(FieldOfExperts(bank, potential or LogCosh(), theta))


def small_banks(boundary="symmetric"):
    return FilterBank((2, 4, 5), (3, 3, 5), boundary), DenseBank((2, 4, 5), 6)


def rounding(x):
    return 64 * EPS * np.sqrt(x.size)


def one_channel_field(shape, filters, boundary, tied, rng, dtype=np.float64):
    """A field of one channel with so many filters that its Jacobian is a stencil."""
    bank = FilterBank(shape, (81, *filters), boundary)
    return random_field(bank, rng, tied=tied, dtype=dtype)


# Closed forms and autodiff


def test_quadratic_field_of_one_pixel_filters_has_a_closed_form():
    rng = generator(0)
    u, a, b, w = normal(rng, (2, 1, 3, 4)), normal(rng, (3,)), normal(rng, (3,)), normal(rng, (3,))
    theta = make_parameters(a.reshape(3, 1, 1, 1), b=b, weights=w, gamma=2.0)
    field = make_field(FieldOfExperts(FilterBank((1, 3, 4), (3, 1, 1), "zero"), Quadratic(), theta))
    z = a * u[:, 0, ..., None] + b
    energy = 2 * np.sum(w * z**2 / 2, axis=(1, 2, 3))
    np.testing.assert_allclose(field.energy(u), energy, rtol=rounding(u))
    gradient = 2 * np.sum(w * a * z, axis=-1)[:, None]
    np.testing.assert_allclose(field.value(u), gradient, rtol=rounding(u) * 10)
    np.testing.assert_allclose(
        field.linearize(u).hvp(u), 2 * np.sum(w * a * a) * u, rtol=rounding(u) * 10
    )


TORCH_POTENTIALS = {
    "quadratic": lambda torch, z: z**2 / 2,
    "half_squared_relu": lambda torch, z: torch.relu(z) ** 2 / 2,
    "soft_shrinkage": lambda torch, z: torch.nn.functional.softshrink(z, 0.1) ** 2 / 2,
    "log_cosh": lambda torch, z: torch.log(torch.cosh(z)),
    "lorentzian": lambda torch, z: torch.log1p(z**2),
    "smoothed_l1": lambda torch, z: torch.sqrt(z**2 + 0.01),
    "huber": lambda torch, z: torch.nn.functional.huber_loss(
        z, torch.zeros_like(z), reduction="none"
    ),
}


def torch_energy(torch, potential, bank, arrays):
    """E2 without the data term by torch; padding by index, so that all boundaries exist."""
    u, A, b, w, gamma = arrays
    rows, columns = (
        torch.from_numpy(index_map(bank.image_shape[k + 1], A.shape[k + 2] // 2, bank.boundary))
        for k in (0, 1)
    )
    z = torch.nn.functional.conv2d(u[:, :, rows][:, :, :, columns], A) + b[:, None, None]
    return gamma * (w[:, None, None] * TORCH_POTENTIALS[potential](torch, z)).sum()


@pytest.mark.parametrize("potential", POTENTIALS)
def test_tied_field_is_the_autodiff_of_its_energy(potential):
    torch = pytest.importorskip("torch")
    bank = small_banks("reflect")[0]
    rng = generator(1)
    field = random_field(bank, rng, potential=POTENTIALS[potential]())
    theta, (u, v) = field.experts.theta, normal(rng, (2, 2, 2, 4, 5))
    arrays = [
        torch.tensor(x, requires_grad=True)
        for x in (u, theta.A, theta.b, theta.weights, theta.gamma)
    ]
    energy = torch_energy(torch, potential, bank, arrays)
    (gradient,) = torch.autograd.grad(energy, arrays[0], create_graph=True)
    slopes = torch.autograd.grad((gradient * torch.from_numpy(v)).sum(), arrays)
    lin = field.linearize(u)
    expected = dict(zip(("hvp", "A", "b", "weights", "gamma"), slopes), gradient=gradient)
    given = dict(lin.params_vjp(v).items(), hvp=lin.hvp(v), gradient=lin.value)
    assert field.energy(u).sum() == pytest.approx(energy.item(), rel=1e-13)
    for name, reference in expected.items():
        reference = reference.detach().numpy()
        error = np.linalg.norm(given[name] - reference)
        assert error <= 1e-12 * np.linalg.norm(reference), name


@given(image_shapes(max_side=6), st.data(), boundaries(), st.booleans(), seeds())
def test_derivatives_hold_for_every_shape(shape, data, boundary, tied, seed):
    filters = data.draw(filter_shapes(shape[1]))
    rng = generator(seed)
    bank = FilterBank(shape[1:], (filters[0], *filters[2:]), boundary)
    field = random_field(bank, rng, tied=tied)
    u, v, q = normal(rng, (3, *shape))
    lin = field.linearize(u)
    assert complex_step(partial(equations.field, field.experts), lin.jvp, u, v).passed
    assert jvp_vjp(lin.jvp, lin.vjp, v, q).passed
    if tied:
        R = partial(equations.regulariser, field.experts)
        assert complex_step(R, lambda d: dot(lin.value, d), u, v).passed


# The tie


@given(image_shapes(max_side=6), st.data(), boundaries(), seeds())
def test_tied_gradient_is_sum_of_untied_gradients(shape, data, boundary, seed):
    filters = data.draw(filter_shapes(shape[1]))
    rng = generator(seed)
    bank = FilterBank(shape[1:], (filters[0], *filters[2:]), boundary)
    tied = random_field(bank, rng)
    untied = make_field(tied.experts.with_theta(tied.experts.theta.untie()))
    u, q = normal(rng, (2, *shape))
    given, apart = (field.linearize(u).params_vjp(q) for field in (tied, untied))
    expected = apart.A + apart.C
    assert np.linalg.norm(given.A - expected) <= rounding(u) * np.linalg.norm(expected)
    assert np.array_equal(tied.value(u), untied.value(u))
    assert given.C is None


def test_only_the_tied_field_has_an_energy_and_a_hessian():
    rng = generator(2)
    bank = small_banks()[0]
    tied, untied = random_field(bank, rng), random_field(bank, rng, tied=False)
    u = normal(rng, (1, 2, 4, 5))
    assert isinstance(tied, TiedField)
    assert type(untied) is Field
    assert not hasattr(untied, "energy")
    assert not hasattr(untied.linearize(u), "hvp")


def test_the_hessian_is_symmetric_only_when_tied():
    rng = generator(3)
    u, v, q = normal(rng, (3, 1, 2, 4, 5))
    for bank in small_banks():
        for tied in (True, False):
            jvp = random_field(bank, rng, tied=tied).linearize(u).jvp
            assert jvp_vjp(jvp, jvp, v, q).passed is tied


# Batches, precision, immutability


@given(image_shapes(max_batch=4, max_side=6), boundaries(), st.booleans(), seeds())
def test_images_of_a_batch_are_independent_bit_for_bit(shape, boundary, tied, seed):
    rng = generator(seed)
    field = random_field(FilterBank(shape[1:], (2, 3, 3), boundary), rng, tied=tied)
    u, v = normal(rng, (2, *shape))
    lin = field.linearize(u)
    for n in range(len(u)):
        one = slice(n, n + 1)
        alone = field.linearize(u[one])
        assert np.array_equal(field.value(u)[one], field.value(u[one]))
        assert np.array_equal(lin.jvp(v)[one], alone.jvp(v[one]))
        assert np.array_equal(lin.vjp(v)[one], alone.vjp(v[one]))
        if tied:
            assert np.array_equal(field.energy(u)[one], field.energy(u[one]))


def test_images_of_a_dense_batch_are_independent_to_rounding():
    rng = generator(4)
    field = random_field(small_banks()[1], rng)
    u = normal(rng, (5, 2, 4, 5))
    alone = np.concatenate([field.value(u[n : n + 1]) for n in range(5)])
    assert np.linalg.norm(field.value(u) - alone) <= rounding(u) * np.linalg.norm(alone)


@pytest.mark.parametrize("tied", [True, False])
def test_parameter_gradients_add_over_the_images(tied):
    rng = generator(5)
    for bank in small_banks():
        field = random_field(bank, rng, tied=tied)
        u, q = normal(rng, (2, 3, 2, 4, 5))
        total = field.linearize(u).params_vjp(q)
        for name, whole in total.items():
            parts = [
                getattr(field.linearize(u[n : n + 1]).params_vjp(q[n : n + 1]), name)
                for n in range(3)
            ]
            scale = sum(np.linalg.norm(part) for part in parts)
            assert np.linalg.norm(whole - sum(parts)) <= rounding(u) * scale


@given(precisions(), st.booleans(), seeds())
def test_precision_is_kept_everywhere(dtype, tied, seed):
    rng = generator(seed)
    for bank in small_banks():
        field = random_field(bank, rng, tied=tied, dtype=dtype)
        u = normal(rng, (2, 2, 4, 5), dtype)
        lin = field.linearize(u)
        arrays = [field.value(u), lin.value, lin.jvp(u), lin.vjp(u), *lin.responses]
        arrays += [gradient for _, gradient in lin.params_vjp(u).items()]
        arrays += [field.energy(u)] if tied else []
        assert {x.dtype for x in arrays} == {np.dtype(dtype)}


def test_gradients_have_the_shapes_of_the_parameters():
    rng = generator(6)
    for bank in small_banks():
        field = random_field(bank, rng, tied=False)
        u = normal(rng, (2, 2, 4, 5))
        gradient = field.linearize(u).params_vjp(u)
        shapes = {name: x.shape for name, x in field.experts.theta.items()}
        assert {name: x.shape for name, x in gradient.items()} == shapes


def test_a_linearization_is_immutable():
    field = random_field(small_banks()[0], generator(7))
    lin = field.linearize(np.zeros((1, 2, 4, 5)))
    with pytest.raises(FrozenInstanceError):
        lin.slopes = lin.value


def test_gamma_multiplies_everything():
    rng = generator(8)
    field = random_field(small_banks()[0], rng)
    theta = replace(field.experts.theta, gamma=np.array(1.4))
    doubled = make_field(field.experts.with_theta(theta))
    u = normal(rng, (1, 2, 4, 5))
    assert np.allclose(doubled.value(u), 2 * field.value(u), rtol=rounding(u), atol=0)
    assert np.allclose(doubled.energy(u), 2 * field.energy(u), rtol=rounding(u), atol=0)


# Bad input


def test_mixed_precision_is_refused():
    single = np.zeros((1, 2, 4, 5), np.float32)
    for bank in small_banks():
        field = random_field(bank, generator(9))
        lin = field.linearize(single.astype(float))
        for call in (field.value, field.energy, field.linearize, lin.jvp, lin.vjp, lin.params_vjp):
            with pytest.raises(TypeError, match="mixed precision"):
                call(single)


def test_a_tangent_of_another_batch_is_refused():
    for bank in small_banks():
        lin = random_field(bank, generator(10)).linearize(np.zeros((2, 2, 4, 5)))
        for call in (lin.jvp, lin.vjp, lin.params_vjp):
            with pytest.raises(ValueError, match=r"\(1, 2, 4, 5\), expected \(2, 2, 4, 5\)"):
                call(np.zeros((1, 2, 4, 5)))


def test_images_of_another_size_are_refused():
    for bank in small_banks():
        field = random_field(bank, generator(11))
        for call in (field.value, field.energy, field.linearize):
            with pytest.raises(ValueError, match=r"expected \(N,\) \+ \(2, 4, 5\)"):
                call(np.zeros((1, 2, 5, 4)))


def test_parameters_of_another_bank_are_refused():
    with pytest.raises(ValueError, match=r"A: shape is \(3, 2, 3, 3\), the bank expects"):
        FieldOfExperts(small_banks()[0], LogCosh(), np.ones((3, 2, 3, 3)))


# The Jacobian as a stencil


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([(1, 1), (3, 3), (5, 3), (1, 5), (5, 5)]),
    boundaries(),
    st.booleans(),
    precisions(),
    seeds(),
)
def test_stencil_is_the_jacobian_by_responses(size, filters, boundary, tied, dtype, seed):
    rng = generator(seed)
    field = one_channel_field((1, *size), filters, boundary, tied, rng, dtype)
    u, v = normal(rng, (2, 2, 1, *size), dtype)
    stencil = field.linearize(u).jacobian
    theta, (_, d) = field.experts.theta, field.linearize(u).responses
    responses = ResponseJacobian(field.experts.bank, theta, d)
    assert isinstance(stencil, StencilJacobian)
    largest = np.abs(d).max() * np.linalg.norm(theta.A) * np.linalg.norm(theta.synthesis)
    bound = 64 * np.finfo(dtype).eps * np.sqrt(d.size) * largest
    for result, expected, scale in (
        (stencil.matvec(v), responses.matvec(v), np.linalg.norm(v)),
        (stencil.adjoint(v), responses.adjoint(v), np.linalg.norm(v)),
        (stencil.diagonal, responses.diagonal, np.sqrt(v.size)),
        (stencil.mean_slopes, responses.mean_slopes, 1.0),
    ):
        assert result.dtype == dtype and result.shape == expected.shape
        assert np.linalg.norm(result - expected) <= bound * scale


@pytest.mark.parametrize(
    "filters, channels, tied, expected",
    [
        ((13, 3, 3), 1, True, StencilJacobian),
        ((12, 3, 3), 1, True, ResponseJacobian),
        ((24, 3, 3), 1, False, ResponseJacobian),
        ((25, 3, 3), 1, False, StencilJacobian),
        ((99, 3, 3), 3, True, ResponseJacobian),
    ],
)
def test_a_jacobian_is_a_stencil_where_that_is_smaller(filters, channels, tied, expected):
    bank = FilterBank((channels, 6, 5), filters)
    lin = random_field(bank, generator(0), tied=tied).linearize(np.ones((1, channels, 6, 5)))
    assert type(lin.jacobian) is expected


def test_value_and_energy_together_are_those_apart():
    rng = generator(3)
    for bank in small_banks():
        field, u = random_field(bank, rng), normal(rng, (2, 2, 4, 5))
        lin = field.linearize(u)
        np.testing.assert_array_equal(lin.value, field.value(u))
        np.testing.assert_array_equal(lin.energy, field.energy(u))


@pytest.mark.parametrize("name", ["b", "weights", "gamma", "C"])
def test_parameters_of_another_number_of_filters_are_refused(name):
    """The compiled loops read as many as the bank has filters."""
    bank = FilterBank((1, 6, 7), (2, 3, 3))
    parameters = make_parameters(np.ones((2, 1, 3, 3)), np.ones((2, 1, 3, 3)))
    wrong = replace(parameters, **{name: np.ones(1)})
    with pytest.raises(ValueError, match=rf"{name}: shape is \(1,\), the bank expects"):
        FieldOfExperts(bank, LogCosh(), wrong)
