"""Which data sets there are, where they come from, and whether they can be loaded now.

For tables (`refimpl data`); nothing is loaded or downloaded.
"""

import importlib.util
import os
from typing import NamedTuple

from refimpl.images.files import DATA_VARIABLE, SUFFIXES, mnist_path
from refimpl.images.shipped import FACES, TEST_PHOTOGRAPHS, TRAIN_FACES, TRAIN_PHOTOGRAPHS


class SourceRow(NamedTuple):
    """One data set, by the name of the function that loads it; all but `available` is text."""

    name: str
    source: str
    shape: str
    split: str
    values: str
    available: bool
    note: str


FACES_ROW = SourceRow(
    name="faces",
    source="scikit-image, lfw_subset",
    shape="1 x 25 x 25",
    split=f"{TRAIN_FACES} / {FACES - TRAIN_FACES}",
    values="[0, 1]",
    available=True,
    note="shipped, no download",
)
PHOTOGRAPHS_ROW = SourceRow(
    name="photograph_crops",
    source="scikit-image, photographs",
    shape="1 or 3 x h x w",
    split=f"{', '.join(TRAIN_PHOTOGRAPHS)} / {', '.join(TEST_PHOTOGRAPHS)}",
    values="[0, 1]",
    available=True,
    note="shipped, no download",
)
FOLDER_ROW = SourceRow(
    name="folder",
    source=f"files ending in {', '.join(SUFFIXES)}",
    shape="1 or 3 x h x w",
    split="by name, last fifth for testing",
    values="[0, 1]",
    available=True,
    note="give the path",
)


def describe(root: str | os.PathLike | None = None) -> tuple[SourceRow, ...]:
    """One row per data set; `root` as in `mnist`."""
    available, note = _mnist_available(root)
    mnist_row = SourceRow(
        name="mnist",
        source="MNIST, test part",
        shape="1 x 28 x 28",
        split="9000 / 1000",
        values="[0, 1]",
        available=available,
        note=note,
    )
    return FACES_ROW, PHOTOGRAPHS_ROW, mnist_row, FOLDER_ROW


def _mnist_available(root: str | os.PathLike | None) -> tuple[bool, str]:
    """Whether `mnist` can be loaded, and from where or what is missing."""
    try:
        path = mnist_path(root)
    except FileNotFoundError as error:
        return False, str(error)
    if path is not None:
        return True, str(path)
    if importlib.util.find_spec("pooch") is None:
        return False, f"set {DATA_VARIABLE}, or install pooch to download it"
    return True, "in the cache of pooch, downloaded on first use"
