"""Drafts: float32 only far from the answer, image by image, and never in the answer."""

from dataclasses import replace

import numpy as np
import pytest

from refimpl import equilibrium
from refimpl.arrays import per_image
from refimpl.datafit import DataFit
from refimpl.drafts import Draft, Drafts
from refimpl.equilibrium import reconstruct
from refimpl.fields_of_experts import make_field
from refimpl.identities.problems import problem
from refimpl.maps import StepLinearization, make_step
from refimpl.operators import Convolution, FilterBank
from refimpl.parameters import make_parameters
from refimpl.potentials import LogCosh
from refimpl.vectors import norm
from strategies import generator, normal


def make(*, tied=True):
    description = {
        "operator": "identity",
        "operator_boundary": "symmetric",
        "analysis": "convolution",
        "boundary": "symmetric",
        "potential": "log_cosh",
        "tied": tied,
    }
    return problem(description, generator(0)).step


def images(step, seed=1):
    return normal(generator(seed), step.datafit.y.shape)


def start(step):
    return step.datafit.operator.adjoint(step.datafit.y)


def recorded(monkeypatch):
    """The list into which Drafts enters what it returns."""
    seen, call = [], Drafts.__call__

    def record(self, u):
        seen.append(call(self, u))
        return seen[-1]

    monkeypatch.setattr(Drafts, "__call__", record)
    return seen


@pytest.mark.parametrize("tied", [True, False])
def test_the_first_iterates_are_drafts_and_the_last_is_exact(monkeypatch, tied):
    step, seen = make(tied=tied), recorded(monkeypatch)
    result = reconstruct(step, method="auto", tol=1e-12)
    kinds = [isinstance(lin, Draft) for lin in seen]
    assert result.all_converged and result.x.dtype == np.float64
    assert kinds[0] and not kinds[-1] and kinds == sorted(kinds, reverse=True)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-12])
@pytest.mark.parametrize("tied", [True, False])
def test_residuals_reported_are_those_of_float64(tied, tol):
    step = make(tied=tied)
    result = reconstruct(step, method="newton" if tied else "newton_krylov", tol=tol)
    scale = np.maximum(norm(result.x), norm(start(step)))
    assert np.array_equal(norm(step.tau * step.direction(result.x)) / scale, result.residuals)


@pytest.mark.parametrize("tied", [True, False])
def test_an_image_that_ends_early_has_its_exact_residual(monkeypatch, tied):
    step, seen = make(tied=tied), recorded(monkeypatch)
    method = "newton" if tied else "newton_krylov"
    result = reconstruct(step, method=method, tol=1e-12, max_iterations=1)
    scale = np.maximum(norm(result.x), norm(start(step)))
    assert isinstance(seen[-1], Draft) and not result.converged.any()
    assert np.array_equal(norm(step.tau * step.direction(result.x)) / scale, result.residuals)
    assert np.array_equal(result.history[-1], result.residuals)


def test_a_draft_is_near_the_exact_linearisation_and_has_its_model():
    step = make()
    u = images(step)
    draft, exact = Drafts(step, u, 1e-12)(u), step.linearize(u)
    assert isinstance(draft, Draft) and draft.open.all()
    for name in ("gradient", "direction", "energy"):
        given, expected = getattr(draft, name), getattr(exact, name)
        assert given.dtype == np.float64
        assert 0 < np.linalg.norm(given - expected) <= 1e-5 * np.linalg.norm(expected)
    v = images(step, 2).astype(np.float32)
    models = [lin.safeguarded(None).direction_jvp(v) for lin in (draft, exact)]
    assert np.array_equal(*models)
    assert (draft.energy_eps == np.finfo(np.float32).eps).all()


def test_images_decide_one_by_one_and_for_good():
    """The first image is at its solution, where float32 knows nothing of G."""
    step = make()
    u = images(step)
    u[0] = reconstruct(step, method="newton", tol=1e-13).x[0]
    drafts = Drafts(step, start(step), 1e-14)
    draft, exact = drafts(u), step.linearize(u)
    assert draft.open.tolist() == [False, True]
    assert np.array_equal(draft.direction[0], exact.direction[0])
    assert draft.energy[0] == exact.energy[0]
    assert not np.array_equal(draft.direction[1], exact.direction[1])
    assert draft.energy_eps.tolist() == [np.finfo(t).eps for t in (np.float64, np.float32)]
    assert drafts(images(step)).open.tolist() == [False, True]


