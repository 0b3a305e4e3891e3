"""What solvers and checks report.

A solver returns a `SolverResult` whether or not it converged: not converging is a value, and
whoever uses the result decides. Breakdown (NaN, negative curvature where none can be) raises
`BreakdownError` at once. A quantity that makes no sense at an unconverged state, such as a
hypergradient, is refused with `NotConvergedError`.
"""

from typing import NamedTuple

import numpy as np


class SolverResult(NamedTuple):
    """Outcome of an iterative solver on a batch of N independent problems.

    Attributes
    ----------
    x : array (N, ...)
        The last iterate of each image.
    converged : bool array (N,)
        Whether `residuals` is at most the tolerance asked for.
    iterations : int array (N,)
        Iterations that changed each image.
    residuals : array (N,)
        Relative residual of each image at `x`, as the solver's docstring defines it.
    evaluations : int
        Calls of the map, gradient or energy, each on the whole batch; for a batch that is solved in
        parts, the most of any part.
    products : int
        Products with a Jacobian or Hessian, likewise.
    history : array (rows, N)
        Relative residuals of every iteration; row 0 is the start.
    message : str
        What stopped the solver and, if it did not converge, what to change.
    """

    x: np.ndarray
    converged: np.ndarray
    iterations: np.ndarray
    residuals: np.ndarray
    evaluations: int
    products: int
    history: np.ndarray
    message: str

    @property
    def all_converged(self) -> bool:
        """Whether every image converged."""
        return bool(np.all(self.converged))


def continued(
    first: SolverResult, second: SolverResult, done: np.ndarray, message: str
) -> SolverResult:
    """Two runs as one: images `done` in the first keep its outcome; work adds up.

    So do images that the second leaves unconverged with a residual no smaller than the first's.
    """
    done = done | (~second.converged & (first.residuals <= second.residuals))
    column = done.reshape((-1,) + (1,) * (first.x.ndim - 1))
    return SolverResult(
        np.where(column, first.x, second.x),
        np.where(done, first.converged, second.converged),
        first.iterations + np.where(done, 0, second.iterations),
        np.where(done, first.residuals, second.residuals),
        first.evaluations + second.evaluations,
        first.products + second.products,
        np.concatenate([first.history, np.where(done, first.residuals, second.history)]),
        message,
    )


class Check(NamedTuple):
    """One identity: what was measured, and the bound that it must not exceed."""

    name: str
    measured: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether measured ≤ bound; NaN fails."""
        return bool(self.measured <= self.bound)


class NotConvergedError(RuntimeError):
    """A quantity was asked for at a state that did not converge."""


class BreakdownError(ArithmeticError):
    """An iteration cannot go on: NaN, infinity, or curvature of the wrong sign."""
