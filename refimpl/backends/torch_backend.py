"""The reconstruction map in torch, every derivative by autodiff.

    apply               T(u) = u − τ G(u)                             E8
    energy              E(u) = λ/2 ‖K u − y‖² + γ Σ w φ(A u + b)      E2
    direction, tied     G = ∇E by autodiff
    direction, untied   G = λ Kᵀ(K u − y) + γ Cᵀ(w ⊙ σ(A u + b))     E3; Kᵀ, Cᵀ by autodiff
    jvp, vjp, hvp       `torch_derivatives`
    fixed_point         Newton's method with autodiff products, image by image
    hypergradient       an ordinary backward pass through `implicit`, which carries the rule E9, E10

`p` is a problem seen as in `problems`, θ a dictionary with A, b, weights and, when untied, C, as
the problem gives them: `used` normalises A and C if the problem has a norm. Every method can be
overridden by itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from refimpl.backends.problems import (
    ARRAYS,
    PARAMETERS,
    Settings,
    View,
    arrays_of,
    not_converged,
    require_tied,
    settings_of,
    sources,
    view,
)
from refimpl.backends.torch_derivatives import detached, grad, jvp, vjp
from refimpl.backends.torch_krylov import gmres
from refimpl.backends.torch_potentials import ACTIVATIONS, POTENTIALS

Theta = dict[str, Tensor]
Product = Callable[[Tensor], Tensor]

MAX_NEWTON, MAX_HALVINGS = 100, 40

# torch counts compiled variants of one function, and gives up after a few.
UNLIMITED = {"recompile_limit": 1_000_000, "accumulated_recompile_limit": 1_000_000}


class TorchBackend:
    """The protocol of a backend, in torch.

    Parameters
    ----------
    compiled : bool
        Whether maps go through torch.compile, once for each setting and shape.
    """

    def __init__(self, compiled: bool = False):
        self.compiled, self._programs = compiled, {}

    # What a backend offers.

    def asarray(self, x: np.ndarray | Tensor) -> Tensor:
        """A tensor from a NumPy array, as a copy."""
        return x if isinstance(x, Tensor) else torch.tensor(x)

    def apply(self, problem: Any, u: Tensor) -> Tensor:
        """T(u), E8."""
        return self._run("step", problem, u)

    def energy(self, problem: Any, u: Tensor) -> Tensor:
        """E(u) of each image, E2; tied only."""
        return self._run("energies", require_tied(problem), u)

    def gradient(self, problem: Any, u: Tensor) -> Tensor:
        """∇E(u); tied only."""
        return self._run("energy_gradient", require_tied(problem), u)

    def jvp(self, problem: Any, u: Tensor, v: Tensor) -> Tensor:
        """∂_u T v."""
        return self._run("step_jvp", problem, u, v)

    def hvp(self, problem: Any, u: Tensor, v: Tensor) -> Tensor:
        """∇²E(u) v; tied only."""
        return self._run("energy_hvp", require_tied(problem), u, v)

    def vjp(self, problem: Any, u: Tensor, w: Tensor) -> Tensor:
        """(∂_u T)ᵀ w."""
        return self._run("step_vjp", problem, u, w)

    def params_vjp(self, problem: Any, u: Tensor, w: Tensor) -> Theta:
        """(∂_θ T)ᵀ w."""
        return self._run("step_params_vjp", problem, u, w)

    def fixed_point(self, problem: Any, *, tol: float) -> Tensor:
        """u* with ‖T(u*) − u*‖ ≤ tol ‖u*‖ for each image.

        Raises
        ------
        NotConvergedError
            If an image does not get there.
        """
        return self.solve(*self._parts(problem), tol)

    def hypergradient(self, problem: Any, *, tol: float) -> Theta:
        """dℓ/dθ and the loss, E10 and E11, by one backward pass."""
        settings, arrays, theta = self._parts(problem)
        leaves = {name: x.clone().requires_grad_() for name, x in theta.items()}
        star = self.implicit(settings, arrays, leaves, tol)
        loss = self.loss(view(settings, arrays), star)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        return dict(zip(leaves, gradients)) | {"loss": loss.detach()}

    # The maps.

    def pad(self, x: Tensor, widths: tuple[int, int], boundary: str) -> Tensor:
        """x (N, C, H, W) extended by `widths` rows and columns on both sides."""
        if boundary == "zero":
            return functional.pad(x, (widths[1], widths[1], widths[0], widths[0]))
        for axis, width in zip((2, 3), widths):
            index = torch.from_numpy(sources(x.shape[axis], width, boundary))
            x = x.index_select(axis, index)
        return x

    def correlate(self, x: Tensor, filters: Tensor, boundary: str) -> Tensor:
        """Valid cross-correlation after padding: the image size is unchanged."""
        widths = filters.shape[2] // 2, filters.shape[3] // 2
        return functional.conv2d(self.pad(x, widths, boundary), filters)

    def forward(self, p: View, u: Tensor) -> Tensor:
        """K u; blur is true convolution, correlation with the flipped kernel."""
        if p.operator == "mask":
            return p.mask * u
        if p.operator == "matrix":
            return u.flatten(1) @ p.matrix.T
        if p.operator == "convolution":
            each = u.reshape(-1, 1, *u.shape[2:])
            kernel = p.kernel.flip(0, 1)[None, None]
            return self.correlate(each, kernel, p.operator_boundary).reshape(u.shape)
        return u

    def transpose(self, p: View, z: Tensor) -> Tensor:
        """Kᵀ z."""
        zero = z.new_zeros(len(z), *p.target.shape[1:])
        return vjp(lambda u: self.forward(p, u), zero)[1](z)[0]

    def analyse(self, p: View, A: Tensor, u: Tensor) -> Tensor:
        """A u: (N, F, H, W), or (N, F) for dense rows."""
        if p.analysis == "dense":
            return u.flatten(1) @ A.T
        return self.correlate(u, A, p.boundary)

    def synthesise(self, p: View, C: Tensor, z: Tensor) -> Tensor:
        """Cᵀ z."""
        zero = z.new_zeros(len(z), *p.target.shape[1:])
        return vjp(lambda u: self.analyse(p, C, u), zero)[1](z)[0]

    def per_filter(self, p: View, x: Tensor) -> Tensor:
        """Numbers (F,) that broadcast against responses."""
        return x if p.analysis == "dense" else x[:, None, None]

    def norm(self, p: View, A: Tensor) -> Tensor:
        """‖A‖ of the whole operator: as a matrix, whose columns are responses to unit images."""
        shape = p.target.shape[1:]
        units = torch.eye(shape.numel(), dtype=A.dtype).reshape(-1, *shape)
        return torch.linalg.matrix_norm(self.analyse(p, A, units).flatten(1), 2)

    def used(self, p: View, theta: Theta) -> Theta:
        """θ with A and C rescaled to the problem's norm, if it has one."""
        if p.norm is None:
            return theta
        banks = {name: x for name, x in theta.items() if name in ("A", "C")}
        return theta | {name: p.norm / self.norm(p, x) * x for name, x in banks.items()}

    def responses(self, p: View, theta: Theta, u: Tensor) -> Tensor:
        """A u + b."""
        return self.analyse(p, theta["A"], u) + self.per_filter(p, theta["b"])

    def potential(self, p: View, z: Tensor) -> Tensor:
        """φ(z)."""
        return POTENTIALS[p.potential](z, **p.parameters)

    def activation(self, p: View, z: Tensor) -> Tensor:
        """σ(z) = φ′(z)."""
        return ACTIVATIONS[p.potential](z, **p.parameters)

    def data_energy(self, p: View, u: Tensor) -> Tensor:
        """λ/2 ‖K u − y‖² of each image."""
        return p.lam / 2 * ((self.forward(p, u) - p.y) ** 2).flatten(1).sum(1)

    def experts_energy(self, p: View, theta: Theta, u: Tensor) -> Tensor:
        """γ Σ w φ(A u + b) of each image."""
        phi = self.potential(p, self.responses(p, theta, u))
        return p.gamma * (self.per_filter(p, theta["weights"]) * phi).flatten(1).sum(1)

    def energies(self, p: View, theta: Theta, u: Tensor) -> Tensor:
        """E(u) of each image, E2."""
        return self.data_energy(p, u) + self.experts_energy(p, self.used(p, theta), u)

    def energy_gradient(self, p: View, theta: Theta, u: Tensor) -> Tensor:
        """∇E(u): the gradient of the sum, since images are independent."""
        return grad(lambda x: self.energies(p, theta, x).sum())(u)

    def data_gradient(self, p: View, u: Tensor) -> Tensor:
        """λ Kᵀ(K u − y)."""
        return p.lam * self.transpose(p, self.forward(p, u) - p.y)

    def field(self, p: View, theta: Theta, u: Tensor) -> Tensor:
        """F(u) = γ Cᵀ(w ⊙ σ(A u + b)), E3, with C = A where θ has no C."""
        sigma = self.activation(p, self.responses(p, theta, u))
        weighted = self.per_filter(p, theta["weights"]) * sigma
        return p.gamma * self.synthesise(p, theta.get("C", theta["A"]), weighted)

    def direction(self, p: View, theta: Theta, u: Tensor) -> Tensor:
        """G(u): ∇E when tied, else λ Kᵀ(K u − y) + F(u)."""
        if p.tied:
            return self.energy_gradient(p, theta, u)
        return self.data_gradient(p, u) + self.field(p, self.used(p, theta), u)

    def step(self, p: View, theta: Theta, u: Tensor) -> Tensor:
        """T(u) = u − τ G(u), E8."""
        return u - p.tau * self.direction(p, theta, u)

    def loss(self, p: View, u: Tensor) -> Tensor:
        """Mean squared difference from the target, E11."""
        return ((u - p.target) ** 2).mean()

    # Derivatives.

    def step_jvp(self, p: View, theta: Theta, u: Tensor, v: Tensor) -> Tensor:
        """∂_u T v."""
        return jvp(lambda x: self.step(p, theta, x), (u,), (v,))[1]

    def step_vjp(self, p: View, theta: Theta, u: Tensor, w: Tensor) -> Tensor:
        """(∂_u T)ᵀ w."""
        return vjp(lambda x: self.step(p, theta, x), u)[1](w)[0]

    def energy_hvp(self, p: View, theta: Theta, u: Tensor, v: Tensor) -> Tensor:
        """∇²E(u) v: forward mode over reverse mode."""
        return jvp(lambda x: self.energy_gradient(p, theta, x), (u,), (v,))[1]

    def step_params_vjp(self, p: View, theta: Theta, u: Tensor, w: Tensor) -> Theta:
        """(∂_θ T)ᵀ w."""
        return vjp(lambda t: self.step(p, t, u), theta)[1](w)[0]

    def linearize(
        self, settings: Settings, arrays: Theta, theta: Theta, u: Tensor
    ) -> tuple[Tensor, Product, Product]:
        """G(u), v ↦ J v and w ↦ Jᵀ w, with J = ∂_u G; one graph serves all products.

        Jᵀ w comes from one backward pass. It is linear in w, and its own backward pass is J v.
        """
        direction = partial(self._program("direction", settings), arrays, theta)
        g, pull = vjp(direction, u)
        push = vjp(lambda w: pull(w)[0], torch.zeros_like(u))[1]
        return detached(g), lambda v: push(v)[0].detach(), lambda w: pull(w)[0].detach()

    # Fixed point and implicit differentiation.

    def solve(self, settings: Settings, arrays: Theta, theta: Theta, tol: float) -> Tensor:
        """u* of every image, each by itself from Kᵀ y."""
        p = view(settings, arrays)
        settings, theta = settings._replace(norm=None), self.used(p, theta)
        start, stars = detached(self.transpose(p, p.y)), []
        for n in range(len(start)):
            alone = arrays | {"y": p.y[n : n + 1]}
            stars.append(self.newton(settings, alone, theta, start[n : n + 1], tol))
        return torch.cat(stars)

    def newton(
        self, settings: Settings, arrays: Theta, theta: Theta, u: Tensor, tol: float
    ) -> Tensor:
        """u* of one image by steps u + t d with (J + s I) d = −G(u), t halved until ‖G‖ falls.

        The shift s = ‖G‖ / (‖u‖ + τ ‖G‖) keeps steps as short as u where J is nearly singular,
        and vanishes at u*. Both tests must hold: τ ‖G(u)‖ ≤ tol ‖u‖, and, since any u passes for
        tiny τ, a last step ‖d‖ ≤ √tol ‖u‖. The system is solved to √tol, so that such a step
        leaves an error of tol.
        """
        program = partial(self._program("direction", settings), arrays, theta)

        def direction(u: Tensor) -> Tensor:
            return detached(program(u))

        for _ in range(MAX_NEWTON):
            g, product, _ = self.linearize(settings, arrays, theta, u)
            shift = g.norm() / (u.norm() + settings.tau * g.norm() or 1)
            d = gmres(shifted(product, shift), -g, tol=tol**0.5)
            new = self.line_search(direction, u, g, d)
            residual, length = settings.tau * direction(new).norm(), new.norm()
            if residual <= tol * length and d.norm() <= tol**0.5 * length:
                return new
            if new is u:
                break
            u = new
        raise not_converged("fixed_point", residual / length, tol)

    def line_search(
        self, direction: Callable[[Tensor], Tensor], u: Tensor, g: Tensor, d: Tensor
    ) -> Tensor:
        """u + t d for the largest t = 1, 1/2, … that makes ‖G‖ fall; else u itself."""
        trials = (u + 0.5**k * d for k in range(MAX_HALVINGS))
        return next((x for x in trials if direction(x).norm() < g.norm()), u)

    def solve_adjoint(
        self, settings: Settings, arrays: Theta, theta: Theta, u: Tensor, b: Tensor, tol: float
    ) -> Tensor:
        """q of (I − ∂_u T)ᵀ q = τ Jᵀ q = b for each image, E9, to ‖b − τ Jᵀ q‖ ≤ tol ‖b‖."""
        theta = self.used(view(settings, arrays), theta)
        settings, rows = settings._replace(norm=None), []
        for n in range(len(u)):
            one, alone = slice(n, n + 1), arrays | {"y": arrays["y"][n : n + 1]}
            _, _, product = self.linearize(settings, alone, theta, u[one])
            x = gmres(product, b[one], tol=tol)
            left = (b[one] - product(x)).norm()
            if not left <= tol * b[one].norm():
                raise not_converged("hypergradient: adjoint", left / b[one].norm(), tol)
            rows.append(x / settings.tau)
        return torch.cat(rows)

    def implicit(self, settings: Settings, arrays: Theta, theta: Theta, tol: float) -> Tensor:
        """u*, with the derivative dℓ/dθ = (∂_θ T)ᵀ q, E10, in place of that of the iterations."""
        return FixedPoint.apply(self, settings, arrays, tol, tuple(theta), *theta.values())

    # From problems to programs.

    def _parts(self, problem: Any) -> tuple[Settings, Theta, Theta]:
        """Settings, arrays and θ of a problem, as tensors."""
        groups = (arrays_of(problem, names) for names in (ARRAYS, PARAMETERS))
        arrays, theta = ({k: self.asarray(x) for k, x in group.items()} for group in groups)
        return settings_of(problem), arrays, theta

    def _run(self, name: str, problem: Any, *images: Tensor) -> Any:
        """One of the maps at these images."""
        settings, arrays, theta = self._parts(problem)
        result = self._program(name, settings)(arrays, theta, *map(self.asarray, images))
        return detached(result)

    def _program(self, name: str, settings: Settings) -> Callable:
        """A map as a function of arrays, θ and images; compiled once for each settings."""

        def program(arrays, theta, *images):
            return getattr(self, name)(view(settings, arrays), theta, *images)

        if not self.compiled:
            return program
        if (name, settings) not in self._programs:
            self._programs[name, settings] = _compiled(program)
        return self._programs[name, settings]


