"""Reading and writing the directory of a case: `case.json`, `inputs.npz`, `outputs.npz`.

Nothing in a directory is executed: JSON is read as plain values and arrays without pickles.
"""

import json
from pathlib import Path
from typing import Any

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
