"""The consumers in `docs/`, where their languages are installed: files that `compare` reads."""

import shutil
import subprocess
from pathlib import Path

import pytest

import refimpl as ri
from refimpl.verification.cases.golden import SUITE

CONSUMERS = Path(__file__).parents[1] / "docs" / "consumers"
COMMANDS = {
    "octave": (["octave-cli", "--no-gui", "--eval"], "mine.mat"),
    "julia": (["julia", str(CONSUMERS / "consumer.jl")], "mine.npz"),
}


@pytest.mark.parametrize("language", COMMANDS)
@pytest.mark.parametrize("name", ["01-quadratic-tied-zero-identity"])
def test_output_of_another_language_agrees(language, name, tmp_path):
    command, output = COMMANDS[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    case, mine = SUITE / name, tmp_path / output
    arguments = [str(case), str(mine)]
    if language == "octave":
        arguments = [f"addpath('{CONSUMERS}'); consumer('{case}', '{mine}')"]
    subprocess.run([*command, *arguments], check=True, timeout=300, cwd=tmp_path)
    report = ri.compare(case, mine)
    assert report.agrees, str(report)
