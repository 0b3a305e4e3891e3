"""Damaged and ill-formed cases are refused with one line that says what is wrong."""

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from case_factory import make_case

from refimpl import cli
from refimpl.verification.cases import CaseError, read_case, write_case, write_result


@pytest.fixture
def directory(tmp_path):
    """A sound case: tied, masked, convolutional."""
    write_case(tmp_path / "case", make_case("log_cosh", operator="mask"))
    return tmp_path / "case"


def arrays_of(directory):
    with np.load(directory / "inputs.npz") as data:
        return dict(data)


def change_arrays(directory, **changes):
    """Rewrite inputs.npz; an array that is None is left out."""
    arrays = arrays_of(directory) | changes
    np.savez(directory / "inputs.npz", **{k: x for k, x in arrays.items() if x is not None})


def change_settings(directory, **changes):
    """Rewrite case.json; a setting that is `...` is left out."""
    settings = json.loads((directory / "case.json").read_text("utf-8")) | changes
    settings = {k: x for k, x in settings.items() if x is not ...}
    (directory / "case.json").write_text(json.dumps(settings), "utf-8")


def refusal(directory, capsys):
    """The one line on standard error; nothing is written and nothing printed."""
    before = sorted(directory.iterdir()) if directory.is_dir() else None
    assert cli.main(["oracle", str(directory)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("refimpl: error: ") and err.count("\n") == 1
    assert before is None or sorted(directory.iterdir()) == before
    return err


def nan_in(array):
    array = array.copy()
    array.flat[0] = np.nan
    return array


SETTINGS = {
    "other format": ({"format": "refimpl-case/2"}, "format is 'refimpl-case/2'"),
    "no format": ({"format": ...}, "format is None"),
    "unknown key": ({"lambda": 1.0}, "unknown keys lambda"),
    "missing key": ({"tau": ...}, "keys tau missing"),
    "unknown operator": ({"operator": "radon"}, "operator: given 'radon'"),
    "operator of another type": ({"operator": ["mask"]}, "operator: given ['mask']"),
    "unknown analysis": ({"analysis": "wavelet"}, "analysis: given 'wavelet'"),
    "unknown boundary": ({"boundary": "mirror"}, "boundary: given 'mirror'"),
    "no boundary": ({"boundary": ...}, "boundary: missing"),
    "blur without boundary": ({"operator": "convolution"}, "operator_boundary: missing"),
    "unknown potential": ({"potential": "l1"}, "l1"),
    "potential of another type": ({"potential": ["huber"]}, "potential"),
    "unknown potential parameter": ({"potential_parameters": {"nu": 1.0}}, "nu"),
    "potential parameters as list": ({"potential_parameters": [1.0]}, "potential_parameters"),
    "negative potential parameter": ({"potential_parameters": {"slope": -1}}, "slope"),
    "text as potential parameter": ({"potential_parameters": {"slope": "1"}}, "slope"),
    "text as number": ({"tau": "0.1"}, "tau: given '0.1'"),
    "true as number": ({"lam": True}, "lam: given True"),
    "zero tau": ({"tau": 0}, "tau"),
    "negative lam": ({"lam": -1.0}, "lam"),
    "infinite gamma": ({"gamma": 10**400}, "gamma: given 1000"),
    "zero norm": ({"norm": 0}, "norm"),
    "text as norm": ({"norm": "1"}, "norm: given '1'"),
    "tied as number": ({"tied": 1}, "tied: given 1"),
    "untied without C": ({"tied": False}, "C missing"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_wrong_settings_are_refused(name, directory, capsys):
    changes, message = SETTINGS[name]
    change_settings(directory, **changes)
    assert message in refusal(directory, capsys)


ARRAYS = {
    "missing array": (lambda a: {"v": None}, "v missing"),
    "missing mask": (lambda a: {"mask": None}, "mask missing"),
    "C of a tied case": (lambda a: {"C": a["A"]}, "C not expected"),
    "kernel of a mask": (lambda a: {"kernel": np.ones((3, 3))}, "kernel not expected"),
    "unknown array": (lambda a: {"x": a["u"]}, "x not expected"),
    "integers": (lambda a: {"y": np.ones(a["y"].shape, int)}, "y: dtype is int64"),
    "mixed precision": (lambda a: {"A": a["A"].astype(np.float32)}, "mixed precision"),
    "half precision": (lambda a: {"A": a["A"].astype(np.float16)}, "A: dtype is float16"),
    "complex": (lambda a: {"u": a["u"] + 0j}, "u: dtype is complex128"),
    "text": (lambda a: {"u": np.array("u")}, "u: dtype is"),
    "NaN": (lambda a: {"w": nan_in(a["w"])}, "w: 1 of 60 values"),
    "infinity": (lambda a: {"b": a["b"] / 0}, "b: 4 of 4 values"),
    "NaN in the mask": (lambda a: {"mask": nan_in(a["mask"].astype(float))}, "Mask: values other"),
    "grey mask": (lambda a: {"mask": a["mask"] / 2}, "Mask: values other than 0 and 1"),
    "empty mask": (lambda a: {"mask": a["mask"] & False}, "Mask: no pixel is observed"),
    "mask of another shape": (lambda a: {"mask": a["mask"][..., :-1]}, "Mask: image is"),
    "u without channels": (lambda a: {"u": a["u"][:, 0]}, "u: shape is (2, 5, 6)"),
    "no images": (lambda a: {"u": a["u"][:0]}, "u: shape is (0, 1, 5, 6)"),
    "y of one image": (lambda a: {"y": a["y"][:1]}, "y: shape is (1, 1, 5, 6)"),
    "target transposed": (lambda a: {"target": a["target"].swapaxes(2, 3)}, "target: shape is"),
    "even filters": (lambda a: {"A": a["A"][..., :2]}, "both sides must be odd"),
    "filters for other channels": (lambda a: {"A": np.ones((4, 2, 3, 3))}, "A: shape is (4, 2"),
    "no filters": (lambda a: {"A": a["A"][:0]}, "A: shape is (0, 1, 3, 3)"),
    "flat filters": (lambda a: {"A": a["A"].reshape(4, -1)}, "A: shape is (4, 9)"),
    "scalar filters": (lambda a: {"A": np.float64(1)}, "A: shape is ()"),
    "b for other filters": (lambda a: {"b": a["b"][:-1]}, "b: shape is (3,)"),
    "weights as column": (lambda a: {"weights": a["weights"][:, None]}, "weights: shape is (4, 1)"),
}


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.parametrize("name", ARRAYS)
def test_wrong_arrays_are_refused(name, directory, capsys):
    changes, message = ARRAYS[name]
    change_arrays(directory, **changes(arrays_of(directory)))
    assert message in refusal(directory, capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"format": "refimpl-case/1"', "not valid JSON"),
        ("[1, 2]", "holds a list"),
        ('{"format": "refimpl-case/1", "tau": NaN}', "NaN is not a number of JSON"),
        ('{"tau": 1, "tau": 2}', "key tau is given twice"),
        ("[" * 100_000, "not valid JSON"),
        (b"\xff\xfe\x00{", "not valid JSON"),
    ],
    ids=["empty", "cut off", "list", "NaN", "key twice", "nested too deep", "not text"],
)
def test_damaged_json_is_refused(text, message, directory, capsys):
    (directory / "case.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refusal(directory, capsys)


@pytest.mark.parametrize("kept", [0, 10, 500, -30], ids=lambda n: f"{n} bytes")
def test_truncated_npz_is_refused(kept, directory, capsys):
    path = directory / "inputs.npz"
    path.write_bytes(path.read_bytes()[:kept])
    assert "not a complete npz file" in refusal(directory, capsys)


def test_npz_with_flipped_bits_is_refused(directory, capsys):
    path = directory / "inputs.npz"
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF
    path.write_bytes(content)
    assert "not a complete npz file" in refusal(directory, capsys)


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_array_is_refused_and_never_run(directory, capsys, tmp_path):
    trap = tmp_path / "executed"
    change_arrays(directory, b=np.array([Bomb(trap)], dtype=object))
    assert "without object arrays" in refusal(directory, capsys)
    assert not trap.exists()


def test_pickle_in_place_of_the_npz_is_refused_and_never_run(directory, capsys, tmp_path):
    trap = tmp_path / "executed"
    (directory / "inputs.npz").write_bytes(pickle.dumps(Bomb(trap)))
    assert "not a complete npz file" in refusal(directory, capsys)
    assert not trap.exists()


def test_single_array_in_place_of_the_npz_is_refused(directory, capsys):
    with (directory / "inputs.npz").open("wb") as file:
        np.save(file, np.ones(3))
    assert "not a complete npz file" in refusal(directory, capsys)


def test_foreign_member_of_the_npz_is_refused(directory, capsys):
    with zipfile.ZipFile(directory / "inputs.npz", "a") as archive:
        archive.writestr("notes.txt", "remember")
    assert "notes.txt" in refusal(directory, capsys)


def test_header_that_claims_more_than_there_is_is_refused(directory, capsys):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64
    with zipfile.ZipFile(directory / "inputs.npz", "a") as archive:
        archive.writestr("b2.npy", member)
    assert "not a complete npz file" in refusal(directory, capsys)


@pytest.mark.parametrize("name", ["case.json", "inputs.npz"])
def test_missing_file_is_refused(name, directory, capsys):
    (directory / name).unlink()
    assert f"{name}: missing" in refusal(directory, capsys)


def test_missing_directory_is_refused(tmp_path, capsys):
    assert "no such directory" in refusal(tmp_path / "nowhere", capsys)


def test_file_in_place_of_the_directory_is_refused(directory, capsys):
    assert "no such directory" in refusal(directory / "case.json", capsys)


def test_damaged_case_leaves_old_outputs_alone(directory, capsys):
    (directory / "outputs.npz").write_bytes(b"from elsewhere")
    change_settings(directory, tau=0)
    refusal(directory, capsys)
    assert (directory / "outputs.npz").read_bytes() == b"from elsewhere"


def test_other_byte_order_and_column_major_arrays_are_read(directory):
    expected = read_case(directory)
    arrays = arrays_of(directory)
    swapped = {k: np.asfortranarray(x.astype(x.dtype.newbyteorder(">"))) for k, x in arrays.items()}
    change_arrays(directory, **swapped)
    given = read_case(directory)
    for name, x in expected.arrays.items():
        assert given.arrays[name].dtype == x.dtype and np.array_equal(given.arrays[name], x)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_mask_may_have_any_dtype(dtype, directory):
    mask = arrays_of(directory)["mask"]
    change_arrays(directory, mask=mask.astype(dtype))
    assert np.array_equal(read_case(directory).arrays["mask"], mask)


def test_settings_not_needed_may_be_null(directory):
    change_settings(directory, operator_boundary=None, potential_parameters=None)
    assert read_case(directory).potential_parameters == {}


def test_case_made_in_python_is_checked_like_one_that_is_read():
    with pytest.raises(CaseError, match="tau"):
        make_case("huber", tau=-1.0)


def test_failed_write_leaves_no_temporary_file_and_the_old_result(tmp_path, monkeypatch):
    write_result(tmp_path, {"map": np.zeros(2)}, {"converged": True})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_result(tmp_path, {"map": np.ones(2)}, {"converged": False})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_report_with_infinity_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, {}, {"bound": np.inf})
    assert not list(tmp_path.iterdir())
