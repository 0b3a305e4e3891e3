"""Planted faults are named from the numbers, and slugs are stable over cases.

The planted values come from torch autodiff (`torch_oracle`) with a fault of the catalogue.
"""

import pytest
from case_factory import make_case
from faults.catalogue import CATALOGUE
from faults.formulas import Written
from suspect_cases import settings_of
from torch_oracle import Oracle

from refimpl.verification.crosscheck.reference import is_local, make_reference
from refimpl.verification.crosscheck.suspects import suspects

# torch announces this itself on the first use of forward mode.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

FAULTS = {fault.name: fault for fault in CATALOGUE}


def named(fault, outputs, *, count=3, precision="float64", **options):
    """The causes left over several cases, by output."""
    # Written out, the direction of a tied case shows faults in Cᵀ and Kᵀ too.
    bases = (Written, Oracle) if fault in WRITTEN else (Oracle,)
    oracle = type(fault, (FAULTS[fault].overrides, *bases), {})
    left = {}
    for k in range(count):
        case = make_case(**(settings_of(k, 0) | options))
        reference = make_reference(case, precision)
        for name, value in values(oracle(reference.case), outputs).items():
            if name in reference.outputs:
                found = suspects(reference, name, value)
                left[name] = [s for s in left.get(name, found) if s in found]
    return left


def values(oracle, outputs):
    """The outputs wanted, solves only if they are."""
    found = oracle.local()
    if not all(map(is_local, outputs)):
        found |= oracle.solved()
    return {name: found[name].numpy() for name in outputs if name in found}


WRITTEN = ("KernelAdjointMissing", "SynthesisPadsResponses")
UNTIED = {"potential": "log_cosh", "tied": False}
WIDE = {"potential": "smoothed_l1", "filter_size": (5, 5)}
BLURRED = {"potential": "log_cosh", "operator": "convolution"}
CONSISTENT = [
    ("FiltersFlipped", "filters_flipped", {"potential": "log_cosh"}),
    ("FiltersFlipped", "filters_flipped", UNTIED),
    # With 3 x 3 filters, symmetric and replicate are the same.
    ("AnalysisPadsByReplicate", "analysis_boundary:replicate", WIDE | {"boundary": "zero"}),
    ("AnalysisPadsByReplicate", "analysis_boundary:replicate", WIDE | {"boundary": "periodic"}),
    ("KernelFlipped", "kernel_flipped", BLURRED),
    ("KernelAdjointMissing", "kernel_adjoint_missing", BLURRED),
    ("MaskComplement", "mask_complement", UNTIED | {"operator": "mask"}),
    ("LambdaIgnored", "lambda_ignored", {"potential": "quadratic"}),
    ("GammaIgnored", "gamma_ignored", {"potential": "lorentzian"}),
    ("LambdaGammaExchanged", "lambda_gamma_exchanged", {"potential": "huber"}),
    ("BiasIgnored", "bias_ignored", {"potential": "log_cosh"}),
    ("BiasSign", "bias_sign", {"potential": "log_cosh"}),
    ("BiasAfterSigma", "bias_after_sigma", UNTIED),
    ("WeightsIgnored", "weights_ignored", {"potential": "smoothed_l1"}),
    ("WeightsSquared", "weights_squared", {"potential": "smoothed_l1"}),
    ("DefaultParameters", "wrong_potential_parameter", {"potential": "log_cosh"}),
    ("HuberForSoftShrinkage", "wrong_potential:huber", {"potential": "soft_shrinkage"}),
    ("CIgnored", "c_ignored", UNTIED),
    ("AAndCExchanged", "a_c_exchanged", UNTIED),
    ("HalfOfDataTermMissing", "data_term_factor:two", {"potential": "log_cosh"}),
    ("SynthesisNotTransposed", "synthesis_not_transposed", UNTIED),
    (
        "SynthesisPadsResponses",
        "synthesis_padding_adjoint_missing",
        {"potential": "log_cosh", "boundary": "symmetric"},
    ),
]


@pytest.mark.parametrize(("fault", "slug", "options"), CONSISTENT, ids=lambda x: str(x)[:40])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_fault_of_the_definition_is_named_from_the_map(fault, slug, options, precision):
    left = named(fault, ("map", "gradient"), precision=precision, **options)
    assert left and all(slug == found[0] for found in left.values()), left


IN_SOLVES = ("AnalysisPadsByReplicate", "BiasIgnored", "HalfOfDataTermMissing", "CIgnored")
SOLVED = [x for x in CONSISTENT if x[0] in IN_SOLVES]


@pytest.mark.parametrize(("fault", "slug", "options"), SOLVED, ids=lambda x: str(x)[:40])
def test_fault_of_the_definition_is_named_from_solved_outputs(fault, slug, options):
    outputs = ("fixed_point", "loss", "hypergradient_A", "jvp", "vjp_A", "vjp")
    left = named(fault, outputs, count=2, **options)
    assert left and all(slug in found[:2] for found in left.values() if found), left
    assert left["fixed_point"] and left["loss"] and left["hypergradient_A"]
