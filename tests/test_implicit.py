"""Hypergradients: dense solves and complex steps, every method; refusals; memory; threads."""

import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings

from refimpl.engine.step import StepLinearization, make_step
from refimpl.equilibrium.adjoint import ADJOINT_METHODS, solve_adjoint
from refimpl.equilibrium.implicit import hypergradient, unrolled_hypergradient
from refimpl.equilibrium.norms import largest_safe_step
from refimpl.equilibrium.state import reconstruct
from refimpl.paper import equations
from refimpl.paper.loss import squared_loss_gradient
from refimpl.paper.operators import FilterBank, Identity, Mask, row_mask
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import LogCosh
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.results import BreakdownError, NotConvergedError
from refimpl.verification.identities.adjoints import dense_adjoint_state
from refimpl.verification.identities.known_problems import problem
from strategies import KIND, generator, normal, seeds

EXACT = tuple(method for method in ADJOINT_METHODS if method != "jacobian_free")
H = 1e-30


def make(*, seed=0, **kind):
    made = problem(KIND | kind, generator(seed))
    state = reconstruct(made.step, method="newton_krylov", residual_tol=1e-12)
    return made.step, made.target, state


def methods(tied):
    return [method for method in EXACT if tied or method != "cg"]


def moved(step, name, direction):
    """T at θ + i h d in the parameter `name`: complex, so evaluated by the definitions."""
    theta = step.problem.theta
    theta = replace(theta, **{name: getattr(theta, name) + 1j * H * direction})
    return partial(equations.step, step.problem.with_theta(theta), step.tau)


def iterate(apply, u, count):
    for _ in range(count):
        u = apply(u)
    return u


ENTRIES = [
    (tied, name)
    for tied in (True, False)
    for name in ("A", "C", "b", "weights", "gamma")
    if not (tied and name == "C")
]


# Exactness


@settings(max_examples=5)
@given(seeds())
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("analysis", ["convolution", "dense"])
def test_every_method_solves_the_adjoint_equation_of_the_dense_matrix(analysis, tied, seed):
    step, target, state = make(tied=tied, analysis=analysis, operator="convolution", seed=seed)
    lin, gradient = step.linearize(state.x), squared_loss_gradient(state.x, target)
    expected = dense_adjoint_state(lin, gradient)
    for method in methods(tied):
        result = solve_adjoint(lin, gradient, method=method, residual_tol=1e-12)
        assert result.all_converged, result.message
        assert np.linalg.norm(result.x - expected) <= 1e-9 * np.linalg.norm(expected)


@pytest.mark.parametrize("analysis", ["convolution", "dense"])
@pytest.mark.parametrize(("tied", "name"), ENTRIES)
def test_hypergradient_is_the_complex_step_through_the_whole_iteration(tied, name, analysis):
    step, target, state = make(tied=tied, analysis=analysis)
    direction = generator(1).standard_normal(getattr(step.problem.theta, name).shape)
    perturbed = iterate(moved(step, name, direction), state.x.astype(complex), 300)
    expected = np.mean((perturbed - target) ** 2).imag / H
    gradient = squared_loss_gradient(state.x, target)
    for method in methods(tied):
        given = hypergradient(step, state, gradient, method=method, residual_tol=1e-12).gradient
        slope = np.sum(getattr(given, name) * direction)
        assert slope == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("iterations", [1, 2, 3, 4, 9, 10, 17])
@pytest.mark.parametrize(("tied", "name"), ENTRIES)
def test_unrolled_gradient_is_the_complex_step_through_as_many_steps(tied, name, iterations):
    step, target, _ = make(tied=tied, operator="convolution")
    direction = generator(2).standard_normal(getattr(step.problem.theta, name).shape)
    u0 = normal(generator(3), target.shape)
    expected = iterate(moved(step, name, direction), u0.astype(complex), iterations)
    u, gradient = unrolled_hypergradient(
        step, u0, lambda x: squared_loss_gradient(x, target), iterations
    )
    assert np.array_equal(u, iterate(step.apply, u0, iterations))
    slope = np.sum(getattr(gradient, name) * direction)
    assert slope == pytest.approx(np.mean((expected - target) ** 2).imag / H, rel=1e-11)


