"""Runs on problems that fit the code: what it declares, refuses, and is meant to reach."""

from dataclasses import replace

import planted
import pytest
from reference_backend import ReferenceBackend

from refimpl.verification.crosscheck import crosscheck, diagnosis, smallest

FEW = {"cases": 3, "time_limit": 120.0, "budget": 600.0}


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch):
    """No shrinking, and no causes from the numbers."""
    for module, name in ((smallest, "SECONDS"), (smallest, "LEAST"), (diagnosis, "SECONDS")):
        monkeypatch.setattr(module, name, 0.0)


def by_stage(report):
    return {stage.stage: stage for stage in report.stages}


class DeclaresItself(ReferenceBackend):
    only, tol = "tied=true,potential=quadratic", 1e-5

    def fixed_point(self, problem, *, tol):
        assert tol == 1e-5 and problem.potential == "quadratic"
        return super().fixed_point(problem, tol=tol)


def test_backend_declares_its_problems_and_its_accuracy():
    only = {"potential": "quadratic", "images": 1}
    report = crosscheck(DeclaresItself, stages=["apply", "fixed_point"], only="images=1", **FEW)
    assert report.agrees and report.only == {"tied": True} | only, str(report)
    sharp, loose = (
        by_stage(crosscheck(planted.TooFewForward(), stages=["fixed_point"], tol=tol, **FEW))
        for tol in (1e-12, 1e-7)
    )
    assert sharp["fixed_point"].verdict == "DISAGREES"
    assert loose["fixed_point"].verdict == "DISAGREES"  # 1e4 times what is asked for, again
    assert loose["fixed_point"].expected_digits < sharp["fixed_point"].expected_digits - 3


class OnlyMasks(ReferenceBackend):
    asked = 0

    def apply(self, problem, u):
        self.asked += 1
        if problem.operator != "mask":
            raise NotImplementedError
        return super().apply(problem, u)


def test_problems_that_are_refused_take_the_place_of_none():
    backend = OnlyMasks()
    report = crosscheck(backend, stages=["apply"], **FEW)
    assert report.agrees and report.cases == by_stage(report)["apply"].cases == 3
    assert backend.asked > 2 * 3


class FixedConstants(ReferenceBackend):
    """λ, γ and τ are written into the code."""

    only = "lam=2,gamma=0.5,tau=0.2"

    def apply(self, problem, u):
        return super().apply(replace(problem, lam=2.0, gamma=0.5, tau=0.2), u)


def test_checks_of_behaviour_keep_to_what_is_fixed():
    assert crosscheck(FixedConstants, stages=["apply"], **FEW).agrees
    without = crosscheck(FixedConstants(), stages=["apply"], only="tau=0.3", **FEW)
    assert without.first_wrong.stage == "apply"


def test_check_that_could_not_be_made_is_said():
    options = FEW | {"cases": 2, "only": "tied=true,potential=log_cosh,images=2,operator=identity"}
    report = crosscheck(ReferenceBackend(), stages=["fixed_point"], **options)
    assert report.agrees
    assert "fixed_point: not checked: whether images stop each on its own" in str(report)


class WrongUnderReflect(ReferenceBackend):
    def apply(self, problem, u):
        return super().apply(problem, u) * (1.5 if problem.boundary == "reflect" else 1.0)


def test_what_failing_cases_have_in_common_is_said():
    report = crosscheck(WrongUnderReflect(), stages=["apply"], **{**FEW, "cases": 20})
    assert "fails exactly where boundary is reflect" in report.first_wrong.details
