"""Copies of golden cases with one number changed, for tests of what must notice."""

import shutil

import numpy as np

from refimpl.storage import npz_bytes, read_arrays
from refimpl.verification.cases.golden import SUITE

TIED, UNTIED, NORMALISED = (
    next(path.name for path in sorted(SUITE.iterdir()) if path.name.startswith(number))
    for number in ("05", "20", "30")
)


def copy_case(name, directory):
    """The directory of a copy of one case."""
    return shutil.copytree(SUITE / name, directory / name)


def output_names(name):
    """The outputs that a case stores."""
    return sorted(read_arrays(SUITE / name / "outputs.npz"))


def change_outputs(case, **changes):
    """Rewrite outputs.npz; an output that is None is left out."""
    outputs = read_arrays(case / "outputs.npz") | changes
    kept = {name: x for name, x in outputs.items() if x is not None}
    (case / "outputs.npz").write_bytes(npz_bytes(kept))


def change_digit(case, output, digit):
    """Add one to a digit of the largest value of an output; the first digit is number 1."""
    x = read_arrays(case / "outputs.npz")[output].copy()
    largest = np.argmax(np.abs(x))
    x.flat[largest] += 10.0 ** (np.floor(np.log10(np.abs(x.flat[largest]))) + 1 - digit)
    change_outputs(case, **{output: x})
