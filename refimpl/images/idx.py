"""The IDX file format, in which the MNIST digits are distributed; plain or compressed by gzip.

An IDX file is a header and an array in row-major order, every number big-endian:

    byte 0, 1       0
    byte 2          type of the entries, one of `TYPES`
    byte 3          number of axes d
    4 d bytes       length of each axis, unsigned
    the rest        the entries

The header is not trusted: what it announces is compared with what is there before an array is
made of it, and no more is read than it announces.

References
----------
Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits", file formats.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

TYPES = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MAX_AXES = 4
MAX_BYTES = 2**30


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read an array from an IDX file.

    Parameters
    ----------
    path : path
        A plain or gzip-compressed file; which of the two is decided by its first bytes.

    Returns
    -------
    array with 1 to 4 axes, in native byte order
        For example (10000, 28, 28) of uint8.

    Raises
    ------
    ValueError
        If the file is not IDX, has an unknown type of entries, announces an empty array or one
        of more than 1 GiB, holds fewer or more bytes than announced, or is damaged.
    """
    path = Path(path)
    try:
        with _open(path) as stream:
            dtype, shape = _read_header(stream, path)
            data = _read_entries(stream, path, dtype, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged gzip file ({error}); copy it again") from error
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _open(path: Path) -> BinaryIO:
    """Open a file for reading, through gzip if it starts as gzip files do."""
    with open(path, "rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else open(path, "rb")


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """Type of the entries and length of each axis."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise ValueError(
            f"{path}: starts with bytes {magic.hex(' ') or 'none'}, expected 00 00, type, "
            "number of axes; this is not an IDX file"
        )
    code, axes = magic[2], magic[3]
    if code not in TYPES:
        known = ", ".join(f"0x{known:02x} ({dtype.name})" for known, dtype in TYPES.items())
        raise ValueError(f"{path}: type of entries is 0x{code:02x}, expected one of {known}")
    if not 1 <= axes <= MAX_AXES:
        raise ValueError(f"{path}: number of axes is {axes}, expected 1 to {MAX_AXES}")
    lengths = stream.read(4 * axes)
    if len(lengths) < 4 * axes:
        raise ValueError(
            f"{path}: header ends after {4 + len(lengths)} bytes, expected {4 + 4 * axes}; "
            "the file is cut short, copy or download it again"
        )
    return TYPES[code], struct.unpack(f">{axes}I", lengths)


def _read_entries(stream: BinaryIO, path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The bytes of the array, exactly as many as the header announces."""
    announced = math.prod(shape) * dtype.itemsize
    what = f"{' x '.join(map(str, shape))} of {dtype.name}, {announced} bytes"
    if not 0 < announced <= MAX_BYTES:
        raise ValueError(f"{path}: header announces {what}; expected 1 to {MAX_BYTES} bytes")
    data = stream.read(announced + 1)
    if len(data) < announced:
        raise ValueError(
            f"{path}: holds {len(data)} bytes of entries, expected {announced} ({what}); "
            "the file is cut short, copy or download it again"
        )
    if len(data) > announced:
        raise ValueError(
            f"{path}: holds more than the {announced} bytes of entries announced ({what}); "
            "the header is wrong or something was appended, copy or download it again"
        )
    return data
