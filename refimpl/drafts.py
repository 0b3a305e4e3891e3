"""Energies and gradients in float32 for the first iterates of a float64 Newton iteration.

Far from u* a step need not know G(u), nor E(u), to float64. Where `Step.rough` is in float32 and
holds the data too, they are taken from it as long as

    ‖G(u)‖ > 10 eps32 ( λ ‖Kᵀy‖ + λ ‖K‖² ‖u‖ + γ max|w| sup|σ′| ‖C‖ ( ‖A‖ ‖u‖ + √(HW) ‖b‖ ) )
    τ‖G(u)‖ > 2 tol max(‖u‖, ‖u0‖)

with Frobenius norms of filters and matrices, and ‖K‖ = Σ|k| of a convolution: the bracket is the
size of what is added up, and of what u's own rounding changes. A draft is not even begun where ‖G‖
would fall below that if it fell once more by as much as the last time, nor once a step found by one
fails. From then on everything is float64, so that no image converges on a draft, and u* depends on
drafts only through the path that leads to it. Images decide one by one.

Residuals in the history, and those that a callback sees, may be of drafts, right to about a tenth;
the last is exact.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.maps import Step, StepLinearization, fits_single, slope_bound
from refimpl.operators import Convolution, LinearOperator
from refimpl.vectors import norm

# So many times its rounding, ‖G‖ is good for a direction; so many times tol, not converged.
ABOVE_ROUNDING, ABOVE_TOL = 10.0, 2.0


class Drafts:
    """u ↦ the linearisation of a step, a `Draft` where that is near enough.

    Parameters
    ----------
    step : Step
        One that is not in float64, or that float32 is not near enough for, has none.
    u0 : array (N, C, H, W)
    tol : float
        Relative residual that the solver is asked for.
    """

    def __init__(self, step: Step, u0: Array, tol: float):
        self.step, self.open = step, np.zeros(len(u0), dtype=bool)
        if step.rough is step:
            return
        self.tol, self.first = tol, norm(u0)
        self.rough, self.open = with_data(step.rough, step.datafit.y)
        self.at, self.before = np.full_like(u0, np.nan), np.zeros(len(u0))
        self.expected = np.full(len(u0), np.inf)
        theta, datafit, size = step.field.parameters, step.datafit, np.linalg.norm
        slope, pixels = slope_bound(step) * size(theta.synthesis), np.prod(u0.shape[2:])
        self.slope = slope * size(theta.A) + datafit.lam * size_of(datafit.operator) ** 2
        back = datafit.lam * norm(datafit.operator.adjoint(datafit.y))
        self.offset = back + slope * np.sqrt(pixels) * size(theta.b)

    def __call__(self, u: Array) -> "StepLinearization | Draft":
        exact = self.step.linearize(u)
        if not self.open.any():
            return exact
        enough, moved = self.least(norm(u)), (u != self.at).any(axis=(1, 2, 3))
        self.open = self.open & (~moved | (self.expected > enough))
        if not self.open.any():
            return exact
        draft = self.rough.linearize(u.astype(self.rough.dtype))
        g = norm(draft.direction).astype(u.dtype)
        finite = np.isfinite(g) & np.isfinite(getattr(draft, "energy", g))
        self.open = self.open & finite & (g > enough)
        fall = np.divide(g, self.before, out=np.ones_like(g), where=self.before > 0)
        self.expected = np.where(moved, g * np.minimum(fall, 1), self.expected)
        self.at, self.before = u, g
        return Draft(exact, draft, self.open) if self.open.any() else exact

    def close(self, images: Array) -> None:
        """Take no more drafts of these images, (N,) bool."""
        self.open = self.open & ~images

    def least(self, size: Array) -> Array:
        """‖G‖ down to which a draft at a u of this size is near enough."""
        rounding = np.finfo(np.float32).eps * (self.offset + self.slope * size)
        goal = self.tol * np.maximum(size, self.first) / self.step.tau
        return np.maximum(ABOVE_ROUNDING * rounding, ABOVE_TOL * goal)


def size_of(operator: LinearOperator) -> float:
    """‖K‖, or a little more, for operators that `Step.rough` converts."""
    if isinstance(operator, Convolution):
        return float(np.abs(operator.kernel).sum())
    return max(map(np.linalg.norm, operator.coefficients), default=1.0)


def with_data(rough: Step, y: Array) -> tuple[Step, Array]:
    """The step in float32 with data, and for which images float32 holds them; the others get 0."""
    held = np.array([fits_single(image) for image in y])
    y = np.where(per_image(held, y), y, 0).astype(rough.dtype)
    return replace(rough, datafit=replace(rough.datafit, y=y)), held


@dataclass(frozen=True)
class Draft:
    """G and E at one u, of the `open` images in float32.

    Attributes
    ----------
    exact, rough : StepLinearization
        In float64 and in float32.
    open : array (N,), bool
    """

    exact: StepLinearization
    rough: StepLinearization
    open: Array

    @cached_property
    def direction(self) -> Array:
        """G(u)."""
        return self._chosen("direction")

    @property
    def gradient(self) -> Array:
        """∇E(u), of a tied step."""
        return self.direction

    @cached_property
    def energy(self) -> Array:
        """E(u), of a tied step."""
        return self._chosen("energy")

    @property
    def energy_eps(self) -> Array:
        """The unit of rounding of the energies, (N,)."""
        single, double = (np.finfo(dtype).eps for dtype in (np.float32, self.exact.u.dtype))
        return np.where(self.open, single, double)

    def safeguarded(self, previous: StepLinearization | None) -> StepLinearization:
        """That of `exact`: a model needs no data, so all images may take that of `rough`."""
        return self.rough.safeguarded(previous)

    def _chosen(self, name: str) -> Array:
        draft = getattr(self.rough, name).astype(self.exact.u.dtype)
        if self.open.all():
            return draft
        return np.where(per_image(self.open, draft), draft, getattr(self.exact, name))
