"""The regulariser R of an image by name, file or object, with what depends on the noise.

    trained           γ Σ_k w_k Σ φ((A u + b)_k), or the field of an untied model, scaled to ε
    of grey images    that of each image of the orthonormal cosine transform of the channels
    total variation   Σ log cosh(χ D u) / χ, with the λ of `refimpl.restoration.weights`

A solve ends where PSNR has settled. Where R is convex and K = I, ‖u − u*‖ ≤ ‖G(u)‖ / λ, and what
noise leaves in u* is about half of ε √n; so ‖G(u)‖ is compared with λ ε √n.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, shown
from refimpl.engine import Step, make_step
from refimpl.images import UNIT_RANGE
from refimpl.kernels.vectors import norm
from refimpl.paper.filters import total_variation
from refimpl.paper.operators import LinearOperator
from refimpl.paper.problem import Problem
from refimpl.restoration.weights import Rule
from refimpl.training import TrainedModel
from refimpl.training.library import families, find_model

TOTAL_VARIATION = "tv"

# ‖G(u)‖ / (λ ε √n) at the end of a solve with a trained model. On photographs of BSDS300 PSNR is
# then within 0.002 dB of that at 1e-6 (at 1e-2 within 0.05): a Lorentzian model, denoising with
# ε = 15 to 50 of 255, inpainting a third missing with 2 to 25, deblurring with 3 and 8.
SETTLED = 1e-3
# Noise for which a trained model is taken at least: below it, its R is that of this noise. With 48
# filters of 7 × 7, Lorentzian, on two crops of photographs, 15/255 was 0.04 to 0.2 dB worse in
# deblurring with ε = 2.55 and 8 of 255; in inpainting it was 0.06 worse with ε = 0.5, 0.15 better
# with 5, and took two to four times as long. Less still is slow, down to no convergence.
LEAST_LEVEL = {"denoise": 0.0, "inpaint": 25 / 255, "deconvolve": 25 / 255}

# Tiles of trained models: with 48 filters of 7 × 7, Lorentzian, ε = 15 to 50 of 255, overlaps of
# 16 and 32 changed pixels by up to 1.6e-3 and 1e-4. Those of total variation overlap by a multiple
# of √(χ/λ), the length over which J = λ + χ DᵀD, that of a flat image, forgets.
TILE, OVERLAP = 512, 48
TV_TILE, TV_LENGTHS = 1024, 8


class Prior(NamedTuple):
    """R, and how u* is found with it.

    Attributes
    ----------
    step : callable
        T from K and data (N, C, H, W) in `value_range`.
    residual_tol : callable
        The relative residual of a step at which the PSNR of photographs has settled to 0.01 dB.
    overlap : int
        Pixels by which tiles overlap, for K = I.
    side : int
        Pixels along a side of a tile's kept part.
    apart : bool
        Whether it takes images of one channel: then each of the orthonormal cosine transform of
        the channels is one. Of three these are luminance, R − B and R − 2 G + B, by their sizes,
        and have noise of the same ε.
    near : callable or None
        A step like `step` whose u* is easily found; from there that of `step` is.
    value_range : tuple (low, high)
        The values of black and white.
    """

    step: Callable[[LinearOperator, Array], Step]
    residual_tol: Callable[[Step], float]
    overlap: int
    side: int
    apart: bool = False
    value_range: tuple[float, float] = UNIT_RANGE
    near: Callable[[LinearOperator, Array], Step] | None = None


def find_prior(
    model: str | Path | TrainedModel | None, channels: int, noise_level: float
) -> TrainedModel | None:
    """The trained model that is meant, or None for total variation.

    None: the family "tied", if models ship, else total variation.

    Raises
    ------
    TypeError, ValueError
        For what is none, and for a model of another number of channels.
    """
    if model is None:
        model = "tied" if "tied" in families() else TOTAL_VARIATION
    if isinstance(model, str) and model == TOTAL_VARIATION:
        return None
    if isinstance(model, (str, Path)):
        model = find_model(model, channels, noise_level)
    if not isinstance(model, TrainedModel):
        raise TypeError(
            f"model: given {shown(model)}, expected None, {TOTAL_VARIATION!r}, the name or file of "
            "a model, or a TrainedModel"
        )
    if model.channels not in (1, channels):
        raise ValueError(
            f"model: its filters act on {model.channels} channels, the image has {channels}; take "
            "a model of grey images, which takes luminance and differences of channels"
        )
    return model


def trained(model: TrainedModel, task: str, noise_level: float) -> Prior:
    """A trained model as the regulariser of an image with this noise.

    R is that of the model at the noise ε_R = max(ε, `LEAST_LEVEL`), and λ ∝ 1/ε², as for noise of
    ε in the place of ε_R: for a model without a scale of its own that is maximum a posteriori.
    """
    low, high = model.value_range
    at = model.at((high - low) * max(noise_level, LEAST_LEVEL[task]))
    ratio = at.unit_noise_level / noise_level
    ready = replace(at, lam=ratio**2 * at.lam)

    def residual_tol(step: Step) -> float:
        y = step.problem.y
        allowed = SETTLED * (high - low) * noise_level * np.sqrt(y[0].size)
        return float(step.tau * ready.lam * allowed / max(norm(y).max(), allowed))

    near = None if model.theta.tied else partial(_step_of, ready.tie())
    return Prior(
        partial(_step_of, ready), residual_tol, OVERLAP, TILE,
        apart=model.channels == 1, value_range=(low, high), near=near,
    )  # fmt: skip


def _step_of(model: TrainedModel, K: LinearOperator, y: Array) -> Step:
    """T of a model for data y = K u† + ε n."""
    return make_step(model.problem(y, K))


def smooth_total_variation(rule: Rule, lam: float) -> Prior:
    """Total variation with a λ, in the float64 that steep potentials need."""

    def step(K: LinearOperator, y: Array) -> Step:
        experts = total_variation(y.shape[1:], slope=rule.slope)
        return make_step(Problem(K, y, experts, lam), tau=1 / (8 * rule.slope))

    overlap = int(np.ceil(TV_LENGTHS * np.sqrt(rule.slope / lam)))
    return Prior(step, lambda step: rule.tol, overlap, TV_TILE)
