"""Arguments that fit, by the names of parameters; arguments that do not; changes of the former."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

import refimpl as ri

SHAPE = (9, 8)
# Parameters that say how long to compute: a large number is a wish, not a fault.
LENGTHS = ("max_iterations", "max_steps", "cases", "budget", "time_limit")


@cache
def world() -> SimpleNamespace:
    """Small problems with their solutions, made once."""
    rng = np.random.default_rng(0)
    grey, colour, batch = rng.random(SHAPE), rng.random((*SHAPE, 3)), rng.random((2, 1, *SHAPE))
    tv = ri.total_variation(SHAPE, slope=5.0)
    A = tv.theta.A
    untied = ri.FieldOfExperts(tv.bank, tv.potential, ri.make_parameters(A, A * 1.1))
    problems = [
        ri.Problem(ri.Identity(SHAPE), batch, tv, 12.0),
        ri.Problem(ri.Identity(SHAPE), batch, untied, 12.0),
        ri.Problem(ri.Mask(grey > 0.2), batch, tv, 12.0),
    ]
    step = ri.engine.make_step(problems[0])
    star = ri.reconstruct(step, residual_tol=1e-10)
    gradient = ri.loss_gradient(star.x, batch)
    adjoint = ri.hypergradient(step, star, gradient).adjoint.x
    model = ri.training.TrainedModel(tv.theta, tv.potential, "zero", 12.0, 0.1)
    return SimpleNamespace(**locals())


class Backend:
    """One stage, right."""

    def apply(self, p, u):
        """Not what is asked for."""
        return u


class Spline:
    """A potential of one's own with a method missing."""

    def value(self, z):
        """φ."""
        return z**2


@cache
def fitting() -> dict[str, list]:
    """What fits, by the name of a parameter; "function.name" comes first."""
    w = world()
    images, theta, theta2 = [w.batch, w.star.x], w.tv.theta, w.untied.theta
    paths = ["x.npz", "/nowhere/x.npz"]
    shapes = [SHAPE, (1, *SHAPE), (3, *SHAPE)]
    return {
        "image": [w.grey, w.colour, w.batch[0, 0]], "add_noise.image": [w.grey, w.batch],
        "reference": [w.grey * 0.9, w.batch], "psnr.image": [w.grey, w.batch],
        "ssim.image": [w.grey, w.batch], "mask": [w.grey > 0.8, w.grey > 0.3],
        "psf": [np.ones((3, 3)) / 9, np.ones((5, 3)) / 15], "kernel": [np.ones((3, 3)) / 9],
        "noise_level": [0.1, 0.02], "channel_axis": [None, -1, 0], "rng": [0, None],
        "data_range": [None, 1.0], "window": [7, 3, 5], "image_shape": shapes,
        "boundary": ["zero", "symmetric", "periodic"], "features": [3, 20], "lam": [12.0, 1.0],
        "slope": [5.0, 100.0], "filter_shape": [(2, 3, 3), (1, 1, 5)], "factor": [2, (2, 1)],
        "offset": [0], "bank": [w.tv.bank, ri.DenseBank(SHAPE, 4)],
        "potential": [w.tv.potential, None], "FieldOfExperts.potential": [w.tv.potential],
        "theta": [theta, theta2, w.A], "matrix": [w.rng.random((5, 72))], "domain_shape": [SHAPE],
        "FromScipy.operator": [w.rng.random((5, 72))], "range_shape": [None, (5,)],
        "operator": [None], "Problem.operator": [ri.Identity(SHAPE), ri.Mask(w.grey > 0.2)],
        "experts": [w.tv, w.untied], "A": [w.A], "C": [None, w.A], "b": [None, np.zeros(2)],
        "weights": [None, np.ones(2)], "gamma": [1.0, 0.5], "Parameters.b": [np.zeros(2)],
        "Parameters.weights": [np.ones(2)], "Parameters.gamma": [np.array(1.0)],
        "p": w.problems, "u": images, "v": images, "q": images, "tau": [0.01, 1e-3],
        "truth": images, "y": [w.batch], "step": [*w.problems, w.step], "u0": [None, w.batch],
        "certify.q": [w.adjoint], "state": [w.star], "loss_gradient": [w.gradient],
        "method": ["auto", "picard", "anderson", "newton_krylov", "newton", "lbfgs", "nesterov",
                   "cg", "gmres", "bicgstab"],
        "tested": [None],
        "tol": [1e-4, 1e-8], "residual_tol": [None, 1e-6], "error": [None, "estimate"],
        "max_iterations": [None, 1, 50], "preconditioner": [None, "jacobi", "auto"],
        "callback": [None, lambda *_: None], "options": [None, {"memory": 3}], "mu": [None, 0.1],
        "allow_unconverged": [False, True], "train.tol": [0.001], "path": paths,
        "name": ["log_cosh", "huber", "quadratic"], "compare.name": ["mine"],
        "parameters": [{}, {"slope": 3.0}, {"delta": 1.0}],
        "images": [[w.grey, w.grey], w.batch], "test": [None, [w.grey]], "crop": [8, 4],
        "start": ["cosine", "random", "total_variation", w.model], "filters": [None, (4, 3, 3)],
        "tied": [True, False], "max_steps": [0, 1], "batch_size": [16, 1],
        "learning_rate": [0.01], "value_range": [(0.0, 1.0)], "seed": [0, 3],
        "model": [None, "tv", w.model], "reconstruct.model": [None], "backend": [Backend()],
        "thing": [w.tv.potential, ri.Identity(SHAPE), w.tv.bank], "cases": [1],
        "precision": ["float64", "float32"], "stages": [None, ["apply"]], "time_limit": [1.0],
        "only": [None, {"operator": "identity"}], "budget": [0.2], "out": [None], "since": [None],
        "on_verdict": [None], "case": [ri.verification.crosscheck.random_case(0, size=(4, 3))],
        "outputs": [{"map": w.batch}, {}], "text": ["x"],
    } | of_training()  # fmt: skip


