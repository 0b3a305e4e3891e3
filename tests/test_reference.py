"""Reference and judge: an independent right program always agrees, and a wrong one does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from case_factory import POTENTIALS, make_case
from torch_oracle import Oracle

from refimpl.paper.operators import BOUNDARIES
from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.anatomy import local_output, make_parts
from refimpl.verification.crosscheck.judge import OUTPUTS, judge
from refimpl.verification.crosscheck.reference import (
    DEFAULT_TOL,
    is_local,
    make_reference,
)
from refimpl.verification.perturbation import perturbed

# torch announces this itself on the first use of torch.func.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

LOCAL_CASES, SOLVED_CASES = 60, 6
MOST_ITERATIONS = 2_000


def random_case(seed):
    """A case of any kind; one pixel wide and smaller than the filter included."""
    rng = np.random.default_rng(seed)
    odd = [1, 3, 5]
    options = {
        "boundary": str(rng.choice(list(BOUNDARIES))),
        "analysis": str(rng.choice(["convolution", "dense"], p=[0.8, 0.2])),
        "tied": bool(rng.integers(2)),
        "operator": str(rng.choice(["identity", "mask", "convolution", "matrix"])),
        "channels": int(rng.integers(1, 3)),
        "batch": int(rng.integers(1, 4)),
        "size": (int(rng.integers(3, 8)), int(rng.integers(1, 8))),
        "filter_size": (int(rng.choice(odd)), int(rng.choice(odd))),
        "optional": bool(rng.integers(2)),
        "tau": float(rng.uniform(0.03, 0.15)),
    }
    return make_case(str(rng.choice(list(POTENTIALS))), seed=seed, **options)


def oracle_of(reference):
    """The independent program, in the precision of the reference."""
    dtype = getattr(torch, reference.precision.name)
    return Oracle(reference.case, dtype)


def arrays_of(outputs):
    return {name: x.detach().numpy() for name, x in outputs.items()}


def solved(oracle, start, tol):
    """Fixed point, loss and hypergradients by plain iterations, stopped at `tol`; None if not."""
    p, theta = oracle.p, oracle.theta
    u = iterate(oracle.T, start, tol)
    if u is None:
        return None
    goal = oracle.loss_gradient(u)
    q = iterate(lambda x: goal + oracle.step_vjp(p, theta, u, x).detach(), goal, tol)
    if q is None:
        return None
    hyper = oracle.step_params_vjp(p, theta, u, q)
    named = {f"hypergradient_{name}": g for name, g in hyper.items()}
    return {"fixed_point": u, "loss": oracle.loss(p, u)} | named


def iterate(function, x, tol):
    for _ in range(MOST_ITERATIONS):
        new = function(x)
        if ((new - x).flatten(1).norm(dim=1) <= tol * x.flatten(1).norm(dim=1)).all():
            return x
        x = new
    return None


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("first", range(0, LOCAL_CASES, 20))
def test_right_local_outputs_always_agree(first, precision):
    for seed in range(first, first + 20):
        reference = make_reference(random_case(seed), precision)
        for verdict in judge(reference, arrays_of(oracle_of(reference).local())):
            assert verdict.agrees in (True, None), (seed, verdict)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("seed", range(SOLVED_CASES))
def test_right_solved_outputs_agree_when_stopped_at_the_tolerance(seed, precision):
    reference = make_reference(random_case(500 + seed), precision)
    oracle = oracle_of(reference)
    start = torch.from_numpy((1 + 1e-9) * reference.outputs["fixed_point"])
    start = start.to(oracle.arrays["y"].dtype)
    found = solved(oracle, start, DEFAULT_TOL[precision])
    for verdict in judge(reference, arrays_of(found or {})):
        assert verdict.agrees in (True, None), verdict


@pytest.mark.parametrize(
    ("precision", "local", "state"), [("float64", 12, 9.5), ("float32", 3.5, 3)]
)
def test_tolerances_are_tight(precision, local, state):
    for potential in POTENTIALS:
        reference = make_reference(make_case(potential), precision)
        for verdict in judge(reference, reference.outputs):
            if verdict.agrees is not None:
                hyper = 1.0 if verdict.output.startswith("hyper") else 0.0
                least = local if is_local(verdict.output) else state - hyper
                assert verdict.expected_digits >= least, (potential, verdict)
                assert verdict.digits >= verdict.expected_digits


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_every_output_off_by_ten_tolerances_disagrees(precision):
    reference = make_reference(make_case("log_cosh", tied=False), precision)
    for name, x in reference.outputs.items():
        noise = np.random.default_rng(0).standard_normal(x.shape)
        wrong = x + 10 * reference.tolerances[name] * noise / np.linalg.norm(noise)
        assert judge(reference, {name: wrong})[0].agrees is False


def test_response_at_a_kink_leaves_derivatives_open():
    case = make_case("half_squared_relu", optional=False)
    arrays = case.arrays | {"u": np.zeros_like(case.arrays["u"])}
    reference = make_reference(replace(case, arrays=arrays))
    verdicts = {v.output: v for v in judge(reference, reference.outputs)}
    assert verdicts["jvp"].agrees is None and "kink" in verdicts["jvp"].note
    assert verdicts["vjp_A"].agrees is None and verdicts["map"].agrees is True


def test_float32_case_is_converted_exactly():
    case = make_case("huber")
    single = replace(case, arrays={n: x.astype(np.float32) for n, x in case.arrays.items()})
    both = make_reference(case, "float32"), make_reference(single, "float32")
    for name, x in both[0].outputs.items():
        assert x.dtype == np.float64
        np.testing.assert_array_equal(x, both[1].outputs[name])


def test_looser_tol_allows_more_of_solved_outputs_only():
    case = make_case("smoothed_l1")
    tight, loose = make_reference(case), make_reference(case, tol=1e-6)
    assert loose.tolerances["fixed_point"] > 1e4 * tight.tolerances["fixed_point"]
    assert loose.tolerances["map"] == tight.tolerances["map"]


@pytest.mark.parametrize("norm", [None, 1.3])
@pytest.mark.parametrize("tied", [True, False])
def test_parts_are_the_definition(norm, tied):
    case = make_case("smoothed_l1", tied=tied, operator="convolution", norm=norm)
    reference, parts = make_reference(case), make_parts(case)
    outputs = {n: local_output(parts, n, case.arrays) for n in reference.outputs if is_local(n)}
    assert all(verdict.agrees for verdict in judge(reference, outputs))


def test_large_images_are_judged_by_the_accuracy_of_the_oracle():
    reference = make_reference(make_case("log_cosh", size=(24, 24), batch=1))
    verdicts = judge(reference, reference.outputs)
    assert all(verdict.agrees and verdict.expected_digits > 6 for verdict in verdicts)


def test_perturbed_moves_every_number_by_at_most_eps():
    case = make_case("huber", operator="mask")
    for by_image in (False, True):
        moved = perturbed(case, 1e-3, np.random.default_rng(0), by_image=by_image)
        assert isinstance(moved, Case)
        np.testing.assert_array_equal(moved.arrays["mask"], case.arrays["mask"])
        np.testing.assert_allclose(moved.arrays["A"], case.arrays["A"], rtol=1e-3)
        assert moved.tau != case.tau and moved.potential_parameters != case.potential_parameters
        u, other = case.arrays["u"], moved.arrays["u"]
        assert (abs(other - u) <= 1e-3 * (abs(u).max() if by_image else abs(u))).all()


def test_rounding_relative_to_the_largest_pixel_agrees():
    case = replace(
        make_case("log_cosh", boundary="periodic"), potential_parameters={"slope": 100.0}
    )
    bright = case.arrays["u"].copy()
    bright[..., 0] *= 1e6
    case = replace(case, arrays=case.arrays | {"u": bright})
    reference = make_reference(case)
    rng, eps = np.random.default_rng(0), float(np.finfo(float).eps)
    for _ in range(10):  # what an FFT leaves of A u
        other = perturbed(case, eps, rng, by_image=True)
        other = replace(case, arrays=case.arrays | {"u": other.arrays["u"]})
        parts = make_parts(other)
        given = {k: local_output(parts, k, other.arrays) for k in ("jvp", "hvp", "vjp_b")}
        assert all(j.agrees is not False for j in judge(reference, given))


def test_verdicts_on_bad_values_say_what_is_wrong():
    reference = make_reference(make_case("quadratic", tied=False))
    wrong = {
        "map": np.zeros((2, 3)),
        "jvp": np.nan * reference.outputs["jvp"],
        "energy": np.ones(2),
    }
    shape, energy, value = judge(reference, wrong)
    assert shape.agrees is False and "expected (2, 1, 5, 6)" in shape.note
    assert energy.agrees is None and "no such output" in energy.note
    assert value.agrees is False and "NaN" in value.note and value.digits == 0
    with pytest.raises(ValueError, match="given mpa, expected names among operator, "):
        judge(reference, {"mpa": np.zeros(2)})


def test_verdicts_are_in_the_order_of_stages():
    reference = make_reference(make_case("quadratic"))
    names = [
        verdict.output for verdict in judge(reference, dict(reversed(reference.outputs.items())))
    ]
    assert names == [name for name in OUTPUTS if name in reference.outputs]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"precision": "float16"}, "given float16"), ({"tol": 0.0}, "given 0.0, expected a relative")],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_reference(make_case("quadratic"), **options)


def test_reference_never_disagrees_with_itself_where_nothing_is_known():
    mask = np.ones((5, 6))
    mask[0, :2] = 0
    case = make_case("quadratic", operator="mask", optional=True)
    y = case.arrays["y"] * mask
    arrays = case.arrays | {"mask": mask, "y": y, "target": y}
    arrays["weights"] = np.zeros(len(arrays["A"]))
    reference = make_reference(replace(case, arrays=arrays))
    assert not any(v.agrees is False for v in judge(reference, reference.outputs))
