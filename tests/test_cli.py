"""The command line: what it prints, what it writes, and its exit codes."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from case_factory import make_case

import refimpl.training
import refimpl.verification.identities
from refimpl import cli
from refimpl.experiments import EXPERIMENTS, METHODS, dense_experiment, load_run
from refimpl.results import Check
from refimpl.training import TrainingSettings
from refimpl.verification.cases import write_case


def run_python(code):
    """Standard output of a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["oracle", "--help"]])
def test_help_and_version_exit_with_zero(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0 and "refimpl" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["oracle"],
        ["oracle", "a", "b"],
        ["verify", "--seed", "-1"],
        ["verify", "--seed", "x"],
        ["experiment"],
        ["experiment", "NAME", "--list"],
        ["data", "--unknown"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_exit_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and "error:" in err


def test_light_commands_import_neither_numba_nor_scikit_image():
    code = "from refimpl import cli; cli.main(['data']); import sys; print(sorted(sys.modules))"
    modules = run_python(code)
    assert "'refimpl.images'" in modules
    assert "'numba'" not in modules and "'skimage'" not in modules


def checks(*measured):
    return lambda seed: iter([Check(f"identity {m} of seed {seed}", m, 1e-12) for m in measured])


def test_verify_prints_every_identity_and_exits_with_zero(monkeypatch, capsys):
    monkeypatch.setattr(refimpl.verification.identities, "all_checks", checks(0.0, 1e-13))
    assert cli.main(["verify", "--seed", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["identity", "measured", "bound", "verdict"]
    assert lines[2].split() == "identity 1e-13 of seed 7 1.00e-13 1.00e-12 holds".split()
    assert lines[-1] == "2 identities, 0 failed"


@pytest.mark.parametrize("wrong", [1e-11, np.nan, np.inf])
def test_verify_exits_with_one_when_an_identity_fails(wrong, monkeypatch, capsys):
    monkeypatch.setattr(refimpl.verification.identities, "all_checks", checks(0.0, wrong, 1e-13))
    assert cli.main(["verify"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["holds", "FAILS", "holds"]
    assert lines[-1] == "3 identities, 1 failed"


def test_verify_without_identities_fails(monkeypatch):
    monkeypatch.setattr(refimpl.verification.identities, "all_checks", checks())
    assert cli.main(["verify"]) == 1


def test_oracle_writes_where_it_is_told_and_prints_the_errors(tmp_path, capsys):
    write_case(tmp_path / "case", make_case("quadratic", operator="mask"))
    assert cli.main(["oracle", str(tmp_path / "case"), "--out", str(tmp_path / "new" / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "case").iterdir()) == ["case.json", "inputs.npz"]
    written = sorted(p.name for p in (tmp_path / "new" / "out").iterdir())
    assert written == ["outputs.npz", "report.json"]
    out = capsys.readouterr().out
    assert "hypergradient_weights" in out and "unknown" in out and "14 outputs" in out


def test_oracle_that_cannot_write_exits_with_two(tmp_path, capsys):
    write_case(tmp_path, make_case("quadratic"))
    assert cli.main(["oracle", str(tmp_path), "--out", str(tmp_path / "case.json")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("refimpl: error: ") and err.count("\n") == 1


def test_data_lists_the_sets(capsys, tmp_path):
    assert cli.main(["data", "--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == "name faces photograph_crops mnist folder".split()


def test_closed_pipe_ends_without_a_traceback():
    command = f"{sys.executable} -m refimpl experiment --list | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


def test_experiment_list_names_every_preset(capsys):
    assert cli.main(["experiment", "--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == list(EXPERIMENTS)


@pytest.mark.parametrize("arguments", [["dense-denoising"], ["tiny", "--method", "best"]])
def test_unknown_experiment_or_method_exits_with_two(arguments, tiny, capsys):
    assert cli.main(["experiment", *arguments, "--out", str(tiny)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "is unknown" in err and err.count("\n") == 1
    assert not list(tiny.iterdir())


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A preset that trains in a moment, as "tiny"; and an empty directory."""
    experiment = replace(
        dense_experiment("denoising", "relu", 0.1),
        name="tiny",
        filters=(5,),
        train_images=2,
        test_images=1,
        training=TrainingSettings(epochs=3, trained=("A", "C")),
    )
    monkeypatch.setitem(EXPERIMENTS, "tiny", experiment)
    return tmp_path


@pytest.mark.parametrize("method", METHODS)
def test_experiment_keeps_settings_records_and_parameters(method, tiny, capsys):
    assert cli.main(["experiment", "tiny", "--method", method, "--out", str(tiny)]) == 0
    directory = tiny / "tiny" / method
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["checkpoint.npz", "records.json", "run.npz", "settings.json"]
    settings = json.loads((directory / "settings.json").read_text("utf-8"))
    assert settings["method"] == method and settings["training"]["epochs"] == 3
    records = json.loads((directory / "records.json").read_text("utf-8"))
    assert [r["epoch"] for r in records] == [0, 1, 2, 3]
    assert load_run(directory / "run.npz").parameters.tied == (method == "bilevel")
    out = capsys.readouterr().out
    assert f"tiny {method}: epoch 3/3, loss " in out and "PSNR" in out


def test_untied_training_starts_from_a_tied_solution_that_is_there(tiny, capsys):
    assert cli.main(["experiment", "tiny", "--out", str(tiny)]) == 0
    before = (tiny / "tiny" / "bilevel" / "run.npz").read_bytes()
    assert cli.main(["experiment", "tiny", "--method", "deq_from_bilevel", "--out", str(tiny)]) == 0
    assert (tiny / "tiny" / "bilevel" / "run.npz").read_bytes() == before
    first = json.loads((tiny / "tiny/deq_from_bilevel/records.json").read_text("utf-8"))[0]
    tied = json.loads((tiny / "tiny/bilevel/records.json").read_text("utf-8"))
    best = min(record["loss_train"] for record in tied)
    # Both are the loss at one θ, at fixed points solved to 1e-5 from different starts.
    assert first["loss_train"] == pytest.approx(best, rel=1e-3)


def test_interrupted_experiment_resumes_to_the_same_bits(tiny, monkeypatch, capsys):
    whole, parts = tiny / "whole", tiny / "parts"
    assert cli.main(["experiment", "tiny", "--out", str(whole)]) == 0
    save = refimpl.training.save_checkpoint

    def save_and_interrupt(path, progress):
        save(path, progress)
        if progress.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(refimpl.training, "save_checkpoint", save_and_interrupt)
        assert cli.main(["experiment", "tiny", "--out", str(parts)]) == 130
    assert not (parts / "tiny" / "bilevel" / "run.npz").exists()
    assert cli.main(["experiment", "tiny", "--out", str(parts), "--resume"]) == 0
    A = [load_run(folder / "tiny/bilevel/run.npz").parameters.A for folder in (whole, parts)]
    assert np.array_equal(*A)


def test_experiment_does_not_replace_results_unasked(tiny, capsys):
    arguments = ["experiment", "tiny", "--out", str(tiny)]
    assert cli.main(arguments) == 0
    assert cli.main(arguments) == 2
    assert "add --resume" in capsys.readouterr().err


def test_resuming_with_other_settings_exits_with_two(tiny, monkeypatch, capsys):
    arguments = ["experiment", "tiny", "--out", str(tiny)]
    assert cli.main(arguments) == 0
    monkeypatch.setitem(EXPERIMENTS, "tiny", replace(EXPERIMENTS["tiny"], seed=1))
    assert cli.main([*arguments, "--resume"]) == 2
    assert "not the settings of this preset" in capsys.readouterr().err


def test_damaged_checkpoint_exits_with_two(tiny, capsys):
    arguments = ["experiment", "tiny", "--out", str(tiny)]
    assert cli.main(arguments) == 0
    (tiny / "tiny" / "bilevel" / "checkpoint.npz").write_bytes(b"PK")
    assert cli.main([*arguments, "--resume"]) == 2
    assert "checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(("call", "good"), [("fsync", 5), ("replace", 2)])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_disk_that_fails_half_way_exits_with_two_and_training_goes_on_later(
    call, good, number, tiny, monkeypatch, capsys
):
    whole, parts = tiny / "whole", tiny / "parts"
    assert cli.main(["experiment", "tiny", "--out", str(whole)]) == 0
    calls, real = [], getattr(os, call)

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) > good:  # the settings and one checkpoint are there
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    arguments = ["experiment", "tiny", "--out", str(parts)]
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        capsys.readouterr()
        assert cli.main([*arguments, "--resume"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("refimpl: error: ") and err.count("\n") == 1 and ".npz" in err
    names = sorted(path.name for path in (parts / "tiny" / "bilevel").iterdir())
    assert names == ["checkpoint.npz", "settings.json"]
    assert cli.main([*arguments, "--resume"]) == 0
    A = [load_run(folder / "tiny/bilevel/run.npz").parameters.A for folder in (whole, parts)]
    assert np.array_equal(*A)


@pytest.mark.parametrize("name", ["settings.json", "checkpoint.npz", "run.npz", "records.json"])
def test_directory_in_place_of_a_file_exits_with_two(name, tiny, capsys):
    (tiny / "tiny" / "bilevel" / name).mkdir(parents=True)
    assert cli.main(["experiment", "tiny", "--out", str(tiny), "--resume"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("refimpl: error: ") and err.count("\n") == 1 and name in err


@pytest.mark.parametrize("content", [b"[" * 10**5, b"\xff", b"{}", b"7"])
def test_damaged_settings_exit_with_two(content, tiny, capsys):
    arguments = ["experiment", "tiny", "--out", str(tiny), "--resume"]
    (tiny / "tiny" / "bilevel").mkdir(parents=True)
    (tiny / "tiny" / "bilevel" / "settings.json").write_bytes(content)
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert "settings.json: not" in err and err.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_to_a_full_disk_exits_with_two():
    command = f"{sys.executable} -m refimpl experiment --list > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("refimpl: error: ")


def test_start_without_fixed_point_exits_with_one(tiny, monkeypatch, capsys):
    hopeless = replace(EXPERIMENTS["tiny"].tied_solvers, forward_max_iterations=1)
    monkeypatch.setitem(EXPERIMENTS, "tiny", replace(EXPERIMENTS["tiny"], tied_solvers=hopeless))
    assert cli.main(["experiment", "tiny", "--out", str(tiny)]) == 1
    assert "no fixed point at the start" in capsys.readouterr().err


def test_progress_bar_on_a_terminal(tiny, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["experiment", "tiny", "--out", str(tiny)]) == 0
    out, err = capsys.readouterr()
    assert "epoch 1/3" not in out and "100%" in err and "loss" in err


def test_records_with_nan_are_written_as_null(tmp_path):
    cli.write_json(tmp_path / "records.json", ({"loss": float("nan"), "epoch": 1},))
    written = json.loads((tmp_path / "records.json").read_text("utf-8"))
    assert written == [{"loss": None, "epoch": 1}]
    assert os.listdir(tmp_path) == ["records.json"]
