"""`refimpl train`: models from folders, resuming, interruptions, two at once, bad input."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from architecture import ROOT

from refimpl import cli, storage
from refimpl.images import write_image
from refimpl.training import load_checkpoint, load_model, train

SHORT = ["--noise-level", "25/255", "--crop", "12", "--batch-size", "2", "--evaluate-every", "3",
         "--potential", "log_cosh:30", "--warm-up", "2"]  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    """One photograph of blocks, 26 × 40, in a folder of its own."""
    path = tmp_path / "photos"
    path.mkdir()
    rng = np.random.default_rng(4)
    blocks = np.kron(rng.uniform(size=(5, 7)), np.ones((6, 6)))[:26, :40]
    write_image(path / "a.png", (255 * blocks).astype(np.uint8))
    return path


def call(folder: Path, *arguments: str) -> int:
    out = folder.parent / "model.npz"
    return cli.main(["train", str(folder), *SHORT, "-o", str(out), *arguments])


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


def test_one_photograph_gives_a_model_and_lines_with_loss_and_quality(folder, capsys):
    assert call(folder, "--steps", "6") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "step 3, loss " in lines[0] and "held out " in lines[0] and "total variation" in lines[0]
    assert "not converged: the limit of 6 steps" in lines[-1]
    assert left(folder) == ["model.npz"]
    model = load_model(folder.parent / "model.npz")
    assert model.theta.tied and model.noise_level == 25 / 255 and len(model.records) == 3
    assert model.provenance["command"].startswith("refimpl train ")
    assert model.provenance["command"].endswith("model.npz --steps 6")
    assert (model.provenance["images"], model.provenance["seed"]) == (1, 0)


def test_it_is_the_function_with_the_same_options(folder):
    from refimpl.images import read_image
    from refimpl.paper.potentials import Huber

    options = ["--steps", "3", "--potential", "huber:0.05", "--untied", "--filters", "4", "3", "3",
               "--trained", "A,C,b", "--rates", "b=2", "--start", "random", "--seed", "5",
               "--problem", "inpaint", "--missing", "0.2", "--schedule", "cosine"]  # fmt: skip
    assert call(folder, *options) == 0
    found = load_model(folder.parent / "model.npz")
    expected = train(
        [read_image(folder / "a.png").pixels], 25 / 255, crop=12, batch_size=2, evaluate_every=3,
        warm_up=2, max_steps=3, potential=Huber(0.05), tied=False, filters=(4, 3, 3),
        trained=("A", "C", "b"), rates={"b": 2.0}, start="random", seed=5, operator=0.2,
        schedule="cosine",
    )  # fmt: skip
    np.testing.assert_allclose(found.theta.A, expected.theta.A, rtol=1e-6)
    assert not found.theta.tied


def test_images_of_other_sizes_are_tested_on_and_a_blur_is_read(folder):
    for number, shape in enumerate([(20, 31), (30, 18), (16, 16), (25, 25), (19, 40)]):
        write_image(folder / f"b{number}.png", np.full(shape, number / 5))
    write_image(folder.parent / "psf.png", np.full((3, 3), 200, np.uint8))
    psf = str(folder.parent / "psf.png")
    assert call(folder, "--steps", "3", "--problem", "deconvolve", "--psf", psf) == 0
    record = load_model(folder.parent / "model.npz").records[0]
    assert record["psnr_test"] > 10 and "psnr_test_total_variation" in record


CHILD = """
import signal
import sys
from refimpl import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
sys.exit(cli.main(sys.argv[1:]))
"""


def started(folder: Path, *arguments: str) -> subprocess.Popen:
    """The command in a process of its own, once its first checkpoint is there."""
    out = folder.parent / "model.npz"
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, "train", str(folder), *SHORT, "-o", str(out), *arguments],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    # Polled, for the process has no other sign of its first checkpoint.
    while not (folder.parent / "model.npz.checkpoint").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process


@pytest.mark.skipif(os.name != "posix", reason="signals and locks")
def test_ctrl_c_keeps_the_best_and_a_second_process_is_refused(folder, capsys):
    process = started(folder, "--steps", "100000", "--window", "100000")
    assert call(folder, "--resume") == 2
    refused = capsys.readouterr().err
    assert f"process {process.pid} on " in refused and "is writing it; wait" in refused
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130 and "interrupted after" in out and "--resume goes on" in out
    assert left(folder) == ["model.npz", "model.npz.checkpoint"]
    assert load_model(folder.parent / "model.npz").ended.startswith("interrupted")


@pytest.mark.skipif(os.name != "posix", reason="signals and locks")
def test_a_killed_training_resumes_to_the_same_bits_and_leaves_nothing_behind(folder):
    assert call(folder, "--steps", "30") == 0
    out = folder.parent / "model.npz"
    whole = load_model(out)
    out.unlink()
    process = started(folder, "--steps", "30")
    process.kill()
    process.communicate()
    part = folder.parent / f".model.npz.{storage._host()}.{process.pid}.refimpl-part"
    part.write_bytes(b"what a kill leaves")
    assert call(folder, "--steps", "30", "--resume") == 0
    assert left(folder) == ["model.npz"]
    for (_, x), (_, y) in zip(whole.theta.items(), load_model(out).theta.items(), strict=True):
        np.testing.assert_array_equal(x, y)


def stopped(folder: Path, monkeypatch) -> Path:
    """The checkpoint of a training that was interrupted."""
    save = storage.keep

    def keep(path, *content):
        save(path, *content)
        if str(path).endswith(".checkpoint"):
            raise KeyboardInterrupt

    monkeypatch.setattr("refimpl.training.checkpoints.keep", keep)
    assert call(folder, "--steps", "30") == 130
    monkeypatch.undo()
    return folder.parent / "model.npz.checkpoint"


def test_a_checkpoint_without_resume_is_not_written_over(folder, monkeypatch, capsys):
    checkpoint = stopped(folder, monkeypatch)
    before = checkpoint.read_bytes()
    assert call(folder, "--steps", "30") == 2
    assert "a training stopped here; add --resume" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("arguments", [["--seed", "1"], ["--steps", "9"], ["--untied"]])
def test_resuming_with_other_settings_is_refused(arguments, folder, monkeypatch, capsys):
    stopped(folder, monkeypatch)
    assert call(folder, "--steps", "30", "--resume", *arguments) == 2
    assert "the checkpoint is of other settings" in capsys.readouterr().err


def test_resuming_with_other_data_or_a_damaged_checkpoint_is_refused(folder, monkeypatch, capsys):
    checkpoint = stopped(folder, monkeypatch)
    whole = checkpoint.read_bytes()
    half, changed = whole[: len(whole) // 2], bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for content in (half, bytes(changed), b""):
        checkpoint.write_bytes(content)
        assert call(folder, "--steps", "30", "--resume") == 2
        assert "model.npz.checkpoint: not a complete npz" in capsys.readouterr().err
    checkpoint.write_bytes(whole)
    photo = np.full((26, 40), 128, np.uint8)
    photo[::2] += 1
    write_image(folder / "a.png", photo)
    assert call(folder, "--steps", "30", "--resume") == 2
    assert "of other settings, images, data" in capsys.readouterr().err


def test_a_full_disk_keeps_the_last_checkpoint(folder, monkeypatch, capsys):
    checkpoint = stopped(folder, monkeypatch)
    before = load_checkpoint(checkpoint).epoch

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_write_through", full)
    assert call(folder, "--steps", "30", "--resume") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert load_checkpoint(checkpoint).epoch == before
    assert left(folder) == ["model.npz", "model.npz.checkpoint"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problem", "deconvolve"], "needs --psf FILE"),
        (["--potential", "cubic"], "given 'cubic', expected one of"),
        (["--start", "none.npz"], "'none.npz' is no file"),
        (["--start", "dct"], "start: given 'dct'"),
        (["--trained", "lam"], "given ['lam'], expected names among"),
        (["--test", "1"], "--test: given 1, expected less than the 1 images"),
        (["--crop", "30"], "number 0 is (26, 40), crops are (30, 30)"),
        (["--colour"], "is grey, expected 3 colour channels"),
        (["--steps", "-1"], "max_steps: given -1"),
        (["--problem", "inpaint", "--missing", "1"], "operator: given 1.0, expected the part of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_exits_with_two_and_one_line(arguments, words, folder, capsys):
    assert call(folder, *arguments) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and left(folder) == []


@pytest.mark.parametrize(
    "arguments", [["--noise-level", "x"], ["--rates", "A"], ["--filters", "3"]]
)
def test_wrong_arguments_are_named(arguments, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        call(folder, *arguments)
    assert stop.value.code == 2 and arguments[0] in capsys.readouterr().err
