"""`TrainedModel` in use: where it comes from, other noise levels, files of other formats."""

from dataclasses import replace

import numpy as np
import pytest

from refimpl.engine import make_step
from refimpl.equilibrium import reconstruct
from refimpl.paper.filters import cosine_filters
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import LogCosh
from refimpl.storage import decoded, encoded, npz_bytes, read_arrays
from refimpl.training import TrainedModel, load_model, shipped
from strategies import generator

THETA = make_parameters(0.5 * cosine_filters(3), gamma=2.0)
MODEL = TrainedModel(THETA, LogCosh(30.0), "symmetric", 12.0, 0.1)
STORY = {"data": ["a.jpg", "b.jpg"], "seed": 3, "command": "refimpl train …", "operator": "I"}


def rewritten(path, change):
    """The same file with another text."""
    data = read_arrays(path)
    path.write_bytes(npz_bytes(data | {"text": encoded(change(decoded(data["text"])))}))


def test_a_model_says_where_it_comes_from(tmp_path):
    path = tmp_path / "model.npz"
    replace(MODEL, provenance=STORY).save(path)
    assert load_model(path).provenance == STORY
    assert MODEL.provenance == {}


def test_files_without_provenance_are_read(tmp_path):
    path = tmp_path / "model.npz"
    MODEL.save(path)
    rewritten(path, lambda text: {k: x for k, x in text.items() if k != "provenance"})
    assert load_model(path).provenance == {}


@pytest.mark.parametrize("given", [["a"], None, {"a": {1}}, {"a": np.ones(2)}, {"a": np.nan}])
def test_provenance_that_no_file_can_hold_is_refused(given):
    with pytest.raises(TypeError, match="provenance: "):
        replace(MODEL, provenance=given)


@pytest.mark.parametrize(
    ("given", "newer"),
    [("refimpl-model/2", True), ("refimpl-model/0", False), ("model/2", False), (2, False)],
)
def test_a_file_of_a_newer_format_asks_for_a_newer_refimpl(given, newer, tmp_path):
    path = tmp_path / "model.npz"
    MODEL.save(path)
    rewritten(path, lambda text: text | {"format": given})
    with pytest.raises(ValueError, match="expected 'refimpl-model/1'") as caught:
        load_model(path)
    assert str(caught.value).endswith("a newer refimpl wrote it, update refimpl)") == newer


@pytest.mark.parametrize("level", [0, -1, None, "0.1", np.nan, 1e-301, 1e300])
def test_noise_levels_that_no_model_can_be_scaled_to_are_refused(level):
    with pytest.raises(ValueError, match="noise_level: given"):
        MODEL.at(level)


@pytest.mark.parametrize("name", shipped() or [None])
def test_models_that_ship_are_small_and_say_where_they_come_from(name):
    if name is None:
        pytest.skip("no models ship")
    model = load_model(name)
    assert shipped()[name].stat().st_size < 100_000
    assert {"data", "seed", "command", "commit"} <= model.provenance.keys()
    assert model.records and name.split("-")[0] == ("tied" if model.theta.tied else "untied")


def test_an_untied_model_begins_at_the_energy_of_the_mean_and_ends_at_its_own_fixed_point():
    A, C = THETA.A, THETA.A + 0.1 * generator(1).normal(size=THETA.A.shape)
    model = replace(MODEL, theta=replace(THETA, C=C))
    np.testing.assert_array_equal(model.tie().theta.A, (A + C) / 2)
    assert model.tie().theta.tied and MODEL.tie().theta is THETA
    y = generator(2).random((2, 1, 9, 8))
    expected = reconstruct(make_step(model.problem(y)), residual_tol=1e-10)
    found = model.reconstruct(y, tol=1e-6)
    assert found.all_converged and expected.all_converged
    assert np.abs(found.x - expected.x).max() <= 1e-6 * np.linalg.norm(expected.x)
    other = reconstruct(make_step(model.tie().problem(y)), residual_tol=1e-10)
    assert np.abs(other.x - expected.x).max() > 1e-3  # which is another place
