"""What a problem says, taken apart for frameworks that compile: settings and arrays.

Settings are hashable and decide which program is compiled; arrays are its inputs. `view` puts
both together again for the maps, which read them as attributes: p.tau, p.y, …

The parameters θ = (A, C, b, weights) stay apart from both, because they are differentiated.
"""

from typing import Any, NamedTuple

import numpy as np

from refimpl.results import NotConvergedError

ARRAYS = ("y", "target", "mask", "kernel", "matrix")
PARAMETERS = ("A", "C", "b", "weights")


class Settings(NamedTuple):
    """The settings of a problem; `potential_parameters` as pairs, so that they can be hashed."""

    operator: str
    operator_boundary: str | None
    analysis: str
    boundary: str | None
    potential: str
    potential_parameters: tuple[tuple[str, float], ...]
    tied: bool
    tau: float
    lam: float
    gamma: float
    norm: float | None


def settings_of(problem: Any) -> Settings:
    """The settings of a problem with such attributes."""
    values = {name: getattr(problem, name) for name in Settings._fields}
    values["potential_parameters"] = tuple(sorted(dict(problem.potential_parameters).items()))
    return Settings(**values)


def arrays_of(problem: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the named arrays that the problem has."""
    arrays = {name: getattr(problem, name) for name in names}
    return {name: array for name, array in arrays.items() if array is not None}


class View(NamedTuple):
    """Settings and arrays as the attributes of one object; `parameters` are the potential's."""

    operator: str
    operator_boundary: str | None
    analysis: str
    boundary: str | None
    potential: str
    parameters: dict[str, float]
    tied: bool
    tau: float
    lam: float
    gamma: float
    norm: float | None
    y: Any
    target: Any
    mask: Any = None
    kernel: Any = None
    matrix: Any = None


def view(settings: Settings, arrays: dict[str, Any]) -> View:
    """What the maps read."""
    named = settings._asdict()
    named["parameters"] = dict(named.pop("potential_parameters"))
    return View(**named, **arrays)


def sources(length: int, width: int, boundary: str) -> np.ndarray:
    """The pixel that each position −width, …, length + width − 1 stands for.

    symmetric mirrors at the edge of the border pixel (… 1 0 | 0 1 …), reflect at its centre
    (… 2 1 | 0 1 …). Any width will do: patterns go on beyond one image length.
    """
    i = np.arange(-width, length + width)
    if boundary == "periodic":
        return i % length
    if boundary == "replicate":
        return i.clip(0, length - 1)
    if boundary == "symmetric":
        i = i % (2 * length)
        return np.minimum(i, 2 * length - 1 - i)
    if boundary == "reflect":
        period = max(2 * length - 2, 1)
        i = i % period
        return np.minimum(i, period - i) if length > 1 else 0 * i
    raise ValueError(
        f"boundary {boundary!r} is unknown; choose one of periodic, symmetric, reflect, replicate"
    )


def require_tied(problem: Any) -> Any:
    """The problem, if it has an energy."""
    if not problem.tied:
        raise ValueError("the problem is untied, and has no energy; use apply, jvp and vjp")
    return problem


def not_converged(what: str, residual: Any, tol: float) -> NotConvergedError:
    """The error of a solver that stopped short of its tolerance."""
    return NotConvergedError(
        f"{what}: relative residual {float(residual):.2e}, asked for {tol:.2e}; "
        "pass a larger tol, or float64 arrays"
    )
