"""What a backend is given: one case as a flat, frozen object with every default filled in."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.cases import Case
from refimpl.potentials import make_potential

ARRAYS = ("y", "target", "A", "C", "b", "weights", "mask", "kernel", "matrix")


@dataclass(frozen=True, eq=False)
class Problem:
    """The settings and arrays of `refimpl.cases.Case`, nothing left out.

    Attributes
    ----------
    operator, operator_boundary, analysis, boundary, potential : str or None
        As in `case.json`; a boundary that is not needed is None.
    potential_parameters : dict
        Every parameter of the potential, defaults included.
    tied : bool
    tau, lam, gamma : float
    norm : float or None
    y, target, A, b, weights : arrays
        b = 0 and weights = 1 where the case holds none.
    C, mask, kernel, matrix : arrays or None
        C is None when tied. The mask holds 0 and 1 in the dtype of the other arrays.
    """

    operator: str
    operator_boundary: str | None
    analysis: str
    boundary: str | None
    potential: str
    potential_parameters: dict[str, float]
    tied: bool
    tau: float
    lam: float
    gamma: float
    norm: float | None
    y: Any
    target: Any
    A: Any
    C: Any
    b: Any
    weights: Any
    mask: Any
    kernel: Any
    matrix: Any

    @classmethod
    def from_case(cls, case: Case, asarray: Callable[[Array], Any] | None = None) -> "Problem":
        """The problem of a case, in fresh arrays that `asarray` converts."""
        settings = {f.name: getattr(case, f.name) for f in fields(cls) if f.name not in ARRAYS}
        settings["potential_parameters"] = all_parameters(case)
        arrays = all_arrays(case)
        own = {
            name: None if x is None else converted(x, asarray)
            for name, x in ((name, arrays.get(name)) for name in ARRAYS)
        }
        return cls(**(settings | own))


def all_parameters(case: Case) -> dict[str, float]:
    """The parameters of the potential, defaults included."""
    potential = make_potential(case.potential, **case.potential_parameters)
    return {f.name: float(getattr(potential, f.name)) for f in fields(potential)}


def all_arrays(case: Case) -> dict[str, Array]:
    """The arrays of a case with b and weights filled in and the mask as numbers."""
    dtype, count = case.arrays["u"].dtype, len(case.arrays["A"])
    arrays = {"b": np.zeros(count, dtype), "weights": np.ones(count, dtype)} | case.arrays
    return {name: np.asarray(x, dtype) for name, x in arrays.items()}


def in_precision(case: Case, dtype: np.dtype) -> Case:
    """The case with its arrays rounded, or exactly converted, to a dtype."""
    if case.arrays["u"].dtype == dtype:
        return case
    arrays = {k: x if k == "mask" else x.astype(dtype) for k, x in case.arrays.items()}
    return replace(case, arrays=arrays)


def converted(x: Array, asarray: Callable[[Array], Any] | None) -> Any:
    """A copy of `x` in memory of its own, as the backend's own kind of array."""
    x = np.array(x, order="C")
    return x if asarray is None else asarray(x)
