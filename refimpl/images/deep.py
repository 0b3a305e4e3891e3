"""Channels of 16 bits, of which Pillow hands out one byte: both bytes, one after the other.

Pillow is told that the numbers have the other order of bytes; the "upper" one is then the lower.
"""

import sys

import numpy as np

from refimpl.arrays import Array


def deep_png(stream, layout: str) -> Array:
    """The channels of a PNG of 16 bits with colour or opacity; Pillow keeps their upper bytes."""
    if layout == "LA;16B":  # four bytes a pixel, as they stand in the file
        return np.ascontiguousarray(decoded_as(stream, "RGBA")).view(">u2").astype(np.uint16)
    # Taken for little-endian, the "upper" byte is the lower one.
    upper, lower = (decoded_as(stream, layout[:-1] + order) for order in "BL")
    return 256 * upper.astype(np.uint16) + lower


def packed_tiff(stream, channels: int) -> Array:
    """The channels of a TIFF of 16 bits in any compression that libtiff knows, upright."""
    if channels == 1:
        return decoded_as(stream, "I;16N", "TIFF")
    layout = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}[channels]
    # libtiff hands on numbers in the machine's own order.
    upper, lower = ("L", "B") if sys.byteorder == "little" else ("B", "L")
    high, low = (decoded_as(stream, layout + order, "TIFF") for order in (upper, lower))
    return 256 * high.astype(np.uint16) + low


def decoded_as(stream, layout: str, form: str = "PNG") -> Array:
    """The pixels of a file, its bytes taken for this layout of Pillow's; a TIFF is turned."""
    from PIL import Image

    stream.seek(0)
    image = Image.open(stream, formats=(form,))
    made = getattr(type(image.tile[0]), "_make", tuple)  # newer Pillow: a named tuple
    image.tile = [
        made((*tile[:3], layout if form == "PNG" else (layout, *tile[3][1:])))
        for tile in image.tile
    ]
    image.load()
    return np.array(image)
