"""The loss ℓ(u) = mean over all entries of (u − u†)², E11, and its gradient."""

import numpy as np

from refimpl.arrays import Array


def squared_loss(u: Array, truth: Array) -> float:
    """ℓ(u) = mean over all entries of (u − u†)², E11.

    Raises
    ------
    ValueError, TypeError
        For arrays of unequal shape, and of whole numbers, whose differences would wrap around.
    """
    require_comparable(u, truth)
    return np.mean((u - truth) ** 2).item()


def squared_loss_gradient(u: Array, truth: Array) -> Array:
    """∇ℓ(u) = 2 (u − u†) / n with n the number of entries of the whole batch, E11."""
    require_comparable(u, truth)
    return (2 / u.size) * (u - truth)


def require_comparable(u: Array, truth: Array) -> None:
    """Raise unless u and u† have one shape, else broadcasting changes the mean, and no integers."""
    for name, x in (("u", u), ("truth", truth)):
        kind = getattr(x, "dtype", type(x))
        if not isinstance(x, np.ndarray) or not np.issubdtype(kind, np.inexact):
            raise TypeError(
                f"loss: {name} is {kind}, expected an array of float32 or float64; convert it, and "
                "divide 8-bit images by 255"
            )
    if np.shape(u) != np.shape(truth):
        raise ValueError(
            f"loss: u has shape {np.shape(u)}, truth {np.shape(truth)}; pass images that belong "
            "together, (N, C, H, W) both"
        )
