"""What is known of an image that is noisy, incomplete or blurred, and its restoration.

    y = K u† + ε n        K = I, a mask, or a blur                                E1
    u* of λ/2 ‖K u − y‖² + R(u)

Not here: R (`refimpl.restoration.priors`), and what users may pass (`refimpl.restoration.tasks`).
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage

from refimpl.arrays import Array
from refimpl.engine import Step
from refimpl.equilibrium import reconstruct
from refimpl.images.sets import UNIT_RANGE, rescale
from refimpl.paper.operators import Convolution, Identity, LinearOperator, Mask
from refimpl.restoration.mosaic import by_tiles
from refimpl.restoration.priors import Prior, find_prior, smooth_total_variation, trained
from refimpl.restoration.weights import RULES, roughness
from refimpl.results import NotConvergedError, SolverResult
from refimpl.training import TrainedModel

# Sides of a psf that tiles overlap by besides.
BLURS = 3
# Of Newton's method: photographs take 5 to 20, white noise with a fifth missing up to 114.
ITERATIONS = 500

Model = str | Path | TrainedModel | None
Place = tuple[slice, slice]


class Degraded(NamedTuple):
    """An image (1, C, H, W) with white at 1, and what happened to it.

    Attributes
    ----------
    task : "denoise", "inpaint" or "deconvolve"
    y : array (1, C, H, W)
    noise_level : float
        ε.
    operator : callable (shape, place)
        K for images of a shape (C, h, w) at a place of y.
    start : callable (part, place) or None
        What a part of y, any number of channels of it, is first taken for; None: itself.
    reach : int
        Pixels by which tiles overlap besides.
    missing : array (H, W) or None
    blur : float
        ‖k‖² of the psf.
    """

    task: str
    y: Array
    noise_level: float
    operator: Callable[[tuple[int, int, int], Place], LinearOperator]
    start: Callable[[Array, Place], Array] | None = None
    reach: int = 0
    missing: Array | None = None
    blur: float = 1.0

    def restored(self, model: Model) -> Array:
        """u*, with the regulariser that is meant."""
        found = find_prior(model, self.y.shape[1], self.noise_level)
        if found is None:
            return self.by(self.total_variation())
        logging.getLogger("refimpl").info("%s with %r", self.task, found)
        return self.by(trained(found, self.task, self.noise_level))

    def total_variation(self, factor: float = 1.0) -> Prior:
        """Total variation, λ a multiple of what the rule says for this image."""
        rule = RULES[self.task]
        rough = roughness(self.y, self.noise_level, self.missing)
        lam = rule.lam(self.noise_level, rough, self.blur)
        return smooth_total_variation(rule, factor * lam)

    @property
    def as_given(self) -> Array:
        """y, missing pixels being what they are first taken for."""
        return self.first(self.y, (slice(None), slice(None)))

    def first(self, part: Array, place: Place) -> Array:
        """Where the solve of a part of y begins."""
        return part if self.start is None else self.start(part, place)

    def by(self, prior: Prior) -> Array:
        """u*, computed in float64, tile by tile where the image is large.

        Raises
        ------
        NotConvergedError
            If it is not found.
        """
        solve = partial(self._solved, prior)
        return by_tiles(solve, self.y, prior.side, prior.overlap + self.reach)

    def _solved(self, prior: Prior, place: Place) -> Array:
        """u* of the data at one place."""
        low, high = prior.value_range
        part = self.y[:, :, *place].astype(np.float64)
        if prior.apart:
            part = scipy.fft.dct(part, axis=1, norm="ortho").swapaxes(0, 1)
        K = self.operator(part.shape[1:], place)
        first = rescale(self.first(part, place), UNIT_RANGE, (low, high))
        data = low * K.matvec(np.ones_like(part[:1])) + (high - low) * part
        if prior.near is not None:
            first = _found(prior, prior.near(K, data), first).x
        star = _found(prior, prior.step(K, data), first)
        if not star.all_converged:
            raise NotConvergedError(
                f"{self.task}: {star.message}; pass a larger noise_level, which makes the "
                "problem easier"
            )
        u = rescale(star.x, (low, high), UNIT_RANGE)
        return scipy.fft.idct(u.swapaxes(0, 1), axis=1, norm="ortho") if prior.apart else u


def _found(prior: Prior, step: Step, first: Array) -> SolverResult:
    """u* of a step, as near as the prior asks."""
    return reconstruct(
        step, first, residual_tol=prior.residual_tol(step), max_iterations=ITERATIONS
    )


def noisy(y: Array, noise_level: float) -> Degraded:
    """K = I."""
    return Degraded("denoise", y, noise_level, lambda shape, place: Identity(shape))


def incomplete(y: Array, missing: Array, noise_level: float) -> Degraded:
    """K = 0 where pixels are missing; each of them is first the nearest that is there."""
    distance = scipy.ndimage.distance_transform_edt

    def mask(shape: tuple[int, int, int], place: Place) -> Mask:
        return Mask(~missing[place], shape)

    def start(part: Array, place: Place) -> Array:
        _, nearest = distance(missing[place], return_indices=True)
        return part[:, :, *nearest]

    gap = int(np.ceil(distance(missing).max()))  # which a tile reaches beyond
    return Degraded("inpaint", y, noise_level, mask, start, gap, missing)


def blurred(y: Array, kernel: Array, noise_level: float) -> Degraded:
    """K u = k * u."""

    def blur(shape: tuple[int, int, int], place: Place) -> Convolution:
        return Convolution(kernel, shape)

    return Degraded(
        "deconvolve", y, noise_level, blur,
        reach=BLURS * max(kernel.shape), blur=float(np.sum(kernel**2)),
    )  # fmt: skip