def of_training() -> dict[str, list]:
    """Values that fit parameters of `train` alone."""
    return {
        "trained": [("A", "C"), ("b", "weights")], "train.precision": ["float32", "float64"],
        "rates": [None, {"A": 0.5}], "warm_up": [0, 3], "schedule": ["constant", "cosine"],
        "evaluate_every": [1, 25], "train.window": [None, 2], "drops": [0, 1], "resume": [None],
        "watch": [None], "train.operator": [None, 0.3],
    }  # fmt: skip


@cache
def misfits() -> list:
    """What fits nowhere, or rarely."""
    w = world()
    theta = ri.Parameters(None, "b", w.A, np.ones(3), 7)
    return [
        None, "photo", "", "log_cosh", b"x", 0, 1, 3, -1, 2.5, 0.0, -0.0, 1e308, 5e-324, 10**30,
        2**63, -(10**30), True, False, float("nan"), float("inf"), 1j, np.float32(0.1), np.int8(3),
        np.float64("nan"), np.bool_(True), [], (), {}, set(), [0.1, 0.2], [[1, 2], [3]], (1, 2),
        (3, 3), (0, 4), (-2, 3), (2, 3, 3, 3, 3), (None, 3), ("a", "b"), (1e3, 2.0), {"a": 1},
        {"memory": -1}, {1: 2}, range(3), iter([1]), object(), len, ri.Identity, ri, lambda: 3,
        w.grey, w.colour, w.batch, w.grey + 1j, w.grey.astype(object), np.array(None), np.array(3),
        np.array([]), np.zeros((0, 1, 9, 8)), np.zeros((2, 0, 9, 8)), w.grey[0], w.batch[None],
        np.ma.masked_array(w.grey, w.grey > 0.5), np.full((2, 1, 9, 8), np.nan),
        np.array([["a", "b"]]), np.array(["2020-01-01"], "M8[D]"), np.zeros(3, "f8,i4"),
        np.matrix([[1.0, 2.0]]), (w.batch * 255).astype(np.uint8), w.batch.astype(np.float16),
        w.batch.astype(">f8"), w.batch[..., ::-1], np.moveaxis(w.batch, 1, -1), w.problems[0],
        w.star, w.tv, w.tv.bank, w.tv.potential, w.tv.theta, theta, w.model, Backend(), Backend,
        Spline(), ri.make_potential("huber"), w.star._replace(x=None), w.star._replace(x=w.grey),
        w.star._replace(converged=False), ri.DenseBank((3, 3), 2), ri.Identity((3, 3)),
        np.random.default_rng(0), np.random.RandomState(0), slice(3), Ellipsis, NotImplemented,
    ]  # fmt: skip


def changed(value: Any, rng: np.random.Generator) -> Any:
    """A value that fits, changed a little."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fb":
        return changed_array(value, rng)
    if isinstance(value, bool) or value is None:
        return choose([0, 1, "yes", None, True], rng)
    if isinstance(value, (int, float)):
        factors = [-1, 0, 1e-300, 1e300, float("nan"), 1.5, 10**25, np.float32(1), 1]
        return value * choose(factors, rng)
    if isinstance(value, str):
        return choose([value.upper(), value + " ", value[:-1], [value], value.encode()], rng)
    if isinstance(value, (tuple, list)) and value:
        k = int(rng.integers(len(value)))
        other = choose([value[k], *misfits()], rng)
        return choose([
            value[:k] + value[k + 1 :], (*value, value[k]), (*value[:k], other, *value[k + 1 :]),
            list(value), tuple(value), np.asarray(value, object), value[::-1],
        ], rng)  # fmt: skip
    if isinstance(value, dict):
        return value | {choose(["slope", "delta", "memory", "x", 3], rng): misfit(rng)}
    return misfit(rng)


@np.errstate(all="ignore")
def changed_array(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An array of another type, shape, size or layout, or with some other values."""
    if rng.random() < 0.3:
        x = x.astype(choose(["f4", "f8", "f2", ">f8", "i4", "u1", "?", "c16", "O", "S1"], rng))
    kind = rng.integers(10)
    if kind == 0 and x.ndim:
        return np.moveaxis(x, 0, -1)
    if kind == 1:
        return x[None]
    if kind == 2 and x.ndim:
        return x[0] if len(x) else x
    if kind == 3 and x.ndim:
        return x[..., : int(rng.integers(x.shape[-1] + 1))]
    if kind == 4:
        return np.asfortranarray(x)[::-1] if x.ndim else x
    if kind == 5 and x.dtype.kind == "f":
        return x * x.dtype.type(choose([0, -1, 1e30, 1e-30, np.inf, np.nan], rng))
    if kind == 6 and x.size and x.dtype.kind == "f":
        x = x.copy()
        x.flat[int(rng.integers(x.size))] = choose([np.nan, np.inf, 1e300, -5], rng)
        return x
    if kind == 7:
        x = x.copy()
        x.flags.writeable = False
        return x
    if kind == 8:
        return x.ravel() if rng.random() < 0.5 else x.tolist()
    return x


def choose(values: list, rng: np.random.Generator) -> Any:
    """One of them."""
    return values[int(rng.integers(len(values)))]


def misfit(rng: np.random.Generator) -> Any:
    """One of `misfits`."""
    return choose(misfits(), rng)
