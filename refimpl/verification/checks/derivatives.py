"""Whether a derivative is the derivative.

Three independent answers for a function f at x in a direction v:

    complex step   f′(x) v = Im f(x + i h v) / h + O(h²), free of cancellation, to 1e-12;
    Taylor         ‖f(x + hv) − f(x) − h f′v‖ = O(h²), and O(h³) with h²/2 f″[v, v] taken off;
    dot test       ⟨J v, w⟩ = ⟨v, Jᵀ w⟩ for a jvp and a vjp, and for a Hessian with itself.

The complex step is the sharpest but needs an f that accepts complex arrays. Taylor remainders
need only values, and see a relative error of the derivative down to about 1e-6.

Not here: where f is smooth. Kinks between x and x + hv are passed over as h decreases; at an x on
a kink the remainder after the second derivative has order 2.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from refimpl.paper.operators.base import length
from refimpl.results import Check
from refimpl.verification.checks.dot_tests import dot_test, ratio

Array = np.ndarray
Map = Callable[[Array], Array]

EPS = np.finfo(np.float64).eps
WINDOW = 4  # values of h that the order is fitted to
GUARD = 30  # remainders below GUARD times the rounding noise are not used


class Taylor(NamedTuple):
    """Taylor remainders of a function along a line.

    Attributes
    ----------
    order : float
        Observed order; infinite where the remainder is zero to rounding.
    steps : array (S,)
        Decreasing h.
    remainders : array (S,)
        r(h) of `taylor` for each h.
    noise : float
        Rounding noise of the remainder, measured at tiny h.
    check : Check
        measured = expected order − observed order, bound = 0.1; see `taylor`.
    """

    order: float
    steps: Array
    remainders: Array
    noise: float
    check: Check


def symmetry(hvp: Map, v: Array, w: Array, *, name: str = "symmetry") -> Check:
    """⟨H v, w⟩ = ⟨v, H w⟩: the dot test of H with itself as its adjoint."""
    return dot_test(hvp, hvp, v, w, name=name)


def jvp_vjp(jvp: Map, vjp: Map, v: Array, w: Array, *, name: str = "jvp against vjp") -> Check:
    """⟨J v, w⟩ = ⟨v, Jᵀ w⟩: the dot test of a Jacobian."""
    return dot_test(jvp, vjp, v, w, name=name)


def complex_step(
    function: Map, jvp: Map, x: Array, v: Array, *, step: float = 1e-30, name: str = "complex step"
) -> Check:
    """Compare f′(x) v with Im f(x + i h v) / h.

    Parameters
    ----------
    function : callable
        x ↦ f(x), complex-differentiable and accepting complex arrays.
    jvp : callable
        v ↦ f′(x) v at the same x.
    x, v : array, float64
        Point and direction.
    step : float
        h; nothing cancels, so it is far below rounding and the error h² is exactly invisible.
    name : str
        What the check is called.

    Returns
    -------
    Check
        measured = ‖f′v − Im f(x + ihv)/h‖ / max(‖f′v‖, ‖Im f(x + ihv)/h‖), with 0/0 = 0;
        bound = 1e-12.

    Raises
    ------
    TypeError
        If `x` is not float64, or f drops the imaginary part.
    """
    _require_float64(x, name)
    value = np.asarray(function(x + 1j * step * v))
    if not np.iscomplexobj(value):
        raise TypeError(
            f"{name}: f(complex) is {value.dtype}, expected complex; f drops the imaginary part, "
            "look for abs, float buffers or comparisons of complex numbers"
        )
    exact, given = value.imag / step, np.asarray(jvp(v))
    scale = max(length(exact), length(given))
    return Check(name, ratio(length(given - exact), scale), 1e-12)


def _require_float64(x: Array, name: str) -> None:
    if np.asarray(x).dtype != np.float64:
        raise TypeError(
            f"{name}: x is {np.asarray(x).dtype}, expected float64; float32 rounding hides what "
            "is measured, use .astype(np.float64)"
        )


def taylor(
    function: Map,
    derivatives: Sequence[Array],
    x: Array,
    v: Array,
    *,
    steps: Array | None = None,
    name: str = "taylor",
) -> Taylor:
    """Observed order of the Taylor remainder.

        r(h)² = ‖f(x + hv) − Σ_{k ≤ p} h^k d_k / k!‖² + the same for −h

    Parameters
    ----------
    function : callable
        x ↦ f(x), a number or an array of any shape.
    derivatives : sequence of arrays
        d_1 = f′(x) v and, for the next order, d_2 = f″(x)[v, v]; each shaped like f(x).
    x, v : array, float64
        Point and direction; v about as large as x.
    steps : array (S,), optional
        Decreasing h; left out: 2^-1, ..., 2^-24.
    name : str
        What the check is called.

    Returns
    -------
    Taylor
        Its check compares orders: measured = p + 1 − observed order, bound = 0.1. Two cases
        have no order to observe and say so in the name of the check: a remainder that is zero to
        rounding, or becomes so at a stroke (f is a polynomial of degree p along the line up to
        the next kink; measured = 0), and one that reaches rounding before it is asymptotic but
        leaves at most 1e-6 of the last term: measured = that part, bound = 1e-6.

    Raises
    ------
    TypeError
        If `x` is not float64.

    Notes
    -----
    Both signs of h are summed because the terms h^k and h^{k+1} of one remainder can cancel at
    some h and hide the order around it; in the sum of squares they do not meet. Noise is the
    largest remainder at h ≈ eps^(2/3), where Taylor terms of every order are below rounding
    unless a derivative is wrong, and at least eps ‖f(x)‖. The order is the median of all
    pairwise slopes of log r against log h over the four smallest h whose r exceeds 30 × noise:
    larger h are not yet asymptotic, smaller ones show rounding. A share s of the last derivative
    that is wrong is seen where s times its term exceeds the next one at these h: not where the
    derivative is 0 by chance.
    """
    _require_float64(x, name)
    steps = 2.0 ** -np.arange(1, 25) if steps is None else np.asarray(steps, dtype=float)
    f0 = np.asarray(function(x))
    tiny = EPS ** (2 / 3) * 2.0 ** np.arange(-3, 3)
    noise = np.maximum(_remainders(function, f0, derivatives, (x, v), tiny).max(), EPS * length(f0))
    remainders = _remainders(function, f0, derivatives, (x, v), steps)
    degree = len(derivatives)
    order = observed_order(steps, remainders, noise, expected=degree + 1)
    usable = remainders > GUARD * noise
    terms = steps[usable] ** degree * length(derivatives[-1]) / math.factorial(degree)
    left = ratio(remainders[usable][-1], terms[-1]) if usable.any() else 0.0
    check = _order_check(name, degree + 1, order, left)
    return Taylor(order, steps, remainders, float(noise), check)


def _remainders(
    function: Map, f0: Array, derivatives: Sequence[Array], line: tuple[Array, Array], steps: Array
) -> Array:
    x, v = line
    terms = (f0, *derivatives)

    def remainder(h: float) -> float:
        expansion = sum(h**k / math.factorial(k) * np.asarray(d) for k, d in enumerate(terms))
        return length(function(x + h * v) - expansion)

    return np.array([math.hypot(remainder(float(h)), remainder(-float(h))) for h in steps])


def observed_order(steps: Array, remainders: Array, noise: float, *, expected: int) -> float:
    """Slope of log remainder against log h where the remainder is asymptotic; see `taylor`.

    Parameters
    ----------
    steps, remainders : array (S,)
        Decreasing h and the remainder at each.
    noise : float
        Rounding noise of the remainders.
    expected : int
        Order of an exact remainder; a fall into noise that is steeper than this by more than
        one means that the remainder is zero from there on.

    Returns
    -------
    float
        The order; inf if the remainder is zero to rounding, that is, if fewer than three exceed
        30 × noise or the last that does is followed by such a fall; NaN if one is NaN.
    """
    if not (np.isfinite(remainders).all() and np.isfinite(noise)):
        return float("nan")
    floor = GUARD * noise
    usable = np.flatnonzero(remainders > floor)[-WINDOW:]
    if usable.size < 3 or _falls(steps, remainders, usable[-1], floor, expected + 1):
        return float("inf")
    log_h, log_r = np.log(steps[usable]), np.log(remainders[usable])
    first, second = np.triu_indices(usable.size, k=1)
    return float(np.median((log_r[first] - log_r[second]) / (log_h[first] - log_h[second])))


def _falls(steps: Array, remainders: Array, last: int, floor: float, power: int) -> bool:
    """Whether the step after `last` takes the remainder below the floor faster than h^power."""
    if last + 1 == steps.size:
        return False
    return bool(remainders[last] > floor * (steps[last] / steps[last + 1]) ** power)


def _order_check(name: str, expected: int, order: float, left: float) -> Check:
    if order == float("inf"):
        return Check(f"{name}: remainder is zero to rounding", 0.0, 0.1)
    if order < expected - 0.1 and left <= 1e-6:
        return Check(f"{name}: remainder over term {expected - 1}, before rounding", left, 1e-6)
    return Check(f"{name}: order {order:.2f}, expected {expected}", expected - order, 0.1)
