"""Runs of the crosscheck: right backends agree, planted faults are found and named."""

import functools
import json
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from types import ModuleType, SimpleNamespace

import planted
import pytest
from reference_backend import ReferenceBackend

import refimpl
from refimpl.storage import read_arrays
from refimpl.verification.cases import read_case
from refimpl.verification.crosscheck import (
    as_junit,
    as_plain,
    as_text,
    assert_matches_reference,
    compare,
    crosscheck,
    diagnosis,
    random_case,
    runner,
    smallest,
)
from refimpl.verification.crosscheck.fixed import written
from refimpl.verification.crosscheck.reference import make_reference
from refimpl.verification.crosscheck.stages import STAGES

# Kernels may have to be compiled when a test calls them.
PATIENT = {"time_limit": 120.0, "budget": 600.0}
FEW = {"cases": 3, **PATIENT}


@functools.cache
def cached(seed, precision, only):
    return random_case(seed, precision=precision, only=only)


def cached_case(seed, *, precision, only=None):
    """Cases by their seeds; `only` as a text, which can be hashed."""
    return cached(seed, precision, only and written(only))


@functools.cache
def cached_reference(case, precision, *, tol):
    """Cases are the same objects every time, so that references are computed once."""
    return make_reference(case, precision, tol=tol)


@pytest.fixture(autouse=True)
def quick_runs(monkeypatch):
    """No shrinking, no causes from the numbers, and references computed once for all tests."""
    monkeypatch.setattr(runner, "random_case", cached_case)
    monkeypatch.setattr(runner, "make_reference", cached_reference)
    monkeypatch.setattr(smallest, "SECONDS", 0.0)
    monkeypatch.setattr(smallest, "LEAST", 0.0)
    monkeypatch.setattr(diagnosis, "SECONDS", 0.0)


def by_stage(report):
    return {stage.stage: stage for stage in report.stages}


class WantsArgument(ReferenceBackend):
    def __init__(self, url):
        raise AssertionError


class OnlyTied(ReferenceBackend):
    """A backend for some problems only, and with nothing for one stage."""

    def apply(self, problem, u):
        if not problem.tied:
            raise NotImplementedError
        return super().apply(problem, u)

    def jvp(self, problem, u, v):
        raise NotImplementedError


def test_problems_not_offered_are_not_counted_and_never_passed():
    report = crosscheck(OnlyTied(), stages=["apply", "vjp", "jvp"], **FEW)
    stages = by_stage(report)
    assert report.agrees and stages["vjp"].cases == report.cases
    assert 0 < stages["apply"].cases < report.cases
    assert stages["jvp"].verdict == "cannot judge" and stages["jvp"].cases == 0


def test_reference_is_not_computed_for_what_is_not_offered(monkeypatch):
    def unwanted(*arguments, **options):
        raise AssertionError("computed")

    monkeypatch.setattr(runner, "make_reference", unwanted)
    report = crosscheck(OnlyTied(), stages=["jvp"], **FEW)
    assert report.cases == 0 and not report.agrees


def test_settings_that_every_case_has(monkeypatch):
    monkeypatch.setattr(runner, "random_case", random_case)
    report = crosscheck(OnlyTied(), stages=["apply"], only={"tied": False}, **FEW)
    assert (report.cases, by_stage(report)["apply"].cases) == (0, 0)
    with pytest.raises(ValueError, match="expected some of"):
        crosscheck(OnlyTied(), only={"bias": True}, **FEW)


class MaskOnly(ReferenceBackend):
    """Wrong by a factor, and made for masks only: elsewhere it fails in another way."""

    def apply(self, problem, u):
        return 2 * super().apply(problem, u) + 0 * problem.mask.sum()


