"""The table of methods on photographs: every setting and method, here in one process."""

import numpy as np
import pytest
from test_priors import PHOTO, cosine_model

from figures import comparison

SIZE, EPS = 32, np.finfo(float).eps


PHOTOS = [PHOTO[None, top : top + SIZE, 30 : 30 + SIZE] for top in (0, 40)]


@pytest.fixture
def model(tmp_path):
    """The file of a model."""
    path = tmp_path / "m.npz"
    cosine_model(noise_level=25 / 255).save(path)
    return str(path)


@pytest.mark.parametrize("setting", comparison.SETTINGS)
def test_every_method_has_a_row_and_is_better_than_the_data(setting, model):
    task = comparison.SETTINGS[setting].task
    assert comparison.SETTINGS[setting].data(PHOTOS[0], 0).task == task
    found = {
        name: comparison.row(PHOTOS, setting, name) for name in comparison.names(task, [model])
    }
    assert {"data", "total variation", model} <= set(found)
    best = max(row["PSNR"] for name, row in found.items() if name != "data")
    assert best > found["data"]["PSNR"] and found["total variation"]["PSNR"] > found["data"]["PSNR"]
    assert all(0 < row["SSIM"] <= 1 and row["MB"] > 1 for row in found.values())


def test_data_are_those_of_the_setting():
    given = comparison.SETTINGS["30 % missing, noise 5"].data(PHOTOS[0], 0)
    assert given.missing.sum() == round(0.3 * SIZE**2) and given.noise_level == 5 / 255
    page = comparison.text((60, 80))
    assert 0.05 < page.mean() < 0.4 and page.shape == (60, 80)
    k = np.exp(-(np.arange(-4, 5) ** 2) / (2 * 1.6**2))
    expected = np.outer(k, k) / k.sum() ** 2
    # Two sums of nine terms each, in another order.
    assert np.abs(comparison.gaussian(1.6) - expected).max() <= 18 * EPS * expected.max()


def test_each_row_of_the_table_is_measured_in_a_process_of_its_own(model, monkeypatch):
    monkeypatch.setattr(comparison, "SETTINGS", {"noise 25": comparison.SETTINGS["noise 25"]})
    monkeypatch.setattr(comparison, "OTHERS", {"denoise": {}})
    head, _, *rows = comparison.rows(PHOTOS, [model])
    assert head.startswith("| 2 photographs | method | PSNR")
    expected = [comparison.row(PHOTOS, "noise 25", name) for name in ("data", model)]
    for line, one in zip((rows[0], rows[-1]), expected, strict=True):
        assert f"| {one['PSNR']:.2f} | {one['SSIM']:.4f} |" in line
