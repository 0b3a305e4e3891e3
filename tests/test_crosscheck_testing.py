"""The crosscheck in a user's own tests: expected failures, versions, one test for each case."""

import planted
import pytest
from reference_backend import ReferenceBackend

from refimpl.verification.crosscheck import (
    assert_matches_reference,
    diagnosis,
    parametrize_with_cases,
    smallest,
)

OPTIONS = {"cases": 2, "time_limit": 120.0, "budget": 600.0, "stages": ("apply", "energy")}
WHY = {"energy": "twice as large by convention"}


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch):
    """No shrinking, and no causes from the numbers."""
    for module, name in ((smallest, "SECONDS"), (smallest, "LEAST"), (diagnosis, "SECONDS")):
        monkeypatch.setattr(module, name, 0.0)


def test_expected_failure_passes_and_must_fail():
    assert_matches_reference(planted.DoubleEnergy(), expected_failed=WHY, **OPTIONS)
    with pytest.raises(AssertionError, match="energy .twice as large by convention.; remove it"):
        assert_matches_reference(ReferenceBackend(), expected_failed=WHY, **OPTIONS)
    with pytest.raises(AssertionError, match="not expected to: apply"):
        assert_matches_reference(planted.FlippedFilters(), expected_failed=WHY, **OPTIONS)
    with pytest.raises(ValueError, match="given energies, expected some of"):
        assert_matches_reference(ReferenceBackend(), expected_failed={"energies": ""}, **OPTIONS)


def test_stages_of_a_later_version_are_not_asked_for():
    class OperatorOnly:
        operator = staticmethod(ReferenceBackend().operator)

    options = OPTIONS | {"stages": None}
    assert_matches_reference(OperatorOnly(), **options)
    with pytest.raises(ValueError, match="offers none"):
        assert_matches_reference(OperatorOnly(), since=1, **options)


def cases_of(mark):
    return {param.id: param for param in mark.args[1]}


@parametrize_with_cases(ReferenceBackend(), cases=2, stages=("apply", "energy"), only="images=1")
def test_right_backend_passes_every_stage_and_case(stage_at_case):
    stage_at_case()


class OnlyTied(planted.DoubleEnergy):
    def apply(self, problem, u):
        if not problem.tied:
            raise NotImplementedError
        return super().apply(problem, u)


def test_wrong_stage_fails_at_its_cases_and_refused_problems_are_skipped():
    backend = OnlyTied()
    mark = parametrize_with_cases(backend, cases=3, stages=("apply", "energy"))
    tests = cases_of(mark)
    names = {"AssertionError": [], "Skipped": [], "": []}
    for name, param in tests.items():
        try:
            param.values[0]()
            names[""].append(name)
        except (AssertionError, pytest.skip.Exception) as error:
            names[type(error).__name__].append(name)
    assert names["AssertionError"] == [name for name in tests if name.startswith("energy")]
    assert names["Skipped"] and names[""]


def test_expected_failures_of_stages_and_of_single_tests_are_strict():
    options = {"cases": 2, "stages": ("apply", "energy"), "only": "tied=true"}
    tests = cases_of(parametrize_with_cases(planted.DoubleEnergy(), expected_failed=WHY, **options))
    marks = {name: param.marks for name, param in tests.items()}
    assert all(bool(found) == name.startswith("energy") for name, found in marks.items())
    (mark,) = next(found for found in marks.values() if found)
    assert mark.kwargs == {"reason": WHY["energy"], "strict": True}
    single = next(iter(tests))
    expected = {single: "known"}
    again = parametrize_with_cases(planted.DoubleEnergy(), expected_failed=expected, **options)
    assert [name for name, param in cases_of(again).items() if param.marks] == [single]
    with pytest.raises(ValueError, match="expected_failed: given apply-x"):
        parametrize_with_cases(planted.DoubleEnergy(), expected_failed={"apply-x": ""}, **options)
