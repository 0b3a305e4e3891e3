"""Images from files: digits and their digest, folders, what is available."""

import functools
import gzip
import hashlib
import http.server
import os
import sys
import threading

import numpy as np
import pytest
import skimage.io

from refimpl import images
from refimpl.images import folders as files
from strategies import generator

# MNIST


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A folder with small digits of our own under the name and digest of the real ones."""
    header = b"\0\0\x08\x03" + np.array([20, 2, 2], ">u4").tobytes()
    content = gzip.compress(header + np.arange(20 * 4, dtype=np.uint8).tobytes(), mtime=0)
    path = tmp_path / "data" / "mnist" / files.MNIST_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setattr(files, "MNIST_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.delenv(files.DATA_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def test_mnist_is_split_by_tens_from_argument_or_environment(digits, monkeypatch):
    root = digits.parents[1]
    mnist = images.mnist(root)
    assert (mnist.train.shape, mnist.test.shape) == ((18, 1, 2, 2), (2, 1, 2, 2))
    assert (255 * mnist.test[:, 0, 0, 0]).tolist() == [0, 40]
    monkeypatch.setenv(files.DATA_VARIABLE, str(root))
    assert np.array_equal(images.mnist().train, mnist.train)


def test_mnist_file_that_is_missing_or_another_one_is_refused(digits, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; .* unset REFIMPL_DATA"):
        images.mnist(tmp_path)
    digits.write_bytes(digits.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="SHA-256 digest is .*, expected"):
        images.mnist(digits.parents[1])


def test_mnist_without_folder_and_pooch_says_what_to_do(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ModuleNotFoundError, match="set REFIMPL_DATA to .* or install pooch"):
        images.mnist()


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Requests are counted by the test, not printed."""
        self.server.requests.append(args)


@pytest.fixture
def server(digits, monkeypatch):
    """The folder of digits served on this machine, as the place to download from."""
    handler = functools.partial(Silent, directory=digits.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        served.requests = []
        threading.Thread(target=served.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{served.server_port}/{files.MNIST_FILE}"
        monkeypatch.setattr(files, "MNIST_URL", url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield served
        served.shutdown()


def test_mnist_is_downloaded_once_with_its_digest_verified(digits, server):
    pytest.importorskip("pooch", reason="pooch is not installed: downloads are not tested")
    assert np.array_equal(images.mnist().train, images.mnist(digits.parents[1]).train)
    images.mnist()
    assert len(server.requests) == 1


def test_download_of_another_file_is_refused(digits, server):
    pytest.importorskip("pooch", reason="pooch is not installed: downloads are not tested")
    digits.write_bytes(b"something else")
    with pytest.raises(ValueError, match="hash"):
        images.mnist()


def test_download_that_fails_says_what_to_do(digits, server):
    pytest.importorskip("pooch", reason="pooch is not installed: downloads are not tested")
    digits.unlink()
    with pytest.raises(OSError, match="cannot download .*; set REFIMPL_DATA"):
        images.mnist()


@pytest.mark.skipif(files.DATA_VARIABLE not in os.environ, reason="REFIMPL_DATA is not set")
def test_real_mnist_has_the_stated_shapes():
    mnist = images.mnist()
    assert (mnist.train.shape, mnist.test.shape) == ((9000, 1, 28, 28), (1000, 1, 28, 28))
    assert mnist.train.max() == 1 and mnist.train.min() == 0


# Folders


@pytest.fixture
def pictures(tmp_path):
    """Four grey pictures of 6 x 8 and 7 x 9, in four formats, and a file that is no image."""
    for number, suffix in enumerate(["png", "TIF", "jpg", "tiff"]):
        pixels = np.full((6 + number % 2, 8 + number % 2), 50 * number, np.uint8)
        skimage.io.imsave(tmp_path / f"{number}.{suffix}", pixels, check_contrast=False)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_folder_is_cut_to_size_and_split_by_name(pictures):
    folder = images.folder(pictures, (5, 6), test_fraction=0.5)
    assert (folder.train.shape, folder.test.shape) == ((2, 1, 5, 6), (2, 1, 5, 6))
    levels = np.concatenate([folder.train, folder.test])[:, 0, 0, 0]
    assert np.abs(255 * levels - [0, 50, 100, 150]).max() <= 1  # jpg rounds
    assert folder.name == pictures.name


def test_folder_reads_colour_or_its_luminance(tmp_path):
    pixels = generator(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    for number in range(2):
        skimage.io.imsave(tmp_path / f"{number}.png", pixels[number], check_contrast=False)
    colour = images.folder(tmp_path, colour=True)
    assert np.array_equal(colour.train[0], np.moveaxis(pixels[0] / 255, 2, 0))
    assert images.folder(tmp_path).train.shape == (1, 1, 4, 5)


def test_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 0 image files, expected at least 2"):
        images.folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        images.folder(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {}, r"1.TIF: image is \(7, 9\), the first of the folder is \(6, 8\); pass size="),
        (None, {"size": (7, 5)}, r"0.png: image is \(6, 8\), size is \(7, 5\); pass a smaller"),
        (None, {"size": 5, "colour": True}, "0.png: is grey, expected 3 colour channels"),
        (None, {"size": 5, "test_fraction": 1.0}, "test_fraction: given 1.0, expected between"),
        (b"not a picture", {"size": 5}, "1.TIF: cannot be read as an image"),
        (np.zeros((2, 6, 8), np.uint8), {"size": 5}, "1.TIF: holds 2 images, expected one"),
        (np.full((6, 8), 1.5), {"size": 5}, r"1.TIF: values are from 1.5 to 1.5, .* \[0, 1\]"),
        (np.full((6, 8), np.nan), {"size": 5}, "1.TIF: 48 of 48 values are NaN"),
    ],
)
def test_bad_folder_is_refused_with_the_file_named(pictures, change, options, message):
    if isinstance(change, bytes):
        (pictures / "1.TIF").write_bytes(change)
    elif change is not None:
        skimage.io.imsave(pictures / "1.TIF", change, check_contrast=False)
    with pytest.raises(ValueError, match=message):
        images.folder(pictures, **options)


def test_picture_of_signed_integers_is_refused(pictures):
    skimage.io.imsave(pictures / "1.TIF", np.zeros((6, 8), np.int32), check_contrast=False)
    with pytest.raises(TypeError, match="1.TIF: dtype is int32, .*expected bool, uint8, uint16"):
        images.folder(pictures, 5)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_truncated_picture_is_refused(tmp_path, suffix):
    for number in range(2):
        pixels = generator(number).integers(0, 256, (40, 50), np.uint8)
        skimage.io.imsave(tmp_path / f"{number}.{suffix}", pixels, check_contrast=False)
    path = tmp_path / f"0.{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"0.{suffix}: cannot be read as an image"):
        images.folder(tmp_path)


# What there is


def test_survey_names_the_functions_and_tells_what_is_missing(digits, monkeypatch):
    assert all(callable(getattr(images, row.name)) for row in images.describe())
    mnist = {row.name: row for row in images.describe(digits.parents[1])}["mnist"]
    assert (mnist.available, mnist.note) == (True, str(digits))
    monkeypatch.setenv(files.DATA_VARIABLE, str(digits.parent))
    mnist = {row.name: row for row in images.describe()}["mnist"]
    assert not mnist.available and "does not exist" in mnist.note
