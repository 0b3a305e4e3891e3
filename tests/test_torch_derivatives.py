"""Derivatives by plain autograd equal those of torch.func, nested and of dictionaries too."""

import pytest

torch = pytest.importorskip("torch")

from refimpl.verification.backends.torch_derivatives import grad, jvp, vjp  # noqa: E402

# torch announces this itself on the first use of torch.func.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

x, v = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def f(x):
    return torch.tanh(x) * x.sum()


def equal(given, expected):
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-14)


def test_products_equal_those_of_torch_func():
    equal(grad(lambda x: f(x).sum())(x), torch.func.grad(lambda x: f(x).sum())(x))
    equal(vjp(f, x)[1](v), torch.func.vjp(f, x)[1](v))
    equal(jvp(f, (x,), (v,)), torch.func.jvp(f, (x,), (v,)))


def test_products_nest():
    own = grad(lambda x: (f(x) ** 2).sum())
    expected = torch.func.jvp(torch.func.grad(lambda x: (f(x) ** 2).sum()), (x,), (v,))[1]
    equal(jvp(own, (x,), (v,))[1], expected)
    equal(vjp(own, x)[1](v)[0], expected)


def test_cotangent_may_depend_on_the_value():
    used, pull = vjp(lambda t: {"a": t["a"] ** 2}, {"a": x})
    equal(pull({"a": 3 * used["a"]})[0]["a"], 6 * x**3)


def test_function_that_does_not_depend_on_its_argument_has_a_zero_tangent():
    equal(jvp(lambda _: f(x), (x,), (v,))[1], 0 * x)
