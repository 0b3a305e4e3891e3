"""Whether two callables are each other's adjoint.

The dot test draws u and z and compares the two sides of

    ⟨K u, z⟩ = ⟨u, Kᵀ z⟩ .

The difference is scaled by ‖Ku‖‖z‖, the size of the terms that the inner product sums, or by
‖u‖‖Kᵀz‖ if that is larger; not by the inner product itself, which for random arrays is smaller
by a factor of about √n and would reject adjoints that are exact to rounding. The bound is
64 eps √n: each side sums n products whose rounding errors add like a random walk, and 64 covers
the roundings inside K.

A map B(A, u) = A u that is linear in A and in u has one adjoint in each; the three-way test
certifies both at once.

Not here: derivatives of nonlinear maps (`refimpl.verification.checks.derivatives`), and the choice
of the arrays, which is the caller's.
"""

from collections.abc import Callable

import numpy as np

from refimpl.paper.operators.base import inner, length, rounding_bound
from refimpl.results import Check

Array = np.ndarray
Map = Callable[[Array], Array]


def dot_test(matvec: Map, adjoint: Map, u: Array, z: Array, *, name: str = "dot test") -> Check:
    """Compare both sides of ⟨K u, z⟩ = ⟨u, Kᵀ z⟩.

    Parameters
    ----------
    matvec, adjoint : callable
        u ↦ K u and z ↦ Kᵀ z, on arrays shaped like `u` and `z`.
    u, z : array, float32 or float64
        Random points of the domain and of the range; inner products run over all entries.
    name : str
        What the check is called.

    Returns
    -------
    Check
        measured = |⟨Ku, z⟩ − ⟨u, Kᵀz⟩| / max(‖Ku‖‖z‖, ‖u‖‖Kᵀz‖), with 0/0 = 0;
        bound = 64 eps √n, where n is the larger size and eps the coarser precision of u, z.

    Raises
    ------
    ValueError
        If K u is not shaped like `z`, or Kᵀ z not like `u`.

    Notes
    -----
    A wrong factor 1 + δ shows as δ |⟨Ku, z⟩| / (‖Ku‖‖z‖), for random z about δ/√n. The choice
    z = K u leaves the full δ, but is blind to errors orthogonal to K u: use both.
    """
    Ku = _shaped_like(z, matvec(u), f"{name}: matvec(u)")
    Ktz = _shaped_like(u, adjoint(z), f"{name}: adjoint(z)")
    difference = abs(inner(Ku, z) - inner(u, Ktz))
    scale = max(length(Ku) * length(z), length(u) * length(Ktz))
    return Check(name, ratio(difference, scale), rounding_bound(u, z))


def bilinear_test(
    apply: Callable[[Array, Array], Array],
    adjoint: Callable[[Array, Array], Array],
    adjoint_filters: Callable[[Array, Array], Array],
    A: Array,
    u: Array,
    z: Array,
    *,
    name: str = "bilinear",
) -> Check:
    """Compare the three sides of ⟨A u, z⟩ = ⟨u, Aᵀ z⟩ = ⟨A, B*(u, z)⟩.

    Parameters
    ----------
    apply, adjoint, adjoint_filters : callable
        (A, u) ↦ A u, (A, z) ↦ Aᵀ z, and (u, z) ↦ B*(u, z), the adjoint in A.
    A, u, z : array, float32 or float64
        Random filters, images and responses.
    name : str
        What the check is called.

    Returns
    -------
    Check
        measured is the largest of the three pairwise differences, scaled as in `dot_test`; the
        bound is that of `dot_test`. The name of a failing check names the map that disagrees
        with the other two, where there is one.
    """
    Au = _shaped_like(z, apply(A, u), f"{name}: apply(A, u)")
    Atz = _shaped_like(u, adjoint(A, z), f"{name}: adjoint(A, z)")
    uz = _shaped_like(A, adjoint_filters(u, z), f"{name}: adjoint_filters(u, z)")
    sides = np.array([inner(Au, z), inner(u, Atz), inner(A, uz)])
    pairs = ((Au, z), (u, Atz), (A, uz))
    scale = max(length(x) * length(y) for x, y in pairs)
    errors = np.array([ratio(abs(a - b), scale) for a, b in zip(sides, np.roll(sides, -1))])
    bound = rounding_bound(A, u, z)
    return Check(name + _culprit(errors, bound), float(errors.max()), bound)


def _culprit(errors: Array, bound: float) -> str:
    """Which of the three maps fails, from the errors of apply–adjoint, adjoint–B*, B*–apply."""
    if (errors <= bound).all():
        return ""
    agree = (errors <= bound).nonzero()[0]
    if agree.size != 1:
        return " (no two sides agree)"
    odd = ("adjoint_filters", "apply", "adjoint")[agree[0]]
    return f" ({odd} disagrees with the other two)"


def _shaped_like(expected: Array, given: Array, what: str) -> Array:
    if np.shape(given) != np.shape(expected):
        raise ValueError(
            f"{what}: shape is {np.shape(given)}, expected {np.shape(expected)}; "
            "pass arrays of the operator's domain and range, batch axis included"
        )
    return given


def ratio(numerator: float, denominator: float) -> float:
    """numerator / denominator of nonnegative numbers, with 0/0 = 0 and x/0 = inf; NaN stays."""
    if denominator == 0:
        return 0.0 if numerator == 0 else float("inf") * numerator
    return float(numerator / denominator)
