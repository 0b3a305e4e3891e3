"""Random cases, their well-posedness, and shrinking."""

from dataclasses import replace

import numpy as np
import pytest

from refimpl.paper.operators import BOUNDARIES
from refimpl.paper.potentials import make_potential
from refimpl.verification.builders import OPERATORS
from refimpl.verification.crosscheck import Question, random_case, shrink
from refimpl.verification.crosscheck.fixed import as_only, keeps, written
from refimpl.verification.crosscheck.generation import POTENTIALS, planned
from refimpl.verification.crosscheck.posed import MARGIN, why_ill_posed
from refimpl.verification.crosscheck.shrinking import smaller_cases
from refimpl.verification.crosscheck.variants import with_arrays


def test_40_seeds_hold_every_setting():
    plans = [planned(seed, None) for seed in range(1000, 1040)]

    def values(name, where=lambda plan: True):
        return {plan[name] for plan in plans if where(plan)}

    assert values("operator") == set(OPERATORS)
    assert values("operator_boundary", lambda p: p["operator"] == "convolution") == set(BOUNDARIES)
    assert values("boundary", lambda p: p["analysis"] == "convolution") == set(BOUNDARIES)
    assert values("potential") == set(POTENTIALS)
    assert values("analysis") == {"convolution", "dense"} and values("tied") == {True, False}
    assert values("normalized") == {True, False}
    shapes = values("shape")
    assert {s[0] for s in shapes} == {1, 2, 3} and {s[1] for s in shapes} == {1, 2, 3}
    assert any(1 in s[2:] for s in shapes) and any(s[2] != s[3] for s in shapes)
    assert any(s[2] < p["filter_size"][0] for p in plans for s in [p["shape"]])


def test_cases_are_reproducible_and_differ_between_seeds():
    first, again, other = random_case(3), random_case(3), random_case(4)
    assert first.description() == again.description()
    assert all(np.array_equal(x, again.arrays[name]) for name, x in first.arrays.items())
    assert first.description() != other.description()


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_cases_are_well_posed_and_tell_mistakes_apart(precision):
    for seed in range(12):
        case = random_case(seed, precision=precision)
        assert why_ill_posed(case) is None
        assert case.arrays["u"].dtype == precision
        assert abs(case.lam - case.gamma) > 0.5 and 0 < case.tau < 0.9
        A = case.arrays["A"]
        if case.analysis == "convolution" and A.shape[-2:] != (1, 1):
            flipped = A[..., ::-1, ::-1]
            assert np.linalg.norm(A - flipped) > 0.1 * np.linalg.norm(A)
        if not case.tied:
            assert np.linalg.norm(case.arrays["C"] - A) > 0.1 * np.linalg.norm(A)


def test_settings_can_be_fixed():
    only = {"operator": "convolution", "operator_boundary": "reflect", "potential": "huber"}
    only |= {"tied": False, "normalized": False, "images": 2, "channels": 1}
    cases = [random_case(seed, only=only) for seed in range(4)]
    for case in cases:
        assert (case.operator, case.operator_boundary) == ("convolution", "reflect")
        assert (case.potential, case.tied, case.norm) == ("huber", False, None)
        assert case.arrays["u"].shape[:2] == (2, 1)
    assert len({(case.boundary, case.image_shape) for case in cases}) > 1


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"potental": "huber"}, "given 'potental', expected some of operator, "),
        ({"potential": "tanh"}, "potential is 'tanh', expected one of quadratic, "),
        ({"channels": 4}, "channels is 4, expected one of 1, 2, 3"),
        ({"channels": True}, "channels is True, expected one of 1, 2, 3"),
        ({"tied": 1}, "tied is 1, expected one of True, False"),
        ({"operator": "mask", "potential": "lorentzian"}, "leave one of them open"),
        ({"operator": "mask", "normalized": True}, "leave one of them open"),
    ],
)
def test_unknown_settings_are_refused(only, message):
    with pytest.raises(ValueError, match=message):
        random_case(0, only=only)


def test_size_can_be_given_and_impossible_ones_are_refused():
    assert random_case(0, size=(3, 4)).image_shape[1:] == (3, 4)


def kinked():
    return next(c for c in map(random_case, range(20)) if c.potential == "soft_shrinkage")


def test_response_at_a_kink_is_ill_posed():
    case = kinked()
    step_bank = case.arrays["A"]
    zeros = np.zeros_like(case.arrays["u"])
    (kink,) = make_potential(case.potential, **case.potential_parameters).kinks[1:]
    b = np.full(len(step_bank), kink + MARGIN / 2)
    assert why_ill_posed(with_arrays(case, u=zeros, b=b)) is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda case: {"lam": 1e-9}, ("ill conditioned", "no fixed point found")),
        (lambda case: {"tau": 5.0}, ("ill conditioned",)),
    ],
)
def test_hopeless_cases_are_ill_posed(change, reason):
    case = next(c for c in map(random_case, range(20)) if c.potential == "log_cosh")
    assert why_ill_posed(replace(case, **change(case))) in reason


