"""Image files: what a file says of itself, and the way back to a file of the same kind.

    read_image    PNG, JPEG, TIFF, BMP, GIF and WebP, told apart by their content
    write_image   PNG, JPEG and TIFF, told by the suffix

Pixels come as the file holds them, upright, black at 0: `bool`, `uint8`, `uint16` or floats. What
the numbers stand for is asked, never guessed from the shape: palettes become colours, "minimum is
white" is inverted, opacity stands apart. Files of several images are refused, and colours that have
no meaning without a profile, CMYK and Lab.

Pillow decodes 8 bits and fewer, tifffile the deeper kinds of TIFF, and `deep` what is left.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.images.deep import deep_png, packed_tiff
from refimpl.images.pixels import as_pixels, as_unit_floats
from refimpl.storage import first_line, write_file

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}

# Pixels that a file may declare: Pillow's limit, 13,377 squared.
MOST_PIXELS = 178_956_970

# Modes of Pillow that hold something else than grey, colour and opacity, and what they become.
CONVERTED = {"P": "RGB", "PA": "RGBA", "YCbCr": "RGB"}

# Of TIFF: the photometric interpretation, with how many channels it has.
WHITE_IS_ZERO, PALETTE = 0, 3
CHANNELS = {WHITE_IS_ZERO: 1, 1: 1, 2: 3, PALETTE: 1, 6: 3}
INK = "ink (CMYK)"
MEANINGS = {5: INK, 8: "Lab", 9: "Lab", 10: "Lab"}
THUMBNAIL_OR_MASK = 0b101
PREMULTIPLIED, OPACITY = 1, 2
ORIENTATION = 0x0112


class FileImage(NamedTuple):
    """The image of a file.

    Attributes
    ----------
    pixels : array (H, W) or, of red, green and blue, (H, W, 3)
        bool, uint8, uint16, float32 or float64. White is the largest value of the type, 1 for bool
        and floats.
    alpha : array (H, W) of the same type, or None
        Opacity; the pixels are not multiplied by it.
    profile : bytes or None
        The ICC profile that says which red, green and blue are meant; it is kept, not applied.
    """

    pixels: Array
    alpha: Array | None = None
    profile: bytes | None = None


class _Refused(ValueError):
    """What a file holds cannot be taken for one image; the file's name is still to be added."""


