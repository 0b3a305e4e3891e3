"""Outputs from files, and the two commands with their exit codes."""

import json
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import scipy.io

from refimpl import cli
from refimpl.verification.cases import evaluate, write_case
from refimpl.verification.crosscheck import as_text, compare, diagnosis, random_case, smallest

MODULE = """
from planted import DoubleEnergy, ReferenceBackend
right, wrong, nothing = ReferenceBackend(), DoubleEnergy(), object()
class space:
    right = right
print("a backend that prints")
"""


@pytest.fixture(scope="module")
def solved():
    """A tied case with its outputs."""
    case = next(c for c in map(random_case, range(20)) if c.tied and c.potential == "log_cosh")
    return case, evaluate(case).outputs


@pytest.fixture
def directory(solved, tmp_path):
    write_case(tmp_path, *solved)
    return tmp_path


def run(directory, **outputs):
    np.savez(directory / "mine.npz", **outputs)
    return cli.main(["compare", str(directory), str(directory / "mine.npz")])


def test_right_outputs_agree_and_any_subset_does(solved, directory, capsys):
    case, outputs = solved
    assert compare(case, outputs).agrees
    assert run(directory, **outputs) == 0
    assert run(directory, map=outputs["map"]) == 0
    assert "agrees in 1 stages, 10 not offered" in capsys.readouterr().out


def test_wrong_output_disagrees(solved, directory, capsys):
    case, outputs = solved
    assert run(directory, **(outputs | {"jvp": -outputs["jvp"]})) == 1
    shown = capsys.readouterr().out
    assert "first wrong stage: jvp" in shown and "  worst output: jvp\n" in shown


def test_wrong_entry_of_a_stage_is_named(solved, directory, capsys):
    case, outputs = solved
    assert run(directory, **(outputs | {"loss": 2 * outputs["loss"]})) == 1
    assert "  worst output: loss\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda x: x[..., :-1], "wrong_shape"),
        (lambda x: np.full_like(x, np.nan), "not_finite"),
        (lambda x: x.astype(np.float32), "wrong_dtype"),
        (lambda x: x.astype(str), "wrong_type"),
        (lambda x: x + 1j, "wrong_type"),
    ],
)
def test_output_of_a_wrong_kind_disagrees(change, cause, solved, directory, capsys):
    case, outputs = solved
    assert run(directory, map=change(outputs["map"])) == 1
    assert cause in capsys.readouterr().out


def test_python_float_is_a_loss_in_any_precision(solved):
    case = random_case(0, precision="float32")
    loss = np.asarray(float(evaluate(case).outputs["loss"]))
    report = compare(case, {"loss": loss})
    assert report.agrees, as_text(report)


@pytest.mark.parametrize("outputs", [{}, {"mpa": np.zeros(3)}, {"vjp_C": np.zeros(3)}], ids=str)
def test_no_or_unknown_outputs_exit_with_two(outputs, directory, capsys):
    assert run(directory, **outputs) == 2
    out, err = capsys.readouterr()
    assert out == "" and "given" in err and err.count("\n") == 1