def test_smallest_case_keeps_the_settings(monkeypatch):
    monkeypatch.setattr(runner, "random_case", random_case)
    monkeypatch.setattr(smallest, "SECONDS", 2.0)
    report = crosscheck(MaskOnly(), stages=["apply"], only={"operator": "mask"}, **FEW)
    assert "K mask" in report.first_wrong.smallest
    assert report.only == {"operator": "mask"} and "only operator=mask" in as_text(report)


def test_seed_without_a_well_posed_case_is_replaced_by_another(monkeypatch):
    left_out = runner.case_seeds(0)[1]

    def some(seed, **options):
        if seed == left_out:
            raise ValueError
        return cached_case(seed, **options)

    monkeypatch.setattr(runner, "random_case", some)
    report = crosscheck(ReferenceBackend(), stages=["apply"], **FEW)
    assert report.cases == report.cases_asked == 3


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_right_backend_agrees_in_every_stage(precision):
    report = crosscheck(ReferenceBackend(), precision=precision, seed=5, cases=6, **PATIENT)
    assert report.agrees, as_text(report)
    assert [stage.stage for stage in report.stages] == list(STAGES)
    assert {stage.verdict for stage in report.stages} == {"agrees"}
    assert report.cases == 6 and report.first_wrong is None


def test_missing_stages_are_not_offered_and_never_passed():
    backend = SimpleNamespace(jvp=ReferenceBackend().jvp)
    report = refimpl.crosscheck(backend, **FEW)
    verdicts = {name: stage.verdict for name, stage in by_stage(report).items()}
    assert verdicts.pop("jvp") == "agrees" and set(verdicts.values()) == {"not offered"}
    assert report.agrees


def test_what_a_module_imports_from_other_packages_is_not_offered():
    def energy(problem, u):
        return ReferenceBackend().energy(problem, u)

    energy.__module__ = "mine.formulas"
    module = ModuleType("mine")
    module.energy, module.jvp = energy, json.dumps
    verdicts = {name: stage.verdict for name, stage in by_stage(crosscheck(module, **FEW)).items()}
    assert verdicts.pop("energy") == "agrees" and set(verdicts.values()) == {"not offered"}


def test_class_is_made_an_instance():
    assert_matches_reference(ReferenceBackend, stages=("apply",), **FEW)


def test_class_that_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match=r"WantsArgument\(\) cannot be made \(TypeError.*name an"):
        crosscheck(WantsArgument, **FEW)


def test_no_idle_thread_is_left_behind():
    before = set(threading.enumerate())
    crosscheck(ReferenceBackend(), stages=["apply"], **FEW)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("backend", [object(), SimpleNamespace(apply=3), json])
def test_backend_without_stages_is_refused(backend):
    with pytest.raises(ValueError, match="offers no"):
        crosscheck(backend, **FEW)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1},
        {"cases": 0},
        {"cases": 1001},
        {"precision": "float16"},
        {"stages": ["map"]},
        {"time_limit": 0},
        {"budget": 0.0},
        {"budget": float("nan")},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="given"):
        crosscheck(ReferenceBackend(), **options)


def test_the_same_seed_gives_the_same_report():
    backend = planted.DoubleEnergy()
    reports = [crosscheck(backend, seed=1, stages=["apply", "energy"], **FEW) for _ in range(2)]
    plain = [report._replace(seconds=0.0) for report in reports]
    assert plain[0] == plain[1]


