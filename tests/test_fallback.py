"""One solver and another for what it leaves: whose outcome an image gets, and what is said."""

import pickle

import numpy as np
import pytest

from refimpl.results import BreakdownError, SolverResult
from refimpl.solvers import with_fallback

EPS = np.finfo(float).eps


def outcome(residuals, tol=1e-6, mark=0.0):
    """A result with these residuals, at images that are all `mark`."""
    r = np.array(residuals)
    x = np.full((len(r), 3), mark)
    advice = tuple("" if good else f"advice {mark:g}" for good in r <= tol)
    tols, count = np.full(len(r), tol), np.full(len(r), 5)
    return SolverResult(
        x, r <= tol, count, r, 7, 9, r[None], f"solver {mark:g}", tols, advice,
        error=10 * r, kind=("estimated",) * len(r),
    )


def broken():
    raise BreakdownError("curvature of {image} is negative", 3)


def never():
    raise AssertionError("the second solver is not needed")


def test_a_first_solver_that_converges_is_enough():
    result = with_fallback("first", lambda: outcome([1e-7, 1e-8]), never)
    assert result.all_converged and result.method == "solver 0"


def test_residuals_at_rounding_are_enough_and_not_called_converged():
    result = with_fallback("first", lambda: outcome([0.0, 100 * EPS], tol=EPS), never)
    assert result.converged.tolist() == [True, False]


def test_an_image_gets_the_outcome_that_converged_or_the_smaller_residual():
    first = outcome([1e-7, 1e-3, 1e-3, 1e-2], mark=1.0)
    second = outcome([1e-9, 1e-7, 1e1, 1e-4], mark=2.0)
    result = with_fallback("first", lambda: first, lambda: second)
    np.testing.assert_array_equal(result.x[:, 0], [1, 2, 1, 2])
    np.testing.assert_array_equal(result.residuals, [1e-7, 1e-7, 1e-3, 1e-4])
    assert result.converged.tolist() == [True, True, False, False]
    assert (result.evaluations, result.products) == (14, 18)
    assert result.method == "solver 1, then solver 2"
    assert result.advice == ("", "", "advice 1", "advice 2")


def test_an_image_at_rounding_keeps_its_outcome_whatever_the_others_do():
    first = outcome([100 * EPS, 1e-3], tol=EPS, mark=1.0)
    result = with_fallback("first", lambda: first, lambda: outcome([0.0, 0.0], mark=2.0))
    assert result.x[:, 0].tolist() == [1, 2] and result.converged.tolist() == [False, True]


def test_a_first_solver_that_breaks_down_is_replaced():
    result = with_fallback("first", broken, lambda: outcome([1e-7]))
    assert result.method == "first, then solver 0"
    assert result.notes == ("first broke down (curvature of an image is negative)",)


def test_a_second_solver_that_breaks_down_loses_nothing():
    result = with_fallback("first", lambda: outcome([1e-3], mark=1.0), broken)
    assert result.x[0, 0] == 1 and not result.all_converged
    assert result.method == "solver 1" and result.advice == ("advice 1",)
    assert result.message.endswith("; its fallback broke down (curvature of an image is negative)")


def test_two_that_break_down_raise():
    with pytest.raises(BreakdownError):
        with_fallback("first", broken, broken)


def test_a_breakdown_names_its_image_and_keeps_it_through_pickle():
    error = BreakdownError("residual of {image} is {nan}", 1).advising("reduce tau")
    assert str(error) == "residual of image 1 is {nan}; reduce tau"
    assert str(error.within(slice(4, 6))) == "residual of image 5 is {nan}; reduce tau"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(BreakdownError("M is singular").within(slice(4, 6))) == "M is singular"
