"""The consumer in JavaScript reads the golden suite, computes the same numbers, notices others."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from golden_copies import (
    NORMALISED,
    TIED,
    UNTIED,
    change_digit,
    copy_case,
    output_names,
)

from refimpl.storage import read_arrays
from refimpl.verification.cases.golden import RECIPES, SUITE

PROGRAM = Path(__file__).parent / "consumer" / "consumer.mjs"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None, reason="the consumer is written in JavaScript; install node to run it"
)


def consumer(*folders):
    """Exit code, rows of words and standard error of the consumer on case directories."""
    done = subprocess.run([NODE, PROGRAM, *folders], capture_output=True, text=True, timeout=300)
    return done.returncode, [line.split() for line in done.stdout.splitlines()], done.stderr


def test_consumer_agrees_on_every_output_of_the_suite():
    code, rows, err = consumer(*(SUITE / name for name in RECIPES))
    assert code == 0 and err == "", rows
    compared = {(Path(folder).name, output) for folder, output, _, verdict in rows}
    assert compared == {(name, output) for name in RECIPES for output in output_names(name)}
    assert all(verdict == "agrees" for *_, verdict in rows)


@pytest.mark.parametrize("name", [TIED, UNTIED, NORMALISED])
def test_changed_digit_is_noticed_in_every_output(name, tmp_path):
    outputs = output_names(name)
    copies = [copy_case(name, tmp_path / output) for output in outputs]
    for copy, output in zip(copies, outputs, strict=True):
        change_digit(copy, output, digit=7)
        code, rows, _ = consumer(copy)
        assert code == 1 and [row[1] for row in rows if row[3] == "DIFFERS"] == [output]


@pytest.mark.parametrize("setting", ['"reflect"', '"half_squared_relu"', '"tau": 0.25'])
def test_another_setting_is_noticed(setting, tmp_path):
    other = {'"reflect"': '"zero"', '"half_squared_relu"': '"quadratic"', '"tau": 0.25': '"tau": 1'}
    copy = copy_case(TIED, tmp_path)
    text = (copy / "case.json").read_text("utf-8")
    assert setting in text
    (copy / "case.json").write_text(text.replace(setting, other[setting]), "utf-8")
    assert consumer(copy)[0] == 1


def test_files_that_cannot_be_used_exit_with_two(tmp_path):
    names = ("packed", "single", "cut", "gone", "other", "empty")
    packed, single, cut, gone, other, empty = (copy_case(TIED, tmp_path / name) for name in names)
    arrays = read_arrays(packed / "inputs.npz")
    np.savez_compressed(packed / "inputs.npz", **arrays)
    np.savez(single / "inputs.npz", **{name: x.astype(np.float32) for name, x in arrays.items()})
    (cut / "inputs.npz").write_bytes((cut / "inputs.npz").read_bytes()[:1000])
    (gone / "case.json").unlink()
    np.savez(empty / "outputs.npz")
    text = (other / "case.json").read_text("utf-8")
    (other / "case.json").write_text(text.replace("refimpl-case/1", "refimpl-case/2"), "utf-8")
    for case, words in (
        (packed, "compressed"),
        (single, "neither float64 nor bool"),
        (cut, "no zip file"),
        (gone, "no such file"),
        (other, "another format"),
        (empty, "no outputs"),
    ):
        code, rows, err = consumer(case)
        assert code == 2 and rows == [] and words in err


def test_without_cases_the_consumer_does_not_agree():
    assert consumer()[0] == 1
