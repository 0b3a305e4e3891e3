"""torch and JAX autodiff against the hand-derived reference, and what making a backend says."""

import builtins
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from backend_problem import local_outputs, problem_of, solved_outputs
from case_factory import POTENTIALS, make_case

from refimpl.paper.operators.padding import index_map
from refimpl.results import NotConvergedError
from refimpl.verification.backends import BACKENDS, make_backend
from refimpl.verification.backends.maps import sources
from refimpl.verification.cases import evaluate
from strategies import BOUNDARIES

# torch compiles parts of itself with an interface that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

# What autodiff and hand derivation must agree to, and what is asked of solvers. Rounding and
# solvers' residuals are carried by the conditioning of a case, which leaves 1e-10 / 1e-12 for it.
TOLERANCE, TOL = 1e-10, 1e-12
SINGLE_TOL = 16 * float(np.finfo(np.float32).eps)
OPERATORS = ("identity", "mask", "convolution", "matrix")
SIZES = ((5, 6), (1, 5), (2, 3), (4, 3))
FILTERS = ((3, 3), (1, 3), (7, 5))
# JAX compiles every case anew, so it gets fewer of them.
CASES = [("torch", k) for k in range(28)] + [("jax", k) for k in (0, 9)]


def case_of(k):
    """Cases that go through the table: potentials with both ties, boundaries, operators, norms."""
    potential, untied = list(POTENTIALS)[k % 7], k // 7 % 2
    operator = OPERATORS[(k + k // 7) % 4]
    if (potential, operator) == ("half_squared_relu", "mask"):
        operator = "matrix"  # where ReLU is 0, nothing determines a pixel that the mask hides
    return make_case(
        potential,
        boundary=BOUNDARIES[k % 5],
        analysis="dense" if k % 6 == 5 else "convolution",
        tied=not untied,
        operator=operator,
        channels=1 + k % 2,
        batch=1 + k % 3,
        size=SIZES[k // 7],
        filter_size=FILTERS[k % 3],
        optional=k % 4 > 0,
        norm=(None, 0.8, 1.5)[k % 3],
        seed=k,
    )


def backend_of(name, **options):
    framework = pytest.importorskip(name, reason="install refimpl[backends]")
    if name == "torch":
        framework.set_num_threads(1)
    return make_backend(name, **options)


def relative_errors(given, expected):
    """‖x − expected‖ / ‖expected‖ of every output; names and shapes must be the same."""
    assert {k: x.shape for k, x in given.items()} == {k: x.shape for k, x in expected.items()}
    return {k: np.linalg.norm(given[k] - x) / np.linalg.norm(x) for k, x in expected.items()}


def all_outputs(backend, case, *, tol=TOL):
    return local_outputs(backend, case) | solved_outputs(backend, case, tol=tol)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_autodiff_equals_the_derivatives_by_hand(name, k):
    case = case_of(k)
    errors = relative_errors(all_outputs(backend_of(name), case), evaluate(case).outputs)
    assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize(("name", "k"), [("torch", k) for k in range(0, 28, 3)] + [("jax", 9)])
def test_single_precision_loses_as_many_digits_as_double(name, k):
    case = case_of(k)
    single = {k: x if k == "mask" else x.astype(np.float32) for k, x in case.arrays.items()}
    exact = {k: x.astype(case.arrays[k].dtype) for k, x in single.items()}
    case, exact = replace(case, arrays=single), replace(case, arrays=exact)
    given = all_outputs(backend_of(name), case, tol=SINGLE_TOL)
    assert {x.dtype for x in given.values()} == {np.dtype(np.float32)}
    errors = relative_errors(given, evaluate(exact).outputs)
    assert max(errors.values()) <= SINGLE_TOL * TOLERANCE / TOL, errors


def test_compiled_torch_maps_equal_the_reference(monkeypatch):
    torch = pytest.importorskip("torch", reason="install refimpl[backends]")
    # Traced and differentiated as by default; generating C++ takes a minute and changes nothing.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    case = make_case("log_cosh", operator="convolution", size=(3, 4), norm=0.8)
    expected = evaluate(case).outputs
    given = local_outputs(backend_of("torch", compiled=True), case)
    errors = relative_errors(given, {name: expected[name] for name in given})
    assert max(errors.values()) <= TOLERANCE, errors


def test_eager_jax_maps_equal_the_reference():
    case = make_case("log_cosh", operator="convolution", size=(3, 4))
    backend = backend_of("jax", compiled=False)
    problem, expected = problem_of(case, backend), evaluate(case).outputs["map"]
    given = np.asarray(backend.apply(problem, case.arrays["u"]))
    assert np.linalg.norm(given - expected) <= TOLERANCE * np.linalg.norm(expected)


PLANTED = {  # method, what replaces it, the outputs that must be wrong and those that must not
    "filters flipped": ("analyse", lambda old, p, A, u: old(p, _flipped(A), u), "map", None),
    "norm frozen": ("norm", lambda old, p, A: old(p, A).detach(), "vjp_A", "map"),
    "adjoint zero": (
        "solve_adjoint",
        lambda old, settings, arrays, theta, u, b, tol: 0 * b,
        "hypergradient_A",
        "fixed_point",
    ),
    "sum in place of mean": ("loss", lambda old, p, u: old(p, u) * u.numel(), "loss", "map"),
}


def _flipped(A):
    return A.flip(2, 3)


@pytest.mark.parametrize("fault", PLANTED)
def test_replaced_method_is_seen_where_it_matters_and_only_there(fault):
    method, new, wrong, right = PLANTED[fault]
    backend = backend_of("torch")
    old = getattr(backend, method)
    setattr(backend, method, lambda *arguments: new(old, *arguments))
    case = make_case("log_cosh", norm=0.8)
    errors = relative_errors(all_outputs(backend, case), evaluate(case).outputs)
    assert errors[wrong] > 1e-3
    assert right is None or errors[right] <= TOLERANCE


@pytest.mark.parametrize("name", BACKENDS)
def test_tolerance_out_of_reach_raises(name):
    backend = backend_of(name)
    problem = problem_of(make_case("log_cosh", size=(3, 4)), backend)
    with pytest.raises(NotConvergedError, match="asked for 1.00e-30"):
        backend.fixed_point(problem, tol=1e-30)


@pytest.mark.parametrize("name", BACKENDS)
def test_untied_problem_has_no_energy(name):
    backend = backend_of(name)
    case = make_case("log_cosh", tied=False)
    problem = problem_of(case, backend)
    for method in ("energy", "gradient"):
        with pytest.raises(ValueError, match="untied"):
            getattr(backend, method)(problem, case.arrays["u"])


def test_images_do_not_influence_each_other():
    backend = backend_of("torch")
    case = make_case("log_cosh", operator="mask")
    first = {k: x[:1] for k, x in case.arrays.items() if k in ("y", "target", "u", "v", "w")}
    alone = replace(case, arrays=case.arrays | first)
    stars = [backend.fixed_point(problem_of(c, backend), tol=TOL) for c in (case, alone)]
    assert np.array_equal(np.asarray(stars[0])[:1], np.asarray(stars[1]))


@pytest.mark.parametrize("boundary", BOUNDARIES[1:])
def test_sources_of_a_border_are_those_of_the_reference(boundary):
    for length in range(1, 6):
        for width in range(12):
            given = sources(length, width, boundary)
            assert np.array_equal(given, index_map(length, width, boundary))


def test_unknown_boundary_and_backend_are_refused():
    with pytest.raises(ValueError, match="mirror"):
        sources(3, 1, "mirror")
    with pytest.raises(ValueError, match="torch, jax"):
        make_backend("tensorflow")


@pytest.mark.parametrize("name", BACKENDS)
def test_missing_framework_says_what_to_install(name, monkeypatch):
    real = builtins.__import__

    def without(module, *arguments, **options):
        if module.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    for module in [m for m in sys.modules if m.startswith(f"refimpl.verification.backends.{name}")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ModuleNotFoundError, match=r"refimpl\[backends\]"):
        make_backend(name)


def test_importing_the_package_imports_no_framework():
    check = (
        "import sys, refimpl, refimpl.verification.cases, refimpl.verification.backends; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
