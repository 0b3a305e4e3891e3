"""Inputs of every kernel, and the potentials that kernels are tried with."""

import numpy as np

from refimpl.engine.fused import CODES
from refimpl.paper.potentials import LogCosh, SmoothedL1, make_potential
from strategies import normal

NAMES = ("quadratic", "half_squared_relu", "soft_shrinkage", "log_cosh")
NAMES += ("lorentzian", "smoothed_l1", "huber")
POTENTIALS = [make_potential(name) for name in NAMES] + [LogCosh(100.0), SmoothedL1(1.0)]


def settings_of(potential):
    """What kernels are told of a potential: its code and its parameter."""
    return CODES[type(potential)], potential.parameter


class Problem:
    """Normally distributed inputs of every kernel, and the same in double precision."""

    def __init__(self, images, filters, seed, dtype):
        (N, _, H, W), (F, _, h, w) = images, filters
        rng = np.random.default_rng(seed)
        padded = (N, images[1], H + h - 1, W + w - 1)
        shapes = dict(up=padded, qp=padded, A=filters, C=filters, b=(F,), w=(F,))
        shapes |= dict(z=(N, F, H, W), d=(N, F, H, W))
        self.given = {name: normal(rng, shape, dtype) for name, shape in shapes.items()}
        self.double = {name: x.astype(np.float64) for name, x in self.given.items()}
        self.terms = 16 + (images[1] + F) * h * w + N * H * W
        self.dtype = dtype

    def inputs(self, names, of="given"):
        """The inputs called `names`; `of` may be "given", "double" or "sizes" (absolute values)."""
        if of == "sizes":
            return [np.abs(self.double[name]) for name in names.split()]
        return [getattr(self, of)[name] for name in names.split()]

    def assert_multilinear(self, kernel, definition, names):
        """The kernel agrees with a definition that is a sum of products of its arguments."""
        results = kernel(*self.inputs(names))
        exact = definition(*self.inputs(names, "double"))
        sizes = definition(*self.inputs(names, "sizes"))
        tuples = results if isinstance(results, tuple) else (results,), exact, sizes
        tuples = tuples if isinstance(results, tuple) else (tuples[0], (exact,), (sizes,))
        for result, truth, size in zip(*tuples, strict=True):
            self.assert_close(result, truth, size)

    def assert_close(self, result, truth, size):
        """|result - truth| ≤ n eps size, elementwise, and the precision is that of the inputs."""
        assert result.dtype == self.dtype
        assert result.shape == truth.shape
        assert np.all(np.abs(result - truth) <= self.terms * np.finfo(self.dtype).eps * size)
