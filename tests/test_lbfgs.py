"""L-BFGS on the parameters: stationary points, failed solves, and what is said at the end."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from test_training import problem

from refimpl.paper.parameters import pack, unpack
from refimpl.results import NotConvergedError
from refimpl.training import train_lbfgs
from refimpl.training.objective import Objective


def gradient_size(objective, theta):
    return np.linalg.norm(pack(objective.gradient(theta).gradient, ("b",)))


@pytest.mark.parametrize(("memory", "tol"), [(0, 1e-3), (1, 1e-6), (20, 1e-6)])
def test_lbfgs_finds_a_stationary_bias(memory, tol):
    """Three parameters, so the stationary point is reached to the tolerance asked for."""
    objective, start = problem()
    result = train_lbfgs(objective, start, trained=("b",), tol=tol, stall=0, memory=memory)
    assert result.converged and "gradient is" in result.message
    first = gradient_size(objective, start)
    # The gradient at the start was computed loosely, within a few percent.
    assert gradient_size(objective, result.parameters) <= 1.1 * tol * first
    assert (np.diff(result.losses) < 1e-4 * result.losses[1:]).all()


def test_lbfgs_takes_a_failed_solve_for_a_step_too_long():
    """Solves fail beyond a ball about the start: the search ends inside it, lower than it began."""
    objective, start = problem()
    free = train_lbfgs(objective, start, trained=("b",)).parameters
    radius = np.linalg.norm(free.b - start.b) / 2

    class Fragile(Objective):
        def loss(self, raw, u0=None):
            if np.linalg.norm(raw.b - start.b) > radius:
                raise NotConvergedError("planted")
            return super().loss(raw, u0)

    fragile = Fragile(objective.model, objective.truth, objective.y, objective.solvers)
    result = train_lbfgs(fragile, start, trained=("b",), max_iterations=20)
    assert result.losses[-1] < result.losses[0]
    assert 0.5 * radius < np.linalg.norm(result.parameters.b - start.b) <= radius


def test_lbfgs_says_why_it_ended():
    objective, start = problem()
    ends = {
        "the limit of 2 iterations": {"max_iterations": 2},
        "enough": {"callback": lambda progress: "enough" if progress.iteration == 1 else None},
    }
    for message, options in ends.items():
        result = train_lbfgs(objective, start, tol=0, stall=0, **options)
        assert result.message == message and not result.converged
    stalled = train_lbfgs(objective, start, trained=("b",), tol=0)
    assert stalled.converged and "fell by less than 0.2% in 10 iterations" in stalled.message


def test_lbfgs_gradient_is_that_of_scipys_own_differences():
    objective, start = problem()
    names = ("b",)

    def value(x):
        return objective.loss(unpack(x, start, names)).loss

    def gradient(x):
        return pack(objective.gradient(unpack(x, start, names)).gradient, names)

    x = pack(start, names)
    # Forward differences: the error is of order sqrt(eps) times the second derivative.
    assert check_grad(value, gradient, x) <= 100 * np.sqrt(np.finfo(float).eps)
