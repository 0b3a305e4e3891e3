"""Code of other people as backends: right code agrees, and what is wrong with it is found."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, correlate
from scipy.sparse.linalg import LinearOperator
from torch import autograd, nn

from refimpl.verification import adapters
from refimpl.verification.crosscheck import crosscheck

PATIENT = {"cases": 3, "time_limit": 120.0, "budget": 600.0}
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
ONLY = "potential=log_cosh,slope=1"
NAMES = {"conv.weight": "A", "conv.bias": "b", "lam": "lam", "tau": "tau", "gamma": "gamma"}


class Layer(nn.Module):
    """u* of u ← u − τ (λ (u − y) + γ convᵀ tanh(conv u)), with the gradient of a backward hook."""

    def __init__(self, factor=1.0, tol=1e-11):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.lam, self.tau, self.gamma, self.factor, self.tol = 1.0, 0.2, 1.0, factor, tol

    def step(self, u, y):
        z = torch.tanh(self.conv(u))
        back = nn.functional.conv_transpose2d(z, self.conv.weight, padding=1)
        return u - self.tau * (self.lam * (u - y) + self.gamma * back)

    def iterate(self, function, u):
        for _ in range(2000):
            u, last = function(u), u
            if (u - last).norm() <= self.tol * u.norm():
                break
        return u

    def forward(self, y):
        with torch.no_grad():
            u = self.iterate(lambda u: self.step(u, y), y)
        u = self.step(u, y)
        at = u.detach().requires_grad_()
        again = self.step(at, y)

        def backward(g):
            def adjoint(q):
                return autograd.grad(again, at, q, retain_graph=True)[0] + g

            return self.factor * self.iterate(adjoint, g)

        u.register_hook(backward)
        return u


def verdicts(report):
    return {s.stage: s.verdict for s in report.stages if s.verdict != "not offered"}


def test_layer_with_a_backward_hook_in_one_line():
    backend = adapters.torch_module(Layer(), NAMES, only=ONLY, tol=1e-9)
    assert backend.only["boundary"] == "zero" and backend.only["filter_size"] == (3, 3)
    assert backend.only["operator"] == "identity" and backend.only["weights"] == "none"
    report = crosscheck(backend, **PATIENT)
    assert verdicts(report) == {"fixed_point": "agrees", "hypergradient": "agrees"}, str(report)
    assert not any(stage.entries_missing for stage in report.stages)
    wrong = crosscheck(adapters.torch_module(Layer(0.5), NAMES, only=ONLY, tol=1e-9), **PATIENT)
    assert wrong.first_wrong.stage == "hypergradient", str(wrong)
    assert wrong.first_wrong.causes[0] == "factor_half"


def test_map_of_a_module_that_is_made_for_each_problem():
    def make(p):
        layer = Layer()
        layer.conv = nn.Conv2d(p.A.shape[1], len(p.A), p.A.shape[2:], padding="same")
        return layer

    only = ONLY + ",operator=identity,analysis=convolution,boundary=zero,filter_size=3"
    step = lambda module, p, u: module.step(u, p.y)  # noqa: E731
    backend = adapters.torch_module(make, NAMES, step=step, only=only)
    report = crosscheck(backend, **PATIENT)
    stages = ("apply", "jvp", "vjp", "params_vjp")
    assert verdicts(report) == dict.fromkeys(stages, "agrees"), str(report)


def test_parameter_of_another_size_and_of_an_unknown_name_are_refused():
    wide = adapters.torch_module(Layer(), NAMES, only=ONLY + ",filters=4")
    report = crosscheck(wide, **PATIENT)
    assert "'conv.weight' has shape (3, 1, 3, 3)" in " ".join(report.first_wrong.details)
    with pytest.raises(ValueError, match="expected some of"):
        adapters.torch_module(Layer(), {"conv.weight": "filters"})
    missing = adapters.torch_module(Layer(), {"conv.wieght": "b"}, only=ONLY)
    assert "no 'conv.wieght'" in " ".join(crosscheck(missing, **PATIENT).first_wrong.details)


def energy(xp, conv):
    """E2 with K = I and φ = log cosh, for torch or JAX."""

    def of(p, u):
        z = conv(u, p.A) + p.b[:, None, None]
        phi = xp.log(xp.cosh(z)) * p.weights[:, None, None]
        experts = p.gamma * phi.reshape(len(u), -1).sum(1)
        return p.lam / 2 * ((u - p.y) ** 2).reshape(len(u), -1).sum(1) + experts

    return of


ENERGY = ONLY + ",operator=identity,analysis=convolution,boundary=zero,filter_size=3,tied=true"
OF_ENERGY = ("apply", "energy", "gradient", "jvp", "hvp", "vjp", "params_vjp")


def test_energy_alone_gives_its_derivatives_in_torch():
    of = energy(torch, lambda u, A: nn.functional.conv2d(u, A, padding=1))
    backend = adapters.torch_functions(energy=of, only=ENERGY + ",normalized=false")
    report = crosscheck(backend, **PATIENT)
    assert verdicts(report) == dict.fromkeys(OF_ENERGY, "agrees"), str(report)
    half = adapters.torch_functions(energy=lambda p, u: of(p, u) / 2, only=backend.only)
    assert crosscheck(half, stages=["energy"], **PATIENT).first_wrong.causes[0] == "factor_half"


def test_energy_alone_gives_its_derivatives_in_jax():
    lax, jnp = pytest.importorskip("jax.lax"), pytest.importorskip("jax.numpy")
    of = energy(jnp, lambda u, A: lax.conv(u, A, (1, 1), "SAME"))
    backend = adapters.jax_functions(energy=of, only=ENERGY + ",normalized=false")
    report = crosscheck(backend, **PATIENT)
    assert verdicts(report) == dict.fromkeys(OF_ENERGY, "agrees"), str(report)


def test_layer_in_jax():
    jax = pytest.importorskip("jax")

    def layer(p):
        def step(u):
            z = jax.numpy.tanh(jax.lax.conv(u, p.A, (1, 1), "SAME"))
            back = jax.vjp(lambda x: jax.lax.conv(x, p.A, (1, 1), "SAME"), u)[1](z)[0]
            return u - p.tau * (p.lam * (u - p.y) + p.gamma * back)

        return jax.lax.fori_loop(0, 1000, lambda _, u: step(u), p.y)

    def unrolled(p):
        u = p.y
        for _ in range(3):
            u = u - 0.1 * u * p.A.sum()
        return u

    only = ENERGY + ",normalized=false,b=none,weights=none"
    backend = adapters.jax_functions(layer=layer, only=only)
    report = crosscheck(backend, stages=["fixed_point"], **PATIENT)
    assert verdicts(report)["fixed_point"] == "agrees", str(report)
    wrong = adapters.jax_functions(layer=unrolled, only=only)
    assert not crosscheck(wrong, stages=["hypergradient"], **PATIENT).agrees


BLUR = "operator=convolution,operator_boundary=zero,images=2"


def blur(filtered):
    """K of SciPy, on flat images, with kernels turned for the transpose."""

    def make(p):
        def by(kernel):
            def product(x):
                image = np.reshape(x, p.target.shape[1:])
                return np.stack([filtered(c, kernel, mode="constant") for c in image]).ravel()

            return product

        n = p.target[0].size
        return LinearOperator((n, n), by(p.kernel), rmatvec=by(p.kernel[::-1, ::-1]), dtype=float)

    return make


def test_linear_operator_of_scipy():
    report = crosscheck(adapters.linear_operator(blur(convolve), only=BLUR), **PATIENT)
    stages = ("operator", "operator_adjoint")
    assert verdicts(report) == dict.fromkeys(stages, "agrees"), str(report)
    wrong = crosscheck(adapters.linear_operator(blur(correlate), only=BLUR), **PATIENT)
    assert wrong.first_wrong.stage == "operator"
    assert wrong.first_wrong.causes[0] == "kernel_flipped", str(wrong)


class Physics:
    """A mask as deepinv has its physics: A and A_adjoint of tensors."""

    def __init__(self, mask):
        self.mask = torch.tensor(mask)

    def A(self, x):
        return self.mask * x

    def A_adjoint(self, y):
        return self.mask * y


def test_physics_of_tensors():
    backend = adapters.linear_operator(lambda p: Physics(p.mask), only="operator=mask")
    assert crosscheck(backend, **PATIENT).agrees
    wrong = adapters.linear_operator(lambda p: Physics(1 - p.mask), only="operator=mask")
    assert crosscheck(wrong, **PATIENT).first_wrong.causes[0] == "mask_complement"
