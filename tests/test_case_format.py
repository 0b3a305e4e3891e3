"""The page on the case format: names, defaults and boundary formulas are those of the code."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from refimpl.paper.operators import BOUNDARIES
from refimpl.paper.operators.padding import index_map
from refimpl.paper.potentials import POTENTIALS
from refimpl.verification.builders import OPERATORS
from refimpl.verification.cases.case import (
    BATCHED,
    FORMAT,
    OPTIONAL_ARRAYS,
    SETTINGS,
)
from refimpl.verification.cases.golden import read_suite

PAGE = (Path(__file__).parents[1] / "docs" / "case-format.md").read_text("utf-8")
ROWS = [
    [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("|")
]
FIRST = {name for row in ROWS for name in re.findall(r"`(\w+)`", row[0])}
BOUNDARY_ROWS = {row[0].strip("`"): row for row in ROWS if len(row) == 6 and row[0] != "name"}


def test_every_setting_array_and_output_has_a_row():
    outputs = {name for golden in read_suite() for name in golden.outputs}
    arrays = {*BATCHED, "A", "C", *OPTIONAL_ARRAYS, *filter(None, OPERATORS.values())}
    assert (set(SETTINGS) | arrays | outputs | set(POTENTIALS) | set(BOUNDARIES)) <= FIRST
    assert f"`{FORMAT}`" in PAGE


def test_unknown_name_has_no_row():
    assert not {"lambda", "vjp_gamma", "mirror"} & FIRST


@pytest.mark.parametrize("name", POTENTIALS)
def test_parameter_and_default_are_stated(name):
    (row,) = (row for row in ROWS if row[0] == f"`{name}`")
    stated = {f"`{f.name}`": f.default for f in fields(POTENTIALS[name])}
    if not stated:
        assert row[1] == "–"
    for parameter, default in stated.items():
        assert row[1].startswith(parameter) and row[1].endswith(f"({default:g})")


@pytest.mark.parametrize("name", BOUNDARIES)
def test_boundary_formula_and_name_in_numpy_are_right(name):
    _, formula, picture, in_numpy, *_ = BOUNDARY_ROWS[name]
    assert in_numpy == f"`{BOUNDARIES[name]}`"
    for n in range(1, 7):
        stated = [eval(formula.strip("`"), {"i": i, "n": n}) for i in range(-9, n + 9)]
        expected = index_map(n, 9, name)
        assert [-1 if p is None else p for p in stated] == expected.tolist()
    letters = np.array(list("abcd0"))[index_map(4, 3, name)]
    assert picture.strip("`") == " ".join("".join(x) for x in np.split(letters, [3, 7]))
