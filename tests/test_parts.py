"""Batches in parts: one result, whatever the parts and the threads."""

import numpy as np
import pytest

from refimpl.engine import step as maps
from refimpl.engine.batches import solve_in_parts
from refimpl.engine.step import make_step
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.equilibrium.implicit import hypergradient
from refimpl.equilibrium.state import reconstruct
from refimpl.kernels.threads import limited
from refimpl.paper.operators import DenseBank, FilterBank, Identity
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import LogCosh
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.results import BreakdownError
from refimpl.solvers import picard
from strategies import generator, normal

IMAGE = (1, 7, 6)


def make(*, images=5, tied=True, dense=False):
    rng = generator(0)
    bank = DenseBank(IMAGE, 50) if dense else FilterBank(IMAGE, (3, 3, 3))
    A, C = (0.3 * normal(rng, bank.coefficients_shape) for _ in range(2))
    theta = make_parameters(A, None if tied else A + 0.1 * C)
    y = normal(rng, (images, *IMAGE))
    return make_step(Problem(Identity(IMAGE), y, FieldOfExperts(bank, LogCosh(), theta)), 0.1)


def halving(rates):
    """u ↦ rate u for each image, so that u → 0 takes as many steps as its rate says."""
    u0 = np.ones((len(rates), 4))
    rates = np.asarray(rates)[:, None]
    return lambda part: picard(lambda u: rates[part] * u, u0[part], tol=1e-6, max_iterations=30)


PARTS = [slice(0, 2), slice(2, 3), slice(3, 5)]


@pytest.mark.parametrize("threads", [1, 2])
def test_parts_give_the_result_of_the_whole(threads):
    solve = halving([0.1, 0.2, 0.3, 0.4, 0.5])
    whole = solve(slice(0, 5))
    with limited(threads):
        result = solve_in_parts(solve, PARTS)
    for name in ("x", "converged", "iterations", "residuals", "history"):
        np.testing.assert_array_equal(getattr(result, name), getattr(whole, name))
    assert result.evaluations == whole.evaluations and result.products == whole.products
    assert result.message == whole.message and result.advice == whole.advice


def test_the_message_of_parts_is_that_of_the_whole_batch():
    solve = halving([0.1, 0.1, 0.95, 0.9, 0.1])
    result, whole = solve_in_parts(solve, PARTS), solve(slice(0, 5))
    assert result.converged.tolist() == [True, True, False, False, True]
    assert result.message == whole.message and result.advice == whole.advice
    assert result.message == (
        "2 of 5 images did not converge; worst: image 2, relative residual 1.1e-02 > 1e-06 "
        "after 30 iterations of picard; raise max_iterations above 30"
    )


def test_a_breakdown_in_a_part_names_the_image_of_the_batch():
    with pytest.raises(BreakdownError, match=r"residual norm of image 4 is inf"):
        solve_in_parts(halving([0.1, 0.1, 0.1, 0.1, np.inf]), PARTS)


def test_five_images_that_miss_their_tolerance_give_one_message(monkeypatch):
    monkeypatch.setattr(maps, "PART", 1)
    message = reconstruct(make(), method="auto", residual_tol=1e-14, max_iterations=1).message
    assert message.startswith("5 of 5 images did not converge; worst: image ")
    assert " iterations of newton with jacobi, then anderson; raise max_iterations" in message


def test_one_image_is_not_called_all_images():
    message = halving([0.1])(slice(0, 1)).message
    assert message == "the image converged in 6 iterations of picard"


def test_an_image_rejected_below_its_tolerance_says_why():
    result = halving([0.1, 0.2])(slice(0, 2)).rejected(np.array([False, True]), "q is infinite")
    assert result.converged.tolist() == [True, False] and result.advice == ("", "q is infinite")
    assert " ≤ 1e-06 after " in result.message and result.message.endswith("; q is infinite")


def test_remarks_appear_once_and_the_rest_are_counted():
    result = halving([0.1, 0.2])(slice(0, 2))
    result = result._replace(notes=("a", "b", "a", "c", "d", "e"))
    assert result.message.endswith(" of picard; a; b; c; and 2 more remarks in notes")


@pytest.mark.parametrize("tied", [True, False])
def test_reconstruction_and_hypergradient_do_not_depend_on_parts_and_threads(tied, monkeypatch):
    step = make(tied=tied)
    outcomes = []
    for values, threads in ((maps.PART, 1), (42, 1), (42, 2), (84, 2)):
        monkeypatch.setattr(maps, "PART", values)
        with limited(threads):
            star = reconstruct(step, method="auto", residual_tol=1e-10)
            gradient = hypergradient(step, star, star.x, method="auto", residual_tol=1e-10).gradient
        outcomes.append((star.x, gradient.A))
    for star, gradient in outcomes[1:]:
        np.testing.assert_array_equal(star, outcomes[0][0])
        np.testing.assert_array_equal(gradient, outcomes[0][1])


def test_parts_follow_from_the_size_of_an_image(monkeypatch):
    monkeypatch.setattr(maps, "PART", 100)
    assert make().parts() == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert make(dense=True).parts() == [slice(0, 5)]
    monkeypatch.setattr(maps, "PART", 1)
    assert len(make().parts()) == 5


def test_a_callback_sees_the_whole_batch(monkeypatch):
    monkeypatch.setattr(maps, "PART", 1)
    seen = []
    reconstruct(make(), residual_tol=1e-3, callback=lambda k, u, r: seen.append(len(r)))
    assert set(seen) == {5}


def test_starts_of_another_batch_are_refused():
    with pytest.raises(ValueError, match="2 images, but y holds data of 5"):
        reconstruct(make(), np.zeros((2, *IMAGE)))


def test_options_that_speak_of_every_image_keep_the_batch_whole(monkeypatch):
    monkeypatch.setattr(maps, "PART", 1)
    step = make()
    options = {"reference": np.full(5, 2.0)}
    star = reconstruct(step, method="picard", residual_tol=1e-6, options=options)
    assert star.all_converged
    lin, x0 = step.linearize(star.x), np.ones_like(star.x)
    assert solve_adjoint(lin, star.x, residual_tol=1e-6, options={"x0": x0}).all_converged
