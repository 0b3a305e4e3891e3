"""Batches in parts: one result, whatever the parts and the threads."""

import numpy as np
import pytest

from refimpl import maps
from refimpl.datafit import DataFit
from refimpl.equilibrium import reconstruct
from refimpl.fields_of_experts import make_field
from refimpl.implicit import hypergradient, solve_adjoint
from refimpl.maps import make_step
from refimpl.operators import DenseBank, FilterBank, Identity
from refimpl.parameters import make_parameters
from refimpl.parts import solve_in_parts
from refimpl.potentials import LogCosh
from refimpl.results import BreakdownError
from refimpl.solvers import picard
from refimpl.threads import limited
from strategies import generator, normal

IMAGE = (1, 7, 6)


def make(*, images=5, tied=True, dense=False):
    rng = generator(0)
    bank = DenseBank(IMAGE, 50) if dense else FilterBank(IMAGE, (3, 3, 3))
    A, C = (0.3 * normal(rng, bank.coefficients_shape) for _ in range(2))
    theta = make_parameters(A, None if tied else A + 0.1 * C)
    y = normal(rng, (images, *IMAGE))
    return make_step(DataFit(Identity(IMAGE), y), make_field(bank, LogCosh(), theta), 0.1)


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
    expected = "3 parts, the slowest: images 3 to 4, here counted from 0: picard: all 2 images"
    assert result.message.startswith(expected)


def test_a_part_that_fails_is_named():
    result = solve_in_parts(halving([0.1, 0.1, 0.99, 0.1, 0.1]), PARTS)
    assert result.converged.tolist() == [True, True, False, True, True]
    expected = "3 parts, 1 of them failed: image 2, here counted from 0: picard: 1 of 1 images"
    assert result.message.startswith(expected)


def test_a_part_that_breaks_down_is_named():
    with pytest.raises(BreakdownError, match=r"images 3 to 4, here counted from 0: picard"):
        solve_in_parts(halving([0.1, 0.1, 0.1, 0.1, np.inf]), PARTS)


@pytest.mark.parametrize("tied", [True, False])
def test_reconstruction_and_hypergradient_do_not_depend_on_parts_and_threads(tied, monkeypatch):
    step = make(tied=tied)
    outcomes = []
    for values, threads in ((maps.PART, 1), (42, 1), (42, 2), (84, 2)):
        monkeypatch.setattr(maps, "PART", values)
        with limited(threads):
            star = reconstruct(step, method="auto", tol=1e-10)
            gradient = hypergradient(step, star, star.x, method="auto", tol=1e-10).gradient
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
    reconstruct(make(), tol=1e-3, callback=lambda k, u, residuals: seen.append(len(residuals)))
    assert set(seen) == {5}


def test_starts_of_another_batch_are_refused():
    with pytest.raises(ValueError, match="2 images, but y holds data of 5"):
        reconstruct(make(), np.zeros((2, *IMAGE)))


def test_options_that_speak_of_every_image_keep_the_batch_whole(monkeypatch):
    monkeypatch.setattr(maps, "PART", 1)
    step = make()
    star = reconstruct(step, method="picard", tol=1e-6, reference=np.full(5, 2.0))
    assert star.all_converged and star.message.startswith("picard: all 5 images")
    lin, x0 = step.linearize(star.x), np.ones_like(star.x)
    assert solve_adjoint(lin, star.x, tol=1e-6, x0=x0).message.startswith("cg: all 5 images")
