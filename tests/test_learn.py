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
from refimpl.training import (
    TrainedModel,
    load_model,
    save_checkpoint,
    train,
)

SIZE = 12
SHORT = {
    "crop": SIZE, "max_steps": 10, "evaluate_every": 5, "batch_size": 4, "warm_up": 2,
    "potential": LogCosh(30.0),
}  # fmt: skip


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
    return run(start=tied, tied=False, potential=None, max_steps=5, learning_rate=1e-3)


def losses(model: TrainedModel) -> list[float]:
    return [record["loss_held_out"] for record in model.records]


def test_the_loss_falls_tied_and_untied(tied, untied):
    assert min(losses(tied)) < 0.98 * losses(tied)[0]
    assert min(losses(untied)) < losses(untied)[0] <= 1.01 * min(losses(tied))
    assert tied.theta.tied and not untied.theta.tied
    assert tied.ended.startswith("not converged: the limit of 10 steps")


def test_the_same_seed_gives_the_same_model(tied):
    again, other = run(), run(seed=1)
    np.testing.assert_array_equal(again.theta.A, tied.theta.A)
    assert (other.theta.A != tied.theta.A).any()


def test_filters_have_mean_zero(untied):
    for A in (untied.theta.A, untied.theta.C):
        assert np.abs(A.mean(axis=(2, 3))).max() <= 4 * np.finfo(float).eps * np.abs(A).max()


@pytest.mark.parametrize("start", ["total_variation", "random"])
def test_other_starts_train(start):
    model = run(start=start, filters=(4, 3, 3), max_steps=5)
    assert min(losses(model)) < losses(model)[0] and model.theta.A.shape == (4, 1, 3, 3)


def test_a_trained_model_beats_total_variation_with_its_best_weight():
    """On photographs that training has not seen; the λ of total variation is the best of five."""
    crops = photograph_crops(40, shrink=2)
    truth = crops.test[:6]
    model = train(crops.train[:30], 0.1, test=truth, max_steps=60, learning_rate=0.02)
    y = add_noise(truth, 0.1, np.random.default_rng(1))

    def error(u):
        return squared_loss(u, truth)

    def by_total_variation(lam):
        experts = total_variation(y.shape[1:])
        problem = Problem(Identity(y.shape[1:]), y, experts, lam)
        return reconstruct(make_step(problem), method="auto", residual_tol=1e-5).x

    best = min(error(by_total_variation(lam)) for lam in (12, 14, 16, 18, 20))
    assert error(model.reconstruct(y).x) < 0.97 * best < 0.3 * error(y)
    kept = min(model.records, key=lambda record: record["loss_held_out"])
    assert kept["psnr_test"] > kept["psnr_test_total_variation"]
    assert "total variation" not in model.ended


def test_operator_and_colour():
    blur = Convolution(np.ones((3, 3)) / 9, (2, SIZE, SIZE), "symmetric")
    images = [np.moveaxis(u, 0, -1) for u in squares(channels=2)]
    model = run(images, operator=blur, channel_axis=-1, max_steps=5)
    assert min(losses(model)) < losses(model)[0] and model.theta.A.shape == (16, 2, 3, 3)
    y = blur.matvec(squares(1, 2)[..., :SIZE, :SIZE])
    assert model.reconstruct(y, blur).all_converged


def test_one_image_alone_integers_and_whole_test_images_of_other_sizes():
    image, other = ((255 * u[0]).round().astype(np.uint8) for u in squares(2))
    model = run([image], test=[other, other[:17, :21], other[3:20]], max_steps=5)
    first, last = model.records[0], model.records[-1]
    assert first["loss_held_out"] < 0.1**2 and first["psnr_test"] > 20
    assert {"psnr_test_total_variation", "psnr_held_out_total_variation"} <= last.keys()


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
    run(max_steps=5, callback=states.append)
    save_checkpoint(tmp_path / "checkpoint.npz", states[-1])
    with pytest.raises(ValueError, match="model that refimpl saved .it is a checkpoint"):
        load_model(tmp_path / "checkpoint.npz")


class Own(LogCosh):
    """A potential that is none of refimpl's."""


def test_a_potential_of_ones_own_trains_and_is_not_saved(tmp_path):
    model = run(potential=Own(30.0), max_steps=5)
    assert min(losses(model)) < losses(model)[0]
    with pytest.raises(TypeError, match="the potential is Own.* expected one of quadratic"):
        model.save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_stopped_improving_says_so():
    model = run(max_steps=200, learning_rate=1e-9, start="total_variation", filters=(2, 3, 3),
                window=2, drops=1)  # fmt: skip
    words = "the loss fell by less than 0.10% in the last 10, after 1 lower learning rates"
    assert model.ended.startswith(f"converged after 20 steps: {words}") and len(model.records) == 5


