"""Safeguarded slopes: their two forms, their bounds and limits, and what they save."""

import numpy as np
import pytest
from kernel_problem import settings_of

from refimpl import kernels
from refimpl.engine.slopes import MAJORIZED, safeguarded_slopes
from refimpl.engine.step import make_step
from refimpl.equilibrium.state import reconstruct
from refimpl.paper.operators import DenseBank, FilterBank, Identity
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import LogCosh, make_potential
from refimpl.paper.problem import FieldOfExperts, Problem
from refimpl.solvers import newton, newton_krylov
from refimpl.verification.checks import dense_matrix
from strategies import generator, normal

POTENTIALS = [potential() for potential in MAJORIZED] + [LogCosh(slope=100.0)]
EPS = np.finfo(float).eps
IMAGE = (1, 12, 11)


def wide(shape):
    """Numbers of all sizes and both signs, some 0."""
    rng = generator(0)
    z = normal(rng, shape) * 10.0 ** rng.integers(-6, 3, shape)
    z.flat[::7] = 0
    return z


def lines_at(potential, x):
    """The tangents of σ at x."""
    d = potential.second_derivative(x)
    return np.stack([potential.derivative(x) - d * x, d], axis=1)


def pack(lines):
    """Lines (N, 2, ...) in the layout of the kernels, cut and not rounded to the upper halves."""
    a, d = np.moveaxis(lines.astype(np.float32), 1, 0).copy().view(np.uint32)
    return (a & 0xFFFF0000) | (d >> 16)


def unpack(words):
    """a and d of packed lines, on axis 1, in float64."""
    halves = np.stack([words & 0xFFFF0000, words << 16], axis=1).astype(np.uint32)
    return halves.view(np.float32).astype(float)


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
def test_slopes_lie_between_those_of_newton_and_the_majorant(potential):
    z, before = wide((2, 3, 6, 7)), wide((2, 3, 6, 7))[::-1]
    slopes, _ = safeguarded_slopes(potential, z, lines_at(potential, before))
    newton_slope = potential.second_derivative(z)
    with np.errstate(invalid="ignore"):
        majorant = np.where(z == 0, newton_slope, potential.derivative(z) / z)
    rounding = 8 * EPS * np.abs(majorant)
    assert (slopes >= newton_slope - rounding).all() and (slopes <= majorant + rounding).all()


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
def test_the_first_slopes_majorise_the_potential_and_touch_it(potential):
    """φ(x) ≤ φ(z) + ψ(z) (x² − z²)/2 for all x, since φ(√t) is concave."""
    z = wide((200,))
    z = z[z != 0][:, None]
    x = np.linspace(-3, 3, 601) * np.abs(z).clip(1e-3)
    psi, _ = safeguarded_slopes(potential, z, None)
    above = potential.value(z) + psi * (x**2 - z**2) / 2
    scale = np.abs(above) + np.abs(potential.value(z)) + psi * z**2
    assert (potential.value(x) <= above + 16 * EPS * scale).all()


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
def test_a_line_touches_the_activation(potential):
    z = wide((1, 50))
    slopes, lines = safeguarded_slopes(potential, z, None)
    s = potential.derivative(z)
    rounding = 4 * EPS * (np.abs(s) + slopes * np.abs(z))
    assert (np.abs(lines[:, 0] + lines[:, 1] * z - s) <= rounding).all()
    assert np.array_equal(lines[:, 1], slopes)


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
def test_slopes_are_those_of_newton_where_nothing_moves(potential):
    z = wide((1, 50))
    slopes, lines = safeguarded_slopes(potential, z, None)
    again, newton_slope = safeguarded_slopes(potential, z, lines)[0], potential.second_derivative(z)
    # ρ is 1 to the rounding of the line, relative to σ(z).
    s = potential.derivative(z)
    rounding = 4 * EPS * (np.abs(s) + slopes * np.abs(z))
    majorant = np.where(s == 0, newton_slope, s / np.where(z == 0, 1, z))
    bound = majorant * (rounding / np.where(s == 0, 1, np.abs(s)) + 4 * EPS)
    assert (np.abs(again - newton_slope) <= bound).all()


