"""What refimpl answers: the one place that knows the names of its results.

Where a result has no `error` it says nothing about it: the kind is "unknown".
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from errors.problems import Task
from refimpl.engine import make_step
from refimpl.equilibrium import hypergradient, reconstruct
from refimpl.paper.loss import squared_loss_gradient
from refimpl.paper.parameters import pack
from refimpl.results import BreakdownError, NotConvergedError

Array = np.ndarray

KINDS = ("proved", "estimated", "unknown")
# Of the gradient: of its error, or of the residual of its system.
GRADIENT_TOL, RESIDUAL_TOL = 1e-4, 1e-10


class Answer(NamedTuple):
    """One quantity as refimpl states it.

    Attributes
    ----------
    value : array
        One image, or dℓ/dθ as one vector.
    converged : bool
    error : float
        Relative.
    kind : str
        One of `KINDS`.
    """

    value: Array = np.array([])
    converged: bool = False
    error: float = np.inf
    kind: str = "unknown"


class Answers(NamedTuple):
    """The images of a task, its hypergradient, and what went wrong, if anything did.

    Attributes
    ----------
    images : tuple of Answer
    gradient : Answer or None
        None where it was refused.
    crashes : tuple of str
        Exceptions that refimpl does not document, with what was computed.
    """

    images: tuple[Answer, ...]
    gradient: Answer | None
    crashes: tuple[str, ...] = ()


def takes_errors() -> bool:
    """Whether `tol` is on the error, and `residual_tol` there for residuals."""
    return "residual_tol" in inspect.signature(reconstruct).parameters


def answers(task: Task) -> Answers:
    """Solve a task."""
    step = make_step(task.problem)
    options = {"method": task.method, "max_iterations": task.max_iterations}
    options |= tolerances(task.tol, task.residual_tol)
    with np.errstate(all="ignore"):
        state, crash = attempted(lambda: reconstruct(step, **options))
        if state is None:
            return Answers(tuple(Answer() for _ in task.problem.y), None, crash)
        images = tuple(
            Answer(u, bool(state.converged[n]), *stated(state, n)) for n, u in enumerate(state.x)
        )
        found, crash = attempted(lambda: gradient(step, state, task))
    return Answers(images, found, crash)


def attempted(function: Callable[[], Any]) -> tuple[Any, tuple[str, ...]]:
    """The result, or None where it is refused, and the exception if it is none that is meant."""
    try:
        return function(), ()
    except (NotConvergedError, BreakdownError):
        return None, ()
    except Exception as error:  # whatever it is, it is counted
        return None, (f"{type(error).__name__}: {error}",)


def tolerances(tol: float, residual_tol: float | None) -> dict[str, Any]:
    """One of them under the name that this version has for it; estimates are asked for."""
    if residual_tol is None:
        return {"tol": tol}
    if not takes_errors():
        return {"tol": residual_tol}
    return {"residual_tol": residual_tol, "error": "estimate"}


def gradient(step, state, task: Task) -> Answer | None:
    """dℓ/dθ at the state, converged or not if the task stops it early; none of a state of NaN."""
    if not np.isfinite(squared_loss_gradient(state.x, task.target)).all():
        return None

    def loss(u: Array) -> Array:
        return task.looked_at * squared_loss_gradient(u, task.target)

    early = task.residual_tol is not None
    on_error = takes_errors() and not early
    options = tolerances(GRADIENT_TOL, None if on_error else RESIDUAL_TOL)
    found = hypergradient(step, state, loss, allow_unconverged=early, **options)
    done = state.all_converged and found.adjoint.all_converged
    done = bool(np.all(getattr(found, "converged", done)))
    return Answer(pack(found.gradient), done, *stated(found, 0))


def stated(result, n: int) -> tuple[float, str]:
    """Error and kind of image n, or of a gradient, which has one of each."""
    error = getattr(result, "error", None)
    kind = getattr(result, "kind", "unknown")
    if error is None:
        return np.inf, "unknown"
    kind = kind if isinstance(kind, str) else kind[n]
    return float(np.ravel(error)[n]), kind