def test_unrolled_gradient_approaches_the_implicit_one():
    step, target, state = make(operator="convolution")
    exact = hypergradient(step, state, squared_loss_gradient(state.x, target), residual_tol=1e-12)
    errors = []
    for iterations in (10, 40, 160):
        _, gradient = unrolled_hypergradient(
            step, np.zeros_like(target), lambda x: squared_loss_gradient(x, target), iterations
        )
        errors.append(np.linalg.norm(gradient.A - exact.gradient.A))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_jacobian_free_is_not_the_gradient_and_says_so():
    step, target, state = make(operator="convolution")
    gradient = squared_loss_gradient(state.x, target)
    free = hypergradient(step, state, gradient, method="jacobian_free")
    exact = hypergradient(step, state, gradient)
    assert not free.exact
    assert exact.exact
    assert np.array_equal(free.adjoint.x, gradient)
    assert (free.adjoint.residuals > 0.1).all()
    assert np.linalg.norm(free.gradient.A - exact.gradient.A) > 0.1 * np.linalg.norm(
        exact.gradient.A
    )


@pytest.mark.parametrize("method", EXACT)
def test_tolerance_is_the_relative_residual_of_the_adjoint_equation(method):
    step, target, state = make(operator="convolution")
    lin, gradient = step.linearize(state.x), squared_loss_gradient(state.x, target)
    result = solve_adjoint(lin, gradient, method=method, residual_tol=1e-4)
    defect = gradient + lin.vjp(result.x) - result.x
    residuals = [np.linalg.norm(d) / np.linalg.norm(g) for d, g in zip(defect, gradient)]
    assert max(residuals) <= 1e-4 * (1 + 1e-6)
    np.testing.assert_allclose(result.residuals, residuals, rtol=1e-6)


def test_a_loss_gradient_of_zero_gives_a_hypergradient_of_zero():
    step, _, state = make()
    for method in ADJOINT_METHODS:
        result = hypergradient(step, state, np.zeros_like(state.x), method=method)
        assert all(not array.any() for _, array in result.gradient.items())


# Batches and precision


@pytest.mark.parametrize("tied", [True, False])
def test_images_of_a_batch_are_independent_bit_for_bit(tied):
    step, target, state = make(tied=tied, operator="convolution")
    gradient = squared_loss_gradient(state.x, target)
    for method in methods(tied):
        batch = solve_adjoint(step.linearize(state.x), gradient, method=method, residual_tol=1e-8)
        for n in range(len(target)):
            one = slice(n, n + 1)
            lin = step.image(n).linearize(state.x[one])
            alone = solve_adjoint(lin, gradient[one], method=method, residual_tol=1e-8)
            assert np.array_equal(alone.x, batch.x[one])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("operator", ["identity", "mask", "convolution"])
def test_auto_refines_with_products_in_float32(operator, tied, monkeypatch):
    step = make(tied=tied, operator=operator)[0]
    dtypes = []

    def recorded(lin, q, product=StepLinearization.direction_vjp):
        dtypes.append(q.dtype)
        return product(lin, q)

    monkeypatch.setattr(StepLinearization, "direction_vjp", recorded)
    u = step.operator.adjoint(step.problem.y)
    result = solve_adjoint(step.linearize(u), u, method="auto", residual_tol=1e-10)
    assert result.all_converged and result.x.dtype == np.float64
    assert result.products == len(dtypes) > dtypes.count(np.dtype(np.float32)) > len(dtypes) / 2


def test_hypergradients_add_over_the_images():
    step, target, state = make(tied=False)
    gradient = squared_loss_gradient(state.x, target)
    whole = hypergradient(step, state, gradient).gradient
    parts = []
    for n in range(len(target)):
        alone = step.image(n)
        star = reconstruct(alone, state.x[n : n + 1], residual_tol=1e-10)
        parts.append(hypergradient(alone, star, gradient[n : n + 1]).gradient)
    for name, array in whole.items():
        total = sum(getattr(part, name) for part in parts)
        assert np.linalg.norm(array - total) <= 1e-8 * np.linalg.norm(array)


