"""Files: arrays and JSON read with suspicion, and writing that leaves whole files or none.

Every reader of this package goes through `read_arrays`, `read_kept` or `read_json`. Nothing in a
file is executed, sizes are checked before anything is inflated or allocated, and whatever is wrong
is one ValueError with the file's name. A file is written under a temporary name beside its place,
brought to the disk and then renamed, so that a reader, or an interruption, finds the old one or the
new one; what a killed process left behind is removed by the next that writes there.

Not here: what the files mean (`refimpl.training`, `refimpl.experiments`, `docs/case-format.md`).
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import platform
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Arrays may take this much, or as much as the file itself, which np.savez does not compress.
MOST_BYTES = 2**28
# A JSON text of brackets alone takes thirty times its length in memory.
MOST_TEXT = 2**24
# What refimpl keeps in npz files, by the format that is written into them.
KINDS = {
    "refimpl-model/1": "model",
    "refimpl-run/2": "run",
    "refimpl-checkpoint/1": "checkpoint",
}
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
PART = re.compile(r"\..+\.([^.]*)\.(\d+)\.refimpl-part")


def as_path(path: Path | str) -> Path:
    """The path, if it is one."""
    if not isinstance(path, (str, Path)) or "\0" in str(path):
        plain = path is None or isinstance(path, str)
        given = repr(path)[:80] if plain else f"a {type(path).__name__}"
        raise TypeError(f"path: given {given}, expected a file name such as 'model.npz'")
    return Path(path)


def read_arrays(path: Path | str, only: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """All arrays of an npz file, or those named in `only` that are there.

    Raises
    ------
    ValueError
        If the file is missing, not readable, truncated or no npz file, takes more memory than
        `MOST_BYTES` and the file's size, or needs unpickling.
    """
    remedy = "; write it again with np.savez, without object arrays"
    with _opened(path, "npz file of plain arrays", remedy) as file:
        return _read(file, only)


def read_array(path: Path | str) -> np.ndarray:
    """The array of an npy file; ValueError as of `read_arrays`."""
    with _opened(path, "npy file of a plain array") as file:
        return _read_array(file, os.fstat(file.fileno()).st_size)


@contextlib.contextmanager
def _opened(path: Path | str, kind: str, remedy: str = "") -> Iterator[Any]:
    """An open file; ValueError where it is not readable, or the block finds it is not complete."""
    path = as_path(path)
    try:
        with _regular(path) as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path}: not readable: {error.strerror or error}") from error
    except Exception as error:  # zipfile, zlib, tokenize and NumPy raise their own
        raise ValueError(f"{path}: not a complete {kind} ({first_line(error)}){remedy}") from error


def _regular(path: Path):
    """An open file; a directory, a pipe or a device, which may never end, is an OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a file")
    return path.open("rb")


