"""Images read from files: the MNIST digits and a folder of images.

The folder that holds the digits is the argument `root` or else the environment variable
`REFIMPL_DATA`, read at the time of the call. A file is used only if its digest is the known one.
"""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np

from refimpl.images.files import read_image
from refimpl.images.sets import UNIT_RANGE, ImageSet, centre, image_size, unit_image, unit_values
from refimpl.storage import said

DATA_VARIABLE = "REFIMPL_DATA"
MNIST_FILE = "t10k-images-idx3-ubyte.gz"
MNIST_SHA256 = "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/" + MNIST_FILE
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def mnist(root: str | os.PathLike | None = None) -> ImageSet:
    """10,000 handwritten digits of 28 x 28 pixels in [0, 1]: 9,000 to train on, 1,000 to test on.

    Parameters
    ----------
    root : path, optional
        A folder with `mnist/t10k-images-idx3-ubyte.gz`; by default that in `REFIMPL_DATA`. If
        neither is given, the file is downloaded once by pooch.

    Raises
    ------
    FileNotFoundError
        If a folder is given and the file is not in it.
    ModuleNotFoundError, OSError
        If no folder is given, and pooch is not installed or the download fails.
    ValueError
        If the file is not the known one, by its SHA-256 digest.

    Notes
    -----
    These are the images of the test part of MNIST. Every tenth, from the first on, is for testing:
    the file's second half comes from other writers and is harder than its first half, and so
    both halves are in both parts in equal measure.
    """
    path = mnist_path(root) or _download()
    _verify(path, MNIST_SHA256)
    content = gzip.decompress(path.read_bytes())
    # The IDX format: type and number of axes in 4 bytes, the lengths of the axes, the pixels.
    lengths = np.frombuffer(content, ">u4", count=3, offset=4)
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(lengths)
    images = unit_values(pixels, str(path))[:, None]
    held_out = np.arange(len(images)) % 10 == 0
    return ImageSet(images[~held_out], images[held_out], UNIT_RANGE, "mnist")


def mnist_path(root: str | os.PathLike | None = None) -> Path | None:
    """Where the digits are, or None if neither `root` nor `REFIMPL_DATA` says."""
    folder_given = root or os.environ.get(DATA_VARIABLE)
    if not folder_given:
        return None
    path = Path(folder_given) / "mnist" / MNIST_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"mnist: {path} does not exist; put the file there, or pass no folder and unset "
            f"{DATA_VARIABLE} to download it"
        )
    return path


def _download() -> Path:
    """The digits in the user's cache, downloaded if they are not there yet."""
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"mnist: no folder given and pooch is not installed; set {DATA_VARIABLE} to a folder "
            f"with mnist/{MNIST_FILE}, or install pooch to download it: pip install pooch"
        ) from error
    digest = "sha256:" + MNIST_SHA256
    try:
        return Path(pooch.retrieve(MNIST_URL, digest, MNIST_FILE, pooch.os_cache("refimpl")))
    except OSError as error:
        raise OSError(
            f"mnist: cannot download {MNIST_URL} ({said(error)}); set {DATA_VARIABLE} to a folder "
            f"with mnist/{MNIST_FILE}"
        ) from error


def _verify(path: Path, expected: str) -> None:
    """Raise ValueError if the SHA-256 digest of the file is not the expected one."""
    with open(path, "rb") as stream:
        given = hashlib.file_digest(stream, "sha256").hexdigest()
    if given != expected:
        raise ValueError(
            f"{path}: SHA-256 digest is {given}, expected {expected}; "
            "the file is damaged or another one, copy or download it again"
        )


def folder(
    path: str | os.PathLike,
    size: int | tuple[int, int] | None = None,
    *,
    test_fraction: float = 0.2,
    colour: bool = False,
) -> ImageSet:
    """The images of a folder, in [0, 1]; the last by name are for testing.

    Parameters
    ----------
    path : path
        A folder with at least two png, jpg or tif files, of any kind that `read_image` takes; other
        files and subfolders are left out. What is not opaque is laid on white.
    size : int or (h, w), optional
        The centre of every image is cut to this size. By default images stay whole and all must
        have the size of the first.
    test_fraction : float
        Between 0 and 1; rounded to whole images, at least one for training and one for testing.
    colour : bool
        True: (N, 3, h, w), every file must be in colour. False: (N, 1, h, w), luminance.

    Raises
    ------
    ValueError
        If there are fewer than two images, or one cannot be read, is too small or of another size.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction: given {test_fraction}, expected between 0 and 1")
    paths = _image_paths(Path(path))
    if len(paths) < 2:
        raise ValueError(
            f"{path}: has {len(paths)} image files, expected at least 2, one to train and one to "
            f"test on; put files ending in {', '.join(SUFFIXES)} there"
        )
    first = _unit_image(paths[0], colour)
    shape = first.shape[1:] if size is None else image_size(size)
    images = np.stack([_cut(_unit_image(file, colour), shape, file, size) for file in paths])
    held_out = min(max(round(test_fraction * len(images)), 1), len(images) - 1)
    return ImageSet(images[:-held_out], images[-held_out:], UNIT_RANGE, Path(path).resolve().name)


def photographs(path: str | os.PathLike, *, colour: bool = False) -> dict[str, np.ndarray]:
    """The images of a folder by name of file, whole, in [0, 1], of any sizes.

    Parameters
    ----------
    path : path
        A folder with png, jpg or tif files, of any kind that `read_image` takes; other files and
        subfolders are left out. What is not opaque is laid on white.
    colour : bool
        True: (3, H, W), every file must be in colour. False: (1, H, W), luminance.

    Raises
    ------
    ValueError
        If there are none, or one cannot be read.
    """
    paths = _image_paths(Path(path))
    if not paths:
        raise ValueError(
            f"{path}: has no image files, expected at least one that ends in {', '.join(SUFFIXES)}"
        )
    return {file.name: _unit_image(file, colour) for file in paths}


def _image_paths(path: Path) -> list[Path]:
    """Image files of a folder, sorted by name."""
    return sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)


def _unit_image(path: Path, colour: bool) -> np.ndarray:
    """One image (C, H, W) in [0, 1]."""
    image = read_image(path)
    return unit_image(image.pixels, str(path), colour, image.alpha)


def _cut(
    image: np.ndarray, shape: tuple[int, int], path: Path, size: int | tuple[int, int] | None
) -> np.ndarray:
    """The centre of an image; if no size was asked for, the image must have the shape already."""
    given = image.shape[1:]
    if size is None and given != shape:
        raise ValueError(
            f"{path}: image is {given}, the first of the folder is {shape}; pass size=(h, w) to "
            "cut all to one size"
        )
    if given[0] < shape[0] or given[1] < shape[1]:
        raise ValueError(f"{path}: image is {given}, size is {shape}; pass a smaller size")
    return centre(image, shape)