def test_a_run_that_ends_below_total_variation_says_so(caplog):
    """One random filter, which stays as it is."""
    model = run(start="random", filters=(1, 3, 3), max_steps=0, seed=1)
    assert "total variation with its best weight is better: " in model.ended
    assert "total variation with its best weight is better" in caplog.text


def test_each_evaluation_and_each_step_is_told(caplog):
    steps = []
    with caplog.at_level(logging.INFO, "refimpl"):
        model = run(max_steps=5, watch=steps.append)
    assert any(message.startswith("step 5: ") for message in caplog.messages)
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5] and steps[0]["of"] == 5
    curve = model.records[1]["steps"]
    assert curve["loss"] == [step["loss"] for step in steps]
    for name in ("psnr", "gradient_norm", "forward_iterations", "adjoint_iterations"):
        assert len(curve[name]) == 5 and min(curve[name]) > 0
    assert curve["images"] == [4] * 5 and curve["left_out"] == [0] * 5


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"images": SQUARES[0]}, TypeError, "one image alone goes into a list"),
        ({"images": "camera"}, TypeError, "images: given 'camera'"),
        ({"images": None}, TypeError, "images: given None"),
        ({"images": []}, TypeError, r"given \[\]"),
        ({"images": SQUARES.astype(complex)}, TypeError, "complex"),
        ({"images": [np.full((24, 24), np.nan)]}, ValueError, "images: number 0: .*NaN"),
        ({"images": [np.ones((24, 24, 3))]}, ValueError, "channel_axis"),
        ({"images": [np.ones((9, 9))] * 2}, ValueError, "crops are"),
        ({"images": [np.ones((9, 9))] * 9}, ValueError, "crops are"),
        ({"images": [np.ones((14, 14))]}, ValueError, r"number 0 is .*14.*pass crop=6"),
        ({"images": [np.zeros((1, 24, 24)), np.zeros((3, 24, 24))], "channel_axis": 0},
         ValueError, r"numbers of channels are \[1, 3\]"),
        ({"crop": 2.5}, ValueError, "crop: given 2.5"),
        ({"noise_level": 0}, ValueError, "noise_level: given 0"),
        ({"noise_level": "0.1"}, ValueError, "noise_level"),
        ({"operator": Identity((1, 9, 9))}, ValueError, "operator: acts on images .*crops or"),
        ({"operator": 1.5}, ValueError, "operator: given 1.5, expected the part of missing"),
        ({"operator": np.eye(3)}, TypeError, "operator: given ndarray"),
        ({"filters": (9, 3, 3)}, ValueError, "at most 8 of 3 x 3"),
        ({"filters": (8, 4, 4)}, ValueError, "odd"),
        ({"filters": 8}, ValueError, "filters: given 8, expected"),
        ({"start": "dct"}, ValueError, "start: given 'dct', expected one of cosine"),
        ({"start": "total_variation", "filters": (1, 3, 3)}, ValueError, "at least 2"),
        ({"potential": "log_cosh"}, TypeError, "potential: given 'log_cosh'"),
        ({"boundary": "mirror"}, ValueError, "boundary 'mirror'"),
        ({"max_steps": -1}, ValueError, "max_steps"),
        ({"batch_size": 10**30}, ValueError, "batch_size: given 10.*expected at most 116508 crops"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every"),
        ({"window": 0}, ValueError, "window"),
        ({"rates": 2.0}, TypeError, "rates: given 2.0, expected factors by name"),
        ({"potential": []}, TypeError, r"potential: given \[\]"),
        ({"rates": {"lam": 2.0}}, ValueError, "rates: given 'lam', expected some of A, C"),
        ({"rates": {"b": -1.0}}, ValueError, "rates of b: given -1.0"),
        ({"trained": "A"}, TypeError, r"trained: given 'A', expected a tuple"),
        ({"watch": 3}, TypeError, "watch: given 3"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate"),
        ({"learning_rate": None}, ValueError, "learning_rate: given None"),
        ({"seed": None}, ValueError, "seed: given None"),
        ({"callback": "print"}, TypeError, "callback: given 'print'"),
        ({"boundary": ["zero"]}, ValueError, r"boundary \['zero'\]"),
        ({"value_range": "01"}, ValueError, "value_range: given '01'"),
        ({"images": np.ma.masked_array(SQUARES)}, TypeError, "masked"),
        ({"images": [np.array([[None, 1]])] * 2}, TypeError, "number 0: given dtype object"),
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
