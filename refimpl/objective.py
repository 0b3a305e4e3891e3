"""The loss of a set of images as a function of the parameters, with its gradient.

    θ̂ ↦ ℓ(u*(θ̂)),   ℓ(u) = mean over all entries of (u − u†)²        E11
    dℓ/dθ̂ by implicit differentiation                                  E9, E10

Not here: how θ̂ is moved (`refimpl.training`).
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array, as_images, same_dtype
from refimpl.equilibrium import reconstruct
from refimpl.implicit import hypergradient
from refimpl.models import Model
from refimpl.parameters import Parameters
from refimpl.results import SolverResult


def squared_loss(u: Array, truth: Array) -> float:
    """ℓ(u) = mean over all entries of (u − u†)², E11.

    Raises
    ------
    ValueError, TypeError
        For arrays of unequal shape, and of whole numbers, whose differences would wrap around.
    """
    require_comparable(u, truth)
    return float(np.mean((u - truth) ** 2))


def squared_loss_gradient(u: Array, truth: Array) -> Array:
    """∇ℓ(u) = 2 (u − u†) / n with n the number of entries of the whole batch; raises as ℓ does."""
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


@dataclass(frozen=True)
class SolverSettings:
    """How fixed points and adjoint states are found.

    Attributes
    ----------
    forward, adjoint : str
        Methods of `refimpl.equilibrium` and `refimpl.implicit`; "auto" chooses by the model.
    forward_tol, adjoint_tol : float
        Relative residuals.
    forward_options, adjoint_options : dict
        Further options of the solvers, for example {"preconditioner": "circulant"}.
    """

    forward: str = "auto"
    adjoint: str = "auto"
    forward_tol: float = 1e-8
    adjoint_tol: float = 1e-8
    forward_options: dict[str, Any] = field(default_factory=dict)
    adjoint_options: dict[str, Any] = field(default_factory=dict)


class Evaluation(NamedTuple):
    """Loss at one θ̂, with the gradient when it was asked for.

    Attributes
    ----------
    loss : float
        E11 at the state.
    state : SolverResult
        The reconstruction.
    gradient : Parameters or None
        dℓ/dθ̂.
    adjoint : SolverResult or None
        The adjoint state.
    """

    loss: float
    state: SolverResult
    gradient: Parameters | None = None
    adjoint: SolverResult | None = None


@dataclass(frozen=True)
class Objective:
    """ℓ over a fixed set of images.

    Attributes
    ----------
    model : Model
    truth : array (N, C, H, W)
        u†.
    y : array (N, *K.range_shape)
        Data of the same images, E1.
    solvers : SolverSettings
    """

    model: Model
    truth: Array
    y: Array
    solvers: SolverSettings = SolverSettings()

    def __post_init__(self):
        as_images(self.truth, "truth", self.model.bank.image_shape)
        same_dtype(truth=self.truth, y=self.y)
        if len(self.truth) != len(self.y):
            raise ValueError(
                f"truth: {len(self.truth)} images, but y holds data of {len(self.y)}; pair them"
            )

    def loss(self, raw: Parameters, u0: Array | None = None) -> Evaluation:
        """ℓ at θ̂ = `raw`, the reconstruction started at `u0`."""
        state = self._solve(self.model.step(raw, self.y), u0)
        return Evaluation(squared_loss(state.x, self.truth), state)

    def gradient(self, raw: Parameters, u0: Array | None = None) -> Evaluation:
        """ℓ and dℓ/dθ̂ at θ̂ = `raw`.

        Raises
        ------
        NotConvergedError
            If a forward or an adjoint solve did not converge.
        """
        step = self.model.step(raw, self.y)
        state = self._solve(step, u0)
        result = hypergradient(
            step,
            state,
            squared_loss_gradient(state.x, self.truth),
            method=self.solvers.adjoint,
            tol=self.solvers.adjoint_tol,
            **self.solvers.adjoint_options,
        )
        loss = squared_loss(state.x, self.truth)
        return Evaluation(loss, state, self.model.pull_back(raw, result.gradient), result.adjoint)

    def subset(self, indices: Array) -> "Objective":
        """The objective over the images chosen; its loss averages over them alone."""
        return replace(self, truth=self.truth[indices], y=self.y[indices])

    def _solve(self, step, u0: Array | None) -> SolverResult:
        s = self.solvers
        return reconstruct(step, u0, method=s.forward, tol=s.forward_tol, **s.forward_options)