def _read(file, only: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    arrays, limit = {}, max(MOST_BYTES, os.fstat(file.fileno()).st_size)
    with zipfile.ZipFile(file) as archive:
        size = sum(info.file_size for info in archive.infolist())
        if size > limit:
            raise ValueError(f"its arrays take {size} bytes, expected at most {limit}")
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in arrays:
                raise ValueError(f"{info.filename} is no array, or there twice")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{info.filename} is compressed by another method than np.savez's")
            if only is None or name in only:
                with archive.open(info) as member:
                    arrays[name] = _read_array(member, info.file_size)
    return arrays


def _read_array(member, size: int) -> np.ndarray:
    """One array, if its header declares just the bytes that follow."""
    version = np.lib.format.read_magic(member)
    if version not in HEADERS:
        raise ValueError(f"npy format {version}")
    with warnings.catch_warnings(action="ignore"):  # of NumPy, on headers that Python 2 wrote
        shape, fortran, dtype = HEADERS[version](member)
    if dtype.hasobject:
        raise ValueError("object array")
    declared, there = math.prod(shape) * dtype.itemsize, size - member.tell()
    if min(shape, default=0) < 0 or declared != there:
        raise ValueError(f"a header declares {declared:.6g} bytes, {there} follow")
    content = np.empty(there, np.uint8)
    if member.readinto(content) != there:
        raise ValueError("cut off")
    return content.view(dtype).reshape(shape, order="F" if fortran else "C")


def read_json(path: Path | str, **hooks) -> Any:
    """The value of a JSON file; `hooks` as `json.loads` takes them.

    Raises
    ------
    ValueError
        If the file is missing, not readable, or no JSON.
    """
    path = as_path(path)
    try:
        with _regular(path) as file:
            return parse_json(file.read(MOST_TEXT + 1), **hooks)
    except OSError as error:
        raise ValueError(f"{path}: not readable: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {first_line(error)}") from error


def parse_json(text: bytes, **hooks) -> Any:
    """The value of a JSON text; ValueError for anything else."""
    if len(text) > MOST_TEXT:
        raise ValueError(f"longer than {MOST_TEXT} bytes")
    try:
        return json.loads(text, **hooks)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def said(error: BaseException) -> str:
    """What an error says, or its type where it says nothing."""
    return str(error).strip() or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return said(error).splitlines()[0]


def npz_bytes(arrays: dict[str, np.ndarray], compressed: bool = False) -> bytes:
    """The content of an npz file."""
    buffer, write = io.BytesIO(), np.savez_compressed if compressed else np.savez
    write(buffer, **arrays)
    return buffer.getvalue()


def encoded(value: Any) -> np.ndarray:
    """A value as the bytes of a JSON text, an array that an npz file can hold."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def decoded(text: np.ndarray) -> Any:
    """The value that `encoded` made an array of; ValueError for anything else."""
    return parse_json(text.tobytes())


def keep(
    path: Path | str, format: str, text: dict, arrays: dict[str, np.ndarray],
    compressed: bool = False,
) -> None:  # fmt: skip
    """Write one of `KINDS`: arrays, and values in JSON, in one npz file, whole or not at all."""
    content = {**arrays, "text": encoded({"format": format, **text})}
    write_file(path, npz_bytes(content, compressed))


@contextlib.contextmanager
def read_kept(
    path: Path | str, format: str, only: tuple[str, ...] | None = None
) -> Iterator[tuple[dict, dict[str, np.ndarray]]]:
    """Text and arrays of a file that `keep` wrote; what is wrong inside is said with its name.

    Raises
    ------
    ValueError
        If `read_arrays` does, the file is of another kind, or the block cannot use its content.
    """
    arrays = read_arrays(path, only and (*only, "text"))
    try:
        yield _text(arrays, format), arrays
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        why = f"{error.args[0]} is missing" if isinstance(error, KeyError) else first_line(error)
        kind = KINDS[format]
        raise ValueError(f"{path}: not a {kind} that refimpl saved ({why})") from error


def _text(arrays: dict[str, np.ndarray], format: str) -> dict:
    """The values in JSON, taken out of the arrays; ValueError if they are of another format."""
    text = decoded(arrays.pop("text"))
    if not isinstance(text, dict):
        raise ValueError(f"its text is a {type(text).__name__}, expected an object")
    given = text.pop("format", None)
    if given != format:
        raise ValueError(_other_format(given, format))
    return text


def _other_format(given: Any, format: str) -> str:
    """What to say of a file of another format: another kind, a newer one, or none of refimpl's."""
    if isinstance(given, str) and given in KINDS:
        return f"it is a {KINDS[given]}"
    kind, _, number = format.rpartition("/")
    newer = isinstance(given, str) and re.fullmatch(rf"{re.escape(kind)}/([0-9]{{1,9}})", given)
    update = newer and int(newer[1]) > int(number)
    hint = ": a newer refimpl wrote it, update refimpl" if update else ""
    return f"its format is {given!r}, expected {format!r}{hint}"


def as_records(records: Any) -> tuple[dict, ...]:
    """The records of epochs 0, 1, …, if they are that."""
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise ValueError("records: expected a list of objects, one for each epoch")
    return tuple(records)


def digest(*values: Any) -> str:
    """A hash of settings and data: numbers, texts, arrays, and tuples and dataclasses of them.

    Any other object enters by its `repr`, without addresses.
    """
    found = hashlib.sha256()
    for value in values:
        found.update(_content(value))
    return found.hexdigest()


def _content(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        head = f"{value.dtype.str} {value.shape}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).digest()
    if dataclasses.is_dataclass(value):
        inner = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return f"{type(value).__name__}({digest(*inner)})".encode()
    if isinstance(value, dict):
        return f"{{{digest(*value.items())}}}".encode()
    if isinstance(value, (tuple, list)):
        return f"({digest(*value)})".encode()
    return re.sub(r" at 0x[0-9a-fA-F]+", "", f"{value!r};").encode()


def write_files(directory: Path | str, contents: dict[str, bytes]) -> None:
    """Write all files under temporary names, then rename all; leave no temporary file behind.

    Raises
    ------
    OSError
        With the name of the file that cannot be written; all files are then as they were.
    """
    directory = as_path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    remove_parts(directory)
    writer = f"{_host()}.{os.getpid()}"
    parts = {name: directory / f".{name}.{writer}.refimpl-part" for name in contents}
    name = ""
    try:
        for name, content in contents.items():
            if (directory / name).is_dir():
                raise IsADirectoryError("a directory is in its place")
            _write_through(parts[name], content)
        for name, part in parts.items():
            os.replace(part, directory / name)
        _sync(directory)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"not written: {reason}", str(directory / name)) from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def write_file(path: Path | str, content: bytes) -> None:
    """Write one file, whole or not at all."""
    path = as_path(path)
    write_files(path.parent, {path.name: content})


def _write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk, before which a renaming might be."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Bring a renaming to the disk, where directories can be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Keep other processes from writing what `path` names, until the block ends.

    The lock is on a file beside it, which says who has it. The system gives it up when its process
    ends, in whatever way: what a killed one left is taken over. Not on Windows.

    Raises
    ------
    ValueError
        If another process has it, with its number.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    path = as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.refimpl-lock")
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            given_up = os.fstat(file.fileno()).st_nlink == 0  # and another may have begun
        except OSError:
            given_up = True
        if given_up:
            file.seek(0)
            raise ValueError(
                f"{path}: process {file.read().strip() or 'unknown'} is writing it; wait until it "
                "has ended, or choose another name"
            )
        file.truncate(0)
        file.write(f"{os.getpid()} on {_host()}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def remove_parts(directory: Path | str) -> None:
    """Remove the temporary files of writers on this machine that were killed."""
    for path in Path(directory).glob(".*.refimpl-part"):
        found = PART.fullmatch(path.name)
        if found and found[1] == _host() and not _runs(int(found[2])):
            with contextlib.suppress(OSError):  # Windows keeps files that are open
                path.unlink(missing_ok=True)


def _host() -> str:
    """The name of this machine: on a shared disk, others have processes of the same numbers."""
    return platform.node().partition(".")[0]


def _runs(process: int) -> bool:
    """Whether there is a process of this number; never on Windows."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    return True
