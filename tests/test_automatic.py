"""method="auto": what it chooses, that it says so, and that failures are met and reported."""

import functools

import numpy as np
import pytest

from refimpl.equilibrium import automatic
from refimpl.equilibrium.adjoint import ADJOINT_METHODS, solve_adjoint
from refimpl.equilibrium.implicit import hypergradient
from refimpl.equilibrium.state import METHODS, reconstruct
from refimpl.paper.loss import squared_loss_gradient
from refimpl.results import BreakdownError
from refimpl.verification.identities.known_problems import OPERATORS, problem
from strategies import KIND, generator

MODELS = [(tied, bank) for tied in (True, False) for bank in ("convolution", "dense")]


def make(**kind):
    return problem(KIND | kind, generator(0))


def preconditioner(operator, analysis):
    if analysis == "dense":
        return "" if operator == "identity" else " with cholesky"
    return {"convolution": " with circulant", "matrix": ""}.get(operator, " with jacobi")


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("tied", "analysis"), MODELS)
def test_auto_solves_every_model_and_says_by_what(tied, analysis, operator):
    made = make(tied=tied, operator=operator, analysis=analysis)
    expected = made.outputs()
    star = reconstruct(made.step, method="auto", residual_tol=1e-12)
    chosen = preconditioner(operator, analysis)
    forward, adjoint = ("newton", "cg") if tied else ("newton_krylov", "bicgstab")
    forward = "anderson" if analysis == "dense" else forward
    assert star.all_converged
    assert star.method == forward + chosen and star.message.startswith("all 2 images converged")
    error = np.linalg.norm(star.x - expected["fixed_point"])
    assert error <= 1e-9 * np.linalg.norm(expected["fixed_point"])
    loss_gradient = squared_loss_gradient(star.x, made.target)
    result = hypergradient(made.step, star, loss_gradient, method="auto", residual_tol=1e-12)
    assert result.adjoint.method == adjoint + chosen
    given, exact = result.gradient.A, expected["hypergradient_A"]
    assert np.linalg.norm(given - exact) <= 1e-8 * np.linalg.norm(exact)


@pytest.mark.parametrize(("tied", "analysis"), MODELS)
def test_adjoint_by_auto_has_the_true_residual_asked_for(tied, analysis):
    made = make(tied=tied, analysis=analysis, operator="convolution")
    star = reconstruct(made.step, method="auto", residual_tol=1e-12)
    lin, g = made.step.linearize(star.x), squared_loss_gradient(star.x, made.target)
    for tol in (1e-3, 1e-6, 1e-12):
        result = solve_adjoint(lin, g, method="auto", residual_tol=tol)
        missed = g - lin.direction_vjp(lin.step.tau * result.x)
        assert result.all_converged
        assert np.linalg.norm(missed) <= tol * (1 + 1e-3) * np.linalg.norm(g)


def test_a_preconditioner_that_is_named_replaces_the_one_chosen():
    made = make()
    star = reconstruct(made.step, method="auto", preconditioner="circulant")
    assert star.all_converged and star.method == "newton with circulant"


def breaking(method, words):
    """The method, but it breaks down."""

    @functools.wraps(method)
    def solve(*given, **settings):
        raise BreakdownError(words)

    return solve


def leaving_one(method):
    """The method, but it leaves image 0 unconverged at the start."""

    @functools.wraps(method)
    def solve(step, u0, **settings):
        result = reconstruct(step, u0, method="picard", residual_tol=1e-12)
        bad = np.array([True, False])
        return result._replace(
            x=np.where(bad[:, None, None, None], u0, result.x),
            converged=~bad,
            residuals=np.where(bad, 1.0, result.residuals),
            advice=("raise max_iterations", ""),
        )

    return solve


@pytest.mark.parametrize("tied", [True, False])
def test_a_forward_solve_that_fails_is_continued_and_reported(tied, monkeypatch):
    made, name = make(tied=tied), "newton" if tied else "newton_krylov"
    monkeypatch.setitem(METHODS, name, leaving_one(METHODS[name]))
    star = reconstruct(made.step, method="auto", residual_tol=1e-10)
    expected = made.outputs()["fixed_point"]
    assert star.all_converged and (star.residuals <= 1e-10).all()
    assert star.method == f"{name} with jacobi, then anderson" and star.advice == ("", "")
    assert np.linalg.norm(star.x - expected) <= 1e-7 * np.linalg.norm(expected)


def test_a_forward_solve_that_breaks_down_is_replaced_and_reported(monkeypatch):
    made = make()
    monkeypatch.setitem(METHODS, "newton", breaking(METHODS["newton"], "energy is nan"))
    star = reconstruct(made.step, method="auto")
    assert star.all_converged
    assert star.method == "newton with jacobi, then anderson"
    assert star.message.endswith("; newton with jacobi broke down (energy is nan)")


