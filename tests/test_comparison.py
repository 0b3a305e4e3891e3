"""The table of methods on photographs: every setting and method, here in one process."""

import numpy as np
import pytest
from test_priors import PHOTO, cosine_model

import refimpl as ri
from figures import comparison

SIZE = 32


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two photographs and a model."""
    for n in range(2):
        u = PHOTO[40 * n : 40 * n + SIZE, 30 : 30 + SIZE]
        ri.images.write_image(tmp_path / f"{n}.png", u)
    cosine_model(noise_level=25 / 255).save(tmp_path / "m.npz")
    return tmp_path


@pytest.mark.parametrize("setting", comparison.SETTINGS)
def test_every_method_has_a_row_and_is_better_than_the_data(setting, folder):
    model, what = str(folder / "m.npz"), comparison.SETTINGS[setting]
    u = comparison.truth(folder, 2)[0]
    task = what.data(u, 0).task
    found = {
        name: comparison.row(folder, 2, setting, name) for name in comparison.names(task, [model])
    }
    assert {"data", "total variation", model} <= set(found)
    best = max(row["PSNR"] for name, row in found.items() if name != "data")
    assert best > found["data"]["PSNR"] and found["total variation"]["PSNR"] > found["data"]["PSNR"]
    assert all(0 < row["SSIM"] <= 1 and row["MB"] > 1 for row in found.values())


def test_data_are_those_of_the_setting():
    u = PHOTO[None, :SIZE, :SIZE]
    given = comparison.SETTINGS["30 % missing, noise 5"].data(u, 0)
    assert given.missing.mean() == pytest.approx(0.3, abs=1e-3) and given.noise_level == 5 / 255
    page = comparison.text((60, 80))
    assert 0.05 < page.mean() < 0.4 and page.shape == (60, 80)
    psf = comparison.gaussian(1.6)
    assert psf.sum() == pytest.approx(1) and psf.shape == (9, 9)
    x = np.arange(-4, 5)
    assert (psf.sum(0) * x**2).sum() == pytest.approx(1.6**2, rel=0.1)  # cut off at 2.5 σ
