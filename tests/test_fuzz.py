"""Random calls find no fault in the package; the drawing is repeatable, and each fault is seen.

`make fuzz` calls ten thousand times.
"""

import json
import os
import signal
import sys
import time

import numpy as np
import pytest
from fuzz import files, functions, values, verdicts
from fuzz.__main__ import draw, judged

import refimpl
from refimpl import cli
from refimpl.results import NotConvergedError

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="alarms end hangs")

CALLS = 400


def test_random_calls_are_answered_or_refused_in_one_line():
    seen = list(judged(2, range(CALLS)))
    faults = [(n, said, v.said) for n, said, v in seen if v.outcome == "fault"]
    assert faults == []
    outcomes = [v.outcome for _, _, v in seen]
    assert outcomes.count("answered") > CALLS // 20 and outcomes.count("refused") > CALLS // 2


def test_every_public_callable_is_called_and_has_arguments_that_fit():
    public = {name for name in dir(refimpl) if callable(getattr(refimpl, name))}
    assert public <= functions.public().keys() | set(functions.LEFT_OUT)
    for name, function in functions.public().items():
        for parameter in functions.parameters(function):
            assert functions.fit(name, parameter.name), f"{name}.{parameter.name}"


def test_calls_are_the_same_for_the_same_number(tmp_path):
    for number in range(40):
        said = []
        for turn in "ab":
            folder = tmp_path / f"{number}{turn}"
            folder.mkdir()
            said.append(str(draw(np.random.default_rng((0, number)), folder)))
        assert said[0] == said[1]


@pytest.mark.parametrize("name", files.READERS)
def test_readers_accept_what_nobody_spoilt(name, tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    rng = np.random.default_rng(0)
    if name == "arguments":
        (folder / "arguments").write_text(json.dumps(["data"]))
    elif name.removeprefix("load_") in ("model", "run", "checkpoint"):
        files.kept_file(folder, name.removeprefix("load_") + ".npz", _Steady())
    else:
        files.case_files(folder, rng)
    if name == "golden":
        return  # its outputs are made up, and found wrong
    assert verdicts.judge(files.Reading(name, files.READERS[name], folder), 60).outcome in (
        "answered",
        "refused" if name == "compare" else "answered",
    )


class _Steady:
    """A generator that always draws 0.5."""

    def random(self):
        return 0.5


def refuse():
    raise ValueError("not here")


FAULTS = {
    "attribute": lambda: None.shape,
    "length": lambda: len(3),
    "key": lambda: {}["a"],
    "index": lambda: [][0],
    "recursion": lambda: json.loads("[" * 10**5),
    "numpy": lambda: np.ones(2) + np.ones(3),
    "raised elsewhere": refuse,
    "hang": lambda: time.sleep(5),
    "exit": lambda: sys.exit(3),
    "memory": lambda: (_ for _ in ()).throw(MemoryError()),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_seen(name):
    verdict = verdicts.judge(FAULTS[name], 0.5)
    assert verdict.outcome == "fault" and verdict.said


MESSAGES = {
    "good": (ValueError("y: shape is (3,), expected (N, C, H, W)"), True),
    "not converged": (NotConvergedError("no fixed point"), True),
    "key": (KeyError("y"), False),
    "empty": (ValueError(""), False),
    "two lines": (ValueError("y is\nwrong"), False),
    "handed on": (ValueError("x.npz: not a run (object of type 'int' has no len())"), False),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_the_package_raises_is_judged_by_type_and_words(name, monkeypatch):
    error, good = MESSAGES[name]
    monkeypatch.setattr(verdicts, "PACKAGE", os.path.dirname(__file__))

    def raises():
        raise error

    assert verdicts.judge(raises, 5).outcome == ("refused" if good else "fault")


@pytest.mark.parametrize(
    ("code", "said", "fault"),
    [(0, "", False), (2, "refimpl: error: no such file\n", False), (3, "", True), (2, "", True),
     (2, "refimpl: error: object is not iterable\n", True), (1, "Traceback\n", True)],
)  # fmt: skip
def test_commands_are_judged_by_exit_code_and_last_line(code, said, fault):
    def main(arguments):
        print(said, end="", file=sys.stderr)
        return code

    verdict = verdicts.judge(lambda: verdicts.command(main, []), 5)
    assert (verdict.outcome == "fault") == fault
    assert verdicts.judge(lambda: verdicts.command(cli.main, ["data"]), 60).outcome == "answered"


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_values_that_do_not_fit_are_many_and_changes_are_varied():
    assert len(values.misfits()) > 80
    rng = np.random.default_rng(0)
    changes = [values.changed_array(values.world().batch, rng) for _ in range(200)]
    kinds = {(getattr(x, "dtype", None), getattr(x, "shape", None)) for x in changes}
    assert len(kinds) > 20