FAULTS = {  # the fault, the first wrong stage, its first cause
    planted.Raises: ("jvp", "raised"),
    planted.Exits: ("jvp", "raised"),
    planted.WrongShape: ("energy", "wrong_shape"),
    planted.WrongDtype: ("apply", "wrong_dtype"),
    planted.ReturnsNaN: ("vjp", "not_finite"),
    planted.ReturnsList: ("apply", "wrong_type"),
    planted.ExtraEntries: ("params_vjp", "wrong_entries"),
    planted.ReturnsView: ("gradient", "modifies_arguments"),
    planted.ReturnsTarget: ("fixed_point", "returns_view"),
    planted.ModifiesArguments: ("jvp", "modifies_arguments"),
    planted.NotDeterministic: ("apply", "not_deterministic"),
    planted.KeepsFirstState: ("vjp", "stale_state"),
    planted.LinearizesAtLastApply: ("jvp", "stale_state"),
    planted.Leaks: ("apply", "leaks_between_images"),
    planted.GlobalStopping: ("fixed_point", "batch_global_stopping"),
    planted.TooFewForward: ("fixed_point", "too_few_forward_iterations"),
    planted.FixedNumberOfIterations: ("fixed_point", "too_few_forward_iterations"),
    planted.TooFewAdjoint: ("hypergradient", "too_few_adjoint_iterations"),
}


IN_SINGLE = (planted.GlobalStopping, planted.Leaks, planted.WrongDtype)
RUNS = [(f, "float64") for f in FAULTS] + [(f, "float32") for f in IN_SINGLE]


@pytest.mark.parametrize(("fault", "precision"), RUNS, ids=lambda x: getattr(x, "__name__", x))
def test_planted_fault_is_found_at_its_stage_and_named(fault, precision):
    stage, cause = FAULTS[fault]
    report = crosscheck(fault(), precision=precision, seed=2, stages=["apply", stage], **FEW)
    assert not report.agrees
    assert report.first_wrong.stage == stage, as_text(report)
    assert cause in report.first_wrong.causes, as_text(report)
    assert cause in as_text(report)


@pytest.mark.parametrize(
    ("fault", "stage"),
    [
        (planted.SumNotMean, "hypergradient"),
        (planted.TimesBatch, "params_vjp"),
        (planted.ClipsLossGradient, "hypergradient"),
        (planted.NotAdjoint, "vjp"),
        (planted.NotSymmetric, "hvp"),
        (planted.NotLinear, "jvp"),
        (planted.DoubleEnergy, "energy"),
        (planted.FlippedFilters, "apply"),
    ],
)
def test_wrong_formula_is_found_at_its_stage(fault, stage):
    report = crosscheck(fault(), seed=2, stages=["apply", "jvp", stage], **FEW)
    assert report.first_wrong.stage == stage, as_text(report)


def test_cause_in_the_numbers_is_named_and_explained(monkeypatch):
    monkeypatch.setattr(diagnosis, "SECONDS", 60.0)
    report = crosscheck(planted.DoubleEnergy(), seed=2, stages=["energy"], **FEW)
    assert report.first_wrong.causes[0] == "factor_two" and report.first_wrong.explanation
    assert f"energy: factor_two. {report.first_wrong.explanation}" in as_text(report)


def test_hanging_stage_is_reported_once_and_the_run_goes_on():
    start = time.monotonic()
    report = crosscheck(
        planted.Hangs(), time_limit=0.4, budget=600.0, stages=["vjp", "energy"], cases=6
    )
    stages = by_stage(report)
    assert time.monotonic() - start < 40
    assert stages["vjp"].causes == ("hangs",) and stages["vjp"].cases == 1
    assert stages["energy"].cases > 1 and stages["energy"].verdict == "agrees"


def test_first_verdict_comes_before_the_second_case():
    verdicts = []
    crosscheck(
        ReferenceBackend(), stages=["apply"], cases=2, **PATIENT, on_verdict=verdicts.append
    )
    assert [(v.stage, v.agrees) for v in verdicts] == [("apply", True), ("apply", True)]
    assert verdicts[0].case != verdicts[1].case


def test_run_out_of_time_says_so():
    report = crosscheck(ReferenceBackend(), cases=40, budget=1e-9, stages=["apply"])
    assert (report.cases, report.cases_asked) == (1, 40)
    assert "1 of 40 cases within the budget" in as_text(report)


def test_later_stage_with_the_same_fault_is_marked_as_such():
    stages = ["apply", "fixed_point"]
    report = crosscheck(planted.FlippedFilters(), seed=2, stages=stages, **FEW)
    later = by_stage(report)["fixed_point"]
    assert later.verdict == "DISAGREES" and later.inherits == "apply"


