"""Derivatives in torch: autograd where code runs as it is written, torch.func where it is compiled.

    grad(f)(x)            ∇f(x)
    vjp(f, x)             f(x),  w ↦ ((∂f)ᵀ w,)      x and f(x) tensors or dictionaries of them
    jvp(f, (x,), (v,))    f(x),  ∂f v

All three are functions of torch.func, which would do alone; but its first `grad` or `vjp` loads
torch's compiler, which takes seconds. ∇f and (∂f)ᵀ w can be differentiated again, by all three, and
∂f v by `grad` and `vjp`; the f(x) that `vjp` returns cannot.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, func
from torch.autograd import forward_ad
from torch.compiler import is_compiling

Pull = Callable[[Any], tuple[Any]]


def grad(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """x ↦ ∇f(x)."""
    if is_compiling():
        return func.grad(f)

    def gradient(x: Tensor) -> Tensor:
        value, pull = vjp(f, x)
        return pull(torch.ones_like(value))[0]

    return gradient


def vjp(f: Callable[[Any], Any], x: Any) -> tuple[Any, Pull]:
    """f(x) and w ↦ ((∂f)ᵀ w,), from one graph for all w."""
    if is_compiling():
        return func.vjp(f, x)
    names = tuple(x) if isinstance(x, dict) else None
    with torch.enable_grad():
        leaves = tuple(map(variable, [x] if names is None else x.values()))
        value = f(leaves[0] if names is None else dict(zip(names, leaves)))

    def pull(w: Any) -> tuple[Any]:
        with torch.enable_grad():
            # Of ⟨f(x), w⟩, because torch loads SymPy to look at the shape of a cotangent; the last
            # term gives an f that does not depend on x the gradient 0.
            paired = pairing(value, w) + 0 * sum(leaf.sum() for leaf in leaves)
            gradients = torch.autograd.grad(
                paired, leaves, create_graph=True, materialize_grads=True
            )
        return (gradients[0] if names is None else dict(zip(names, gradients)),)

    return detached(value), pull


def jvp(
    f: Callable[[Tensor], Tensor], x: tuple[Tensor], v: tuple[Tensor]
) -> tuple[Tensor, Tensor]:
    """f(x) and ∂f v, in one forward pass."""
    if is_compiling():
        return func.jvp(f, x, v)
    with forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x[0], v[0])))
    return value, torch.zeros_like(value) if tangent is None else tangent


def detached(x: Any) -> Any:
    """x without its history."""
    if isinstance(x, dict):
        return {name: value.detach() for name, value in x.items()}
    return x.detach()


def pairing(x: Any, w: Any) -> Tensor:
    """⟨x, w⟩, summed over the entries of dictionaries."""
    if isinstance(x, dict):
        return sum((x[name] * w[name]).sum() for name in x)
    return (x * w).sum()


def variable(x: Tensor) -> Tensor:
    """x as a variable of its own, through which outer derivatives still pass."""
    return x.view_as(x).requires_grad_()
