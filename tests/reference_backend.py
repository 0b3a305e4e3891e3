"""A correct backend in NumPy, made of the package itself: faults are planted by overriding it."""

import numpy as np

from refimpl.kernels.vectors import norm
from refimpl.verification.cases import Case, build_step
from refimpl.verification.cases.case import SETTINGS, build_model, raw_parameters
from refimpl.verification.question import ARRAYS

MAX_ITERATIONS = 5_000


def case_of(problem, **arrays):
    """The case that a problem was made from; u, v, w are the target where they are not given."""
    given = {name: getattr(problem, name) for name in ARRAYS}
    given |= {name: problem.target for name in "uvw"} | arrays
    settings = {name: getattr(problem, name) for name in SETTINGS}
    return Case(**settings, arrays={k: x for k, x in given.items() if x is not None})


class ReferenceBackend:
    """Every stage; solves are plain iterations, each image with its own stopping test."""

    def step(self, problem):
        return build_step(case_of(problem))

    def operator(self, problem, u):
        return np.array(self.step(problem).operator.matvec(u))

    def operator_adjoint(self, problem, z):
        return np.array(self.step(problem).operator.adjoint(z))

    def apply(self, problem, u):
        return self.step(problem).apply(u)

    def energy(self, problem, u):
        return self.step(problem).energy(u)

    def gradient(self, problem, u):
        return self.step(problem).gradient(u)

    def jvp(self, problem, u, v):
        return self.step(problem).linearize(u).jvp(v)

    def hvp(self, problem, u, v):
        return self.step(problem).linearize(u).hvp(v)

    def vjp(self, problem, u, w):
        return self.step(problem).linearize(u).vjp(w)

    def params_vjp(self, problem, u, w):
        case = case_of(problem)
        gradient = self.step(problem).linearize(u).params_vjp(w)
        pulled = build_model(case).pull_back(raw_parameters(case), gradient)
        return {name: np.array(x) for name, x in pulled.items() if name != "gamma"}

    def iterate(self, function, x, tol):
        """x ← function(x) until the change of every image is below tol ‖x‖."""
        for _ in range(MAX_ITERATIONS):
            new = function(x)
            if (norm(new - x) <= tol * norm(x)).all():
                return new
            x = new
        return x

    def fixed_point(self, problem, *, tol):
        step = self.step(problem)
        start = step.operator.adjoint(problem.y)
        return self.iterate(step.apply, start, tol)

    def adjoint_state(self, problem, u, tol):
        lin = self.step(problem).linearize(u)
        g = np.asarray(2 / u.size * (u - problem.target), u.dtype)
        return self.iterate(lambda q: lin.vjp(q) + g, g, tol)

    def hypergradient(self, problem, *, tol):
        u = self.fixed_point(problem, tol=tol)
        q = self.adjoint_state(problem, u, tol)
        loss = np.mean((u - problem.target) ** 2)
        return self.params_vjp(problem, u, q) | {"loss": loss}
