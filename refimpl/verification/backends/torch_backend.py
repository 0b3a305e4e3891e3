"""The reconstruction map in torch: what `autodiff` leaves to a framework.

    jvp, vjp, grad      `torch_derivatives`
    hypergradient       an ordinary backward pass through `FixedPoint`, which carries E9, E10
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from refimpl.verification.backends import torch_derivatives
from refimpl.verification.backends.autodiff import Autodiff
from refimpl.verification.backends.maps import Product, Theta, sources
from refimpl.verification.question import Question

# torch counts compiled variants of one function, and gives up after a few.
UNLIMITED = {"recompile_limit": 1_000_000, "accumulated_recompile_limit": 1_000_000}


class TorchBackend(Autodiff):
    """The protocol of a backend, in torch.

    Parameters
    ----------
    compiled : bool
        Whether maps go through torch.compile, once for each setting and shape.
    """

    xp, derivatives = torch, torch_derivatives

    def __init__(self, compiled: bool = False):
        super().__init__(compiled)

    def asarray(self, x: np.ndarray | Tensor) -> Tensor:
        """A tensor from a NumPy array, as a copy."""
        return x if isinstance(x, Tensor) else torch.tensor(x)

    def detached(self, x: Any) -> Any:
        """x without its history."""
        return torch_derivatives.detached(x)

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

    def compile(self, program: Callable) -> Callable:
        """torch.compile without its limit on the number of variants of one function."""
        fast = torch.compile(program, fullgraph=True, dynamic=False)

        def call(*arguments):
            with torch._dynamo.config.patch(**UNLIMITED):
                return fast(*arguments)

        return call

    def value_and_grad(
        self, loss: Callable[[Theta], Tensor], theta: Theta
    ) -> tuple[Tensor, Theta]:
        """A loss and its gradient by one backward pass."""
        leaves = {name: x.clone().requires_grad_() for name, x in theta.items()}
        value = loss(leaves)
        gradients = torch.autograd.grad(value, list(leaves.values()))
        return value.detach(), dict(zip(leaves, gradients))

    def linearize(
        self, settings: Question, arrays: Theta, theta: Theta, u: Tensor
    ) -> tuple[Tensor, Product, Product]:
        """G(u), v ↦ J v and w ↦ Jᵀ w, with J = ∂_u G; one graph serves all products.

        Jᵀ w comes from one backward pass. It is linear in w, and its own backward pass is J v.
        """
        direction = partial(self._program("direction", settings), arrays, theta)
        g, pull = torch_derivatives.vjp(direction, u)
        push = torch_derivatives.vjp(lambda w: pull(w)[0], torch.zeros_like(u))[1]
        return self.detached(g), lambda v: push(v)[0].detach(), lambda w: pull(w)[0].detach()

    def implicit(self, settings: Question, arrays: Theta, theta: Theta, tol: float) -> Tensor:
        """u*, with the derivative dℓ/dθ = (∂_θ T)ᵀ q, E10, in place of that of the iterations."""
        return FixedPoint.apply(self, settings, arrays, tol, tuple(theta), *theta.values())


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
        backend, *problem, tol = ctx.problem
        gradient = backend.pull_back(*problem, ctx.star, cotangent, tol)
        return None, None, None, None, None, *gradient.values()
