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
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from PIL import Image, ImageDraw

from figures.workers import end_with_parent
from refimpl.images import photographs, psnr, ssim
from refimpl.restoration.degraded import Degraded
from refimpl.restoration.scores import best_total_variation, degraded

TEXT = "The quick brown fox jumps over the lazy dog. "
MOTION = np.ones((1, 11)) / 11
TOTAL_VARIATION = "total variation"


class Setting(NamedTuple):
    """What happens to a photograph; ε of 255."""

    level: float
    missing: float | Callable[[tuple[int, int]], np.ndarray] | None = None
    psf: np.ndarray | None = None

    @property
    def task(self) -> str:
        """The function of `refimpl.restoration` that is meant."""
        if self.psf is not None:
            return "deconvolve"
        return "denoise" if self.missing is None else "inpaint"

    def data(self, u: np.ndarray, seed: int) -> Degraded:
        """y of a photograph (1, H, W)."""
        missing = self.missing(u.shape[1:]) if callable(self.missing) else self.missing
        return degraded(u, self.level / 255, np.random.default_rng(seed), missing, self.psf)


def gaussian(sigma: float) -> np.ndarray:
    """A Gaussian psf up to 3 σ: what its filter makes of a point."""
    radius = int(3 * sigma)
    point = np.pad([[1.0]], radius)
    return scipy.ndimage.gaussian_filter(point, sigma, radius=radius)


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
    "30 % missing, noise 5": Setting(5, missing=0.3),
    "text, noise 5": Setting(5, missing=text),
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
    mirrored = np.pad(y, [(0, side) for side in y.shape], "symmetric")
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


def row(images: list[np.ndarray], setting: str, method: str) -> dict[str, float]:
    """Scores, time and memory of one method on photographs (1, H, W)."""
    data = [SETTINGS[setting].data(u, seed) for seed, u in enumerate(images)]
    solve, found, seconds = method_of(method, data[0].task), [], []
    for some in data:
        begin = time.perf_counter()
        found.append(solve(some))
        seconds.append(time.perf_counter() - begin)
    if method == TOTAL_VARIATION:
        found = [u[0] for u in best_total_variation(data, images)]
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
        return lambda data: data.as_given[0, 0]
    if name == TOTAL_VARIATION:
        return lambda data: data.by(data.total_variation())[0, 0]
    if name in OTHERS[task]:
        return OTHERS[task][name]
    return lambda data: data.restored(name)[0, 0]


def names(task: str, models: list[str]) -> list[str]:
    """The rows of a setting."""
    others = [name for name in OTHERS[task] if name != "BM3D" or find_spec("bm3d")]
    return ["data", TOTAL_VARIATION, *others, *models]


def rows(images: list[np.ndarray], models: list[str]) -> Iterator[str]:
    """The lines of the table, in Markdown."""
    yield f"| {len(images)} photographs | method | PSNR | SSIM | s | MB |"
    yield "|---|---|---|---|---|---|"
    # A process for each row, so that memory is its own.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, end_with_parent, max_tasks_per_child=1) as pool:
        for setting, what in SETTINGS.items():
            for method in names(what.task, models):
                r = pool.submit(row, images, setting, method).result()
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
    images = list(photographs(options.folder).values())[-options.number :]
    for line in rows(images, options.models):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
