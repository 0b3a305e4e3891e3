"""Files from anywhere are read or refused in one line; files are written whole or not at all."""

import errno
import io
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
from functools import cache

import numpy as np
import pytest
from case_factory import make_case
from test_figures_scripts import synthetic_run

from refimpl import storage
from refimpl.experiments import load_run, save_run
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import make_potential
from refimpl.training import TrainedModel, load_checkpoint, load_model, save_checkpoint
from refimpl.training.adam import AdamState
from refimpl.training.loop import TrainingState
from refimpl.verification.cases import read_case, write_case
from refimpl.verification.cases.golden import read_suite

FILTERS = np.arange(9.0).reshape(1, 1, 3, 3)


def small_model():
    return TrainedModel(make_parameters(FILTERS), make_potential("huber"), "zero", 1.0, 0.1)


def small_state():
    x, images = np.arange(3.0), np.ones((1, 1, 2, 2))
    return TrainingState(0, x, x, AdamState(x, x), images, images, x, ({"epoch": 0},), "f", x)


WRITERS = {
    "model": lambda path: small_model().save(path),
    "run": lambda path: save_run(path, synthetic_run("deq")),
    "checkpoint": lambda path: save_checkpoint(path, small_state()),
}
READERS = {"model": load_model, "run": load_run, "checkpoint": load_checkpoint}


