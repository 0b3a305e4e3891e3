"""Faults that show when a backend is called more than once, on batches, or on odd inputs."""

import time
from dataclasses import replace

import numpy as np

from faults.fault import (
    broadcast,
    cast,
    fault,
    flipped,
    framework,
    image_norms,
    name_of_dtype,
    random_like,
)


class Picard:
    """u ← T(u) from Kᵀy until a test is passed."""

    most = 3000

    def solve(self, settings, arrays, theta, tol):
        p = replace(settings, **arrays)
        u, step = self.transpose(p, p.y), self._program("step", settings)
        for k in range(self.most):
            new = step(arrays, theta, u)
            if self.done(new - u, u, tol, k):
                return new
            u = new
        return u


@fault("fixed_point", "batch_global_stopping")
class GlobalStopping(Picard):
    """One residual for the whole batch."""

    def done(self, change, u, tol, k):
        return float((change**2).sum()) <= tol**2 * float((u**2).sum())


@fault("fixed_point", "too_few_forward_iterations")
class FixedIterations(Picard):
    """Twelve iterations, whatever the tolerance."""

    def done(self, change, u, tol, k):
        return k == 11


@fault("fixed_point", "too_few_forward_iterations")
class ToleranceIgnored(Picard):
    """A relative residual of 1/1000 is always good enough."""

    def done(self, change, u, tol, k):
        return float((image_norms(change) / image_norms(u)).max()) <= 1e-3


@fault("fixed_point", "too_few_forward_iterations")
class ToleranceOfSquares(Picard):
    """The squared residual is held against the tolerance."""

    def done(self, change, u, tol, k):
        return float((image_norms(change) ** 2 / image_norms(u) ** 2).max()) <= tol


@fault("vjp", "stale_state")
class KeepsFirstState:
    """The linearisation at the first u of a shape serves all later calls."""

    def vjp(self, problem, u, w):
        self.kept = vars(self).get("kept", {})
        return super().vjp(problem, self.kept.setdefault(tuple(u.shape), u + 0), w)


@fault("apply", "stale_state")
class KeepsFirstFilters:
    """Filters are prepared once for each shape."""

    def apply(self, problem, u):
        self.kept = vars(self).get("kept", {})
        key = (tuple(problem.A.shape), tuple(u.shape))
        return super().apply(replace(problem, A=self.kept.setdefault(key, problem.A)), u)


@fault("jvp", "stale_state")
class LinearizesAtLastApply:
    """jvp at the state of the last apply."""

    last = None

    def apply(self, problem, u):
        self.last = u + 0
        return super().apply(problem, u)

    def jvp(self, problem, u, v):
        at = self.last if self.last is not None and self.last.shape == u.shape else u
        return super().jvp(problem, at, v)


@fault("fixed_point", "stale_state")
class KeepsFixedPoint:
    """Fixed points are kept by the shape of the data."""

    def fixed_point(self, problem, *, tol):
        self.kept = vars(self).get("kept", {})
        key = tuple(problem.y.shape)
        if key not in self.kept:
            self.kept[key] = super().fixed_point(problem, tol=tol)
        return self.kept[key] + 0


@fault("apply", "modifies_arguments", frameworks=("torch",))
class ModifiesState:
    """u is stepped in place."""

    def apply(self, problem, u):
        value = super().apply(problem, u)
        return u.copy_(value) + 0


@fault("jvp", "modifies_arguments", frameworks=("torch",))
class ModifiesTangent:
    def jvp(self, problem, u, v):
        value = super().jvp(problem, u, v)
        v.mul_(0.5)
        return value


@fault("fixed_point", "modifies_arguments", frameworks=("torch",))
class ModifiesData:
    """The data are normalised in place."""

    def fixed_point(self, problem, *, tol):
        value = super().fixed_point(problem, tol=tol)
        problem.y.div_(problem.y.norm())
        return value


@fault("params_vjp", "modifies_arguments", frameworks=("torch",))
class ModifiesFilters:
    """Filters are centred in place."""

    def params_vjp(self, problem, u, w):
        value = super().params_vjp(problem, u, w)
        problem.A.sub_(problem.A.mean())
        return value


@fault("gradient", "returns_view", "modifies_arguments", frameworks=("torch",))
class WritesIntoState:
    """The gradient is returned in the memory of u."""

    def gradient(self, problem, u):
        return u.copy_(super().gradient(problem, u))


