"""Every kind of image file is read as what it says it is, refused with the reason, or written."""

import warnings

import numpy as np
import pytest
from image_samples import (
    ALPHA,
    ALPHA16,
    BITS,
    COLOUR,
    COLOUR16,
    FLOAT,
    GREY,
    GREY16,
    KINDS,
    PROFILE,
    REFUSED,
    TAG,
    packed,
    pillow,
    stacked,
    tiff,
)
from PIL import Image

from refimpl import images
from refimpl.images import FileImage, read_image, write_image


def save(folder, content, name="photo.png"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_as_what_it_says_it_is(kind, tmp_path):
    content, pixels, alpha = KINDS[kind]
    image = read_image(save(tmp_path, content))
    assert image.pixels.shape == pixels.shape and np.array_equal(image.pixels, pixels)
    assert kind == "jpg named png" or image.pixels.dtype == pixels.dtype
    assert (image.alpha is None) == (alpha is None)
    assert alpha is None or image.alpha.dtype == alpha.dtype and np.array_equal(image.alpha, alpha)


def test_colours_multiplied_by_opacity_are_divided_by_it(tmp_path):
    for colour, alpha, error in ((COLOUR, ALPHA, 1), (COLOUR16, ALPHA16, 0.5)):
        white = np.iinfo(colour.dtype).max
        given = np.rint(colour * (alpha[..., None] / white)).astype(colour.dtype)
        content = tiff(stacked(given, alpha), photometric="rgb", extrasamples=["assocalpha"])
        image = read_image(save(tmp_path, content))
        # The product was rounded to half a step, which 1/alpha magnifies.
        bound = 1 + error * white / alpha[..., None]
        assert (np.abs(image.pixels.astype(float) - colour) <= bound).all()
        assert np.array_equal(image.alpha, alpha)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation, tmp_path):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[:8, 16:] = 250, 120
    # EXIF: where the first row and the first column of the stored image are to be seen.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[TAG["orientation"]] = orientation
    tag = [(TAG["orientation"], 3, 1, orientation, True)]
    stored = np.ascontiguousarray(stored)
    for content in (
        pillow(stored, "JPEG", exif=exif, quality=95),
        pillow(stored, "PNG", exif=exif),
        tiff(stored, extratags=tag),
        tiff(stored.astype(np.uint16) * 257, extratags=tag),
        packed(stored.astype(np.uint16) * 257, extratags=tag),
    ):
        pixels = read_image(save(tmp_path, content)).pixels
        white = np.iinfo(pixels.dtype).max
        assert pixels.shape == upright.shape
        assert np.abs(pixels / white - upright / 255).max() <= 4 / 255  # JPEG rounds


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_single_grey_or_rgb_image_is_refused_with_the_reason(kind, tmp_path):
    content, error, message = REFUSED[kind]
    with pytest.raises(error, match=f"photo.png: .*(?:{message})") as caught:
        read_image(save(tmp_path, content))
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files_of_every_kind_are_refused(kind, tmp_path):
    content = KINDS[kind][0]
    for end in range(0, len(content) // 2, max(1, len(content) // 16)):
        with pytest.raises(ValueError, match="photo.png: cannot be read as an image"):
            read_image(save(tmp_path, content[:end]))


def test_a_photograph_just_below_the_limit_is_read_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_image(save(tmp_path, pillow(GREY))).pixels, GREY)


def test_files_that_are_not_there_are_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "photo.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


def test_a_phones_photograph_is_read_without_its_previews(tmp_path):
    content = pillow(COLOUR, "MPO", save_all=True, append_images=[Image.fromarray(COLOUR[::2])])
    assert read_image(save(tmp_path, content)).pixels.shape == COLOUR.shape


# Folders


def test_a_folder_of_mixed_kinds_has_one_scale(tmp_path):
    for kind in ("png grey", "png grey 16", "tif float64", "tif 1 bit", "png palette", "tif lzw"):
        save(tmp_path, KINDS[kind][0], f"{kind}.{kind[:3]}")
    names = sorted(path.name for path in tmp_path.iterdir())
    found = images.folder(tmp_path)
    each = np.concatenate([found.train, found.test])
    assert each.shape == (6, 1, 6, 9)
    for name, image in zip(names, each):
        pixels = KINDS[name[:-4]][1]
        white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
        grey = pixels @ [0.2125, 0.7154, 0.0721] if pixels.ndim == 3 else pixels
        assert np.abs(image[0] - grey / white).max() <= 1e-12