class FixedPoint(torch.autograd.Function):
    """u* as a function of θ; backward solves one adjoint system instead of unrolling."""

    @staticmethod
    def forward(ctx, backend, settings, arrays, tol, names, *values):
        """u*."""
        theta = {name: x.detach() for name, x in zip(names, values)}
        star = backend.solve(settings, arrays, theta, tol)
        ctx.problem, ctx.star = (backend, settings, arrays, theta, tol), star.detach()
        return star

    @staticmethod
    def backward(ctx, cotangent):
        """(∂_θ T)ᵀ q with (I − ∂_u T)ᵀ q = cotangent."""
        backend, settings, arrays, theta, tol = ctx.problem
        q = backend.solve_adjoint(settings, arrays, theta, ctx.star, cotangent, tol)
        program = backend._program("step_params_vjp", settings)
        gradient = detached(program(arrays, theta, ctx.star, q))
        return None, None, None, None, None, *gradient.values()


def shifted(product: Product, shift: Tensor) -> Product:
    """v ↦ J v + s v."""
    return lambda v: product(v) + shift * v


def _compiled(program: Callable) -> Callable:
    """torch.compile without its limit on the number of variants of one function."""
    fast = torch.compile(program, fullgraph=True, dynamic=False)

    def call(*arguments):
        with torch._dynamo.config.patch(**UNLIMITED):
            return fast(*arguments)

    return call
