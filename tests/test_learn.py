"""`train` and `load_model`: short runs on tiny crops, files, any image size, bad input."""

import logging

import numpy as np
import pytest

from refimpl.engine import make_step
from refimpl.equilibrium import reconstruct
from refimpl.images import add_noise, photograph_crops
from refimpl.kernels.vectors import norm
from refimpl.paper.filters import total_variation
from refimpl.paper.loss import squared_loss
from refimpl.paper.operators import Convolution, Identity
from refimpl.paper.potentials import Huber, LogCosh
from refimpl.paper.problem import Problem
from refimpl.storage import decoded, encoded, npz_bytes, read_arrays
from refimpl.training import TrainedModel, load_model, save_checkpoint, train
from refimpl.training.learn import stalled
from refimpl.training.normalization import ZeroMean

SIZE = 12
SHORT = {"crop": SIZE, "max_epochs": 2, "batch_size": 4, "potential": LogCosh(30.0)}


def squares(count: int = 2, channels: int = 1) -> np.ndarray:
    """Piecewise constant images (N, C, 24, 24)."""
    rng = np.random.default_rng(4)
    return np.kron(rng.uniform(size=(count, channels, 4, 4)), np.ones((6, 6)))


SQUARES = squares()


def run(images=SQUARES, noise_level=0.1, **options) -> TrainedModel:
    return train(images, noise_level, **{**SHORT, **options})


@pytest.fixture(scope="module")
def tied() -> TrainedModel:
    return run()


@pytest.fixture(scope="module")
def untied(tied) -> TrainedModel:
    return run(start=tied, tied=False, potential=None, max_epochs=1, learning_rate=1e-3)


def losses(model: TrainedModel) -> list[float]:
    return [record["loss_train"] for record in model.records]


def test_the_loss_falls_tied_and_untied(tied, untied):
    assert min(losses(tied)) < 0.98 * losses(tied)[0]
    assert min(losses(untied)) < losses(untied)[0] <= 1.01 * min(losses(tied))
    assert tied.theta.tied and not untied.theta.tied
    assert tied.ended == "the limit of 2 epochs"


def test_the_same_seed_gives_the_same_model(tied):
    again, other = run(), run(seed=1)
    np.testing.assert_array_equal(again.theta.A, tied.theta.A)
    assert (other.theta.A != tied.theta.A).any()


def test_filters_have_mean_zero(untied):
    for A in (untied.theta.A, untied.theta.C):
        assert np.abs(A.mean(axis=(2, 3))).max() <= 4 * np.finfo(float).eps * np.abs(A).max()


def test_mean_zero_is_a_projection():
    raw, gradient = np.random.default_rng(0).standard_normal((2, 3, 2, 3, 3))
    zero_mean = ZeroMean()
    np.testing.assert_allclose(zero_mean.apply(zero_mean.apply(raw)), zero_mean.apply(raw))
    left = np.vdot(gradient, zero_mean.apply(raw))
    right = np.vdot(zero_mean.vjp(raw, gradient), raw)
    assert left == pytest.approx(right, rel=1e-13)


@pytest.mark.parametrize("start", ["total_variation", "random"])
def test_other_starts_train(start):
    model = run(start=start, filters=(4, 3, 3), max_epochs=1)
    assert min(losses(model)) < losses(model)[0] and model.theta.A.shape == (4, 1, 3, 3)


def test_a_trained_model_beats_total_variation_with_its_best_weight():
    """Mean squared error on every fifth crop of photographs, which training has not seen."""
    crops = photograph_crops(40, shrink=2).train[::2]
    held_out = np.arange(len(crops)) % 5 == 4
    seen, truth = crops[~held_out], crops[held_out]
    model = train(seen, 0.1, test=truth, max_epochs=3)
    y = add_noise(truth, 0.1, np.random.default_rng(1))

    def error(u):
        return squared_loss(u, truth)

    def by_total_variation(lam):
        experts = total_variation(y.shape[1:])
        problem = Problem(Identity(y.shape[1:]), y, experts, lam)
        return reconstruct(make_step(problem), method="auto", residual_tol=1e-5).x

    best = min(error(by_total_variation(lam)) for lam in (12, 14, 16, 18, 20))
    assert error(model.reconstruct(y).x) < 0.97 * best < 0.3 * error(y)


def test_operator_and_colour():
    blur = Convolution(np.ones((3, 3)) / 9, (2, SIZE, SIZE), "symmetric")
    images = [np.moveaxis(u, 0, -1) for u in squares(channels=2)]
    model = run(images, operator=blur, channel_axis=-1, max_epochs=1)
    assert min(losses(model)) < losses(model)[0] and model.theta.A.shape == (16, 2, 3, 3)
    y = blur.matvec(squares(1, 2)[..., :SIZE, :SIZE])
    assert model.reconstruct(y, blur).all_converged