@pytest.mark.parametrize("method", ADJOINT_METHODS)
def test_float32_stays_float32(method):
    rng = generator(4)
    bank = FilterBank((1, 6, 5), (2, 3, 3))
    experts = FieldOfExperts(bank, LogCosh(), normal(rng, bank.coefficients_shape, np.float32))
    y = normal(rng, (2, 1, 6, 5), np.float32)
    step = make_step(Problem(Identity((1, 6, 5)), y, experts), 0.02)
    state = reconstruct(step, residual_tol=1e-4)
    result = hypergradient(step, state, state.x, method=method, residual_tol=1e-4)
    assert {x.dtype for _, x in result.gradient.items()} == {np.dtype(np.float32)}
    assert result.adjoint.x.dtype == np.float32


# Refusals


def test_an_unconverged_state_is_refused_unless_allowed():
    step, target, _ = make()
    state = reconstruct(step, method="picard", residual_tol=1e-12, max_iterations=2)
    gradient = squared_loss_gradient(state.x, target)
    with pytest.raises(NotConvergedError, match="forward solve failed: 2 of 2 images did not"):
        hypergradient(step, state, gradient)
    assert hypergradient(step, state, gradient, allow_unconverged=True).adjoint.all_converged


def test_an_unconverged_adjoint_is_refused_unless_allowed():
    step, target, state = make(operator="convolution")
    gradient = squared_loss_gradient(state.x, target)
    options = {"method": "neumann", "max_iterations": 2}
    with pytest.raises(NotConvergedError, match="adjoint solve failed: 2 of 2.*raise max_iter"):
        hypergradient(step, state, gradient, **options)
    inexact = hypergradient(step, state, gradient, allow_unconverged=True, **options)
    assert not inexact.adjoint.converged.any()


def test_conjugate_gradients_are_refused_to_untied_models():
    step, target, state = make(tied=False)
    with pytest.raises(TypeError, match="'cg' needs a symmetric Jacobian.*gmres"):
        hypergradient(step, state, squared_loss_gradient(state.x, target), method="cg")


@pytest.mark.parametrize("method", EXACT)
def test_a_fixed_point_that_is_not_isolated_is_refused(method):
    """Missing pixels that no filter sees: I − ∂T is singular, and ∇ℓ lies outside its range."""
    image = (1, 6, 5)
    experts = FieldOfExperts(FilterBank(image, (2, 3, 3)), LogCosh(), np.zeros((2, 1, 3, 3)))
    y = normal(generator(5), (1, *image))
    step = make_step(Problem(Mask(row_mask(image[1:]), image), y, experts), 0.5)
    assert reconstruct(step).kind == ("unknown",)
    state = reconstruct(step, residual_tol=1e-6)
    assert state.all_converged
    with pytest.raises((NotConvergedError, BreakdownError)):
        hypergradient(step, state, np.ones_like(y), method=method, max_iterations=500)


@pytest.mark.parametrize("method", ["auto", "cg"])
def test_an_infinite_adjoint_state_did_not_converge(method):
    """Saturated responses: J of hidden pixels is 1e-303, where p is finite and q = p / τ is not."""
    rng, image = generator(0), (1, 9, 8)
    theta = make_parameters(normal(rng, (26, 1, 3, 3)) / np.sqrt(234), gamma=1e-3)
    experts = FieldOfExperts(FilterBank(image, (26, 3, 3), "periodic"), LogCosh(3.0), theta)
    mask = Mask(rng.random(image) < 0.7, image)
    step = make_step(Problem(mask, normal(rng, (1, *mask.range_shape)), experts, 100.0), 0.007)
    lin, loss = step.linearize(1e10 * normal(rng, (1, *image))), normal(rng, (1, *image))
    result = solve_adjoint(lin, loss, method=method, residual_tol=1e-10)
    assert not np.isfinite(result.x).all() and not result.all_converged
    assert "q is infinite: J is singular" in result.message


