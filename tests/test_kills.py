"""What is killed goes on to the same bits and leaves nothing behind; and the checks of that fail.

`make kills` kills at random, a hundred times.
"""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from kills import chains
from kills.__main__ import main
from kills.jobs import FIGURES, ROOT, TRAINING, contents, differences, environment, unreadable

from refimpl import storage
from refimpl.training import load_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills by signals")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of a training that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    chains.finish(chains.start(TRAINING, folder))
    return folder


def test_training_killed_at_every_kind_of_step_of_writing_resumes_to_the_same_bits(
    reference, tmp_path
):
    for kill_at in (1, 2, 4, 5, 6, 13):
        process = chains.start(TRAINING, tmp_path, kill_at)
        assert process.wait() == -signal.SIGKILL
        process.stderr.close()
        assert unreadable(tmp_path) == []
    assert load_checkpoint(tmp_path / "tiny" / "bilevel" / "checkpoint.npz").epoch > 0
    chains.finish(chains.start(TRAINING, tmp_path))
    assert differences(tmp_path, contents(reference)) == []


def test_what_differs_is_damaged_or_left_behind_is_found(reference, tmp_path):
    expected = contents(reference)
    assert sorted(expected) == [
        f"tiny/bilevel/{name}"
        for name in ("checkpoint.npz", "records.json", "run.npz", "settings.json")
    ]
    folder = tmp_path / "tiny" / "bilevel"
    folder.mkdir(parents=True)
    for path in (reference / "tiny" / "bilevel").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert differences(tmp_path, expected) == []
    arrays = storage.read_arrays(folder / "run.npz")
    arrays["psnr"] = np.nextafter(arrays["psnr"], np.inf)
    (folder / "run.npz").write_bytes(storage.npz_bytes(arrays))
    (folder / ".run.npz.x.1.refimpl-part").write_bytes(b"")
    records = json.loads((folder / "records.json").read_text())
    records[0]["seconds"] += 1
    (folder / "records.json").write_text(json.dumps(records))
    wrong = ["tiny/bilevel/.run.npz.x.1.refimpl-part", "tiny/bilevel/run.npz"]
    assert differences(tmp_path, expected) == wrong
    (folder / "checkpoint.npz").write_bytes(b"PK")
    assert len(unreadable(tmp_path)) == 1 and "checkpoint.npz" in unreadable(tmp_path)[0]


SLEEPING = """
import time
from figures.workers import run_side_by_side
print("begun", flush=True)
for _ in run_side_by_side(time.sleep, [(0.01,), (0.01,), (500,), (500,)]):
    print("working", flush=True)
"""


@pytest.mark.parametrize("number", chains.SIGNALS)
@pytest.mark.parametrize("word", ["begun", "working"])
def test_workers_end_with_the_process_that_started_them(number, word):
    """Killed while they start, and while they work."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPING], cwd=ROOT, env=environment(0), start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert word in (line.strip() for line in process.stdout)
    process.send_signal(number)
    process.wait()
    assert chains.ended(process.pid)
    process.stdout.close()


def test_a_worker_that_is_left_is_found_and_killed(monkeypatch):
    monkeypatch.setattr(chains, "PATIENCE", 0.1)
    code = "import subprocess, sys; subprocess.Popen(['sleep', '500'])"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    process.wait()
    assert not chains.ended(process.pid)
    monkeypatch.setattr(chains, "PATIENCE", 30)
    assert chains.ended(process.pid)


def test_figures_without_a_place_to_write_exit_with_two(tmp_path):
    (tmp_path / "file").touch()
    process = subprocess.run(
        FIGURES.command(tmp_path / "file"), cwd=ROOT, env=environment(0), text=True,
        capture_output=True,
    )  # fmt: skip
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert process.stderr.startswith("figures: error: ") and "file" in process.stderr


def test_command_counts_kills_and_ends(monkeypatch, capsys):
    outcome = chains.Outcome(3, 1, ["training: differs: x"])
    monkeypatch.setattr(chains, "run", lambda *_: outcome)
    assert main(["--training", "3", "--figures", "0"]) == 1
    out = capsys.readouterr().out
    assert "training: differs: x\n" in out and "3 kills, 1 runs resumed to the end, 1 compl" in out