def refusal(read, path):
    """The one line that a reader says, with the file's name and without rash advice."""
    with pytest.raises(ValueError) as caught:
        read(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text and "delete" not in text, text
    return text


@pytest.mark.parametrize("kind", READERS)
def test_files_of_one_kind_are_read(kind, tmp_path):
    WRITERS[kind](tmp_path / "file.npz")
    READERS[kind](tmp_path / "file.npz")


@pytest.mark.parametrize("given", [*WRITERS, "case", "arrays", "list", "text", "nested"])
@pytest.mark.parametrize("kind", READERS)
def test_files_of_another_kind_are_named_and_not_called_damaged(kind, given, tmp_path):
    path = tmp_path / "file.npz"
    if given == kind:
        return
    if given in WRITERS:
        WRITERS[given](path)
    elif given == "case":
        write_case(tmp_path, make_case("huber"))
        path = tmp_path / "inputs.npz"
    else:
        np.savez(path, text={
            "arrays": np.ones(3), "list": storage.encoded([1]),
            "text": storage.encoded({"format": ["refimpl-run/1"]}),
            "nested": np.frombuffer(b"[" * 100_000, np.uint8),
        }[given])  # fmt: skip
    text = refusal(READERS[kind], path)
    assert f"not a {kind} that refimpl saved" in text
    assert given not in WRITERS or f"it is a {given}" in text


def entries(path):
    """Every array, and every entry of the text, of a kept file."""
    arrays = storage.read_arrays(path)
    return arrays, storage.decoded(arrays["text"])


@pytest.mark.parametrize("kind", READERS)
def test_missing_and_foreign_entries_are_refused_one_by_one(kind, tmp_path):
    path = tmp_path / "file.npz"
    WRITERS[kind](path)
    arrays, text = entries(path)
    optional = ("b", "weights", "gamma", "parameters_C", "provenance")
    for name in arrays.keys() - {"text", *optional}:
        path.write_bytes(storage.npz_bytes({n: x for n, x in arrays.items() if n != name}))
        assert f"{name} is missing" in refusal(READERS[kind], path)
    for name in text.keys() - {"format", *optional}:
        changed = {k: x for k, x in text.items() if k != name}
        path.write_bytes(storage.npz_bytes(arrays | {"text": storage.encoded(changed)}))
        assert f"{name} is missing" in refusal(READERS[kind], path)
    changed = storage.encoded(text | {"records": 7})
    path.write_bytes(storage.npz_bytes(arrays | {"text": changed}))
    assert "records" in refusal(READERS[kind], path)


# Below: files that are hostile or damaged on the way.


@cache
def one_array():
    """A small npz file, and the content of its one member."""
    member = io.BytesIO()
    np.save(member, np.arange(3.0))
    return storage.npz_bytes({"x": np.arange(3.0)}), member.getvalue()


def archive(path, member, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("x.npy", member)


def read_or_refuse(path):
    """Whether the file could be read; a refusal names it."""
    try:
        storage.read_arrays(path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return False
    return True


def test_any_one_flipped_bit_of_an_npz_file_is_survived(tmp_path):
    path, content = tmp_path / "x.npz", one_array()[0]
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        read_or_refuse(path)


def test_any_one_flipped_bit_of_a_header_is_survived_where_no_checksum_tells(tmp_path):
    path, member = tmp_path / "x.npz", one_array()[1]
    refused = 0
    for bit in range(8 * (len(member) - 24)):
        flipped = bytearray(member)
        flipped[bit // 8] ^= 1 << bit % 8
        archive(path, bytes(flipped))
        refused += not read_or_refuse(path)
    assert refused > 300


@pytest.mark.parametrize("shape", [(10**30,), (2**62, 4), (-3,), (-1, -3), (4,), (2,)])
def test_header_must_declare_just_what_follows(shape, tmp_path):
    header = str({"descr": "<f8", "fortran_order": False, "shape": shape}).encode().ljust(117)
    archive(tmp_path / "x.npz", b"\x93NUMPY\x01\x00\x76\x00" + header + b"\n" + bytes(24))
    assert "a header declares" in refusal(storage.read_arrays, tmp_path / "x.npz")


def test_file_that_would_take_too_much_is_refused_before_it_is_inflated(tmp_path):
    path = tmp_path / "x.npz"
    size = storage.MOST_BYTES + 1
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as x:
        np.lib.format.write_array_header_1_0(
            x, {"descr": "|u1", "fortran_order": False, "shape": (size,)}
        )
        for _ in range(size // 2**24 + 1):
            x.write(bytes(2**24))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    assert "its arrays take" in refusal(storage.read_arrays, path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_file_of_its_own_size_is_read_whatever_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_BYTES", 0)
    (tmp_path / "x.npz").write_bytes(one_array()[0])
    assert np.array_equal(storage.read_arrays(tmp_path / "x.npz")["x"], np.arange(3.0))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_whose_memory_is_not_bounded_are_refused(method, tmp_path):
    archive(tmp_path / "x.npz", one_array()[1], compression=method)
    assert "another method" in refusal(storage.read_arrays, tmp_path / "x.npz")


def test_layouts_and_dtypes_of_numpy_are_read(tmp_path):
    arrays = {
        "scalar": np.array(2.0), "empty": np.zeros((0, 3)), "bool": np.ones((2, 2), bool),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"), "text": np.array(["a", "bc"]),
        "bytes": np.frombuffer(b"[1]", np.uint8),
    }  # fmt: skip
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    for name, x in storage.read_arrays(tmp_path / "x.npz").items():
        np.testing.assert_array_equal(x, arrays[name], strict=True)


PLACES = {
    "nothing": lambda path: None,
    "directory": lambda path: path.mkdir(),
    "pipe": os.mkfifo if hasattr(os, "mkfifo") else lambda path: None,
}


@pytest.mark.parametrize("read", [storage.read_arrays, storage.read_json, *READERS.values()])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_refused_and_not_waited_for(place, read, tmp_path):
    PLACES[place](tmp_path / "x.npz")
    assert "not readable" in refusal(read, tmp_path / "x.npz")


@pytest.mark.parametrize("path", [None, 3, b"x", "a\0b", ["x"]])
@pytest.mark.parametrize("read", [storage.read_json, read_case, *READERS.values()])
def test_what_is_no_path_is_refused(read, path):
    with pytest.raises(TypeError, match="expected a file name"):
        read(path)


@pytest.mark.parametrize(
    "text", [b"[" * 10**5, b"", b"\xff", b"{", b"9" * 5000], ids=lambda t: str(t[:2])
)
def test_damaged_json_is_refused(text, tmp_path):
    (tmp_path / "x.json").write_bytes(text)
    assert "not valid JSON" in refusal(storage.read_json, tmp_path / "x.json")


def test_json_that_is_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_TEXT", 10)
    (tmp_path / "x.json").write_text(json.dumps("x" * 9))
    assert "longer than 10 bytes" in refusal(storage.read_json, tmp_path / "x.json")


def test_damaged_golden_suite_is_refused(tmp_path):
    write_case(tmp_path / "one", make_case("huber"), {"map": np.ones(2)})
    (tmp_path / "one" / "outputs.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="outputs.npz: not a complete npz"):
        read_suite(tmp_path)


# Below: writing.


@pytest.fixture
def old(tmp_path):
    """A folder with two files; afterwards it must be so still."""
    (tmp_path / "a").write_bytes(b"old a")
    (tmp_path / "b").write_bytes(b"old b")
    return tmp_path


def unchanged(folder):
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return files == {"a": b"old a", "b": b"old b"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("at", [1, 2])
def test_failed_writing_keeps_the_old_files(number, call, at, old, monkeypatch):
    calls, real = [], getattr(os, call)

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError, match="not written: .*/[ab]'") as caught:
        storage.write_files(old, {"a": b"new", "b": b"new"})
    assert caught.value.errno == number
    if (call, at) != ("replace", 2):  # the first file is whole, the second is the old one
        assert unchanged(old)
    assert sorted(path.name for path in old.iterdir()) == ["a", "b"]


def test_directory_in_place_of_a_file_keeps_the_others(old):
    (old / "c").mkdir()
    with pytest.raises(OSError, match="a directory is in its place: .*/c'"):
        storage.write_files(old, {"a": b"new", "c": b"new"})
    assert unchanged(old)


def test_content_is_on_the_disk_before_the_name_changes(old, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda handle: order.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda *names: order.append("replace"))
    storage.write_files(old, {"a": b"new", "b": b"new"})
    assert order == ["fsync", "fsync", "replace", "replace", "fsync"]


@pytest.mark.skipif(os.name != "posix", reason="numbers of processes cannot be asked for")
def test_parts_of_writers_that_are_gone_are_removed(old):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    parts = {
        f".a.{storage._host()}.{gone.pid}.refimpl-part": False,
        f".a.{storage._host()}.{os.getppid()}.refimpl-part": True,
        f".a.elsewhere.{gone.pid}.refimpl-part": True,
        f".a.{gone.pid}.part": True,
    }
    for name in parts:
        (old / name).write_bytes(b"half")
    storage.write_file(old / "a", b"old a")
    assert {name: (old / name).exists() for name in parts} == parts


@pytest.mark.skipif(os.name != "posix", reason="locks of the system")
def test_one_process_writes_at_a_time_and_what_a_dead_one_left_is_taken_over(tmp_path):
    path, lock = tmp_path / "run.npz", tmp_path / ".run.npz.refimpl-lock"
    lock.write_text("4194304 on elsewhere")
    with storage.locked(path):
        assert lock.read_text().startswith(f"{os.getpid()} on ")
        with pytest.raises(ValueError, match=f"run.npz: process {os.getpid()} on .* is writing it"):
            with storage.locked(path):
                pass
    with storage.locked(path), pytest.raises(KeyError):
        with storage.locked(tmp_path / "other.npz"):
            raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_digest_tells_settings_and_data_apart_and_keeps_no_address():
    x = np.arange(4.0)
    different = [
        (x,), (x.astype("f"),), (x.reshape(2, 2),), (x + 1,), (1,), (1.0,), (True,), ("1",),
        (None,), ((1, 2),), ((1, (2,)),), ({"a": 1},), ({"a": 2},), (make_potential("huber"),),
        (make_potential("huber", delta=2.0),), (small_state(),), ([x, x],), (x, x),
    ]  # fmt: skip
    assert len({storage.digest(*values) for values in different}) == len(different)
    assert storage.digest(object()) == storage.digest(object())
    assert storage.digest(x[::2]) == storage.digest(x[::2].copy())
