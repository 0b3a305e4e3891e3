"""Wrong backends: each class plants one fault in `ReferenceBackend`."""

import time

import numpy as np
from faults import behaviours
from faults.fault import planted
from reference_backend import ReferenceBackend, case_of

from refimpl.kernels.vectors import norm


def mixed(fault):
    """A fault of the catalogue in the NumPy backend."""
    return planted(fault.fault, ReferenceBackend)


WrongShape = mixed(behaviours.EnergyColumn)
ReturnsTarget = mixed(behaviours.ReturnsTarget)
NotDeterministic = mixed(behaviours.Noise)
KeepsFirstState = mixed(behaviours.KeepsFirstState)
LinearizesAtLastApply = mixed(behaviours.LinearizesAtLastApply)
Leaks = mixed(behaviours.LeaksMean)


class Raises(ReferenceBackend):
    def jvp(self, problem, u, v):
        raise RuntimeError("out of memory\nwith a second line")


class Exits(ReferenceBackend):
    def jvp(self, problem, u, v):
        raise SystemExit(3)


class Hangs(ReferenceBackend):
    def vjp(self, problem, u, w):
        time.sleep(60)


class WrongDtype(ReferenceBackend):
    def apply(self, problem, u):
        other = np.float32 if u.dtype == np.float64 else np.float64
        return super().apply(problem, u).astype(other)


class ReturnsNaN(ReferenceBackend):
    def vjp(self, problem, u, w):
        value = super().vjp(problem, u, w)
        value.flat[0] = np.nan
        return value


class ReturnsList(ReferenceBackend):
    def apply(self, problem, u):
        return super().apply(problem, u).tolist()


class ExtraEntries(ReferenceBackend):
    def params_vjp(self, problem, u, w):
        return super().params_vjp(problem, u, w) | {"gamma": np.zeros(())}


class ReturnsView(ReferenceBackend):
    def gradient(self, problem, u):
        u[...] = super().gradient(problem, u)
        return u


class ModifiesArguments(ReferenceBackend):
    def jvp(self, problem, u, v):
        value = super().jvp(problem, u, v)
        problem.b[...] += 1
        return value


class GlobalStopping(ReferenceBackend):
    def iterate(self, function, x, tol):
        for _ in range(5_000):
            new = function(x)
            if np.linalg.norm(new - x) <= tol * np.linalg.norm(x):
                return new
            x = new
        return x


class TooFewForward(ReferenceBackend):
    def fixed_point(self, problem, *, tol):
        return super().fixed_point(problem, tol=1e4 * tol)


class FixedNumberOfIterations(ReferenceBackend):
    def fixed_point(self, problem, *, tol):
        step = self.step(problem)
        u = step.operator.adjoint(problem.y)
        for _ in range(12):
            u = step.apply(u)
        return u


class TooFewAdjoint(ReferenceBackend):
    def adjoint_state(self, problem, u, tol):
        return super().adjoint_state(problem, u, 1e4 * tol)


class SumNotMean(ReferenceBackend):
    def adjoint_state(self, problem, u, tol):
        return u.size * super().adjoint_state(problem, u, tol)


class TimesBatch(ReferenceBackend):
    def params_vjp(self, problem, u, w):
        return {name: len(u) * x for name, x in super().params_vjp(problem, u, w).items()}


class ClipsLossGradient(ReferenceBackend):
    def adjoint_state(self, problem, u, tol):
        q = super().adjoint_state(problem, u, tol)
        return q * np.minimum(1, 0.3 / norm(q))[:, None, None, None]


class NotAdjoint(ReferenceBackend):
    """vjp transposes the field but not the data term of a matrix that is not symmetric."""

    def vjp(self, problem, u, w):
        return super().jvp(problem, u, w)


class NotSymmetric(ReferenceBackend):
    def hvp(self, problem, u, v):
        return super().hvp(problem, u, v) + 0.1 * v[..., ::-1].cumsum(axis=-1)


class NotLinear(ReferenceBackend):
    def jvp(self, problem, u, v):
        h = 1e-2
        step = self.step(problem)
        return (step.apply(u + h * v) - step.apply(u)) / h


class DoubleEnergy(ReferenceBackend):
    def energy(self, problem, u):
        return 2 * super().energy(problem, u)


class FlippedFilters(ReferenceBackend):
    """Convolution where correlation belongs, in every stage."""

    def step(self, problem):
        case = case_of(problem)
        if case.analysis == "dense":
            return super().step(problem)
        from dataclasses import replace

        from refimpl.verification.cases import build_step

        flipped = {k: case.arrays[k][..., ::-1, ::-1] for k in ("A", "C") if k in case.arrays}
        return build_step(replace(case, arrays=case.arrays | flipped))
