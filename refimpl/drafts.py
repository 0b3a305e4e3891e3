"""Energies and gradients in float32 for the first iterates of a float64 Newton iteration.

Far from u* a step need not know G(u), nor E(u), to float64. Where `Step.rough` is in float32 and
holds the data too, they are taken from it as long as

    ‖G(u)‖ > 10 eps32 ( λ‖Kᵀy‖ + γ max|w| sup|σ′| ‖A‖ ‖C‖ ‖u‖ ),    τ‖G(u)‖ > 2 tol max(‖u‖, ‖u0‖),

with Frobenius norms of the filters: the bracket is the size of what is added up, and of what u's
own rounding changes. A draft is not even begun where ‖G‖ would fall below that if it fell once
more by as much as the last time. From then on everything is float64, so that no image ever ends on
a draft, and u* depends on drafts only through the path that leads to it. Images decide one by one.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.maps import SINGLE, Step, StepLinearization, slope_bound
from refimpl.vectors import norm

# ‖G‖ above so many times its rounding is a direction; above so many times tol, not converged.
DIGITS, FAR = 10.0, 2.0


class Drafts:
    """u ↦ the linearisation of a step, a `Draft` where that is near enough.

    Parameters
    ----------
    step : Step
        In float64.
    u0 : array (N, C, H, W)
    tol : float
        Relative residual that the solver is asked for.
    """

    def __init__(self, step: Step, u0: Array, tol: float | Array):
        self.step, self.tol, self.first = step, tol, norm(u0)
        theta, datafit = step.field.parameters, step.datafit
        self.rough, self.open = with_data(step.rough, datafit.y)
        self.bend = slope_bound(step) * np.linalg.norm(theta.A) * np.linalg.norm(theta.synthesis)
        self.data = datafit.lam * norm(datafit.operator.adjoint(datafit.y))
        self.before, self.expected = np.zeros(len(u0)), np.full(len(u0), np.inf)

    def __call__(self, u: Array) -> "StepLinearization | Draft":
        exact = self.step.linearize(u)
        if not self.open.any():
            return exact
        enough = self.least(norm(u))
        self.open = self.open & (self.expected > enough)
        if not self.open.any():
            return exact
        draft = self.rough.linearize(u.astype(self.rough.dtype))
        g = norm(draft.direction).astype(u.dtype)
        self.open = self.open & np.isfinite(g) & (g > enough)
        fall = np.divide(g, self.before, out=np.ones_like(g), where=self.before > 0)
        self.expected, self.before = g * np.minimum(fall, 1), g
        return Draft(exact, draft, self.open) if self.open.any() else exact

    def least(self, size: Array) -> Array:
        """‖G‖ down to which a draft at a u of this size is near enough."""
        rounding = np.finfo(np.float32).eps * (self.data + self.bend * size)
        goal = self.tol * np.maximum(size, self.first) / self.step.tau
        return np.maximum(DIGITS * rounding, FAR * goal)


def with_data(rough: Step, y: Array) -> tuple[Step, Array]:
    """The step in float32 with data, and for which images float32 holds them; the others get 0."""
    if rough.dtype == y.dtype:
        return rough, np.zeros(len(y), dtype=bool)
    largest = np.abs(y).reshape(len(y), -1).max(axis=1)
    held = (largest == 0) | ((largest >= SINGLE[0]) & (largest <= SINGLE[1]))
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
        """As of `exact`."""
        return self.exact.safeguarded(previous)

    def _chosen(self, name: str) -> Array:
        draft = getattr(self.rough, name).astype(self.exact.u.dtype)
        if self.open.all():
            return draft
        return np.where(per_image(self.open, draft), draft, getattr(self.exact, name))
