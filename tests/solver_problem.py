"""One quadratic energy for all solvers, and how each of them is called on it."""

import copy
from types import SimpleNamespace

import numpy as np

from refimpl.solvers import (
    anderson,
    bicgstab,
    cg,
    gmres,
    lbfgs,
    nesterov,
    newton,
    newton_krylov,
    picard,
)

SIZE = 30
FIXED_POINT = (picard, anderson)
KRYLOV = (cg, gmres, bicgstab)
NEWTON = (newton, newton_krylov)
SOLVERS = (*FIXED_POINT, nesterov, lbfgs, *NEWTON, *KRYLOV)


class Quadratic:
    """E(u) = ½ ⟨u, H u⟩ − ⟨b, u⟩ for each image, with eigenvalues of H from 1 / condition to 1."""

    def __init__(self, conditions, dtype=np.float64):
        rng, matrices = np.random.default_rng(0), []
        for condition in conditions:
            Q = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0]
            matrices.append(Q @ np.diag(np.geomspace(1 / condition, 1, SIZE)) @ Q.T)
        self.H = np.array(matrices).astype(dtype)
        self.b = rng.standard_normal((len(conditions), SIZE)).astype(dtype)
        self.exact = np.linalg.solve(self.H, self.b[..., None])[..., 0]
        self.calls = 0

    def images(self, part):
        some = copy.copy(self)
        some.H, some.b, some.exact = self.H[part], self.b[part], self.exact[part]
        return some

    def product(self, u):
        return np.stack([H @ row for H, row in zip(self.H, u, strict=True)])

    def gradient(self, u):
        return self.product(u) - self.b

    def step(self, u):
        return u - self.gradient(u)

    def linearize(self, u):
        energy, g = np.sum(u * (self.product(u) / 2 - self.b), axis=1), self.gradient(u)
        return SimpleNamespace(
            energy=energy, gradient=g, direction=g, hvp=self.product, direction_jvp=self.product
        )

    def objective(self, u):
        at = self.linearize(u)
        return at.energy[0], at.gradient

    def callable(self, solver):
        """What the solver is given: a function that counts its calls; for `lbfgs` one per image."""
        name = "linearize" if solver in NEWTON else plain_map(solver)

        def counted(function):
            def call(u):
                self.calls += 1
                return function(u)

            return call

        if solver is not lbfgs:
            return counted(getattr(self, name))
        return [counted(self.images(slice(n, n + 1)).objective) for n in range(len(self.b))]


def plain_map(solver):
    """The name of the map of `Quadratic` on which a solver, or its linearisation, rests."""
    if solver in KRYLOV:
        return "product"
    return "step" if solver in FIXED_POINT else "gradient"


def run(solver, problem, u0, **options):
    """Any solver on a `Quadratic` from `u0`, with step 1 = 1 / L."""
    if solver in KRYLOV:
        return solver(problem.callable(solver), problem.b, x0=u0, **options)
    step = {} if solver in FIXED_POINT else {"step": 1.0}
    return solver(problem.callable(solver), u0, **step, **options)
