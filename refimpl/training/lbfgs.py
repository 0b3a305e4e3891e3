"""Training by L-BFGS on the whole training set, for problems with few parameters.

SciPy's L-BFGS-B minimises θ̂ ↦ ℓ(u*(θ̂)) with the hypergradient as derivative. Every evaluation
starts from the last reconstruction. Where a solve fails the search ends, with the best
parameters so far.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from refimpl.arrays import Array
from refimpl.paper.parameters import Parameters, pack, unpack
from refimpl.results import BreakdownError, NotConvergedError
from refimpl.training.objective import Objective


class LbfgsResult(NamedTuple):
    """The best parameters, the loss of every evaluation, and what ended the search."""

    parameters: Parameters
    losses: Array
    converged: bool
    message: str


def train_lbfgs(
    objective: Objective,
    start: Parameters,
    *,
    trained: tuple[str, ...] = ("A", "C"),
    max_iterations: int = 100,
    tol: float = 1e-6,
) -> LbfgsResult:
    """Minimise `objective` from θ̂ = `start` until max|dℓ/dθ̂| ≤ `tol`.

    Parameters
    ----------
    objective : Objective
    start : Parameters
    trained : tuple of str
        Names of what is moved; the rest stays as in `start`.
    max_iterations : int
    tol : float
        Of the largest entry of the gradient, absolute, in units of the loss per unit of θ̂.

    Returns
    -------
    LbfgsResult
        The best parameters seen, whether `tol` was reached there, and why it ended.

    Raises
    ------
    NotConvergedError, BreakdownError
        If no gradient can be computed at `start` itself.
    """
    trace = _Trace(objective, start, trained)
    try:
        outcome = minimize(
            trace.evaluate,
            pack(start, trained),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iterations, "gtol": tol, "ftol": 0.0},
        )
        converged, message = bool(np.abs(outcome.jac).max() <= tol), str(outcome.message)
    except (NotConvergedError, BreakdownError) as error:
        if not trace.losses:
            raise
        converged, message = False, f"ended where a solve failed: {error}"
    return LbfgsResult(
        unpack(trace.best, start, trained), np.array(trace.losses), converged, message
    )


class _Trace:
    """The objective on packed vectors; remembers the losses, the best point and the last state."""

    def __init__(self, objective: Objective, start: Parameters, trained: tuple[str, ...]):
        self.objective, self.start, self.trained = objective, start, trained
        self.losses: list[float] = []
        self.best, self.state = pack(start, trained), None

    def evaluate(self, x: Array) -> tuple[float, Array]:
        evaluation = self.objective.gradient(unpack(x, self.start, self.trained), self.state)
        if all(evaluation.loss < loss for loss in self.losses):
            self.best = x.copy()
        self.losses.append(evaluation.loss)
        self.state = evaluation.state.x
        return evaluation.loss, pack(evaluation.gradient, self.trained).astype(np.float64)
