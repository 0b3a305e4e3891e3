"""Training on fresh crops: masks, resuming to the same bits, interruptions, starts, failures."""

import numpy as np
import pytest
from test_learn import SQUARES, losses, run

from refimpl.paper.potentials import Lorentzian
from refimpl.training import load_checkpoint, save_checkpoint
from refimpl.training.crops import RandomMask, combined
from refimpl.training.starts import best_of


def test_masks_are_drawn_for_each_image():
    seen = []

    class Spy(RandomMask):
        def __call__(self, rng, image_shape):
            operator = super().__call__(rng, image_shape)
            seen.append(operator.mask)
            return operator

    model = run(operator=Spy(0.3), noise_level=0.05, max_steps=5)
    assert len({mask.tobytes() for mask in seen}) == len(seen) > 5 * 4
    assert losses(run(operator=0.3, noise_level=0.05, max_steps=5)) == losses(model)


def test_interrupting_keeps_the_best():
    def interrupt(step):
        if step["step"] == 8:
            raise KeyboardInterrupt

    model = run(max_steps=100, watch=interrupt)
    assert model.ended.startswith("interrupted after 5 steps") and len(model.records) == 2
    np.testing.assert_array_equal(model.theta.A, run(max_steps=5).theta.A)


@pytest.mark.parametrize("operator", [None, 0.3])
def test_resuming_ends_at_the_same_bits(operator, tmp_path):
    options = {"operator": operator, "max_steps": 15, "trained": ("A", "b", "weights", "gamma")}
    whole, states = run(**options), []
    run(**options, callback=states.append)
    save_checkpoint(tmp_path / "run.npz", states[0])
    resumed = run(**options, resume=load_checkpoint(tmp_path / "run.npz"))
    for (_, x), (_, y) in zip(whole.theta.items(), resumed.theta.items(), strict=True):
        np.testing.assert_array_equal(x, y)
    assert losses(whole) == losses(resumed)
    for other in ({"seed": 1}, {"batch_size": 5}, {"images": SQUARES * 0.99}, {"noise_level": 0.2}):
        with pytest.raises(ValueError, match="resume: the checkpoint is of other settings"):
            run(**{**options, **other}, resume=states[0])


def test_crops_flips_and_noise_differ_from_step_to_step():
    """The start's loss on batch k, which one step of a vanishing rate leaves as it is."""
    steps = []
    run(learning_rate=1e-12, watch=steps.append)
    assert len({step["loss"] for step in steps}) == len(steps)


def test_fewer_steps_than_an_evaluation_takes_are_all():
    steps = []
    model = run(max_steps=2, evaluate_every=10**30, watch=steps.append)
    assert len(steps) == 2 and "the limit of 2 steps" in model.ended


def test_an_untied_solve_begins_at_the_minimiser_of_its_tied_twin():
    """With C = A that is the fixed point itself, so that the first step takes no iteration."""
    steps, tied = [], run(potential=Lorentzian())
    run(potential=None, start=tied, tied=False, max_steps=1, watch=steps.append)
    assert steps[0]["forward_iterations"] <= 1 and steps[0]["left_out"] == 0


def test_every_parameter_that_is_named_moves_and_no_other():
    names = ("b", "weights")
    start = run(max_steps=0)
    moved = run(trained=names).theta
    for name, array in start.theta.items():
        assert (getattr(moved, name) != array).any() == (name in names), name
    assert (moved.weights > 0).all()


def test_a_lorentzian_begins_with_filters_of_a_size_that_suits_it():
    model = run(potential=Lorentzian(), max_steps=10)
    record = min(model.records, key=lambda r: r["loss_held_out"])
    assert np.linalg.norm(model.theta.A[0]) > 1.5
    assert record["psnr_held_out"] > record["psnr_held_out_total_variation"] - 0.5


@pytest.mark.parametrize("best", [0, 1, 4, 9])
def test_the_best_strength_is_climbed_to(best):
    values, asked = 2.0 ** np.arange(10), []

    def loss(value):
        asked.append(value)
        return np.inf if value > 2**best * 8 else abs(np.log2(value) - best)

    assert best_of(loss, values) == (2.0**best, 0) and len(set(asked)) == len(asked)


class Failing(Exception):
    """Planted."""


def test_a_batch_without_any_gradient_is_an_error():
    with pytest.raises(Failing):
        combined([Failing()])
