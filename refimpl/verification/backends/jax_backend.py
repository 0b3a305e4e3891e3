"""The reconstruction map in JAX: what `autodiff` leaves to a framework.

JAX holds float64 only where it is told to, so everything here runs inside `jax.enable_x64`;
float32 stays float32.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from refimpl.verification.backends.autodiff import Autodiff
from refimpl.verification.backends.maps import Theta, sources
from refimpl.verification.question import Question


class JaxBackend(Autodiff):
    """The protocol of a backend, in JAX.

    Parameters
    ----------
    compiled : bool
        Whether maps go through jax.jit, once for each setting and shape.
    """

    xp, derivatives = jnp, jax

    def __init__(self, compiled: bool = True):
        super().__init__(compiled)

    def asarray(self, x: np.ndarray | Array) -> Array:
        """A JAX array from a NumPy array, as a copy in the same precision."""
        with self.precision():
            return x if isinstance(x, Array) else jnp.array(x)

    def precision(self) -> AbstractContextManager:
        """Where JAX holds float64."""
        return jax.enable_x64(True)

    def pad(self, x: Array, widths: tuple[int, int], boundary: str) -> Array:
        """x (N, C, H, W) extended by `widths` rows and columns on both sides."""
        if boundary == "zero":
            return jnp.pad(x, ((0, 0), (0, 0), (widths[0], widths[0]), (widths[1], widths[1])))
        for axis, width in zip((2, 3), widths):
            x = x.take(sources(x.shape[axis], width, boundary), axis=axis)
        return x

    def correlate(self, x: Array, filters: Array, boundary: str) -> Array:
        """Valid cross-correlation after padding: the image size is unchanged."""
        widths = filters.shape[2] // 2, filters.shape[3] // 2
        return lax.conv(self.pad(x, widths, boundary), filters, (1, 1), "VALID")

    def compile(self, program: Callable) -> Callable:
        """The same function of arrays through jax.jit."""
        return jax.jit(program)

    def value_and_grad(
        self, loss: Callable[[Theta], Array], theta: Theta
    ) -> tuple[Array, Theta]:
        """A loss and its gradient by one backward pass."""
        return jax.value_and_grad(loss)(theta)

    def implicit(self, settings: Question, arrays: Theta, theta: Theta, tol: float) -> Array:
        """u*, with the derivative dℓ/dθ = (∂_θ T)ᵀ q, E10, in place of that of the iterations."""

        @jax.custom_vjp
        def star(theta):
            return self.solve(settings, arrays, theta, tol)

        def forward(theta):
            u = star(theta)
            return u, (theta, u)

        def backward(saved, cotangent):
            theta, u = saved
            return (self.pull_back(settings, arrays, theta, u, cotangent, tol),)

        star.defvjp(forward, backward)
        return star(theta)
