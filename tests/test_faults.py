"""The catalogue of planted faults is large and consistent, and a part of it is found and named.

`make faults` runs all of it, in both frameworks and precisions.
"""

import pytest
from faults import runs
from faults.__main__ import summary
from faults.catalogue import CATALOGUE, KNOWN_CAUSES, NOT_SEPARABLE

from refimpl.verification.crosscheck.stages import STAGES

pytest.importorskip("torch")

# torch compiles parts of itself with an interface that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

# One or two of every family, most of them seen without solves.
SOME = (
    "FiltersTransposed",
    "KernelFlipped",
    "SynthesisPadsResponses",
    "AnalysisPadsByReflect",
    "LambdaOnField",
    "BiasAfterSigma",
    "LogCoshNotDivided",
    "StateRounded",
    "SigmaForSlopeInCotangent",
    "SynthesisTermOnly",
    "NormFrozen",
    "KeepsFirstFilters",
    "LeaksMean",
    "ModifiesTangent",
    "EnergyColumn",
    "FixedIterations",
)


@pytest.fixture(scope="module", autouse=True)
def shared_references():
    """References are computed once for all faults."""
    with pytest.MonkeyPatch.context() as patch:
        runs.share_references(patch.setattr)
        patch.setitem(runs.CASES, "torch", 8)
        yield


def test_catalogue_has_at_least_sixty_faults_with_names_of_their_own():
    names = [fault.name for fault in CATALOGUE]
    assert len(set(names)) == len(names) >= 60
    assert set(SOME) <= set(names)


def test_every_fault_has_a_stage_and_causes_that_can_be_named():
    for fault in CATALOGUE:
        assert fault.stage in STAGES, fault.name
        assert fault.causes, fault.name
        unknown = [slug for slug in fault.causes if slug.partition(":")[0] not in KNOWN_CAUSES]
        assert not unknown, fault.name


def test_every_fault_overrides_something_that_backends_have():
    from refimpl.verification.backends import make_backend

    right = type(make_backend("torch"))
    for fault in CATALOGUE:
        wrong = runs.planted(fault, right)
        assert any(
            getattr(wrong, name) is not getattr(right, name)
            for name in dir(right)
            if not name.startswith("__") and callable(getattr(right, name))
        ), fault.name


def test_faults_that_nothing_separates_come_with_a_reason():
    assert all(mistake and reason for mistake, reason in NOT_SEPARABLE.items())
    assert not set(NOT_SEPARABLE) & {fault.name for fault in CATALOGUE}


@pytest.mark.parametrize("name", SOME)
def test_planted_fault_is_found_at_its_stage_and_named(name):
    outcome = runs.hold(runs.Task(name, "torch", "float64"))
    assert outcome.detected and outcome.stage_right and outcome.named, outcome


def test_missed_fault_makes_the_exit_code_1(capsys):
    task = runs.Task("KernelFlipped", "torch", "float64")
    found = runs.Outcome(task, True, "apply", True, ("kernel_flipped",), True, 8)
    missed = found._replace(detected=False, stage=None, stage_right=False, causes=(), named=False)
    assert summary([found] * 20) == 0
    assert summary([found] * 19 + [missed]) == 1
    unnamed = found._replace(named=False)
    assert summary([found] * 17 + [unnamed] * 3) == 0
    assert summary([found] * 16 + [unnamed] * 4) == 1
    assert "wanted 95%" in capsys.readouterr().out