def test_whole_images_integers_and_test_images():
    images = [(255 * u[0]).round().astype(np.uint8) for u in squares(4)]
    model = run(images[:3], test=images[3:], crop=None, max_epochs=1)
    assert model.records[0]["loss_train"] < 0.1**2


def test_any_image_size_and_precision(tied, untied):
    rng = np.random.default_rng(0)
    for model in (tied, untied):
        for shape in ((2, 1, 9, 31), (1, 1, 40, 17)):
            truth = np.full(shape, 0.5)
            y = add_noise(truth, 0.1, rng)
            result = model.reconstruct(y)
            assert result.all_converged
            assert np.linalg.norm(result.x - truth) < 0.5 * np.linalg.norm(y - truth)
            single = model.reconstruct(y.astype(np.float32)).x
            assert single.dtype == np.float32
            # Errors of 1e-4, and of 1e-3 in float32; estimates are right within a factor 3.
            assert (norm(single - result.x) <= 3 * (1e-4 + 1e-3) * norm(result.x)).all()
    assert repr(tied.problem(y)).startswith("Problem(1 of Identity((1, 40, 17)), lam 10, ")


def test_untying_changes_no_reconstruction(tied):
    y = add_noise(squares(1), 0.1, np.random.default_rng(0))
    both = [model.reconstruct(y, tol=1e-10).x for model in (tied, tied.untie())]
    np.testing.assert_allclose(*both, rtol=1e-6)


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_file_holds_the_model_bit_for_bit(kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    model.save(tmp_path / "model.npz")
    again = load_model(tmp_path / "model.npz")
    for (name, x), (other, y) in zip(model.theta.items(), again.theta.items(), strict=True):
        assert name == other and x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    for name in ("potential", "boundary", "lam", "noise_level", "value_range", "records", "ended"):
        assert getattr(again, name) == getattr(model, name), name
    y = add_noise(squares(1), 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(again.reconstruct(y).x, model.reconstruct(y).x)


def changed(data, **text):
    return data | {"text": encoded(decoded(data["text"]) | text)}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: changed(data, format="refimpl-model/9"), "format is 'refimpl-model/9'"),
        (lambda data: {k: x for k, x in data.items() if k != "text"}, "text is missing"),
        (lambda data: {k: x for k, x in data.items() if k != "A"}, "A is missing"),
        (lambda data: changed(data, potential="cubic"), "given 'cubic', expected one of"),
        (lambda data: changed(data, boundary="mirror"), "boundary 'mirror'"),
        (lambda data: changed(data, lam=-1.0), "lam: given -1.0"),
        (lambda data: changed(data, value_range=[1, 0]), "value_range"),
        (lambda data: data | {"A": data["A"][0]}, r"\(1, 3, 3\)"),
        (lambda data: data | {"A": data["A"] * np.nan}, "NaN"),
        (lambda data: data | {"extra": np.ones(2)}, "extra"),
        (lambda data: data | {"text": np.frombuffer(b"[1]", np.uint8)}, "list"),
        (lambda data: data | {"text": np.frombuffer(b"\xff{", np.uint8)}, "utf-8"),
    ],
)
def test_foreign_files_are_refused(tied, tmp_path, spoil, words):
    path = tmp_path / "model.npz"
    tied.save(path)
    path.write_bytes(npz_bytes(spoil(read_arrays(path))))
    with pytest.raises(ValueError, match=f"model.npz: not a model that refimpl saved.*{words}"):
        load_model(path)


def test_damaged_files_are_refused(tied, tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(ValueError, match="not readable"):
        load_model(path)
    tied.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a complete npz file"):
        load_model(path)
    np.savez(path, A=np.array([None]))
    with pytest.raises(ValueError, match="not a complete npz file of plain arrays"):
        load_model(path)


def test_a_checkpoint_is_no_model(tmp_path):
    states = []
    run(max_epochs=1, callback=states.append)
    save_checkpoint(tmp_path / "checkpoint.npz", states[-1])
    with pytest.raises(ValueError, match="model that refimpl saved .it is a checkpoint"):
        load_model(tmp_path / "checkpoint.npz")


class Own(LogCosh):
    """A potential that is none of refimpl's."""


def test_a_potential_of_ones_own_trains_and_is_not_saved(tmp_path):
    model = run(potential=Own(30.0), max_epochs=1)
    assert min(losses(model)) < losses(model)[0]
    with pytest.raises(TypeError, match="the potential is Own.* expected one of quadratic"):
        model.save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def record(loss):
    return {"loss_train": loss}


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([1.0, 0.9, 0.8], False),
        ([1.0] + [0.9999] * 5, True),
        ([1.0] * 5, False),
        ([1.0, 0.5, 0.5, 0.5, 0.5, 0.5], False),
        ([0.5] + [np.nan] * 5, True),
        ([1.0, 0.8, 0.9, 0.9, 0.9, 0.9, 0.79], False),
    ],
)
def test_a_run_ends_when_the_loss_has_stopped_improving(values, ends):
    why = stalled(tuple(map(record, values)), 1e-3)
    assert bool(why) == ends and ("less than 0.1% in 5 epochs" in why) == ends


