"""Reading and writing the directory of a case: `case.json`, `inputs.npz`, `outputs.npz`.

Nothing in a directory is executed: JSON is read as plain values and arrays without pickles. Outputs
may also come as a `.mat` file of MATLAB or Octave, or as a directory of `.npy` files.
"""

import json
import math
from pathlib import Path
from typing import Any

import scipy.io

from refimpl import storage
from refimpl.arrays import Array
from refimpl.storage import npz_bytes, write_files
from refimpl.verification.cases.case import FORMAT, REQUIRED_SETTINGS, SETTINGS, Case, CaseError


def read_case(directory: Path | str) -> Case:
    """Read and check a case.

    Parameters
    ----------
    directory : path
        Holds `case.json` and `inputs.npz`; `outputs.npz` is not read.

    Raises
    ------
    CaseError
        If a file is missing or damaged, or its content does not keep to the format.
    """
    directory = storage.as_path(directory)
    if not directory.is_dir():
        raise CaseError(
            f"{directory}: no such directory; give a directory with case.json and inputs.npz"
        )
    settings = _settings(directory / "case.json")
    arrays = read_arrays(directory / "inputs.npz")
    try:
        return Case(**settings, arrays=arrays)
    except CaseError as error:
        raise CaseError(f"{directory}: {error}") from error


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an npz file; CaseError if there are none to be had."""
    if not path.is_file():
        raise CaseError(f"{path}: missing; a case needs it")
    try:
        return storage.read_arrays(path)
    except ValueError as error:
        raise CaseError(str(error)) from error


# Classes of MATLAB that are plain arrays, with their bytes.
PLAIN = {"double": 8, "single": 4, "logical": 1} | {
    f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def read_outputs(path: Path | str) -> dict[str, Array]:
    """Outputs by name, from an npz file, a mat file, or a directory of npy files.

    Raises
    ------
    CaseError
        If there are none, or what is there is damaged or is not plain arrays.
    """
    path = storage.as_path(path)
    if path.is_dir():
        files = sorted(path.iterdir())
        strange = [file.name for file in files if file.suffix != ".npy" or not file.is_file()]
        if strange or not files:
            given = f"holds {', '.join(map(repr, strange[:3]))}" if strange else "is empty"
            raise CaseError(f"{path}: {given}, expected files of outputs such as 'map.npy' alone")
        if sum(file.stat().st_size for file in files) > storage.MOST_BYTES:
            raise CaseError(f"{path}: larger than {storage.MOST_BYTES} bytes")
        try:
            return {file.stem: storage.read_array(file) for file in files}
        except ValueError as error:
            raise CaseError(str(error)) from error
    return read_matlab(path) if path.suffix.lower() == ".mat" else read_arrays(path)


def read_matlab(path: Path) -> dict[str, Array]:
    """The plain arrays of a mat file; CaseError if there is anything else in it."""
    if not path.is_file():
        raise CaseError(f"{path}: missing, or no file")
    try:
        content = scipy.io.whosmat(path)
        others = [f"{name} ({kind})" for name, _, kind in content if kind not in PLAIN]
        if others:
            raise ValueError(f"it holds {', '.join(others[:3])}, expected plain arrays alone")
        size = sum(2 * PLAIN[kind] * math.prod(shape) for _, shape, kind in content)
        if size > max(storage.MOST_BYTES, path.stat().st_size):
            raise ValueError(f"its arrays take {size} bytes, expected at most {storage.MOST_BYTES}")
        arrays = scipy.io.loadmat(path, variable_names=[name for name, _, _ in content])
    except NotImplementedError as error:
        raise CaseError(f"{path}: of MATLAB 7.3; write it again by save('-v7', …)") from error
    except Exception as error:  # SciPy and zlib raise their own
        raise CaseError(
            f"{path}: not a mat file of plain arrays ({storage.first_line(error)})"
        ) from error
    return {name: arrays[name] for name, _, _ in content}


def _settings(path: Path) -> dict[str, Any]:
    """The settings of `case.json`: format known, no key missing, unknown or given twice."""
    description = _read_json(path)
    if not isinstance(description, dict):
        raise CaseError(f"{path}: holds a {type(description).__name__}, expected an object")
    if description.get("format") != FORMAT:
        raise CaseError(f"{path}: format is {description.get('format')!r}, expected {FORMAT!r}")
    settings = {name: value for name, value in description.items() if name != "format"}
    unknown = [name for name in settings if name not in SETTINGS]
    missing = [name for name in REQUIRED_SETTINGS if name not in settings]
    if unknown:
        known = ", ".join(SETTINGS)
        raise CaseError(f"{path}: unknown keys {', '.join(unknown)}; known are format, {known}")
    if missing:
        raise CaseError(f"{path}: keys {', '.join(missing)} missing")
    if settings.get("potential_parameters", {}) is None:
        del settings["potential_parameters"]
    return settings


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise CaseError(f"{path}: missing; a case needs it")
    try:
        return storage.read_json(path, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except ValueError as error:
        raise CaseError(str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"key {', '.join(twice)} is given twice")
    return dict(pairs)


def _refuse_constant(token: str) -> None:
    raise ValueError(f"{token} is not a number of JSON")


def write_case(directory: Path | str, case: Case, outputs: dict[str, Array] | None = None) -> None:
    """Write `case.json` and `inputs.npz`, and `outputs.npz` if `outputs` are given."""
    contents = {"case.json": to_json(case.description()), "inputs.npz": npz_bytes(case.arrays)}
    contents |= {} if outputs is None else {"outputs.npz": npz_bytes(outputs)}
    write_files(directory, contents)


def write_result(directory: Path | str, outputs: dict[str, Array], report: dict[str, Any]) -> None:
    """Write `outputs.npz` and `report.json`."""
    write_files(directory, {"outputs.npz": npz_bytes(outputs), "report.json": to_json(report)})


def to_json(value: Any) -> bytes:
    """Indented JSON, which has no NaN and no infinity: both raise ValueError."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
