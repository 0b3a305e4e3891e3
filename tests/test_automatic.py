"""method="auto": what it chooses, that it says so, and that failures are met and reported."""

import numpy as np
import pytest

from refimpl import equilibrium, implicit, solvers
from refimpl.equilibrium import reconstruct
from refimpl.identities.problems import OPERATORS, problem
from refimpl.implicit import hypergradient, solve_adjoint
from refimpl.objective import squared_loss_gradient
from refimpl.results import BreakdownError
from strategies import generator

MODELS = [(tied, bank) for tied in (True, False) for bank in ("convolution", "dense")]


def make(*, tied=True, operator="identity", analysis="convolution"):
    description = {
        "operator": operator,
        "operator_boundary": "symmetric",
        "analysis": analysis,
        "boundary": "symmetric",
        "potential": "log_cosh",
        "tied": tied,
    }
    return problem(description, generator(0))


def preconditioner(operator, analysis):
    if analysis == "dense":
        return "" if operator == "identity" else " with cholesky"
    return {"convolution": " with circulant", "matrix": ""}.get(operator, " with jacobi")


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("tied", "analysis"), MODELS)
def test_auto_solves_every_model_and_says_by_what(tied, analysis, operator):
    made = make(tied=tied, operator=operator, analysis=analysis)
    expected = made.outputs()
    star = reconstruct(made.step, method="auto", tol=1e-12)
    chosen = preconditioner(operator, analysis)
    forward, adjoint = ("newton", "cg") if tied else ("newton_krylov", "bicgstab")
    forward = "anderson" if analysis == "dense" else forward
    assert star.all_converged
    assert star.message.startswith(f"auto: {forward}{chosen}; {forward}: all 2 images converged")
    error = np.linalg.norm(star.x - expected["fixed_point"])
    assert error <= 1e-9 * np.linalg.norm(expected["fixed_point"])
    loss_gradient = squared_loss_gradient(star.x, made.target)
    result = hypergradient(made.step, star, loss_gradient, method="auto", tol=1e-12)
    assert result.adjoint.message.startswith(f"auto: {adjoint}{chosen}; {adjoint}: all")
    given, exact = result.gradient.A, expected["hypergradient_A"]
    assert np.linalg.norm(given - exact) <= 1e-8 * np.linalg.norm(exact)


@pytest.mark.parametrize(("tied", "analysis"), MODELS)
def test_adjoint_by_auto_has_the_true_residual_asked_for(tied, analysis):
    made = make(tied=tied, analysis=analysis, operator="convolution")
    star = reconstruct(made.step, method="auto", tol=1e-12)
    lin, g = made.step.linearize(star.x), squared_loss_gradient(star.x, made.target)
    for tol in (1e-3, 1e-6, 1e-12):
        result = solve_adjoint(lin, g, method="auto", tol=tol)
        missed = g - lin.direction_vjp(lin.step.tau * result.x)
        assert result.all_converged
        assert np.linalg.norm(missed) <= tol * (1 + 1e-3) * np.linalg.norm(g)


def test_a_preconditioner_that_is_named_replaces_the_one_chosen():
    made = make()
    star = reconstruct(made.step, method="auto", preconditioner="circulant")
    assert "auto: newton with circulant; newton: all" in star.message


def failing(name, wrong):
    """A solver that leaves image 0 unconverged at the start, or raises."""

    def solve(step_or_matvec, u0, **options):
        if wrong is not None:
            raise BreakdownError(wrong)
        result = reconstruct(step_or_matvec, u0, method="picard", tol=1e-12)
        bad = np.array([True, False])
        return result._replace(
            x=np.where(bad[:, None, None, None], u0, result.x),
            converged=~bad,
            residuals=np.where(bad, 1.0, result.residuals),
            message=f"{name}: 1 of 2 images did not converge",
        )

    return solve


@pytest.mark.parametrize("tied", [True, False])
def test_a_forward_solve_that_fails_is_continued_and_reported(tied, monkeypatch):
    made, name = make(tied=tied), "newton" if tied else "newton_krylov"
    monkeypatch.setitem(equilibrium.RUNNERS, name, failing(name, None))
    star = reconstruct(made.step, method="auto", tol=1e-10)
    expected = made.outputs()["fixed_point"]
    assert star.all_converged and (star.residuals <= 1e-10).all()
    assert f"{name}: 1 of 2 images did not converge; then anderson: all" in star.message
    assert np.linalg.norm(star.x - expected) <= 1e-7 * np.linalg.norm(expected)