def read_image(path: Path | str) -> FileImage:
    """Read an image file as what it says it is.

    Parameters
    ----------
    path : path
        One still image; of a phone's JPEG with previews, the photograph.

    Raises
    ------
    OSError
        If there is no such file, or it may not be read.
    TypeError
        For integers that do not say what white is, such as int32.
    ValueError
        For damaged files, for those that hold several images, colours other than grey and RGB, 12
        bits or unknown channels, and for more than `MOST_PIXELS`.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = _tiff(stream) if stream.read(4) in TIFF_MARKS else _by_pillow(stream)
        except (_Refused, Image.DecompressionBombError) as error:
            pillows = _too_large(f"more than {2 * MOST_PIXELS}")  # where Pillow's own error begins
            why = error if isinstance(error, _Refused) else pillows
            raise ValueError(f"{path}: {why}") from error
        except Exception as error:  # each decoder raises its own types, some of them SyntaxError
            unknown = isinstance(error, UnidentifiedImageError)
            why = f"it is no whole {', '.join(FORMATS)}" if unknown else first_line(error)
            raise ValueError(
                f"{path}: cannot be read as an image ({why}); replace or remove the file"
            ) from error
    pixels = as_pixels(image.pixels, str(path), finite=False)
    return image._replace(
        pixels=pixels, alpha=None if image.alpha is None else image.alpha.astype(pixels.dtype)
    )


def _by_pillow(stream) -> FileImage:
    """The image by Pillow, which also turns "minimum is white" and opacity the right way."""
    from PIL import Image

    stream.seek(0)
    image = Image.open(stream, formats=FORMATS)
    _check_size(*image.size)
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "TIFF"):
        raise _several(f"{image.n_frames} frames")
    if image.mode == "CMYK":
        raise _foreign(INK)
    key = image.info.get("transparency")
    deep = image.format == "PNG" and str(image.tile[0][3])
    if deep in ("RGB;16B", "RGBA;16B", "LA;16B"):
        pixels = deep_png(stream, deep)
    else:
        mode = CONVERTED.get(image.mode, image.mode)
        if image.mode == "P" and key is not None:
            mode, key = "RGBA", None
        pixels = np.array(image.convert(mode))
        if image.format == "PNG" and image.mode == "I":  # as older Pillow reads 16-bit grey
            pixels = pixels.astype(np.uint16)
    image.load()  # and turns a TIFF upright, which the entry then no longer asks for
    orientation = image.getexif().get(ORIENTATION, 1)
    pixels, alpha = _split(pixels)
    if key is not None and alpha is None:  # one colour of a PNG stands for transparent
        differs = pixels != np.asarray(key)
        alpha = _white(pixels.dtype) * (differs.any(-1) if pixels.ndim == 3 else differs)
    return _upright(FileImage(pixels, alpha, image.info.get("icc_profile")), orientation)


def _tiff(stream) -> FileImage:
    """The image of a TIFF whose entries say that it is one."""
    import tifffile

    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page = file.pages[0]
        _check_tiff(file, page)
        if page.dtype in (np.bool_, np.uint8):
            return _by_pillow(stream)
        if page.dtype is None or page.bitspersample != 8 * page.dtype.itemsize:
            raise _Refused(
                f"has {page.bitspersample} bits a channel, expected 1, 8, 16 or floats; save it "
                "with 16"
            )
        try:
            pixels = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):  # which has the decoders of LZW and others
                raise
            return _packed_tiff(stream, page)
        if page.axes.startswith("S"):  # channels in planes of their own
            pixels = np.moveaxis(pixels, 0, -1)
        if page.photometric == PALETTE:
            pixels = np.moveaxis(page.colormap[:, pixels], 0, -1)
        if page.photometric == WHITE_IS_ZERO:
            pixels = _white(pixels.dtype) - pixels
        pixels, alpha = _split(pixels)
        if page.extrasamples[:1] == (PREMULTIPLIED,):
            pixels = _divided(pixels, alpha)
        profile, orientation = (page.tags.valueof(code) for code in ("InterColorProfile", 274))
        return _upright(FileImage(pixels, alpha, profile), orientation or 1)


def _packed_tiff(stream, page: Any) -> FileImage:
    """A TIFF whose compression tifffile does not know, if it is of 16 bits."""
    if page.dtype != np.uint16 or page.photometric not in (1, 2) or page.planarconfig != 1:
        raise _Refused(f"is compressed by {page.compression.name}; save it without compression")
    pixels, alpha = _split(packed_tiff(stream, page.samplesperpixel))
    return FileImage(pixels, alpha, page.tags.valueof("InterColorProfile"))


def _check_tiff(file: Any, page: Any) -> None:
    """Refuse a TIFF that is not one image, grey or in colour, with or without opacity."""
    _check_size(page.imagewidth, page.imagelength)
    full = [s for s in file.series if not s.keyframe.subfiletype & THUMBNAIL_OR_MASK]
    images = sum(series.size // page.size for series in full)
    if images != 1 or page.subfiletype & THUMBNAIL_OR_MASK or page.imagedepth != 1:
        raise _several(f"{max(images, page.imagedepth)} images")
    colours = CHANNELS.get(page.photometric)
    if colours is None:
        raise _foreign(MEANINGS.get(page.photometric, f"of photometric type {page.photometric}"))
    extra = page.samplesperpixel - colours
    if extra and (extra > 1 or page.extrasamples[0] not in (PREMULTIPLIED, OPACITY)):
        raise _Refused(
            f"has {page.samplesperpixel} channels, expected {colours}, or one more for opacity; "
            "save those that make the image as a file of their own"
        )


def _check_size(width: int, height: int) -> None:
    """Refuse what is too large before it is decoded."""
    if width * height > MOST_PIXELS:
        raise _too_large(f"{width} × {height}")


def _too_large(given: str) -> _Refused:
    return _Refused(f"declares {given} pixels, expected at most {MOST_PIXELS}; cut it into parts")


def _several(what: str) -> _Refused:
    return _Refused(f"holds {what}, expected one image; save each as a file of its own")


def _foreign(what: str) -> _Refused:
    return _Refused(
        f"its colours are {what}, expected grey or RGB, for whose values there is no one formula; "
        "convert it with its colour profile, in an image editor, and save it as RGB"
    )


def _split(pixels: Array) -> tuple[Array, Array | None]:
    """Grey or colour, and the opacity where there is one channel more."""
    if pixels.ndim == 2:
        return pixels, None
    colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    image = pixels[..., 0] if colours == 1 else pixels[..., :3]
    alpha = pixels[..., colours] if colours < pixels.shape[2] else None
    return np.ascontiguousarray(image), alpha


def _divided(pixels: Array, alpha: Array) -> Array:
    """Pixels that were multiplied by their opacity, without it; 0 where nothing is seen."""
    opacity = (alpha if pixels.ndim == 2 else alpha[..., None]) / _white(alpha.dtype)
    values = np.divide(pixels, opacity, out=np.zeros(pixels.shape), where=opacity > 0)
    if pixels.dtype.kind == "f":
        return values.astype(pixels.dtype)
    return np.rint(np.minimum(values, _white(pixels.dtype))).astype(pixels.dtype)


def _upright(image: FileImage, orientation: int) -> FileImage:
    """The image as it is to be seen: entry 274 of EXIF and TIFF, 1 to 8."""

    def turned(x: Array | None) -> Array | None:
        if x is None:
            return None
        x = x[::-1] if orientation in (3, 4, 7, 8) else x
        x = x[:, ::-1] if orientation in (2, 3, 6, 7) else x
        return np.ascontiguousarray(x)

    def transposed(x: Array | None) -> Array | None:
        return x if x is None or orientation not in (5, 6, 7, 8) else x.swapaxes(0, 1)

    return image._replace(**{n: turned(transposed(getattr(image, n))) for n in ("pixels", "alpha")})


def _white(dtype: np.dtype) -> Any:
    """White in numbers of this type."""
    return np.iinfo(dtype).max if dtype.kind in "iu" else dtype.type(1)


def file_format(path: Path | str) -> str:
    """The format that `write_image` writes to a file of this name; ValueError where it has none."""
    form = WRITTEN.get(Path(path).suffix.lower())
    if form is None:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(WRITTEN)}")
    return form


def write_image(path: Path | str, image: Array, like: FileImage | None = None) -> None:
    """Write an image to a file, whole or not at all.

    Parameters
    ----------
    path : path
        Ends in .png, .tif or .tiff, or .jpg or .jpeg, which loses a little.
    image : array (H, W) or (H, W, 3)
        bool, uint8, uint16, or floats with white at 1.
    like : FileImage, optional
        What `read_image` gave: the file takes its type of numbers, opacity and profile. Left out:
        that of `image`, of which floats become 8 bits unless in a TIFF.

    Raises
    ------
    TypeError, ValueError
        For another image, or a suffix whose files cannot hold it.

    Notes
    -----
    Integers are the nearest ones, and values beyond black and white become these; a TIFF of floats
    keeps them.
    """
    form, pixels = file_format(path), as_pixels(image, "image")
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"image: shape is {pixels.shape}, expected (H, W) or (H, W, 3)")
    if like is None:
        eight = pixels.dtype.kind == "f" and form != "TIFF"
        like = FileImage(np.empty(pixels.shape, np.uint8 if eight else pixels.dtype))
    if like.pixels.shape[:2] != pixels.shape[:2]:
        raise ValueError(
            f"image: shape is {pixels.shape}, that of the file it came from "
            f"{like.pixels.shape}; expected the same rows and columns"
        )
    pixels = _in_type(pixels, like.pixels.dtype)
    if like.alpha is not None:
        pixels = np.concatenate([np.atleast_3d(pixels), like.alpha[..., None]], axis=2)
    if pixels.dtype == np.bool_ and pixels.ndim == 3:  # one bit is grey
        pixels = np.uint8(255) * pixels
    _check_form(str(path), form, pixels)
    encode = {"PNG": _png_bytes, "JPEG": _jpeg_bytes, "TIFF": _tiff_bytes}[form]
    write_file(path, encode(pixels, like.profile))


def _in_type(pixels: Array, dtype: np.dtype) -> Array:
    """Pixels in numbers of another type, white at its white."""
    values = as_unit_floats(pixels, "image")
    if pixels.dtype == dtype or dtype.kind == "f":
        return pixels if pixels.dtype == dtype else values.astype(dtype)
    return np.rint(np.clip(values, 0, 1) * _white(dtype)).astype(dtype)


def _check_form(path: str, form: str, pixels: Array) -> None:
    """Refuse a format that cannot hold these numbers."""
    held = {"JPEG": (np.uint8,), "PNG": (np.bool_, np.uint8, np.uint16)}
    if form in held and pixels.dtype not in held[form]:
        other = "TIFF" if pixels.dtype.kind == "f" else "PNG or TIFF"
        raise ValueError(
            f"{path}: a {form} cannot hold {pixels.dtype}; choose a {other}, or without `like` "
            "numbers that it holds"
        )
    if form == "JPEG" and _split(pixels)[1] is not None:
        raise ValueError(f"{path}: a JPEG cannot hold opacity; choose a PNG or TIFF")


def _jpeg_bytes(pixels: Array, profile: bytes | None) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    return buffer.getvalue()


def _tiff_bytes(pixels: Array, profile: bytes | None) -> bytes:
    import tifffile

    colours, alpha = _split(pixels)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, pixels, metadata=None, iccprofile=profile, planarconfig="contig",
        photometric="rgb" if colours.ndim == 3 else "minisblack",
        extrasamples=None if alpha is None else ["unassalpha"],
    )  # fmt: skip
    return buffer.getvalue()


def _png_bytes(pixels: Array, profile: bytes | None) -> bytes:
    """A PNG, which Pillow writes with 8 bits only where there is colour."""
    (H, W), channels = pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype == np.bool_:
        depth, rows = 1, np.packbits(pixels.reshape(H, -1), axis=1)
    else:
        depth = 8 * pixels.dtype.itemsize
        rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">"))
        rows = rows.reshape(H, -1).view(np.uint8)
    step = max(1, channels * depth // 8)  # filter 1: less the byte one pixel to the left
    rows = np.concatenate([np.ones((H, 1), np.uint8), rows], axis=1)
    rows[:, 1 + step :] -= rows[:, 1:-step].copy()
    kind = {1: 0, 3: 2, 2: 4, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, kind, 0, 0, 0))]
    if profile is not None:
        chunks.append((b"iCCP", b"profile\0\0" + zlib.compress(profile)))
    chunks += [(b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