def test_unknown_names_and_options_are_refused():
    step, target, state = make()
    gradient = squared_loss_gradient(state.x, target)
    with pytest.raises(ValueError, match="'exact' is unknown; choose one of auto, cg, gmres"):
        hypergradient(step, state, gradient, method="exact")
    with pytest.raises(ValueError, match="'ilu' is unknown; choose one of jacobi, circulant"):
        hypergradient(step, state, gradient, preconditioner="ilu")
    with pytest.raises(ValueError, match="'neumann' takes no preconditioner; cg, gmres"):
        hypergradient(step, state, gradient, method="neumann", preconditioner="jacobi")
    with pytest.raises(TypeError, match="restart"):
        hypergradient(step, state, gradient, method="cg", options={"restart": 5})


@pytest.mark.parametrize("iterations", [0, -1, 2.5])
def test_unrolling_needs_at_least_one_step(iterations):
    step, target, _ = make()
    with pytest.raises(ValueError, match="expected an integer of at least 1"):
        unrolled_hypergradient(step, np.zeros_like(target), lambda u: u, iterations)


# Memory and threads


def peak_of(function):
    tracemalloc.start()
    function()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def slow_step(side):
    """A step so short that neither iteration below ends early."""
    rng = generator(6)
    image = (1, side, side)
    bank = FilterBank(image, (2, 3, 3))
    experts = FieldOfExperts(bank, LogCosh(), normal(rng, bank.coefficients_shape))
    step = make_step(Problem(Identity(image), normal(rng, (1, *image)), experts), 1.0)
    return replace(step, tau=1e-4 * largest_safe_step(step))


def test_ten_thousand_adjoint_iterations_need_no_more_memory_than_ten():
    """But for the history: one residual for each image and iteration, far less than an image."""
    step = slow_step(16)
    state = reconstruct(step, method="newton", residual_tol=1e-10)
    peaks = {}
    for count in (10, 10_000):
        options = {"method": "neumann", "residual_tol": 1e-12, "max_iterations": count}

        def run(options=options):
            result = hypergradient(step, state, state.x, allow_unconverged=True, **options)
            assert result.adjoint.iterations.max() == options["max_iterations"]

        peaks[count] = peak_of(run)
    assert peaks[10_000] - peaks[10] < 10_000 * state.x.nbytes / 10


def test_unrolled_gradient_stores_the_square_root_of_its_steps():
    step = slow_step(64)
    u0 = np.zeros_like(step.problem.y)
    peaks = [
        peak_of(lambda k=k: unrolled_hypergradient(step, u0, lambda u: u - 1, k)) for k in (25, 400)
    ]
    # 2√K images: from 10 to 40 of them, where storing all would take from 25 to 400.
    assert peaks[1] - peaks[0] < 40 * u0.nbytes


RUN = """
import hashlib
from refimpl.engine import step as maps
from refimpl.equilibrium.state import reconstruct
from refimpl.verification.identities.known_problems import problem
from refimpl.equilibrium.implicit import hypergradient
from refimpl.kernels import jit
import numpy as np
jit.LARGE, maps.PART = 0, 1  # every kernel and every image may run on any thread
kind = {"operator": "convolution", "operator_boundary": "zero", "analysis": "convolution",
        "boundary": "symmetric", "potential": "log_cosh", "tied": False}
made = problem(kind, np.random.default_rng(0))
state = reconstruct(made.step, method="anderson", tol=1e-10)
gradient = hypergradient(made.step, state, state.x - made.target).gradient
digest = hashlib.sha256(state.x.tobytes())
for _, array in gradient.items():
    digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_hypergradients_are_bit_identical_for_one_and_two_threads():
    digests = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", RUN],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_hypergradient_wants_a_result_and_a_loss_gradient_of_its_shape():
    bank = FilterBank((1, 5, 6), (2, 3, 3))
    A = normal(generator(0), bank.coefficients_shape)
    y = normal(generator(1), (2, 1, 5, 6))
    step = make_step(Problem(Identity((1, 5, 6)), y, FieldOfExperts(bank, LogCosh(), A)), 0.01)
    state = reconstruct(step, method="newton")
    with pytest.raises(TypeError, match="SolverResult"):
        hypergradient(step, state.x, y)
    with pytest.raises(ValueError, match="loss_gradient"):
        hypergradient(step, state, y[:, :, :4])
    with pytest.raises(ValueError, match="truth"):
        squared_loss_gradient(state.x, y[0])
