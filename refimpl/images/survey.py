"""Which data sets there are, where they come from, and whether they can be loaded now.

For tables (`refimpl data`); nothing is loaded or downloaded.
"""

import importlib.util
import os
from typing import NamedTuple

from refimpl.images.folders import DATA_VARIABLE, SUFFIXES, mnist_path
from refimpl.images.shipped import FACES, TEST_PHOTOGRAPHS, TRAIN_FACES, TRAIN_PHOTOGRAPHS


class SourceRow(NamedTuple):
    """One data set, by the name of the function that loads it; all but `available` is text."""

    name: str
    source: str
    shape: str
    split: str
    note: str = "shipped, no download"
    available: bool = True
    values: str = "[0, 1]"


FACES_ROW = SourceRow(
    name="faces",
    source="scikit-image, lfw_subset",
    shape="1 x 25 x 25",
    split=f"{TRAIN_FACES} / {FACES - TRAIN_FACES}",
)
PHOTOGRAPHS_ROW = SourceRow(
    name="photograph_crops",
    source="scikit-image, photographs",
    shape="1 or 3 x h x w",
    split=f"{', '.join(TRAIN_PHOTOGRAPHS)} / {', '.join(TEST_PHOTOGRAPHS)}",
)
FOLDER_ROW = SourceRow(
    name="folder",
    source=f"files ending in {', '.join(SUFFIXES)}",
    shape="1 or 3 x h x w",
    split="by name, last fifth for testing",
    note="give the path",
)


def describe(root: str | os.PathLike | None = None) -> tuple[SourceRow, ...]:
    """One row per data set; `root` as in `mnist`."""
    digits = ("mnist", "MNIST, test part", "1 x 28 x 28", "9000 / 1000")
    return FACES_ROW, PHOTOGRAPHS_ROW, SourceRow(*digits, *_mnist_available(root)), FOLDER_ROW


def _mnist_available(root: str | os.PathLike | None) -> tuple[str, bool]:
    """Where `mnist` is loaded from or what is missing, and whether it can be loaded."""
    try:
        path = mnist_path(root)
    except FileNotFoundError as error:
        return str(error), False
    if path is not None:
        return str(path), True
    if importlib.util.find_spec("pooch") is None:
        return f"set {DATA_VARIABLE}, or install pooch to download it", False
    return "in the cache of pooch, downloaded on first use", True