@pytest.mark.parametrize("part, counts", [(2.0**-6, False), (2.0**-8, True)])
def test_a_prediction_that_is_nearly_right_counts_as_right(part, counts):
    potential, z = LogCosh(), np.full((1, 1), 1.5)
    s, newton_slope = potential.derivative(z), potential.second_derivative(z)
    lines = np.stack([(1 - part) * s, 0 * s], axis=1)
    slopes, _ = safeguarded_slopes(potential, z, lines)
    assert np.array_equal(slopes, newton_slope) == counts


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
def test_kernel_computes_the_definition(potential, first, dtype):
    """One filter of one pixel and value 1 hands z to the kernel as it is."""
    z, before = (x.reshape(2, 1, 18, 7) for x in (wide((252,)), normal(generator(1), (252,))))
    lines = None if first else lines_at(potential, before).astype(dtype)
    z, one = z.astype(dtype), np.ones((1, 1, 1, 1), dtype)
    settings = settings_of(potential)
    packed = None if first else pack(lines)
    slopes, after = kernels.safeguarded_slopes(z, packed, one, np.zeros(1, dtype), *settings)
    z, lines = z.astype(float), np.zeros((2, 2, 1, 18, 7)) if first else unpack(packed)
    expected, tangents = safeguarded_slopes(potential, z, lines)
    # ρ is a quotient of differences: its error is that of a⁻ + d⁻ z over σ(z).
    terms = np.abs(lines[:, 0]) + np.abs(lines[:, 1] * z)
    s = np.abs(potential.derivative(z))
    psi = np.where(z == 0, potential.sup_second, s / np.where(z == 0, 1, np.abs(z)))
    eps = np.finfo(dtype).eps
    # σ′ is off by sup|σ″| |z| eps where z is off by eps |z|, and 1 − tanh² by eps sup σ′.
    amplified = np.minimum(1, 32 * eps * (1 + terms / np.where(s > 0, s, 1)))
    bound = psi * (amplified + 16 * eps)
    assert slopes.dtype == dtype and after.dtype == np.uint32
    assert (np.abs(slopes - expected) <= bound + np.finfo(dtype).tiny).all()
    # a = σ − d z inherits |z| times the error of d; lines are float32 rounded to 8 binary digits.
    rounding = 2**-8 * np.abs(tangents) + 2 * np.finfo(np.float32).tiny
    error = np.abs(unpack(after) - tangents) - rounding
    assert (error[:, 0] <= np.abs(z) * bound + 16 * eps * (s + psi)).all()
    assert (error[:, 1] <= bound).all()


def steep(*, dense=False, potential=None, images=2):
    """log cosh of slope 100 on noise: saturated nearly everywhere at the start K'y."""
    bank = DenseBank(IMAGE, 60) if dense else FilterBank(IMAGE, (4, 3, 3))
    rng = generator(2)
    A = normal(rng, bank.coefficients_shape)
    A -= A.mean(axis=tuple(range(1, A.ndim)), keepdims=True)
    y = normal(rng, (images, *IMAGE))
    experts = FieldOfExperts(bank, potential or LogCosh(slope=100.0), make_parameters(A, gamma=0.3))
    return make_step(Problem(Identity(IMAGE), y, experts, 18.0), 1e-4)


def model_at(step, u, previous):
    """∂F at u with the slopes that follow those of a first step at `previous`."""
    first = step.field.linearize(previous).safeguarded(None)
    return step.field.linearize(u).safeguarded(first)


