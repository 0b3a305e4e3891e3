"""A case with every number of it moved by some roundings: its outputs tell their conditioning."""

from dataclasses import replace

import numpy as np

from refimpl.arrays import per_image
from refimpl.verification.cases.case import BATCHED, Case, all_parameters


def perturbed(
    case: Case,
    eps: float,
    rng: np.random.Generator,
    *,
    by_image: bool = False,
    parameters: bool = True,
) -> Case:
    """The case with every number moved by at most eps, relatively.

    Parameters
    ----------
    case : Case
    eps : float
    rng : Generator
    by_image : bool
        Whether the pixels of images move relative to the largest of them, as in an FFT.
    parameters : bool
        Whether those of the potential move too.
    """

    def move(x):
        factor = 1 + eps * rng.uniform(-1, 1, np.shape(x))
        return x * np.asarray(factor, getattr(x, "dtype", None))

    def moved(name, x):
        if name == "mask":
            return x
        if not (by_image and name in BATCHED):
            return move(x)
        largest = per_image(abs(x).reshape(len(x), -1).max(axis=1), x)
        return x + eps * largest * rng.uniform(-1, 1, x.shape)

    arrays = {name: moved(name, x) for name, x in case.arrays.items()}
    numbers = {name: getattr(case, name) for name in ("tau", "lam", "gamma", "norm")}
    numbers = {name: float(move(x)) for name, x in numbers.items() if x is not None}
    if parameters:
        moved_parameters = {k: float(move(x)) for k, x in all_parameters(case).items()}
        numbers["potential_parameters"] = moved_parameters
    return replace(case, arrays=arrays, **numbers)