def test_a_run_that_has_stopped_improving_says_so():
    model = run(max_epochs=30, learning_rate=1e-9, start="total_variation", filters=(2, 3, 3))
    assert model.ended == "the loss improved by less than 0.1% in 5 epochs, to epoch 5"
    assert len(model.records) == 6


def test_each_epoch_is_told(caplog):
    with caplog.at_level(logging.INFO, "refimpl"):
        run(max_epochs=1)
    assert any("epoch 1: loss" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"images": SQUARES[0]}, TypeError, "one image alone goes into a list"),
        ({"images": "camera"}, TypeError, "images: given 'camera'"),
        ({"images": None}, TypeError, "images: given None"),
        ({"images": []}, TypeError, r"given \[\]"),
        ({"images": SQUARES.astype(complex)}, TypeError, "complex"),
        ({"images": [np.full((24, 24), np.nan)]}, ValueError, "image 0: .*NaN"),
        ({"images": [np.ones((24, 24, 3))]}, ValueError, "channel_axis"),
        ({"images": [np.ones((9, 9))] * 2}, ValueError, "crops are"),
        ({"images": [np.ones((14, 14))]}, ValueError, "1 crop of .*expected at least 2"),
        (
            {"images": [np.ones((14, 14)), np.ones((15, 15))], "crop": None},
            ValueError, "expected one with crop=None",
        ),
        ({"crop": 2.5}, ValueError, "crop: given 2.5"),
        ({"noise_level": 0}, ValueError, "noise_level: given 0"),
        ({"noise_level": "0.1"}, ValueError, "noise_level"),
        ({"operator": Identity((1, 9, 9))}, ValueError, "operator: acts on images .*crops are"),
        ({"operator": np.eye(3)}, TypeError, "operator: given ndarray"),
        ({"filters": (9, 3, 3)}, ValueError, "at most 8 of 3 x 3"),
        ({"filters": (8, 4, 4)}, ValueError, "odd"),
        ({"filters": 8}, ValueError, "filters: given 8, expected"),
        ({"start": "dct"}, ValueError, "start: given 'dct', expected one of cosine"),
        ({"start": "total_variation", "filters": (1, 3, 3)}, ValueError, "at least 2"),
        ({"potential": "log_cosh"}, TypeError, "potential: given 'log_cosh'"),
        ({"boundary": "mirror"}, ValueError, "boundary 'mirror'"),
        ({"max_epochs": -1}, ValueError, "epochs"),
        ({"batch_size": 0}, ValueError, "batch size"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate"),
        ({"learning_rate": None}, ValueError, "learning_rate: given None"),
        ({"seed": None}, ValueError, "seed: given None"),
        ({"callback": "print"}, TypeError, "callback: given 'print'"),
        ({"boundary": ["zero"]}, ValueError, r"boundary \['zero'\]"),
        ({"value_range": "01"}, ValueError, "value_range: given '01'"),
        ({"images": np.ma.masked_array(SQUARES)}, TypeError, "masked"),
        ({"images": [np.array([[None, 1]])] * 2}, TypeError, "image 0: given dtype object"),
        ({"tol": 1.0}, ValueError, "tol: given 1.0"),
        ({"tol": "0"}, ValueError, "tol: given '0'"),
        ({"value_range": (1, 0)}, ValueError, "value_range"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(options, kind, words):
    with pytest.raises(kind, match=words):
        run(**options)


def test_a_model_to_start_from_is_not_contradicted(tied, untied):
    with pytest.raises(ValueError, match="leave out filters and potential"):
        run(start=tied, potential=Huber())
    with pytest.raises(ValueError, match="train it with tied=False"):
        run(start=untied, potential=None)


def test_data_that_a_model_does_not_take(tied):
    with pytest.raises(ValueError, match=r"filters act on 1 channel; pass each channel"):
        tied.problem(np.ones((1, 3, 9, 9)))
    with pytest.raises(ValueError, match=r"y: shape is \(9, 9\)"):
        tied.problem(np.ones((9, 9)))
    with pytest.raises(TypeError, match="y: dtype is uint8"):
        tied.problem(np.ones((1, 1, 9, 9), np.uint8))
    with pytest.raises(TypeError, match="operator: given str, expected a linear operator"):
        tied.reconstruct(np.ones((1, 1, 9, 9)), "blur")
    for function in (tied.save, load_model):
        with pytest.raises(TypeError, match="path: given None"):
            function(None)