def test_none_is_begun_where_the_gradient_will_be_too_small():
    """‖G‖ fell to 1/20 of itself in one step; fallen once more, it would be below 2 tol."""
    step = make()
    first, solution = images(step), reconstruct(step, method="newton", tol=1e-13).x
    second, third = (solution + part * (first - solution) for part in (0.05, 0.04))
    residual = step.tau * norm(step.direction(second)) / norm(first)
    for factor, kind in ((0.1, StepLinearization), (0.001, Draft)):
        drafts = Drafts(step, first, factor * residual)
        assert isinstance(drafts(first), Draft) and isinstance(drafts(second), Draft)
        assert isinstance(drafts(third), kind)


def test_none_are_taken_where_the_residual_is_near_tol():
    step = make()
    u = images(step)
    residual = step.tau * norm(step.direction(u)) / norm(u)
    for factor, kind in ((0.6, StepLinearization), (0.4, Draft)):
        assert isinstance(Drafts(step, u, factor * residual)(u), kind)


def test_an_image_is_not_judged_again_while_its_neighbour_tries_shorter_steps():
    """At a third point the first image alone decides as beside one that moved in between."""
    step = make()
    first, solution = images(step), reconstruct(step, method="newton", tol=1e-13).x
    second, third = (solution + part * (first - solution) for part in (0.05, 0.02))
    beside = second.copy()
    beside[1] = third[1]
    residual = step.tau * norm(step.direction(third)) / norm(first)
    for factor in np.geomspace(1e-3, 1, 13):
        tol = factor * residual[0]
        together, alone = (Drafts(s, first[: len(s.datafit.y)], tol) for s in (step, step.image(0)))
        for u in (first, second, beside, third):
            together(u)
        for u in (first, second, third):
            alone(u[:1])
        assert together.open[0] == alone.open[0] and together.expected[0] == alone.expected[0]


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4, 1e6])
def test_an_operator_that_cancels_its_image_costs_no_more_than_without_drafts(monkeypatch, mean):
    """A Laplacian removes the mean of u, but not the rounding of u."""
    shape, rng = (1, 16, 16), generator(0)
    A = normal(rng, (4, 1, 3, 3))
    A -= A.mean(axis=(2, 3), keepdims=True)
    laplacian = np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    datafit = DataFit(Convolution(laplacian, shape), normal(rng, (1, *shape)))
    field = make_field(FilterBank(shape, (4, 3, 3)), LogCosh(), make_parameters(A, gamma=0.05))
    step, u0 = make_step(datafit, field, 0.015), mean + normal(rng, (1, *shape))
    drafted = reconstruct(step, u0, method="newton", tol=1e-9)
    monkeypatch.setattr(equilibrium, "Drafts", lambda step, u0, tol: step.linearize)
    exact = reconstruct(step, u0, method="newton", tol=1e-9)
    assert drafted.all_converged and exact.all_converged
    assert drafted.evaluations <= exact.evaluations + 2


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_data_that_float32_does_not_hold_are_left_to_float64(size):
    step = make()
    step = replace(step, datafit=replace(step.datafit, y=size * step.datafit.y))
    assert isinstance(Drafts(step, start(step), 1e-9)(start(step)), StepLinearization)


def test_a_step_in_float32_takes_none():
    step = make().rough
    assert step.dtype == np.float32
    u = images(step).astype(np.float32)
    assert isinstance(Drafts(step, u, 1e-3)(u), StepLinearization)


@pytest.mark.parametrize("error", [0.1, -2.0])
@pytest.mark.parametrize("method", ["newton", "newton_krylov"])
def test_wrong_drafts_cost_time_and_nothing_else(monkeypatch, method, error):
    """Planted: drafts of G are off by a tenth of their size, or lead uphill, where steps fail."""
    step = make()
    right = reconstruct(step, method=method, tol=1e-12)
    chosen = Draft._chosen

    def wrong(self, name):
        value = chosen(self, name)
        if name != "direction":
            return value
        wave = np.abs(np.sin(np.arange(value.size)).reshape(value.shape))
        factor = 1 + error * (wave if error > 0 else 1)
        return np.where(per_image(self.open, value), factor * value, value)

    monkeypatch.setattr(Draft, "_chosen", wrong)
    other = reconstruct(step, method=method, tol=1e-12)
    assert other.all_converged and not np.array_equal(other.x, right.x)
    assert np.linalg.norm(other.x - right.x) <= 1e-9 * np.linalg.norm(right.x)