@pytest.mark.parametrize("dense", [False, True])
def test_both_engines_give_the_tangent_with_the_safeguarded_slopes(dense):
    """At u after one step from `previous`, where the lines began."""
    step = steep(dense=dense)
    u, previous, v = (normal(generator(seed), (2, *IMAGE)) for seed in (3, 4, 5))
    given = model_at(step, u, previous)
    theta, bank, potential = step.problem.theta, step.problem.bank, step.problem.potential
    before, z = bank.apply(theta.A, previous), bank.apply(theta.A, u)
    slopes, _ = safeguarded_slopes(potential, z, safeguarded_slopes(potential, before, None)[1])
    d = theta.gamma * bank.per_filter(theta.weights) * slopes
    expected = bank.adjoint(theta.A, d * bank.apply(theta.A, v))
    # Sums of n products in another order change z and z⁻ by δ, σ′ and ψ by χ² δ, and what the line
    # foretells by χ δ (3 + χ |z − z⁻|), which counts (ψ − σ′) / |σ| ≤ min(1/|z|, χ) times.
    size, chi, n = np.abs(theta.A), potential.parameter, theta.A[0].size
    delta = 2 * n * EPS * (bank.apply(size, np.abs(u)) + bank.apply(size, np.abs(previous)))
    foretold = chi * delta * (3 + chi * np.abs(z - before))
    near = np.minimum(1 / np.maximum(np.abs(z), EPS), chi)
    # Compiled, lines have 8 binary digits, and ρ may pass 1 − 2⁻⁷ or not.
    cut = 0.0 if dense else 2**-7 * np.minimum(near, chi)
    allowed = 0.3 * (chi**2 * delta + foretold * near + cut) + 8 * EPS * d
    assert (np.abs(given.jacobian.d - d) <= allowed).all()
    allowed = bank.adjoint(size, (allowed + 2 * n * EPS * d) * bank.apply(size, np.abs(v)))
    assert (np.abs(given.hvp(v) - expected) <= 2 * allowed).all()


def test_safeguarded_hessian_at_the_start_majorises_the_energy():
    """E(u + v) ≤ E(u) + ⟨∇E(u), v⟩ + ⟨v, M v⟩/2 for the first M."""
    step = steep(images=1)
    u = step.problem.y
    lin = step.linearize(u)
    model = lin.field.safeguarded(None)

    def hvp(v):
        return step.data_hvp(v) + model.hvp(v)

    assert np.linalg.eigvalsh(dense_matrix(hvp, u.shape))[0] > 0
    for size in (1e-3, 1e-1, 1, 10):
        v = size * normal(generator(6), u.shape)
        bound = lin.energy + np.sum(lin.gradient * v) + np.sum(v * hvp(v)) / 2
        assert (step.energy(u + v) <= bound * (1 + 1e-12)).all()


@pytest.mark.parametrize("name", ["quadratic", "half_squared_relu", "soft_shrinkage"])
def test_potentials_that_gain_nothing_keep_their_slopes(name):
    lin = steep(potential=make_potential(name)).linearize(normal(generator(7), (2, *IMAGE)))
    assert lin.field.safeguarded(None) is lin.field
    assert lin.field.safeguarded(lin.field) is lin.field


def test_convergence_with_the_safeguard_is_superlinear_at_the_end():
    history = reconstruct(steep(images=1), method="newton", residual_tol=1e-13).history[:, 0]
    logs = np.log(history[-4:-1])
    assert logs[2] / logs[1] >= 1.2


def untied(step):
    """The same step with C = A + 30 %."""
    theta = step.problem.theta
    C = theta.A + 0.3 * normal(generator(8), theta.A.shape)
    return make_step(step.problem.with_theta(make_parameters(theta.A, C, gamma=0.3)), step.tau)


def test_untied_products_with_safeguarded_slopes_are_transposes():
    step = untied(steep())
    u, previous, v, q = (normal(generator(seed), (2, *IMAGE)) for seed in (3, 4, 5, 6))
    model = model_at(step, u, previous)
    forward, back = np.sum(model.jvp(v) * q), np.sum(model.vjp(q) * v)
    scale = np.linalg.norm(model.jvp(v)) * np.linalg.norm(q)
    assert abs(forward - back) <= 16 * EPS * np.sqrt(v.size) * scale
    assert np.array_equal(model.value, step.field.value(u))


@pytest.mark.parametrize("step, solver", [(steep(), newton), (untied(steep()), newton_krylov)])
def test_safeguard_saves_evaluations_and_keeps_the_solution(step, solver):
    safe = reconstruct(step, method=solver.__name__, residual_tol=1e-12)
    plain = solver(step.linearize, step.problem.y, step=step.tau, tol=1e-12)
    assert safe.all_converged and plain.all_converged
    assert np.linalg.norm(safe.x - plain.x) <= 1e-8 * np.linalg.norm(plain.x)
    assert safe.evaluations < 0.7 * plain.evaluations