def test_unreadable_files_exit_with_two(directory, capsys):
    path = directory / "bad.npz"
    for content in (b"", b"PK\x03\x04", (directory / "outputs.npz").read_bytes()[:200]):
        path.write_bytes(content)
        assert cli.main(["compare", str(directory), str(path)]) == 2
    assert cli.main(["compare", str(directory), str(directory / "none.npz")]) == 2
    assert cli.main(["compare", str(path), str(directory / "outputs.npz")]) == 2
    np.savez(path, map=np.array([object()], dtype=object))
    assert cli.main(["compare", str(directory), str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 6 and "npz" in err


def as_matlab(x):
    """An array as MATLAB has it: at least two axes, none of length 1 at the end."""
    while np.ndim(x) > 2 and np.shape(x)[-1] == 1:
        x = x[..., 0]
    return x


def test_files_of_other_languages_are_read(solved, directory, tmp_path, capsys):
    case, outputs = solved
    scipy.io.savemat(tmp_path / "mine.mat", {k: as_matlab(x) for k, x in outputs.items()})
    (tmp_path / "mine").mkdir()
    for name, x in outputs.items():
        np.save(tmp_path / "mine" / f"{name}.npy", np.asfortranarray(x.astype(">f8")))
    for mine in ("mine.mat", "mine"):
        report = compare(directory, tmp_path / mine)
        assert report.agrees and str(report) == as_text(report), str(report)
        assert cli.main(["compare", str(directory), str(tmp_path / mine)]) == 0
    loss = {"loss": outputs["loss"].reshape(1, 1)}
    assert compare(case, loss).agrees and not compare(case, {"loss": np.ones(2)}).agrees


def test_axes_in_reverse_order_are_named_and_values_judged(solved):
    case, outputs = solved
    stage = compare(case, {"map": outputs["map"].transpose()}).first_wrong
    assert stage.causes[0] == "axes_reversed" and stage.digits > 12
    written = outputs["map"].ravel("F").reshape(outputs["map"].shape)
    assert compare(case, {"map": written}).first_wrong.causes[0] == "axes_reversed"


def test_files_that_are_no_outputs_are_refused(directory, tmp_path, capsys):
    objects, strange = tmp_path / "objects.mat", tmp_path / "strange"
    scipy.io.savemat(objects, {"map": np.array([[1, "x"]], dtype=object)})
    (tmp_path / "damaged.mat").write_bytes(objects.read_bytes()[:150])
    strange.mkdir()
    for path, reason in (
        (objects, "map (cell)"),
        (tmp_path / "damaged.mat", "not a mat file"),
        (tmp_path / "none.mat", "missing"),
        (strange, "is empty"),
    ):
        assert cli.main(["compare", str(directory), str(path)]) == 2
        assert reason in capsys.readouterr().err
    np.save(strange / "map.npy", np.array([object()]))
    assert cli.main(["compare", str(directory), str(strange)]) == 2
    (strange / "notes.txt").write_text("x")
    assert cli.main(["compare", str(directory), str(strange)]) == 2
    assert "'notes.txt'" in capsys.readouterr().err


def test_json_and_junit_of_a_comparison(directory, tmp_path, capsys):
    arguments = ["compare", str(directory), str(directory / "outputs.npz"), "--json"]
    assert cli.main([*arguments, "--junit", str(tmp_path / "report.xml")]) == 0
    assert json.loads(capsys.readouterr().out)["agrees"] is True
    assert ET.parse(tmp_path / "report.xml").getroot().get("failures") == "0"


@pytest.fixture
def backends(tmp_path, monkeypatch):
    """A directory to work in, with a module of backends."""
    (tmp_path / "my_backends.py").write_text(MODULE, "utf-8")
    (tmp_path / "broken_backend.py").write_text("1 / 0", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(smallest, "SECONDS", 0.0)
    monkeypatch.setattr(diagnosis, "SECONDS", 0.0)
    yield tmp_path
    sys.modules.pop("my_backends", None)


FEW = ["--cases", "2", "--time-limit", "120", "--budget", "600", "--stages", "apply,energy"]


def test_crosscheck_of_a_right_backend_exits_with_zero(backends, capsys):
    assert cli.main(["crosscheck", "my_backends:space.right", *FEW]) == 0
    out, err = capsys.readouterr()
    assert "agrees in 2 stages" in out and "a backend that prints" in err
    assert "apply agrees" in err


def test_crosscheck_of_a_wrong_backend_exits_with_one_and_writes(backends, capsys):
    arguments = ["crosscheck", "my_backends:wrong", *FEW, "--json", "--out", "failures"]
    assert cli.main([*arguments, "--junit", "report.xml", "--precision", "float32"]) == 1
    plain = json.loads(capsys.readouterr().out)
    assert plain["first_wrong"] == "energy" and plain["backend"] == "my_backends:wrong"
    written = sorted(path.name for path in (backends / "failures" / "energy").iterdir())
    assert written == ["backend.npz", "case.json", "inputs.npz", "outputs.npz"]
    assert cli.main(["compare", "failures/energy", "failures/energy/backend.npz"]) == 1
    assert (backends / "report.xml").is_file()


def test_settings_that_every_case_has_are_read(backends, capsys):
    assert cli.main(["crosscheck", "my_backends:space.right", *FEW, "--only", "tied=false"]) == 0
    assert "energy: no case has it, or the backend offers it for none" in capsys.readouterr().out


def test_setting_without_a_value_is_refused(backends, capsys):
    assert cli.main(["crosscheck", "my_backends:right", "--only", "tied"]) == 2
    assert "'tied' has no =" in capsys.readouterr().err


def test_accuracy_that_code_is_meant_to_reach_is_an_option(backends, capsys):
    arguments = ["crosscheck", "my_backends:space.right", *FEW[:-2], "--stages", "fixed_point"]
    assert cli.main([*arguments, "--tol", "1e-5", "--json"]) == 0
    stage = json.loads(capsys.readouterr().out)["stages"][-2]
    assert stage["stage"] == "fixed_point" and stage["expected_digits"] < 6


def test_misspelt_object_is_answered_with_the_nearest_name(backends, capsys):
    assert cli.main(["crosscheck", "my_backends:rigth"]) == 2
    assert "there is no 'rigth'; did you mean 'right'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["no_such_module:x"],
        ["my_backends:missing"],
        ["my_backends:right.missing"],
        ["my_backends:nothing"],
        ["broken_backend:x"],
        [":x"],
        ["my_backends:"],
        ["my_backends:right", "--only", "tied=perhaps"],
        ["my_backends:right", "--stages", "map"],
        ["my_backends:right", "--cases", "0"],
        ["my_backends:right", "--time-limit", "0"],
    ],
    ids=" ".join,
)
def test_bad_input_of_crosscheck_exits_with_two(arguments, backends, capsys):
    assert cli.main(["crosscheck", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "refimpl: error: " in err.splitlines()[-1]
