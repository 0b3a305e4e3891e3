"""`python -m figures.comparison DIR [-n 8] [--models M …]`: methods on photographs, as a table.

The last photographs of a folder by name, grey, degraded in seven ways; nothing is clipped. Every
method sees the same data and is told ε and K. Of total variation the weight is the multiple of its
rule that is best for all of them. Each row is measured in a process of its own: PSNR and SSIM are
means, seconds those of one photograph (median, after a first that is not counted, all cores), MB
the most that the process held. BM3D is left out where `pip install bm3d` was not done.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from refimpl.images import photographs, psnr, ssim
from refimpl.restoration.degraded import Degraded
from refimpl.restoration.scores import best_total_variation, degraded

TEXT = "The quick brown fox jumps over the lazy dog. "
MOTION = np.ones((1, 11)) / 11


class Setting(NamedTuple):
    """What happens to a photograph; ε of 255."""

    level: float
    missing: str | None = None
    psf: np.ndarray | None = None

    def data(self, u: np.ndarray, seed: int) -> Degraded:
        """y of a photograph (1, H, W)."""
        missing = {None: lambda: None, "30 %": lambda: 0.3, "text": lambda: text(u.shape[1:])}
        rng = np.random.default_rng(seed)
        return degraded(u, self.level / 255, rng, missing[self.missing](), self.psf)


def gaussian(sigma: float) -> np.ndarray:
    """A Gaussian psf up to 3 σ."""
    x = np.arange(-int(3 * sigma), int(3 * sigma) + 1)
    k = np.exp(-(x**2) / (2 * sigma**2))
    return np.outer(k, k) / k.sum() ** 2


def text(size: tuple[int, int]) -> np.ndarray:
    """True where a page of letters covers the photograph."""
    page = Image.new("1", size[::-1])
    for row in range(0, size[0], 14):
        ImageDraw.Draw(page).text((-5 * row, row), TEXT * 99, fill=1)
    return np.asarray(page.convert("L")) > 0


SETTINGS = {
    "noise 15": Setting(15),
    "noise 25": Setting(25),
    "noise 50": Setting(50),
    "30 % missing, noise 5": Setting(5, missing="30 %"),
    "text, noise 5": Setting(5, missing="text"),
    "motion 11, noise 2.55": Setting(2.55, psf=MOTION),
    "Gaussian 1.6, noise 2.55": Setting(2.55, psf=gaussian(1.6)),
}

Method = Callable[[Degraded], np.ndarray]


def non_local_means(data: Degraded) -> np.ndarray:
    """scikit-image's, with the filtering parameter 0.8 ε that its documentation proposes."""
    from skimage.restoration import denoise_nl_means

    options = {"patch_size": 5, "patch_distance": 6, "fast_mode": False}
    y, level = data.y[0, 0], data.noise_level
    return denoise_nl_means(y, h=0.8 * level, sigma=level, **options)


def bm3d(data: Degraded) -> np.ndarray:
    """Of M. Mäkinen, L. Azzari and A. Foi."""
    from bm3d import bm3d

    return bm3d(data.y[0, 0], data.noise_level)


def bm3d_deblurring(data: Degraded) -> np.ndarray:
    """The same for blurs, of a periodic image: data mirrored at their borders go in."""
    from bm3d import bm3d_deblurring

    y, psf = data.y[0, 0], data.operator(data.y.shape[1:], ()).kernel
    mirrored = np.block([[y, y[:, ::-1]], [y[::-1], y[::-1, ::-1]]])
    return bm3d_deblurring(mirrored, data.noise_level, psf)[: y.shape[0], : y.shape[1]]


def biharmonic(data: Degraded) -> np.ndarray:
    """scikit-image's, which keeps the noise of the other pixels."""
    from skimage.restoration import inpaint_biharmonic

    return inpaint_biharmonic(data.y[0, 0], data.missing)


OTHERS = {
    "denoise": {"non-local means": non_local_means, "BM3D": bm3d},
    "inpaint": {"biharmonic": biharmonic},
    "deconvolve": {"BM3D": bm3d_deblurring},
}


def as_given(data: Degraded) -> np.ndarray:
    """The data, missing pixels being the nearest that are there."""
    everywhere = (slice(None), slice(None))
    return (data.y if data.start is None else data.start(data.y, everywhere))[0, 0]


@cache
def truth(folder: Path, number: int) -> list[np.ndarray]:
    """The last photographs of a folder by name."""
    return list(photographs(folder).values())[-number:]


def row(folder: Path, number: int, setting: str, method: str) -> dict[str, float]:
    """Scores, time and memory of one method."""
    images = truth(folder, number)
    data = [SETTINGS[setting].data(u, seed) for seed, u in enumerate(images)]
    if method == "total variation":
        found = [u[0] for u in best_total_variation(data, images)]
        solve: Method = lambda some: some.by(some.total_variation())  # noqa: E731
    else:
        solve, found = method_of(method, data[0].task), []
    seconds = []
    for some in data:
        begin = time.perf_counter()
        u = solve(some)
        seconds.append(time.perf_counter() - begin)
        if method != "total variation":
            found.append(u)
    pairs = [(u, x[0]) for u, x in zip(found, images, strict=True)]
    return {
        "PSNR": float(np.mean([psnr(*pair) for pair in pairs])),
        "SSIM": float(np.mean([ssim(*pair) for pair in pairs])),
        "s": float(np.median(seconds[1:] or seconds)),
        "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    }


def method_of(name: str, task: str) -> Method:
    """The function of data (1, 1, H, W) that a row is about."""
    if name == "data":
        return as_given
    if name in OTHERS[task]:
        return OTHERS[task][name]
    return lambda data: data.restored(name)[0, 0]


def names(task: str, models: list[str]) -> list[str]:
    """The rows of a setting."""
    others = [name for name in OTHERS[task] if name != "BM3D" or find_spec("bm3d")]
    return ["data", "total variation", *others, *models]


def rows(folder: Path, number: int, models: list[str]) -> Iterator[str]:
    """The lines of the table, in Markdown."""
    yield f"| {number} photographs | method | PSNR | SSIM | s | MB |"
    yield "|---|---|---|---|---|---|"
    first = truth(folder, number)[0]
    for setting, what in SETTINGS.items():
        for method in names(what.data(first, 0).task, models):
            # A process for each row, so that memory is its own.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                r = pool.submit(partial(row, folder, number, setting, method)).result()
            yield (
                f"| {setting} | {method} | {r['PSNR']:.2f} | {r['SSIM']:.4f} | {r['s']:.2g} "
                f"| {r['MB']:.0f} |"
            )


def main(arguments: list[str] | None = None) -> int:
    """Print the table row by row."""
    parser = argparse.ArgumentParser(prog="python -m figures.comparison", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("-n", "--number", type=int, default=8, help="photographs (default: 8)")
    parser.add_argument("--models", nargs="+", default=["tied-25"], metavar="M")
    options = parser.parse_args(arguments)
    for line in rows(options.folder, options.number, options.models):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
