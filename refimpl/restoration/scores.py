"""How good a denoiser is on photographs: PSNR and SSIM beside the data and total variation.

y = u† + ε n (E1),  scores of y, of TV with the one λ that is best for these photographs, of u*
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.images.quality import add_noise, psnr, ssim
from refimpl.paper.operators import Identity
from refimpl.restoration.priors import find_prior, smooth_total_variation, trained
from refimpl.restoration.tasks import restored
from refimpl.restoration.weights import RULES, roughness
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
) -> Scores:
    """Scores of a model on photographs with noise.

    Parameters
    ----------
    photographs : list of arrays (C, H, W) in [0, 1]
    model : name, path or TrainedModel, optional
        As for `denoise`.
    noise_level : float, optional
        ε, where white is 1; left out: that for which the model was trained, of total variation
        25/255.
    seed : int
        Of the noise; each photograph has a stream of its own.

    Returns
    -------
    Scores
        Of "data", "total variation" with its best weight, and "model". Nothing is clipped.
    """
    guess = 25 / 255 if noise_level is None else noise_level
    found = find_prior(model, photographs[0].shape[0], guess)
    if noise_level is None and found is not None:
        noise_level = found.unit_noise_level
    level = guess if noise_level is None else noise_level
    data = list(zip(photographs, noisy(photographs, level, seed), strict=True))
    images = {
        "data": [y for _, y in data],
        "total variation, best weight": best_total_variation(data, level),
    }
    if found is not None:
        prior = trained(found, "denoise", level)
        images["model"] = [restored("denoise", prior, y[None], _identity)[0] for _, y in data]
    pairs = {name: list(zip(found, photographs)) for name, found in images.items()}
    return Scores(
        level,
        {name: np.array([psnr(*pair) for pair in some]) for name, some in pairs.items()},
        {name: np.array([_ssim(*pair) for pair in some]) for name, some in pairs.items()},
    )


def noisy(photographs: list[Array], noise_level: float, seed: int) -> list[Array]:
    """y = u† + ε n (E1), with a stream of noise for each photograph."""
    streams = np.random.default_rng(seed).spawn(len(photographs))
    return [add_noise(u, noise_level, rng) for u, rng in zip(photographs, streams, strict=True)]


def _identity(shape: tuple[int, int, int], place: tuple[slice, slice]) -> Identity:
    return Identity(shape)


def _ssim(u: Array, truth: Array) -> float:
    """SSIM with windows that fit."""
    side = min(SIDE, *(n - (n + 1) % 2 for n in u.shape[1:]))
    return ssim(u, truth, channel_axis=0, window=side) if side > 2 else np.nan


def best_total_variation(data: list[tuple[Array, Array]], noise_level: float) -> list[Array]:
    """Results of total variation, λ the multiple of the rule's for which the mean PSNR is best."""
    rule, found = RULES["denoise"], {}
    ruled = [rule.lam(noise_level, roughness(y[None], noise_level)) for _, y in data]

    def score(power: int) -> float:
        """Mean PSNR with a multiple of λ."""
        if power not in found:
            images = []
            for (_, y), lam in zip(data, ruled, strict=True):
                prior = smooth_total_variation(rule, WEIGHT**power * lam)
                images.append(restored("denoise", prior, y[None], _identity)[0])
            pairs = zip(images, (truth for truth, _ in data))
            found[power] = np.mean([psnr(*pair) for pair in pairs]), images
        return found[power][0]

    power = 0
    for way in (-1, 1):
        while score(power + way) > score(power):
            power += way
    return found[power][1]
