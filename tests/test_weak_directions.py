"""Directions in which J is weak and of which a right-hand side has next to no part.

A residual says nothing of them, nor does what a Krylov method sees of the spectrum.
"""

import numpy as np
import pytest

import refimpl as ri
from refimpl.engine import make_step
from refimpl.equilibrium import hypergradient, reconstruct, solve_adjoint
from refimpl.paper.parameters import pack
from strategies import generator, normal


def relative(x, truth):
    return np.linalg.norm(x - truth) / np.linalg.norm(truth)


def hidden_corner(side=24, slope=25.0):
    """A corner of a chequered image whose only missing pixel J hardly determines."""
    half, (i, j) = side // 2, np.indices((side, side))
    image = ((i >= half) != (j >= half)) + 0.02 * normal(generator(0), (side, side))
    shown = np.ones((side, side), bool)
    shown[half, half] = False
    K = ri.Mask(shown, (1, side, side))
    tv = ri.total_variation((1, side, side), slope=slope)
    problem = ri.Problem(K, K.matvec(image[None, None]), tv, 8.0)
    return problem, np.where(shown, normal(generator(1), (1, 1, side, side)), 0)


@pytest.mark.parametrize("method", ["auto", "cg", "gmres", "bicgstab", "neumann"])
def test_a_weak_direction_of_which_the_gradient_has_no_part_is_seen(method):
    problem, b = hidden_corner()
    lin = make_step(problem).linearize(reconstruct(problem, tol=1e-8).x)
    exact = solve_adjoint(lin, b, residual_tol=1e-13).x
    found = solve_adjoint(lin, b, method=method, tol=1e-4)
    assert not found.all_converged or relative(found.x, exact) <= 3e-4


def test_without_a_probe_that_direction_is_missed():
    problem, b = hidden_corner(44)
    lin = make_step(problem).linearize(reconstruct(problem, tol=1e-8).x)
    exact = solve_adjoint(lin, b, residual_tol=1e-13).x
    blind = solve_adjoint(lin, b, method="cg", tol=1e-4, options={"probe": False})
    assert blind.all_converged and relative(blind.x, exact) > 1e-2


@pytest.mark.parametrize("tolerance", [{"tol": 1e-4}, {"residual_tol": 1e-6, "error": "estimate"}])
def test_so_it_is_in_the_error_of_a_hypergradient(tolerance):
    """The loss does not look at the missing pixel, and neither does ∇ℓ."""
    problem, b = hidden_corner()
    shown = b != 0

    def loss(u):
        return np.where(shown, u - 0.5, 0)

    star = reconstruct(problem, tol=1e-8)
    expected = pack(hypergradient(problem, star, loss, residual_tol=1e-13).gradient)
    found = hypergradient(problem, star, loss, allow_unconverged=True, **tolerance)
    assert relative(pack(found.gradient), expected) <= 3 * max(found.error, 1e-8)


def test_the_error_of_a_damped_system_is_its_own():
    problem, b = hidden_corner()
    lin = make_step(problem).linearize(reconstruct(problem, tol=1e-8).x)
    damped = solve_adjoint(lin, b, tol=1e-4, options={"damping": 1e-2})
    assert damped.all_converged and any("damped" in note for note in damped.notes)
    assert relative(damped.x, solve_adjoint(lin, b, tol=1e-6).x) > 1e-4
