"""M x = b for one image in torch, by GMRES from products with M.

The residual is smallest over the Krylov space of the basis; the basis is orthogonalised twice,
so that it stays orthogonal to rounding, also in float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LONGEST_CYCLE, MAX_CYCLES = 400, 5

# The residual is looked at after so many products.
CHECKED = 4

# Below this multiple of ‖M v‖ what is left of M v after orthogonalisation is rounding.
INVARIANT = 4

Matvec = Callable[[Tensor], Tensor]


def gmres(matvec: Matvec, b: Tensor, *, tol: float) -> Tensor:
    """x with ‖b − M x‖ ≤ tol ‖b‖, or as near as `MAX_CYCLES` cycles come."""
    x, r, goal = torch.zeros_like(b), b, tol * b.norm()
    for _ in range(MAX_CYCLES):
        if r.norm() <= goal:
            break
        x = x + correction(matvec, r, goal)
        r = b - matvec(x)
    return x


def correction(matvec: Matvec, r: Tensor, goal: Tensor) -> Tensor:
    """d in the Krylov space of r that makes ‖r − M d‖ smallest, once that is at most `goal`."""
    length = min(r.numel(), LONGEST_CYCLE)
    V = r.new_zeros(length + 1, r.numel())
    H = r.new_zeros(length + 1, length)
    V[0] = r.flatten() / r.norm()
    for k in range(length):
        z = matvec(V[k].reshape(r.shape)).flatten()
        size = z.norm()
        for _ in range(2):
            h = V[: k + 1] @ z
            z = z - h @ V[: k + 1]
            H[: k + 1, k] += h
        H[k + 1, k] = z.norm()
        invariant = H[k + 1, k] <= INVARIANT * torch.finfo(r.dtype).eps * size
        if invariant or (k + 1) % CHECKED == 0 or k + 1 == length:
            y, left = least_squares(H[: k + 2, : k + 1], r.norm())
            if invariant or left <= goal:
                break
        V[k + 1] = z / H[k + 1, k]
    return (y @ V[: k + 1]).reshape(r.shape)


def least_squares(H: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """y that makes ‖H y − size e₁‖ smallest, and that norm."""
    goal = H.new_zeros(len(H))
    goal[0] = size
    y = torch.linalg.lstsq(H, goal[:, None], driver="gelsd").solution[:, 0]
    return y, (H @ y - goal).norm()
