"""Faults of precision: something passes through the next lower one on its way.

Filters that do are in `formulas`, with other parameters that are misread.
"""

from faults.fault import fault, rounded


@fault("apply", "hidden_precision")
class StateRounded:
    """u passes through the next lower precision."""

    def apply(self, problem, u):
        return super().apply(problem, rounded(u))


@fault("apply", "hidden_precision")
class ActivationRounded:
    """σ from a table of lower precision. Untied."""

    def activation(self, p, z):
        return rounded(super().activation(p, z))


@fault("energy", "hidden_precision")
class EnergyRounded:
    """Energies are summed in the next lower precision."""

    def energy(self, problem, u):
        return rounded(super().energy(problem, u))


@fault("vjp", "hidden_precision")
class CotangentRounded:
    def vjp(self, problem, u, w):
        return super().vjp(problem, u, rounded(w))


@fault("params_vjp", "hidden_precision")
class ParameterGradientsRounded:
    def params_vjp(self, problem, u, w):
        return {k: rounded(x) for k, x in super().params_vjp(problem, u, w).items()}


@fault("fixed_point", "hidden_precision", "too_few_forward_iterations")
class FixedPointRounded:
    """The solve is made in the next lower precision."""

    def fixed_point(self, problem, *, tol):
        return rounded(super().fixed_point(problem, tol=tol))


@fault("hypergradient", "hidden_precision", "too_few_adjoint_iterations")
class AdjointRounded:
    """The adjoint state is kept in the next lower precision."""

    def solve_adjoint(self, settings, arrays, theta, u, b, tol):
        return rounded(super().solve_adjoint(settings, arrays, theta, u, b, tol))