@fault("fixed_point", "returns_view", frameworks=("torch",))
class ReturnsTarget:
    """A placeholder is returned."""

    def fixed_point(self, problem, *, tol):
        return problem.target[:]


@fault("apply", "not_deterministic")
class Noise:
    def apply(self, problem, u):
        value = super().apply(problem, u)
        return value + 1e-3 * random_like(value, np.random.default_rng())


@fault("vjp", "not_deterministic")
class Dropout:
    """A tenth of the cotangent is dropped."""

    def vjp(self, problem, u, w):
        kept = cast(random_like(w, np.random.default_rng()) > -1.28, name_of_dtype(w))
        return super().vjp(problem, u, w * kept)


@fault("apply", "leaks_between_images")
class LeaksMean:
    """Every image sees a little of the mean over the batch."""

    def apply(self, problem, u):
        return super().apply(problem, u) + 1e-3 * (u.mean(0)[None] - u)


@fault("apply", "leaks_between_images")
class BatchNorm:
    """The step is scaled by a norm over the whole batch."""

    def apply(self, problem, u):
        step = super().apply(problem, u) - u
        return u + step / (1 + 1e-2 * (step**2).sum() ** 0.5)


@fault("apply", "leaks_between_images")
class DataOfFirstImage:
    def data_gradient(self, p, u):
        return super().data_gradient(replace(p, y=broadcast(p.y[:1], p.y)), u)

    def data_energy(self, p, u):
        return super().data_energy(replace(p, y=broadcast(p.y[:1], p.y)), u)


@fault("apply", "leaks_between_images", "batch_reversed")
class ImagesRolled:
    def apply(self, problem, u):
        return framework(u).roll(super().apply(problem, u), 1, 0)


@fault("jvp", "leaks_between_images", "batch_reversed")
class TangentsReversed:
    def jvp(self, problem, u, v):
        return super().jvp(problem, u, flipped(v, 0))


@fault("hvp", "leaks_between_images", "one_image_for_all")
class HessianOfFirstImage:
    """∇²E at the first image, for all."""

    def hvp(self, problem, u, v):
        return super().hvp(problem, broadcast(u[:1], u), v)


@fault("apply", "raised")
class RaisesOnOddSizes:
    def apply(self, problem, u):
        if u.shape[2] % 2:
            raise ValueError(f"height {u.shape[2]} is not even")
        return super().apply(problem, u)


@fault("params_vjp", "raised")
class RaisesWhenUntied:
    def params_vjp(self, problem, u, w):
        if problem.C is not None:
            raise KeyError("C")
        return super().params_vjp(problem, u, w)


@fault("energy", "wrong_shape")
class EnergyColumn:
    """(N, 1) in place of (N,)."""

    def energy(self, problem, u):
        return super().energy(problem, u)[:, None]


@fault("energy", "wrong_shape")
class EnergyScalar:
    """One number for the batch."""

    def energy(self, problem, u):
        return super().energy(problem, u).sum()


@fault("params_vjp", "wrong_shape")
class BiasKeepsDimensions:
    """The gradient of b is (F, 1, 1)."""

    def params_vjp(self, problem, u, w):
        found = super().params_vjp(problem, u, w)
        return found | {"b": found["b"][:, None, None]}


@fault("vjp", "wrong_shape")
class SingleImageSqueezed:
    """A batch of one image loses its axis."""

    def vjp(self, problem, u, w):
        value = super().vjp(problem, u, w)
        return value[0] if len(value) == 1 else value


@fault("apply", "not_finite")
class NaNForOnePixelWidth:
    """Standardised along rows, which divides by zero for one pixel."""

    def apply(self, problem, u):
        value = super().apply(problem, u)
        spread = framework(u).std(value, 3)[..., None] if u.shape[3] == 1 else 1.0
        return value / spread * spread


@fault("hvp", "wrong_dtype")
class OtherDtype:
    def hvp(self, problem, u, v):
        other = {"float64": "float32", "float32": "float64"}[name_of_dtype(u)]
        return cast(super().hvp(problem, u, v), other)


@fault("hypergradient", "wrong_entries")
class ExtraEntries:
    """A gradient of γ that nobody asked for."""

    def hypergradient(self, problem, *, tol):
        found = super().hypergradient(problem, tol=tol)
        return found | {"gamma": found["loss"]}


@fault("energy", "hangs", time_limit=1.0)
class Hangs:
    def energy(self, problem, u):
        time.sleep(30)
