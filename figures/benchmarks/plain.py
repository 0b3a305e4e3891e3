"""A problem of this benchmark as plain numbers and NumPy arrays, for libraries other than refimpl.

Grey images lose their channel axis: y, truth and mask are (N, H, W) and (H, W), filters (F, h, w).
"""

from dataclasses import dataclass, field

import numpy as np

from refimpl import Convolution, Identity, Mask
from refimpl.arrays import Array
from refimpl.engine import Step


@dataclass(frozen=True)
class Plain:
    """G(u) = λ Kᵀ(Ku − y) + Cᵀ tanh(χ Au) with b = 0, w = γ = 1, boundary symmetric.

    Attributes
    ----------
    y, truth : arrays (N, H, W)
    A : array (F, h, w)
    C : array (F, h, w) or None
        None: tied.
    mask : array (H, W) or None
    taps : tuple of (row, column, weight)
        Where the blur, as a correlation, reads the padded image; empty without a blur.
    widths : tuple (rows, columns)
        Of the blur's padding.
    lam, tau, slope : float
    """

    y: Array = field(repr=False)
    truth: Array = field(repr=False)
    A: Array = field(repr=False)
    C: Array | None = field(repr=False)
    mask: Array | None = field(repr=False)
    taps: tuple[tuple[int, int, float], ...]
    widths: tuple[int, int]
    lam: float
    tau: float
    slope: float

    @property
    def tied(self) -> bool:
        """Whether C = A."""
        return self.C is None


def plain(step: Step, truth: Array) -> Plain:
    """The numbers of a step; ValueError for a model that `Plain` cannot say."""
    theta, bank, operator = step.problem.theta, step.problem.bank, step.problem.operator
    require_plain(step)
    taps, widths, mask = (), (0, 0), None
    if isinstance(operator, Convolution):
        kernel = operator.kernel[::-1, ::-1]
        taps = tuple((int(a), int(b), float(kernel[a, b])) for a, b in np.argwhere(kernel))
        widths = kernel.shape[0] // 2, kernel.shape[1] // 2
    elif isinstance(operator, Mask):
        mask = operator.mask.reshape(bank.image_shape)[0].astype(theta.A.dtype)
    return Plain(
        step.problem.y[:, 0], truth[:, 0], theta.A[:, 0],
        None if theta.tied else theta.C[:, 0], mask, taps, widths,
        step.problem.lam, step.tau, float(step.problem.potential.slope),
    )


def require_plain(step: Step) -> None:
    """Raise unless the model is a grey one with b = 0, w = γ = 1 and symmetric boundaries."""
    theta, bank, operator = step.problem.theta, step.problem.bank, step.problem.operator
    usual = not theta.b.any() and (theta.weights == 1).all() and theta.gamma == 1
    boundaries = {bank.boundary, getattr(operator, "boundary", "symmetric")}
    known = isinstance(operator, Identity | Mask | Convolution)
    if not (usual and known and boundaries == {"symmetric"} and bank.image_shape[0] == 1):
        raise ValueError(
            f"plain: {type(operator).__name__}, boundaries {sorted(boundaries)}; rivals know grey "
            "images, b = 0, weights and gamma 1, symmetric boundaries, identity, mask and blur"
        )
