"""Image files of every kind, written by Pillow, tifffile or by hand, and what they stand for."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image, ImageCms

from strategies import generator

GREY = generator(0).integers(0, 256, (6, 9), np.uint8)
COLOUR = generator(1).integers(0, 256, (6, 9, 3), np.uint8)
ALPHA = generator(2).integers(1, 256, (6, 9), np.uint8)
GREY16, ALPHA16 = (generator(n).integers(0, 65536, (6, 9), np.uint16) for n in (3, 4))
COLOUR16 = generator(5).integers(0, 65536, (6, 9, 3), np.uint16)
BITS = GREY > 128
FLOAT = generator(6).random((6, 9))
PALETTE = generator(7).integers(0, 256, (256, 3), np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TAG = {"orientation": 274, "photometric": 262}


def stacked(pixels, alpha):
    return np.concatenate([np.atleast_3d(pixels), alpha[..., None]], axis=2)


def pillow(pixels, form="PNG", mode=None, **options):
    """The bytes of a file that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, form, **options)
    return buffer.getvalue()


def tiff(pixels, **options):
    """The bytes of a file that tifffile writes."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def lzw(data):
    """The code of LZW without any repetition: codes of 9 bits, and a new table in time."""
    codes = []
    for first in range(0, len(data), 250):
        codes += [256, *data[first : first + 250]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def packed(pixels, byteorder="<", **options):
    """A TIFF in LZW, which tifffile does not write: its one strip, at the end, is exchanged."""
    content = bytearray(tiff(pixels, byteorder=byteorder, rowsperstrip=len(pixels), **options))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        tags = file.pages[0].tags
        places = {code: (tags[code].valueoffset, tags[code].dtype) for code in (259, 273, 279)}
    strip = lzw(pixels.astype(f"{byteorder}u2").tobytes())
    for code, value in ((259, 5), (273, len(content)), (279, len(strip))):
        place, kind = places[code]
        struct.pack_into(byteorder + {3: "H", 4: "I"}[kind], content, place, value)
    return bytes(content) + strip


def indexed(transparency=None, form="PNG"):
    """A picture by palette, of the indices GREY."""
    image = Image.fromarray(GREY)
    image.putpalette(PALETTE.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    return pillow(image, form, **options)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(kind, depth, rows, *more, size=(9, 6)):
    """A PNG of unfiltered rows, with more chunks after its header."""
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0)
    middle = b"".join(chunk(*each) for each in more)
    end = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + end


def big(pixels):
    return pixels.astype(">u2")


# kind -> content, pixels and opacity that it stands for
KINDS = {
    "png grey": (pillow(GREY), GREY, None),
    "png colour": (pillow(COLOUR), COLOUR, None),
    "png 1 bit": (pillow(BITS), BITS, None),
    "png 2 bits": (
        png(0, 2, np.array([[0b00011011, 0b11100100]] * 6, np.uint8), size=(8, 6)),
        np.array([[0, 85, 170, 255, 255, 170, 85, 0]] * 6, np.uint8), None,
    ),
    "png grey 16": (pillow(GREY16), GREY16, None),
    "png colour 16": (png(2, 16, big(COLOUR16)), COLOUR16, None),
    "png grey alpha": (pillow(stacked(GREY, ALPHA)), GREY, ALPHA),
    "png colour alpha": (pillow(stacked(COLOUR, ALPHA)), COLOUR, ALPHA),
    "png grey alpha 16": (png(4, 16, big(stacked(GREY16, ALPHA16))), GREY16, ALPHA16),
    "png colour alpha 16": (png(6, 16, big(stacked(COLOUR16, ALPHA16))), COLOUR16, ALPHA16),
    "png palette": (indexed(), PALETTE[GREY], None),
    "png palette alpha": (
        indexed(bytes(range(256))), PALETTE[GREY], np.arange(256, dtype=np.uint8)[GREY],
    ),
    "png one grey transparent": (
        pillow(GREY, transparency=int(GREY[2, 3])), GREY, np.uint8(255) * (GREY != GREY[2, 3]),
    ),
    "png one colour transparent": (
        pillow(COLOUR, transparency=tuple(map(int, COLOUR[2, 3]))), COLOUR,
        np.uint8(255) * (COLOUR != COLOUR[2, 3]).any(2),
    ),
    "png one colour of 16 transparent": (
        png(2, 16, big(COLOUR16), (b"tRNS", big(COLOUR16[2, 3]).tobytes())), COLOUR16,
        np.uint16(65535) * (COLOUR16 != COLOUR16[2, 3]).any(2),
    ),
    "bmp": (pillow(COLOUR, "BMP"), COLOUR, None),
    "gif": (indexed(form="GIF"), PALETTE[GREY], None),
    "webp": (pillow(COLOUR, "WEBP", lossless=True), COLOUR, None),
    "tif grey": (tiff(GREY), GREY, None),
    "tif colour": (tiff(COLOUR, photometric="rgb"), COLOUR, None),
    "tif colour in planes": (
        tiff(COLOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), COLOUR, None,
    ),
    "tif colour 16 in planes": (
        tiff(COLOUR16.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        COLOUR16, None,
    ),
    "tif grey 16": (tiff(GREY16), GREY16, None),
    "tif grey 16 other bytes": (tiff(GREY16, byteorder=">"), GREY16, None),
    "tif colour 16": (tiff(COLOUR16, photometric="rgb", compression="zlib"), COLOUR16, None),
    "tif float16": (tiff(FLOAT.astype(np.float16)), FLOAT.astype(np.float16).astype("f"), None),
    "tif float32": (tiff(FLOAT.astype("f")), FLOAT.astype("f"), None),
    "tif float64": (tiff(FLOAT), FLOAT, None),
    "tif 1 bit": (tiff(BITS, photometric="minisblack"), BITS, None),
    "tif 1 bit white is zero": (tiff(BITS, photometric="miniswhite"), ~BITS, None),
    "tif fax": (pillow(BITS, "TIFF", compression="group4"), BITS, None),
    "tif white is zero": (tiff(GREY, photometric="miniswhite"), 255 - GREY, None),
    "tif lzw white is zero": (
        pillow(GREY, "TIFF", compression="tiff_lzw", tiffinfo={TAG["photometric"]: 0}), GREY, None,
    ),
    "tif 16 white is zero": (tiff(GREY16, photometric="miniswhite"), 65535 - GREY16, None),
    "tif float white is zero": (tiff(FLOAT, photometric="miniswhite"), 1 - FLOAT, None),
    "tif palette": (
        tiff(GREY, photometric="palette", colormap=PALETTE.T * np.uint16(257)), PALETTE[GREY], None,
    ),
    "tif palette of pillow": (indexed(form="TIFF"), PALETTE[GREY], None),
    "tif luma and chroma": (
        pillow(COLOUR, "TIFF", "YCbCr"),
        np.array(Image.fromarray(COLOUR).convert("YCbCr").convert("RGB")), None,
    ),
    "tif lzw": (pillow(COLOUR, "TIFF", compression="tiff_lzw"), COLOUR, None),
    "tif grey alpha": (
        tiff(stacked(GREY, ALPHA), photometric="minisblack", extrasamples=["unassalpha"],
             planarconfig="contig"), GREY, ALPHA,
    ),
    "tif colour alpha": (
        tiff(stacked(COLOUR, ALPHA), photometric="rgb", extrasamples=["unassalpha"]), COLOUR, ALPHA,
    ),
    "tif colour alpha 16": (
        tiff(stacked(COLOUR16, ALPHA16), photometric="rgb", extrasamples=["unassalpha"]),
        COLOUR16, ALPHA16,
    ),
    "tif lzw grey 16": (packed(GREY16), GREY16, None),
    "tif lzw colour 16": (packed(COLOUR16, photometric="rgb"), COLOUR16, None),
    "tif lzw colour 16 other bytes": (packed(COLOUR16, ">", photometric="rgb"), COLOUR16, None),
    "tif lzw colour alpha 16": (
        packed(stacked(COLOUR16, ALPHA16), photometric="rgb", extrasamples=["unassalpha"]),
        COLOUR16, ALPHA16,
    ),
    "tif with a thumbnail": (None, GREY, None),
    "jpg named png": (pillow(np.full((6, 9), 99, np.uint8), "JPEG"), np.full((6, 9), 99), None),
}  # fmt: skip


def with_thumbnail():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(GREY, photometric="minisblack", metadata=None)
        file.write(GREY[::3, ::3], photometric="minisblack", subfiletype=1, metadata=None)
    return buffer.getvalue()


KINDS["tif with a thumbnail"] = with_thumbnail(), GREY, None


def pages(form="TIFF", **options):
    others = [Image.fromarray(np.roll(COLOUR, n, 0)) for n in (1, 2)]
    return pillow(COLOUR, form, save_all=True, append_images=others, **options)


def bomb(width, height, **options):
    """A TIFF of a few bytes that declares to be large."""
    content = bytearray(tiff(GREY, byteorder="<", **options))
    for code, value in ((256, width), (257, height)):
        at = content.index(struct.pack("<HHI", code, 4, 1)) + 8
        content[at : at + 4] = struct.pack("<I", value)
    return bytes(content)


ONE = "expected one image; save each as"
REFUSED = {  # kind -> content, error, message
    "cmyk jpg": (pillow(COLOUR, "JPEG", "CMYK"), ValueError, r"ink \(CMYK\).*save it as RGB"),
    "cmyk tif": (pillow(COLOUR, "TIFF", "CMYK"), ValueError, r"ink \(CMYK\).*save it as RGB"),
    "lab": (tiff(COLOUR, photometric="cielab"), ValueError, "colours are Lab"),
    "lab 16": (tiff(COLOUR16, photometric="cielab"), ValueError, "colours are Lab"),
    "lab of pillow": (pillow(Image.new("LAB", (9, 6)), "TIFF"), ValueError, "colours are Lab"),
    "three grey pages": (
        tiff(COLOUR.transpose(2, 0, 1).copy(), photometric="minisblack"), ValueError,
        "holds 3 images, " + ONE,
    ),
    "imagej": (tiff(GREY16[None] + np.zeros((4, 1, 1), "H"), imagej=True), ValueError, "4 images"),
    "volume": (
        tiff(np.zeros((4, 16, 16), "H"), volumetric=True, tile=(4, 16, 16), photometric=1),
        ValueError, "images",
    ),
    "pages": (pages(), ValueError, "holds 3 images, " + ONE),
    "gif": (pages("GIF"), ValueError, "holds 3 frames, " + ONE),
    "apng": (pages("PNG"), ValueError, "holds 3 frames, " + ONE),
    "webp": (pages("WEBP"), ValueError, "holds 3 frames, " + ONE),
    "five channels": (
        tiff(np.zeros((6, 9, 5), np.uint8), photometric="rgb", planarconfig="contig"), ValueError,
        "has 5 channels, expected 3, or one more for opacity",
    ),
    "a channel of unknown use": (
        tiff(stacked(COLOUR, ALPHA), photometric="rgb", extrasamples=["unspecified"]), ValueError,
        "has 4 channels, expected 3, or one more for opacity",
    ),
    "int8": (tiff(GREY.astype(np.int8)), TypeError, "dtype is int8, which does not say what white"),
    "int32": (tiff(GREY.astype(np.int32)), TypeError, "dtype is int32"),
    "uint32": (tiff(GREY.astype(np.uint32)), TypeError, "dtype is uint32"),
    "complex": (tiff(GREY + 0j), TypeError, "complex128 numbers"),
    "12 bits": (
        tiff(GREY16).replace(*(struct.pack("<HHIH", 258, 3, 1, bits) for bits in (16, 12))),
        ValueError, "has 12 bits a channel, expected 1, 8, 16 or floats",
    ),
    "empty": (b"", ValueError, "cannot be read as an image.*replace or remove"),
    "text": (b"these are words\n" * 99, ValueError, "it is no whole PNG, JPEG"),
    "pdf": (pillow(COLOUR, "PDF"), ValueError, "it is no whole PNG, JPEG"),
    "eps": (pillow(COLOUR, "EPS"), ValueError, "it is no whole PNG, JPEG"),
    "png mark alone": (pillow(GREY)[:8], ValueError, "cannot be read"),
    "tif mark alone": (tiff(GREY)[:4], ValueError, "cannot be read"),
    "large png": (png(0, 8, GREY, size=(60000, 60000)), ValueError, "expected at most 178956970"),
    "large tif": (bomb(60000, 60000), ValueError, "60000 × 60000 pixels, expected at most"),
    "large pages": (bomb(1, 2**31), ValueError, "1 × 2147483648 pixels, expected at most"),
}  # fmt: skip
