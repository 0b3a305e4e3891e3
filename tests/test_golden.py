"""The golden suite: what it covers, who witnesses it, and that a wrong digit is found."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from backend_problem import local_outputs, oracle_outputs, solved_outputs
from case_factory import make_case
from golden_copies import TIED, UNTIED, change_digit, change_outputs, copy_case, output_names

from refimpl import cli
from refimpl.paper import equations
from refimpl.paper.operators import BOUNDARIES, FilterBank
from refimpl.paper.potentials import POTENTIALS
from refimpl.storage import npz_bytes, read_arrays
from refimpl.verification.backends import make_backend
from refimpl.verification.cases import evaluate
from refimpl.verification.cases.case import ANALYSES, OPERATORS, build_step
from refimpl.verification.cases.golden import (
    RECIPES,
    SUITE,
    draw,
    golden_checks,
    read_suite,
    shortcomings,
)
from refimpl.verification.cases.golden.generate import KINK_MARGIN, MIN_GAP, candidate, singular_gap
from refimpl.verification.cases.golden.outputs import GoldenCase, compare, rounding_errors

# torch compiles parts of itself with an interface that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

AGREE, SINGLE = 1e-10, 1e-5  # relative errors that docs/case-format.md promises
MAX_BYTES = 10**6
NAMES = list(RECIPES)


@pytest.fixture(scope="module")
def suite():
    return {golden.name: golden for golden in read_suite()}


def by_backend(framework, **options):
    """Outputs by the backend of a framework."""

    def outputs(case):
        pytest.importorskip(framework, reason="install refimpl[backends]")
        backend = make_backend(framework, **options)
        return local_outputs(backend, case) | solved_outputs(backend, case, tol=1e-12)

    return outputs


# Each witness computes all outputs of a case, as a mapping; it may skip where it is not installed.
WITNESSES = {
    "torch_oracle": oracle_outputs,
    "torch": by_backend("torch"),
    "jax": by_backend("jax"),
}


def disagreements(golden, given):
    """Outputs that differ from the stored ones, with their errors; all names must be there."""
    assert given.keys() == golden.outputs.keys()
    errors = {name: relative_error(given[name], x) for name, x in golden.outputs.items()}
    return {name: error for name, error in errors.items() if not error <= AGREE}


def relative_error(given, expected):
    assert np.shape(given) == expected.shape
    return np.linalg.norm(given - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("witness", WITNESSES)
def test_witness_finds_the_golden_outputs(witness, name, suite):
    assert not disagreements(suite[name], WITNESSES[witness](suite[name].case))


@pytest.mark.parametrize("witness", WITNESSES)
def test_witness_of_another_problem_disagrees(witness, suite):
    case = suite[TIED].case
    flipped = case.arrays | {"A": case.arrays["A"][..., ::-1, ::-1].copy()}
    found = disagreements(suite[TIED], WITNESSES[witness](replace(case, arrays=flipped)))
    assert found.keys() == suite[TIED].outputs.keys()


def traits(case):
    """What a case contributes to the coverage of the suite."""
    arrays, (N, C, H, W) = case.arrays, case.arrays["u"].shape
    state = "tied" if case.tied else "untied"
    yield from ((case.potential, state), (case.operator, state), (case.analysis, state))
    yield from ((case.potential, case.analysis), ("parameter", bool(case.potential_parameters)))
    yield from (("boundary", case.boundary), (case.boundary, state))
    yield from (("operator boundary", case.operator_boundary), ("norm", case.norm is not None))
    yield from (("channels", C), ("images", N), ("given", "b" in arrays, "weights" in arrays))
    yield ("size", "odd" if H % 2 and W % 2 else "even" if not H % 2 and not W % 2 else "mixed")
    yield ("square", H == W)
    window = arrays["A"].shape[2:] if case.analysis == "convolution" else (0, 0)
    yield ("smaller than the filter", window[0] > H and window[1] > W)
    yield ("one pixel wide", min(H, W) == 1)
    yield ("mask", arrays["mask"].ndim if case.operator == "mask" else 0)


def wanted():
    """Traits that some case must have."""
    states = ("tied", "untied")
    yield from product((*POTENTIALS, *OPERATORS, *ANALYSES, *BOUNDARIES), states)
    yield from product(POTENTIALS, ANALYSES)
    yield from product(("boundary", "operator boundary"), BOUNDARIES)
    flags = ("norm", "parameter", "square", "smaller than the filter", "one pixel wide")
    yield from product(flags, (True, False))
    yield from product(("channels", "images"), (1, 3))
    yield from product(("given",), (True, False), (True, False))
    yield from product(("size",), ("odd", "even", "mixed"))
    yield from product(("mask",), (2, 3))


def uncovered(cases):
    found = {trait for case in cases for trait in traits(case)}
    return [trait for trait in wanted() if trait not in found]


def test_suite_covers_the_table_of_the_design(suite):
    assert uncovered(golden.case for golden in suite.values()) == []


@pytest.mark.parametrize("left_out", ["huber", "norm", "mask"])
def test_gap_in_the_coverage_is_found(left_out, suite):
    kept = [golden.case for name, golden in suite.items() if left_out not in name]
    assert any(left_out in trait for trait in uncovered(kept))


def test_suite_is_the_list_of_recipes_small_and_in_float64(suite):
    assert list(suite) == NAMES and len(suite) >= 24
    assert sum(path.stat().st_size for path in SUITE.rglob("*")) < MAX_BYTES
    for golden in suite.values():
        arrays = golden.case.arrays | golden.outputs
        assert all(x.dtype == np.float64 for name, x in arrays.items() if name != "mask")


def test_files_are_what_the_generator_draws(suite):
    for name, recipe in RECIPES.items():
        case, result = draw(name, recipe)
        assert case.description() == suite[name].case.description()
        assert case.arrays.keys() == suite[name].case.arrays.keys()
        for key, x in case.arrays.items():
            assert np.array_equal(x, suite[name].case.arrays[key]), (name, key)
        assert result.outputs.keys() == suite[name].outputs.keys()


def test_generator_writes_the_same_bytes_each_time():
    first, second = (draw(UNTIED, RECIPES[UNTIED]) for _ in range(2))
    assert npz_bytes(first[0].arrays) == npz_bytes(second[0].arrays)
    assert npz_bytes(first[1].outputs) == npz_bytes(second[1].outputs)


def test_inputs_are_exact_in_float32_and_give_the_outputs_to_five_digits(suite):
    for name, golden in suite.items():
        floats = {k: x for k, x in golden.case.arrays.items() if k != "mask"}
        single = {k: x.astype(np.float32) for k, x in floats.items()}
        assert all(np.array_equal(x, single[k]) for k, x in floats.items()), name
        result = evaluate(replace(golden.case, arrays=golden.case.arrays | single))
        for k, x in golden.outputs.items():
            assert relative_error(result.outputs[k], x) <= SINGLE, (name, k)


def test_kinks_and_ill_conditioning_are_shortcomings():
    case = candidate(RECIPES[TIED], np.random.default_rng(0))
    assert shortcomings(case, evaluate(case)) == []
    step = build_step(case)
    z = equations.responses(step.problem, case.arrays["u"])
    near = np.full_like(case.arrays["b"], KINK_MARGIN / 2) - z[0, :, 0, 0]
    kinked = replace(case, arrays=case.arrays | {"b": case.arrays["b"] + near})
    assert any("responses at u come" in s for s in shortcomings(kinked, evaluate(kinked)))
    (rate, iterated) = shortcomings(replace(case, tau=5.0), evaluate(replace(case, tau=5.0)))
    assert "spectral radius" in rate and "iterated" in iterated
    weak = replace(case, lam=1e-3, tau=1.0)
    assert any("condition number" in s for s in shortcomings(weak, evaluate(weak)))


def test_unsolved_case_and_double_singular_value_are_shortcomings():
    case = make_case("soft_shrinkage", operator="mask", potential_parameters={"threshold": 100.0})
    assert shortcomings(case, evaluate(case)) == ["not solved"]
    # The symbol of a periodic difference has its maxima at ± the same frequency.
    A = np.array([[[[1.0, 0.0, -1.0]]]])
    assert singular_gap(FilterBank((1, 1, 8), (1, 1, 3), "periodic"), A) < MIN_GAP


def verify(directory, capsys):
    """Exit code and lines of `refimpl verify --golden DIR` that say that something fails."""
    code = cli.main(["verify", "--golden", str(directory)])
    return code, [x for x in capsys.readouterr().out.splitlines() if x.endswith("FAILS")]


def test_shipped_suite_holds(suite, capsys):
    assert cli.main(["verify", "--golden"]) == 0
    head, *rows, tail = capsys.readouterr().out.splitlines()
    total = sum(len(golden.outputs) for golden in suite.values())
    assert head.split() == ["output", "measured", "bound", "verdict"]
    assert len(rows) == total and tail == f"{total} outputs, 0 failed"
    # No bound is so wide that it proves nothing.
    assert max(float(row.split()[-2]) for row in rows) < AGREE


@pytest.mark.parametrize("output", output_names(TIED))
def test_changed_digit_fails_and_names_case_and_output(output, tmp_path, capsys):
    change_digit(copy_case(TIED, tmp_path), output, digit=11)
    code, failures = verify(tmp_path, capsys)
    assert code == 1 and [line.split()[:2] for line in failures] == [[f"{TIED}:", output]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: None, "not stored"),
        (lambda x: x[:, :, :-1], "stored float64"),
        (lambda x: x.astype(np.float32), "stored float32"),
        (lambda x: x * np.nan, "nan"),
    ],
)
def test_output_missing_misshaped_imprecise_or_nan_fails(change, words, tmp_path, capsys):
    case = copy_case(UNTIED, tmp_path)
    change_outputs(case, jvp=change(read_arrays(case / "outputs.npz")["jvp"]))
    code, (failure,) = verify(tmp_path, capsys)
    assert code == 1 and f"{UNTIED}: jvp" in failure and words in failure


def test_output_that_nothing_computes_fails(tmp_path, capsys):
    change_outputs(copy_case(UNTIED, tmp_path), energy=np.ones(1))
    code, (failure,) = verify(tmp_path, capsys)
    assert code == 1 and f"{UNTIED}: energy not computed" in failure


@pytest.mark.parametrize("damage", ["nothing", "case.json", "inputs.npz", "outputs.npz"])
def test_damaged_suite_exits_with_two(damage, tmp_path, capsys):
    if damage != "nothing":
        (copy_case(TIED, tmp_path) / damage).write_bytes(b"PK")
    assert cli.main(["verify", "--golden", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and (damage in err or "no cases" in err)


def test_seed_is_refused_with_the_golden_suite():
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", "--golden", "--seed", "1"])
    assert stop.value.code == 2


def test_rounding_errors_are_large_at_kinks_and_for_weak_data():
    case = make_case("half_squared_relu", size=(3, 3))
    ordinary = rounding_errors(case, evaluate(case))
    step = build_step(case)
    z = equations.responses(step.problem, case.arrays["u"])
    at_kink = replace(case, arrays=case.arrays | {"b": case.arrays["b"] - z[0, :, 0, 0]})
    assert ordinary["jvp"] < 1e-12 and rounding_errors(at_kink, evaluate(at_kink))["jvp"] > 1e-3
    weak = replace(case, lam=1e-4)
    assert rounding_errors(weak, evaluate(weak))["fixed_point"] > 10 * ordinary["fixed_point"]


def test_nothing_holds_where_the_error_is_unknown():
    assert not compare("x", np.ones(2), np.ones(2), np.inf).passed
    assert compare("x", np.ones(2), np.ones(2), 0.0).passed


def test_checks_take_a_case_whose_outputs_vanish():
    case = make_case("log_cosh")
    zeros = {name: np.zeros_like(case.arrays[name]) for name in ("y", "target", "b")}
    case = replace(case, arrays=case.arrays | zeros)
    checks = list(golden_checks([GoldenCase("zero", case, evaluate(case).outputs)]))
    assert checks and all(check.passed for check in checks)