def test_a_forward_solve_that_breaks_down_is_replaced_and_reported(monkeypatch):
    made = make()
    monkeypatch.setitem(equilibrium.RUNNERS, "newton", failing("newton", "energy is nan"))
    star = reconstruct(made.step, method="auto")
    assert star.all_converged
    assert "auto: newton with jacobi broke down (energy is nan); anderson: all" in star.message


@pytest.mark.parametrize("tied", [True, False])
def test_a_dense_model_falls_back_on_newton(tied, monkeypatch):
    made, name = make(tied=tied, analysis="dense"), "newton" if tied else "newton_krylov"
    monkeypatch.setitem(equilibrium.RUNNERS, "anderson", failing("anderson", "residual is inf"))
    star = reconstruct(made.step, method="auto", tol=1e-12, max_iterations=50)
    assert star.all_converged
    assert f"auto: anderson broke down (residual is inf); {name}: all" in star.message


def test_a_failure_of_both_is_not_hidden(monkeypatch):
    made = make()
    monkeypatch.setitem(equilibrium.RUNNERS, "newton", failing("newton", None))
    star = reconstruct(made.step, method="auto", tol=1e-10, max_iterations=1)
    assert star.converged.tolist() == [False, True]
    assert "then anderson: 2 of 2 images did not converge" in star.message


def test_after_the_circulant_model_an_adjoint_solve_takes_the_diagonal(monkeypatch):
    made, names = make(tied=False, operator="convolution"), []
    star = reconstruct(made.step, method="auto", tol=1e-12)
    find = implicit.find_preconditioner

    def breaks(matvec, b, **options):
        raise BreakdownError("no")

    def recorded(name):
        names.append(name)
        return find(name)

    monkeypatch.setattr(implicit, "find_preconditioner", recorded)
    monkeypatch.setitem(implicit.KRYLOV, "bicgstab", breaks)
    g = squared_loss_gradient(star.x, made.target)
    assert solve_adjoint(made.step.linearize(star.x), g, method="auto", tol=1e-10).all_converged
    assert names == ["circulant", "jacobi"]


def test_bicgstab_gives_way_to_gmres_before_the_limit(monkeypatch):
    made = make(tied=False)
    star = reconstruct(made.step, method="auto", tol=1e-12)
    lin, g = made.step.linearize(star.x), squared_loss_gradient(star.x, made.target)
    monkeypatch.setattr(implicit, "PATIENCE", 1)
    result = solve_adjoint(lin, g, method="auto", tol=1e-12, max_iterations=500)
    assert "bicgstab: 2 of 2 images did not converge" in result.message
    assert "then gmres: all 2" in result.message and result.all_converged
    with pytest.raises(ValueError, match="max_iterations: given 1000.5, expected an integer"):
        solve_adjoint(lin, g, method="auto", max_iterations=1000.5)


@pytest.mark.parametrize("tied", [True, False])
def test_an_adjoint_solve_that_fails_is_replaced_and_reported(tied, monkeypatch):
    made = make(tied=tied)
    first = "cg" if tied else "bicgstab"
    star = reconstruct(made.step, method="auto", tol=1e-12)
    lin, g = made.step.linearize(star.x), squared_loss_gradient(star.x, made.target)
    expected = solve_adjoint(lin, g, tol=1e-12).x

    def breaks(matvec, b, **options):
        raise BreakdownError("M is not positive definite")

    def stops(matvec, b, **options):
        return getattr(solvers, first)(matvec, b, **options | {"tol": 0.5})._replace(
            converged=np.zeros(2, bool), residuals=np.ones(2), message="stopped"
        )

    for wrong, words in ((breaks, "broke down (M is not positive"), (stops, "stopped; then")):
        monkeypatch.setitem(implicit.KRYLOV, first, wrong)
        result = solve_adjoint(lin, g, method="auto", tol=1e-12)
        assert words in result.message and "gmres: all" in result.message
        assert result.all_converged
        assert np.linalg.norm(result.x - expected) <= 1e-9 * np.linalg.norm(expected)
