"""The example of computed tomography runs, and its projector is what it says it is."""

import re
from pathlib import Path

import numpy as np
import pytest
from skimage.transform import radon

import refimpl as ri
from strategies import generator

TEXT = (Path(__file__).parents[1] / "docs" / "tomography.md").read_text(encoding="utf-8")
PROJECTOR, EXAMPLE = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)


@pytest.fixture(scope="module")
def names() -> dict:
    """What the first block defines."""
    found: dict = {}
    exec(compile(PROJECTOR, "tomography.md", "exec"), found)
    return found


@pytest.mark.parametrize("angle", [0, 0.3, np.pi / 4, 1.2, np.pi / 2, 2.0, 3.0])
def test_a_ray_has_the_length_of_its_chord(names, angle):
    size, i = 33, np.arange(33) - 16
    disc = (np.add.outer(i**2, i**2) <= 12**2).astype(float)
    lengths = names["joseph"](size, [angle]) @ disc.ravel()
    chords = 2 * np.sqrt(np.maximum(12.0**2 - i**2, 0))
    # Each end of a chord is known to about a pixel, near the edge of the disc to a few.
    assert np.abs(lengths - chords)[abs(i) < 9].max() <= 3
    assert np.abs(lengths - chords).mean() <= 1


def test_views_along_rows_and_columns_are_their_sums(names):
    u = generator(0).random((8, 8))
    views = (names["joseph"](8, [0, np.pi / 2]) @ u.ravel()).reshape(2, 8)
    np.testing.assert_allclose(views[0], u.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(views[1], u.sum(axis=0)[::-1], rtol=1e-12)


def test_it_agrees_with_the_radon_transform_of_scikit_image(names):
    i = np.arange(64) - 31.5
    u = np.exp(-np.add.outer((i - 5) ** 2 / 60, (i + 8) ** 2 / 200))
    angles = np.pi * np.arange(12) / 12
    ours = (names["joseph"](64, angles) @ u.ravel()).reshape(12, 64)
    # Its centre is pixel 32, ours half a pixel before; its angles count from the vertical.
    theirs = radon(u, 90 - np.degrees(angles), circle=False)
    middle = theirs.shape[0] // 2
    for view, other in zip(ours, theirs.T):
        line = other[middle - 33 : middle + 33]
        same = max(
            np.corrcoef(view, x[k : k + 64])[0, 1] for x in (line, line[::-1]) for k in range(3)
        )
        assert same > 0.998
        assert view.sum() == pytest.approx(u.sum(), rel=0.01)


def test_the_example_reconstructs_the_photograph(names, capsys):
    exec(compile(EXAMPLE, "tomography.md", "exec"), names)
    assert names["star"].all_converged
    assert ri.psnr(names["star"].x, names["truth"])[0] > 25
    assert names["star"].message in capsys.readouterr().out