def test_a_folder_lays_what_is_not_opaque_on_white(tmp_path):
    for name, kind in (("0", "png grey alpha"), ("1", "png grey")):
        save(tmp_path, KINDS[kind][0], f"{name}.png")
    opacity, grey = ALPHA / 255, GREY / 255
    laid = images.folder(tmp_path).train[0, 0]
    assert np.abs(laid - (opacity * grey + 1 - opacity)).max() <= 1e-15


@pytest.mark.parametrize("kind", ["cmyk jpg", "gif", "empty", "large tif", "three grey pages"])
def test_a_folder_names_the_file_that_it_cannot_take(kind, tmp_path):
    save(tmp_path, KINDS["png colour"][0], "0.png")
    content, error, message = REFUSED[kind]
    save(tmp_path, content, "1.png")
    with pytest.raises(error, match=f"1.png: .*(?:{message})"):
        images.folder(tmp_path)


# Writing


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_photograph_comes_back_in_the_depth_and_range_it_came_in(kind, suffix, tmp_path):
    image = read_image(save(tmp_path, KINDS[kind][0], "in"))
    path = tmp_path / f"out{suffix}"
    floats = np.asarray(image.pixels, np.float64)
    white = np.iinfo(image.pixels.dtype).max if image.pixels.dtype.kind == "u" else 1
    if image.pixels.dtype.kind == "f" and suffix == ".png":
        with pytest.raises(ValueError, match="out.png: a PNG cannot hold float.*choose a TIFF"):
            write_image(path, floats, like=image)
        return
    write_image(path, floats / white, like=image)
    back = read_image(path)
    assert back.pixels.dtype == image.pixels.dtype
    assert np.array_equal(back.pixels, image.pixels)
    assert (back.alpha is None) == (image.alpha is None)
    assert back.alpha is None or np.array_equal(back.alpha, image.alpha)


@pytest.mark.parametrize("name", ["out.png", "out.tif", "out.jpg"])
def test_profiles_are_kept(name, tmp_path):
    given = read_image(save(tmp_path, pillow(COLOUR, icc_profile=PROFILE)))
    assert given.profile == PROFILE
    write_image(tmp_path / name, given.pixels, like=given)
    assert read_image(tmp_path / name).profile == PROFILE


def test_values_beyond_black_and_white_become_these_and_none_is_wrapped(tmp_path):
    for like in (FileImage(GREY), FileImage(GREY16), FileImage(BITS)):
        write_image(tmp_path / "out.png", np.array([[-0.3, 0.2, 0.7, 1.4]] * 6)[:, [0, 1, 2, 3] * 2
                    + [0]], like=like)  # fmt: skip
        row = read_image(tmp_path / "out.png").pixels[0, :4].astype(float)
        white = 1 if like.pixels.dtype == bool else np.iinfo(like.pixels.dtype).max
        assert row.tolist() == np.rint(np.array([0, 0.2, 0.7, 1]) * white).tolist()


@pytest.mark.parametrize(
    ("name", "image", "dtype"),
    [
        ("out.png", FLOAT, np.uint8),
        ("out.jpg", FLOAT, np.uint8),
        ("out.tif", FLOAT, np.float64),
        ("out.png", GREY16, np.uint16),
        ("out.tif", COLOUR16, np.uint16),
        ("out.png", BITS, np.bool_),
        ("out.png", np.stack([BITS] * 3, 2), np.uint8),
    ],
)
def test_without_a_model_the_numbers_say_the_depth(name, image, dtype, tmp_path):
    write_image(tmp_path / name, image)
    back = read_image(tmp_path / name).pixels
    assert back.dtype == dtype and back.shape == image.shape


@pytest.mark.parametrize(
    ("name", "image", "like", "message"),
    [
        ("out.gif", GREY, None, "out.gif: expected a name that ends in .png"),
        ("out.jpg", GREY16, None, "a JPEG cannot hold uint16; choose a PNG or TIFF"),
        ("out.jpg", FLOAT, FileImage(FLOAT), "a JPEG cannot hold float64; choose a TIFF"),
        ("out.jpg", GREY, FileImage(GREY, ALPHA), "a JPEG cannot hold opacity"),
        ("out.png", GREY[1:], FileImage(GREY, ALPHA), "expected the same rows and columns"),
        ("out.png", GREY[None], None, r"expected \(H, W\) or \(H, W, 3\)"),
        ("out.png", FLOAT * np.nan, None, "NaN or infinite"),
    ],
)
def test_what_a_file_cannot_hold_is_not_written(name, image, like, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_image(tmp_path / name, image, like=like)
    assert list(tmp_path.iterdir()) == []
