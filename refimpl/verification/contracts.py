"""What any map must keep to: each function here returns (measured, bound), or a `Check`.

    kept       dtype and shape                 linear    f(2 x − 3 y) = 2 f(x) − 3 f(y)
    separate   one image, or number, by itself  stays     arguments and earlier results

Here a map is a callable from one array to one array, the first axis counting images or numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.operators.base import length, rounding_bound
from refimpl.results import Check
from refimpl.storage import said
from refimpl.verification.checks.dot_tests import ratio


def attempt(name: str, test: Callable, *given) -> Check:
    """What `test` says of what is given, under this name; raising is failing."""
    try:
        result = test(*given)
    except Exception as error:  # whatever a foreign object raises
        return raised(name, error)
    return result if isinstance(result, Check) else Check(name, *map(float, result))


def raised(name: str, error: Exception) -> Check:
    """The check that failed because something was raised."""
    return Check(f"{name}: {type(error).__name__}: {said(error)[:120]}", np.inf, 0.0)


def attempt_named(name: str, test: Callable[..., Check], *given) -> Check:
    """The same of a test in `refimpl.verification.checks`, which puts more into the name."""
    return attempt(name, partial(test, name=name), *given)


def apart(given: Array, expected: Array, *scale: Array) -> tuple[float, float]:
    """‖given − expected‖ over the length of `scale`, else of `expected`; bound by rounding."""
    if np.shape(given) != np.shape(expected):
        return np.inf, 0.0
    size = sum(length(x) for x in scale or (expected,))
    return ratio(length(given - expected), size), rounding_bound(expected)


def kept(function, x: Array, shape: tuple[int, ...], *, name: str) -> Check:
    """Whether f(x) is an array of this shape and of the dtype of x."""
    given, expected = described(function(x)), f"{x.dtype} {tuple(shape)}"
    label = f"{name}: {x.dtype} and shape kept"
    if given == expected:
        return Check(label, 0.0, 0.0)
    return Check(f"{label}: given {given}, expected {expected}", 1.0, 0.0)


def described(x: Any) -> str:
    """Dtype and shape of an array, or what it is instead."""
    return f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__


def linear(function, x: Array, y: Array) -> tuple[float, float]:
    """f(2 x − 3 y) against 2 f(x) − 3 f(y)."""
    fx, fy = 2 * function(x), 3 * function(y)
    return apart(function(2 * x - 3 * y), fx - fy, fx, fy)


def separate(function, x: Array) -> tuple[float, float]:
    """f of a batch against f of its images, and of the batch backwards, which is a view."""
    whole = function(x)
    single = np.concatenate([function(x[n : n + 1]) for n in range(len(x))])
    pairs = apart(single, whole), apart(function(x[::-1])[::-1], whole)
    return max(pairs, key=lambda pair: np.inf if np.isnan(pair[0]) else pair[0])


def stays(function, x: Array, y: Array) -> tuple[float, float]:
    """How many of x, f(x) and y change while f(x) and f(y) are computed."""
    before = x.copy(), y.copy()
    first = function(x)
    kept_first = np.copy(first)
    function(y)
    pairs = ((x, before[0]), (y, before[1]), (first, kept_first))
    return sum(not np.array_equal(*pair, equal_nan=True) for pair in pairs), 0
