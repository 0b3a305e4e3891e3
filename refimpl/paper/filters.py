"""Filters to start from: the differences of total variation, and a cosine basis.

Not here: random starts of experiments (`refimpl.experiments`).
"""

import numpy as np

from refimpl.arrays import Array, as_image_shape
from refimpl.paper.operators.banks import FilterBank
from refimpl.paper.potentials import LogCosh
from refimpl.paper.problem import FieldOfExperts


def total_variation(
    image_shape: tuple[int, ...], *, slope: float = 100.0, boundary: str = "symmetric"
) -> FieldOfExperts:
    """Smoothed total variation: Σ log cosh(χ z) / χ over the differences z of all neighbours.

    Parameters
    ----------
    image_shape : tuple (H, W) or (C, H, W)
    slope : float
        χ: differences well above 1/χ count by their size, smaller ones by their square.
    boundary : str
        One of `refimpl.paper.operators.BOUNDARIES`.

    Returns
    -------
    FieldOfExperts
        Two filters of 3 × 3 for each channel.
    """
    C, H, W = as_image_shape(image_shape)
    bank = FilterBank((C, H, W), (2 * C, 3, 3), boundary)
    A = total_variation_filters(bank.coefficients_shape)
    return FieldOfExperts(bank, LogCosh(slope), A)


def total_variation_filters(shape: tuple[int, int, int, int]) -> Array:
    """Forward differences down and across in each channel: 2C filters, (2C, C, h, w).

    `shape` is (F, C, h, w), of which F is not looked at.

    Raises
    ------
    ValueError
        If the filters are smaller than 3 × 3.
    """
    _, C, h, w = shape
    if min(h, w) < 3:
        raise ValueError(
            f"total_variation_filters: filters are {h} x {w}, expected at least 3 x 3, which reach "
            "the next row and column"
        )
    filters, each = np.zeros((2, C, C, h, w)), np.arange(C)
    filters[:, each, each, h // 2, w // 2] = -1
    filters[0, each, each, h // 2 + 1, w // 2] = 1
    filters[1, each, each, h // 2, w // 2 + 1] = 1
    return filters.reshape(2 * C, C, h, w)


def cosine_filters(size: int | tuple[int, int], channels: int = 1) -> Array:
    """The cosine basis of h × w but for the constant: (F, C, h, w) with F = C (h w − 1).

    Filter (p, q) is c_p(i) c_q(j) with c_p(i) = cos(π p (i + 1/2) / h), likewise c_q, of norm 1,
    for each channel alone; every filter but the one left out has mean 0. `size` is (h, w), or one
    number for both.
    """
    h, w = (size, size) if isinstance(size, int) else size
    basis = np.einsum("pi,qj->pqij", _cosines(h), _cosines(w)).reshape(h * w, h, w)[1:]
    return np.einsum("kij,cd->ckdij", basis, np.eye(channels)).reshape(-1, channels, h, w)


def _cosines(n: int) -> Array:
    """c_p(i) in row p, of norm 1."""
    i = np.arange(n)
    c = np.cos(np.pi * i[:, None] * (i + 0.5) / n)
    return c / np.linalg.norm(c, axis=1, keepdims=True)