@pytest.mark.parametrize("tied", [True, False])
def test_a_dense_model_falls_back_on_newton(tied, monkeypatch):
    made, name = make(tied=tied, analysis="dense"), "newton" if tied else "newton_krylov"
    monkeypatch.setitem(METHODS, "anderson", breaking(METHODS["anderson"], "residual is inf"))
    star = reconstruct(made.step, method="auto", residual_tol=1e-12, max_iterations=50)
    assert star.all_converged
    assert star.method == f"anderson, then {name}"
    assert star.notes == ("anderson broke down (residual is inf)",)


def test_a_failure_of_both_is_not_hidden(monkeypatch):
    made = make()
    monkeypatch.setitem(METHODS, "newton", leaving_one(METHODS["newton"]))
    star = reconstruct(made.step, method="auto", residual_tol=1e-10, max_iterations=1)
    assert star.converged.tolist() == [False, True]
    assert star.method == "newton with jacobi, then anderson"
    assert star.message.startswith("1 of 2 images did not converge; worst: image 0, relative")
    assert star.message.endswith("; raise max_iterations above 1")


def test_after_the_circulant_model_an_adjoint_solve_takes_the_diagonal(monkeypatch):
    made = make(tied=False, operator="convolution")
    star = reconstruct(made.step, method="auto", residual_tol=1e-12)
    monkeypatch.setitem(ADJOINT_METHODS, "bicgstab", breaking(ADJOINT_METHODS["bicgstab"], "no"))
    g = squared_loss_gradient(star.x, made.target)
    result = solve_adjoint(made.step.linearize(star.x), g, method="auto", residual_tol=1e-10)
    assert result.all_converged
    assert result.method == "bicgstab with circulant, then gmres with jacobi"


def test_bicgstab_gives_way_to_gmres_before_the_limit(monkeypatch):
    made = make(tied=False)
    star = reconstruct(made.step, method="auto", residual_tol=1e-12)
    lin, g = made.step.linearize(star.x), squared_loss_gradient(star.x, made.target)
    monkeypatch.setattr(automatic, "PATIENCE", 1)
    result = solve_adjoint(lin, g, method="auto", residual_tol=1e-12, max_iterations=500)
    assert result.method == "bicgstab with jacobi, then gmres with jacobi" and result.all_converged
    with pytest.raises(ValueError, match="max_iterations: given 1000.5, expected an integer"):
        solve_adjoint(lin, g, method="auto", max_iterations=1000.5)


@pytest.mark.parametrize("tied", [True, False])
def test_an_adjoint_solve_that_fails_is_replaced_and_reported(tied, monkeypatch):
    made = make(tied=tied)
    first = "cg" if tied else "bicgstab"
    star = reconstruct(made.step, method="auto", residual_tol=1e-12)
    lin, g = made.step.linearize(star.x), squared_loss_gradient(star.x, made.target)
    expected = solve_adjoint(lin, g, method="gmres", residual_tol=1e-12).x

    real = ADJOINT_METHODS[first]
    breaks = breaking(real, "M is not positive definite")

    @functools.wraps(real)
    def stops(linearization, b, **settings):
        return real(linearization, b, **settings | {"tol": 0.5})._replace(
            converged=np.zeros(2, bool), residuals=np.ones(2)
        )

    for wrong, words in ((breaks, "broke down (M is not positive"), (stops, "all 2 images")):
        monkeypatch.setitem(ADJOINT_METHODS, first, wrong)
        result = solve_adjoint(lin, g, method="auto", residual_tol=1e-12)
        assert words in result.message
        assert result.method == f"{first} with jacobi, then gmres with jacobi"
        assert result.all_converged
        assert np.linalg.norm(result.x - expected) <= 1e-9 * np.linalg.norm(expected)


@pytest.mark.parametrize("tied", [True, False])
def test_options_of_an_automatic_solve_are_those_of_its_choices(tied):
    made = make(tied=tied)
    lin, g = made.step.linearize(made.target), made.target
    with pytest.raises(TypeError, match="'memory' is an option of anderson"):
        reconstruct(made.step, options={"memory": 5})
    with pytest.raises(TypeError, match="'memory' is an option of anderson"):
        solve_adjoint(lin, g, options={"memory": 5})
    _, second = automatic.adjoint_attempts(made.step, {"restart": 7, "x0": g})
    assert second.settings["restart"] == 7 and second.settings["x0"] is g
    dense = make(tied=tied, analysis="dense").step
    assert reconstruct(dense, options={"memory": 2}).all_converged


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("analysis", ["convolution", "dense"])
def test_products_are_limited_in_newtons_method_alone(tied, analysis):
    made, name = make(tied=tied, analysis=analysis), "newton" if tied else "newton_krylov"
    attempts = automatic.forward_attempts(made.step, {"max_products": 1, "max_iterations": 50})
    settings = {a.method: a.settings for a in attempts}
    assert settings[name]["max_products"] == 1 and "max_products" not in settings["anderson"]
    assert all(some["max_iterations"] == 50 for some in settings.values())
    assert reconstruct(made.step, options={"max_products": 400}).all_converged