def test_smallest_failing_case_is_written_and_compares_the_same_way(tmp_path, monkeypatch):
    monkeypatch.setattr(smallest, "SECONDS", 60.0)
    backend = planted.DoubleEnergy()
    report = crosscheck(backend, seed=2, out=tmp_path, stages=["energy"], **FEW)
    energy = by_stage(report)["energy"]
    assert energy.written == str(tmp_path / "energy")
    case = read_case(tmp_path / "energy")
    assert case.arrays["u"].shape[0] == 1 and case.operator == "identity"
    again = compare(case, read_arrays(tmp_path / "energy" / "backend.npz"))
    assert not again.agrees and again.first_wrong.stage == "energy"
    assert compare(case, read_arrays(tmp_path / "energy" / "outputs.npz")).agrees


def test_report_as_plain_values_and_junit():
    report = crosscheck(planted.DoubleEnergy(), seed=2, stages=["apply", "energy"], **FEW)
    plain = json.loads(json.dumps(as_plain(report), allow_nan=False))
    assert plain["agrees"] is False and plain["first_wrong"] == "energy"
    suite = ET.fromstring(as_junit(report))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("11", "1", "9")
    failed = [test.get("name") for test in suite if test.find("failure") is not None]
    assert failed == ["energy"]


def test_control_characters_of_an_error_do_not_break_the_xml():
    class Rude(ReferenceBackend):
        def apply(self, problem, u):
            raise ValueError("\x00\x1b[31m<&>")

    ET.fromstring(as_junit(crosscheck(Rude(), stages=["apply"], cases=1)))


def test_assertion_shows_the_table():
    assert_matches_reference(ReferenceBackend(), stages=("apply",), **FEW)
    with pytest.raises(AssertionError, match="(?s)energy +DISAGREES.*first wrong stage: energy"):
        assert_matches_reference(planted.DoubleEnergy(), stages=("energy",), **FEW)


def test_misspelt_option_of_the_assertion_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'stage'"):
        assert_matches_reference(ReferenceBackend(), stage="apply")


def test_package_is_callable_without_being_imported_first():
    code = "import refimpl; print(callable(refimpl.crosscheck), refimpl.crosscheck)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True <function")
    with pytest.raises(AttributeError, match="no attribute 'crosschecks'"):
        refimpl.crosschecks  # noqa: B018


def test_results_through_dlpack_are_taken():
    class Foreign:
        def __init__(self, x):
            self.x = x

        def __dlpack__(self, **options):
            return self.x.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.x.__dlpack_device__()

    right = ReferenceBackend()
    backend = SimpleNamespace(
        apply=lambda problem, u: Foreign(right.apply(unwrapped(problem), u.x)), asarray=Foreign
    )

    def unwrapped(problem):
        from dataclasses import fields, replace

        own = {f.name: getattr(problem, f.name) for f in fields(problem)}
        return replace(problem, **{k: x.x for k, x in own.items() if isinstance(x, Foreign)})

    assert crosscheck(backend, **FEW).agrees


class WithoutBias(ReferenceBackend):
    def params_vjp(self, problem, u, w):
        return {"A": super().params_vjp(problem, u, w)["A"]}


def test_entries_that_are_missing_are_not_offered():
    report = crosscheck(WithoutBias(), stages=["params_vjp"], **FEW)
    assert report.agrees
    assert by_stage(report)["params_vjp"].entries_missing == ("b", "weights", "C")
    assert "params_vjp: b, weights, C not offered" in as_text(report)


def test_exception_is_reported_with_its_place():
    report = crosscheck(SimpleNamespace(apply=lambda p, u: 1 / 0), **FEW)
    assert "ZeroDivisionError: division by zero (test_crosscheck.py, line" in as_text(report)