def test_two_fixed_points_are_ill_posed():
    case = next(
        c
        for c in map(random_case, range(40))
        if c.potential == "lorentzian" and c.operator == "identity" and c.norm is None
    )
    several = replace(case, lam=0.05 * case.lam, gamma=3 * case.gamma)
    assert why_ill_posed(several) is not None


def test_problem_has_defaults_filled_in_and_memory_of_its_own():
    case = replace(kinked(), potential_parameters={})
    case = replace(case, arrays={k: x for k, x in case.arrays.items() if k not in ("b", "weights")})
    problem = Question.from_case(case)
    assert problem.potential_parameters == {"threshold": 0.1}
    assert not problem.b.any() and (problem.weights == 1).all()
    assert (problem.C is None) == case.tied
    assert problem.A is not case.arrays["A"] and not np.shares_memory(problem.A, case.arrays["A"])
    masked = next(c for c in map(random_case, range(20)) if c.operator == "mask")
    assert Question.from_case(masked).mask.dtype == np.float64


def test_problem_arrays_go_through_the_conversion():
    problem = Question.from_case(random_case(0), asarray=lambda x: ("own", x))
    assert problem.A[0] == "own" and problem.matrix is None or problem.matrix[0] == "own"


def largest():
    return max(map(random_case, range(12)), key=lambda c: c.arrays["u"].size)


def test_shrinking_ends_at_the_smallest_case():
    small = shrink(largest(), lambda case: True, seconds=60.0)
    assert small.arrays["u"].shape == (1, 1, 1, 1) and small.operator == "identity"
    assert len(small.arrays["A"]) == 1 and small.norm is None
    assert not {"b", "weights"} & small.arrays.keys()


def test_shrinking_keeps_what_the_failure_needs():
    def fails(case):
        return len(case.arrays["u"]) > 1 and "b" in case.arrays and case.image_shape[2] > 2

    case = next(c for c in map(random_case, range(40)) if fails(c))
    small = shrink(case, fails, seconds=60.0)
    assert fails(small) and not any(map(fails, smaller_cases(small)))


def test_shrinking_is_bounded_and_survives_refusals():
    case, calls = largest(), []

    def refuses(case):
        calls.append(case)
        raise ValueError("not this one")

    assert shrink(case, refuses, seconds=60.0) is case and calls
    assert shrink(case, lambda case: True, max_calls=0) is case
    assert shrink(case, lambda case: True, seconds=0.0) is case


@pytest.mark.parametrize("seed", range(8))
def test_every_reduction_gives_valid_smaller_cases(seed):
    case = random_case(seed)
    sizes = [sum(x.size for x in c.arrays.values()) for c in smaller_cases(case)]
    assert sizes and max(sizes) <= sum(x.size for x in case.arrays.values())


FIXED = (  # settings, and what they make of a case
    ("b=none,weights=given", lambda c: "b" not in c.arrays and "weights" in c.arrays),
    ("filter_size=3x5,analysis=convolution", lambda c: c.arrays["A"].shape[2:] == (3, 5)),
    ("size=6", lambda c: c.arrays["u"].shape[2:] == (6, 6)),
    ("size=5..7", lambda c: all(5 <= n <= 7 for n in c.arrays["u"].shape[2:])),
    ("size=window,analysis=convolution", lambda c: fits(c, "A")),
    ("size=window,operator=convolution", lambda c: fits(c, "kernel")),
    ("operator=convolution,kernel_size=5", lambda c: c.arrays["kernel"].shape == (5, 5)),
    (
        "operator=convolution,kernel_symmetric=true",
        lambda c: np.array_equal(c.arrays["kernel"], c.arrays["kernel"][::-1, ::-1]),
    ),
    ("potential=log_cosh,slope=1", lambda c: c.potential_parameters == {"slope": 1.0}),
    ("lam=1,gamma=1,tau=1,operator=identity", lambda c: (c.lam, c.gamma, c.tau) == (1, 1, 1)),
    ("filters=5,analysis=convolution", lambda c: len(c.arrays["A"]) == 5),
)


def fits(case, name):
    return all(n >= m for n, m in zip(case.arrays["u"].shape[2:], case.arrays[name].shape[-2:]))


@pytest.mark.parametrize(("only", "holds"), FIXED, ids=[only for only, _ in FIXED])
def test_every_case_has_what_is_fixed_and_is_well_posed(only, holds):
    fixed = as_only(only)
    assert as_only(written(fixed)) == fixed
    others = [random_case(seed) for seed in range(3)]
    assert not all(keeps(case, fixed) for case in others)
    for seed in range(3):
        case = random_case(seed, only=only)
        assert holds(case) and keeps(case, fixed) and why_ill_posed(case) is None


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("tied", "'tied' has no ="),
        ("tied=true,tied=false", "given twice"),
        ("b=perhaps", "one of none, given"),
        ("filter_size=4", "3x5"),
        ("size=3..99", "6..10 or window"),
        ("size=x", "6..10 or window"),
        ("slope=-1", "a number > 0"),
        ("colour=red", "expected some of operator"),
        ("operator=mask,normalized=true", "no well-posed cases"),
    ],
)
def test_settings_that_no_case_can_have_are_refused(only, message):
    with pytest.raises(ValueError, match=message):
        random_case(0, only=only)
