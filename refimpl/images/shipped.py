"""Images inside the scikit-image wheel: faces for the dense model, photographs for the other.

Nothing is downloaded. Splits are fixed: they depend on no generator and on no library version.

    faces                25 x 25, the first half of lfw_subset; its second half shows no faces
    photograph_crops     tiles of photographs, some photographs for training and others for testing

References
----------
G. Huang, M. Ramesh, T. Berg and E. Learned-Miller, "Labeled Faces in the Wild", 2007.
S. van der Walt et al., "scikit-image: image processing in Python", PeerJ 2:e453, 2014.
"""

from itertools import zip_longest

import numpy as np

from refimpl.arrays import count
from refimpl.images.sets import UNIT_RANGE, ImageSet, centre, image_size, unit_image

FACES = 100
TRAIN_FACES = 80
GREY_PHOTOGRAPHS = ("brick", "camera", "coins", "gravel")
TRAIN_PHOTOGRAPHS = ("astronaut", "chelsea", "rocket", "coins", "brick", "gravel")
TEST_PHOTOGRAPHS = ("camera", "coffee")


def faces() -> ImageSet:
    """100 grey faces of 25 x 25 pixels in [0, 1]: the first 80 to train on, the last 20 to test on.

    `skimage.data.lfw_subset` holds 200 patches, of which the last 100 are background.
    """
    import skimage.data

    images = skimage.data.lfw_subset()[:FACES, None].astype(np.float64)
    return ImageSet(images[:TRAIN_FACES], images[TRAIN_FACES:], UNIT_RANGE, "faces")


def photograph_crops(
    size: int | tuple[int, int] = 64, *, colour: bool = False, shrink: int = 1
) -> ImageSet:
    """Non-overlapping crops of photographs in [0, 1]; no photograph is in both parts.

    Parameters
    ----------
    size : int or (h, w)
        Rows and columns of a crop.
    colour : bool
        True: (N, 3, h, w) from the colour photographs only. False: (N, 1, h, w) from all.
    shrink : int
        Photographs are first reduced by this factor, each pixel the mean of a block, so that
        small crops show more of them.

    Returns
    -------
    ImageSet
        All crops that fit. The photographs take turns and each gives its crops from the centre
        outwards, so `subset` takes from every photograph.

    Raises
    ------
    ValueError
        If a crop does not fit into a photograph, or `shrink` is not a positive integer.
    """
    count(shrink, "shrink")

    def crops(name: str) -> np.ndarray:
        return tiles(block_means(_photograph(name, colour), shrink), size, name)

    train, test = (
        np.stack(take_turns([crops(name) for name in names]))
        for names in map(_with_colour if colour else tuple, (TRAIN_PHOTOGRAPHS, TEST_PHOTOGRAPHS))
    )
    return ImageSet(train, test, UNIT_RANGE, "photograph_crops")


def _with_colour(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in GREY_PHOTOGRAPHS)


def _photograph(name: str, colour: bool) -> np.ndarray:
    """One photograph (C, H, W) in [0, 1]."""
    import skimage.data

    return unit_image(getattr(skimage.data, name)(), name, colour)


def block_means(image: np.ndarray, side: int) -> np.ndarray:
    """The image (C, H, W) reduced to (C, ⌊H/side⌋, ⌊W/side⌋) by the means of square blocks."""
    C, H, W = image.shape[0], image.shape[1] // side, image.shape[2] // side
    blocks = image[:, : H * side, : W * side].reshape(C, H, side, W, side)
    return blocks.mean(axis=(2, 4))


def tiles(image: np.ndarray, size: int | tuple[int, int], name: str) -> np.ndarray:
    """The tiles of the centred grid, those nearest the centre first, rows before columns.

    Parameters
    ----------
    image : array (C, H, W)
    size : int or (h, w)
    name : str
        What the image is called in error messages.

    Returns
    -------
    array (⌊H/h⌋ ⌊W/w⌋, C, h, w)
    """
    h, w = image_size(size)
    channels, rows, columns = image.shape[0], image.shape[1] // h, image.shape[2] // w
    if rows * columns == 0:
        raise ValueError(
            f"{name}: image is {image.shape[1:]}, crops are {(h, w)}; ask for crops of at most "
            f"{image.shape[1:]}"
        )
    grid = centre(image, (rows * h, columns * w)).reshape(channels, rows, h, columns, w)
    i, j = np.indices((rows, columns))
    distance = ((2 * i - rows + 1) * h) ** 2 + ((2 * j - columns + 1) * w) ** 2
    order = np.argsort(distance, axis=None, kind="stable")
    return grid.transpose(1, 3, 0, 2, 4).reshape(-1, channels, h, w)[order]


def take_turns(groups: list[np.ndarray]) -> list[np.ndarray]:
    """First tile of every group, second tile of every group, and so on."""
    return [tile for turn in zip_longest(*groups) for tile in turn if tile is not None]
