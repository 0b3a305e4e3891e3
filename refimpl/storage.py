"""Files: arrays as npz without pickles, and writing that leaves whole files or none.

Nothing in a file is ever executed. A file is written under a temporary name beside its place and
then renamed, so that a reader, or an interruption, finds the old one or the new one.
"""

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

# What NumPy and zipfile raise for truncated, foreign or malicious files.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    NotImplementedError,
    MemoryError,
)


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """All arrays of an npz file.

    Raises
    ------
    ValueError
        If the file is missing, not readable, truncated or no npz file, or needs unpickling.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            arrays = _read(file)
    except OSError as error:
        raise ValueError(f"{path}: not readable: {error.strerror or error}") from error
    except DAMAGED as error:
        raise ValueError(
            f"{path}: not a complete npz file of plain arrays ({first_line(error)}); "
            "write it again with np.savez, without object arrays"
        ) from error
    foreign = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if foreign:
        raise ValueError(f"{path}: {', '.join(foreign)} is no array; store .npy members only")
    return arrays


def _read(file) -> dict[str, np.ndarray]:
    """The arrays, if the file is a zip file: `np.load` takes other formats for something else."""
    if not zipfile.is_zipfile(file):
        raise ValueError("no zip file")
    file.seek(0)
    with np.load(file, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error) or type(error).__name__).splitlines()[0]


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """The content of an npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def encoded(value: Any) -> np.ndarray:
    """A value as the bytes of a JSON text, an array that an npz file can hold."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def decoded(text: np.ndarray) -> Any:
    """The value that `encoded` made an array of; ValueError for anything else."""
    return json.loads(text.tobytes().decode())


def write_files(directory: Path | str, contents: dict[str, bytes]) -> None:
    """Write all files under temporary names, then rename all; leave no temporary file behind."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = {name: directory / f".{name}.{os.getpid()}.part" for name in contents}
    try:
        for name, content in contents.items():
            temporary[name].write_bytes(content)
        for name, path in temporary.items():
            os.replace(path, directory / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def write_file(path: Path | str, content: bytes) -> None:
    """Write one file, whole or not at all."""
    write_files(Path(path).parent, {Path(path).name: content})
