"""What a backend is given: one case as a flat, frozen object with every default filled in.

    settings    operator, boundaries, potential, tied, τ, λ, γ, norm: plain values
    images      y, target, and the mask, kernel or matrix of K
    θ           A, C, b, weights: apart from the images, because they are differentiated

`taken_apart` gives the three, for frameworks that compile a program for each choice of settings.
Not here: what the settings mean (`refimpl.verification.cases`).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.verification.cases import Case
from refimpl.verification.cases.case import all_parameters

ARRAYS = ("y", "target", "A", "C", "b", "weights", "mask", "kernel", "matrix")
PARAMETERS = ("A", "C", "b", "weights")


@dataclass(frozen=True, eq=False)
class Question:
    """The settings and arrays of `refimpl.verification.cases.Case`, nothing left out.

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
    y: Any = None
    target: Any = None
    A: Any = None
    C: Any = None
    b: Any = None
    weights: Any = None
    mask: Any = None
    kernel: Any = None
    matrix: Any = None

    @classmethod
    def from_case(cls, case: Case, asarray: Callable[[Array], Any] | None = None) -> "Question":
        """The question that a case asks, in fresh arrays that `asarray` converts."""
        settings = {name: getattr(case, name) for name in SETTINGS}
        settings["potential_parameters"] = all_parameters(case)
        arrays = all_arrays(case)
        own = {name: converted(arrays[name], asarray) for name in ARRAYS if name in arrays}
        return cls(**settings, **own)

    def taken_apart(self) -> tuple["Question", dict[str, Any], dict[str, Any]]:
        """The question without arrays, the images with the array of K, and θ."""
        given = {name: getattr(self, name) for name in ARRAYS}
        given = {name: x for name, x in given.items() if x is not None}
        theta = {name: given.pop(name) for name in PARAMETERS if name in given}
        return replace(self, **dict.fromkeys(ARRAYS)), given, theta

    def key(self) -> tuple:
        """The settings as a value that can be hashed."""
        values = (getattr(self, name) for name in SETTINGS if name != "potential_parameters")
        return (*values, *sorted(self.potential_parameters.items()))


SETTINGS = tuple(f.name for f in fields(Question) if f.name not in ARRAYS)


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
