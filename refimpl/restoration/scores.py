"""How good a model is on photographs: PSNR and SSIM beside the data and total variation.

    y = K u† + ε n (E1),  scores of y, of TV with the λ that is best for these photographs, of u*
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.images.quality import add_noise, check_missing, psnr, ssim
from refimpl.paper.operators import Convolution
from refimpl.paper.operators.pointwise import random_mask
from refimpl.restoration.accepted import accepted_psf
from refimpl.restoration.degraded import Degraded, blurred, incomplete, noisy
from refimpl.restoration.priors import find_prior
from refimpl.training import TrainedModel

# λ is a power of this times that of the rule.
WEIGHT = 2.0**0.25
SIDE = 7  # of the window of SSIM


class Scores(NamedTuple):
    """PSNR and SSIM of each photograph, by what was scored."""

    noise_level: float
    psnr: dict[str, Array]
    ssim: dict[str, Array]

    def lines(self) -> Iterator[str]:
        """A table: means with their standard errors."""
        count = len(next(iter(self.psnr.values())))
        level = f"noise level {self.noise_level:.4g} ({255 * self.noise_level:.3g} of 255)"
        yield f"{count} photograph{'s' * (count > 1)}, {level}"
        yield f"{'':<28} {'PSNR':>16} {'SSIM':>18}"
        for name, values in self.psnr.items():
            other = self.ssim[name]
            yield f"{name:<28} {_mean(values, 2):>16} {_mean(other, 4):>18}"


def _mean(values: Array, digits: int) -> str:
    """Mean ± standard error; of one value no error is known."""
    error = f"{values.std(ddof=1) / len(values) ** 0.5:.{digits}f}" if len(values) > 1 else "?"
    return f"{values.mean():.{digits}f} ± {error}"


def evaluate(
    photographs: list[Array],
    model: str | Path | TrainedModel | None = None,
    noise_level: float | None = None,
    seed: int = 0,
    *,
    missing: float | Array | None = None,
    psf: Array | None = None,
) -> Scores:
    """Scores of a model on photographs with noise, without some of their pixels, or blurred.

    Parameters
    ----------
    photographs : list of arrays (C, H, W) in [0, 1]
    model : name, path or TrainedModel, optional
        As for `denoise`.
    noise_level : float, optional
        ε, where white is 1; left out: that for which the model was trained, of total variation
        25/255.
    seed : int
        Of noise and missing pixels; each photograph has a stream of its own.
    missing : float or array (H, W) of bool, optional
        The part of the pixels that are missing at random, or where they are.
    psf : array (h, w), optional
        By which the photographs are blurred.

    Returns
    -------
    Scores
        Of "data" (missing pixels being the nearest that are there), "total variation" with the
        multiple of its rule's weight that is best, and "model". Nothing is clipped.

    Raises
    ------
    TypeError, ValueError
        For what `denoise`, `inpaint` and `deconvolve` refuse.
    """
    guess = 25 / 255 if noise_level is None else noise_level
    found = find_prior(model, photographs[0].shape[0], guess)
    if noise_level is None and found is not None:
        noise_level = found.unit_noise_level
    level = guess if noise_level is None else noise_level
    rngs = np.random.default_rng(seed).spawn(len(photographs))
    data = [
        degraded(u, level, rng, missing, psf) for u, rng in zip(photographs, rngs, strict=True)
    ]
    images = {
        "data": [some.as_given[0] for some in data],
        "total variation, best weight": best_total_variation(data, photographs),
    }
    if found is not None:
        images["model"] = [some.restored(found)[0] for some in data]
    pairs = {name: list(zip(found, photographs)) for name, found in images.items()}
    return Scores(
        level,
        {name: np.array([psnr(*pair) for pair in some]) for name, some in pairs.items()},
        {name: np.array([_ssim(*pair) for pair in some]) for name, some in pairs.items()},
    )


def degraded(
    u: Array, noise_level: float, rng: np.random.Generator,
    missing: float | Array | None = None, psf: Array | None = None,
) -> Degraded:  # fmt: skip
    """y = K u + ε n (E1) of a photograph u, with K as `evaluate` takes it."""
    if missing is not None and psf is not None:
        raise ValueError("given missing pixels and a psf, expected one of the two")
    if psf is not None:
        kernel = accepted_psf(psf, u.shape[1:])
        y = add_noise(Convolution(kernel, u.shape).matvec(u[None]), noise_level, rng)
        return blurred(y, kernel, noise_level)
    y = add_noise(u[None], noise_level, rng)
    if missing is None:
        return noisy(y, noise_level)
    if np.ndim(missing) == 0:
        missing = ~random_mask(u.shape[1:], missing, rng)
    missing = check_missing(missing, u.shape[1:])
    return incomplete(np.where(missing, 0, y), missing, noise_level)


def _ssim(u: Array, truth: Array) -> float:
    """SSIM with windows that fit."""
    side = min(SIDE, *(n - (n + 1) % 2 for n in u.shape[1:]))
    return ssim(u, truth, channel_axis=0, window=side) if side > 2 else np.nan


def best_total_variation(data: list[Degraded], photographs: list[Array]) -> list[Array]:
    """Results of total variation, λ the multiple of the rule's for which the mean PSNR is best."""
    found = {}

    def score(power: int) -> float:
        """Mean PSNR with a multiple of λ."""
        if power not in found:
            images = [some.by(some.total_variation(WEIGHT**power))[0] for some in data]
            found[power] = np.mean([psnr(*pair) for pair in zip(images, photographs)]), images
        return found[power][0]

    power = 0
    for way in (-1, 1):
        while score(power + way) > score(power):
            power += way
    return found[power][1]
