"""The reconstruction map in JAX, every derivative by autodiff.

    apply               T(u) = u − τ G(u)                             E8
    energy              E(u) = λ/2 ‖K u − y‖² + γ Σ w φ(A u + b)      E2
    direction, tied     G = ∇E by autodiff
    direction, untied   G = λ Kᵀ(K u − y) + γ Cᵀ(w ⊙ σ(A u + b))     E3; Kᵀ, Cᵀ by autodiff
    jvp, vjp, hvp       jax.jvp, jax.vjp
    fixed_point         Newton's method with autodiff products, image by image
    hypergradient       jax.value_and_grad through `implicit`, which carries the rule E9, E10

The same methods as in `torch_backend`, with the same meaning of p and θ. JAX holds float64 only
where it is told to, so everything here runs inside `jax.enable_x64`; float32 stays float32.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, grad, jvp, lax, vjp
from scipy.sparse.linalg import LinearOperator, gmres

from refimpl.backends.jax_potentials import ACTIVATIONS, POTENTIALS
from refimpl.backends.problems import (
    ARRAYS,
    PARAMETERS,
    Settings,
    View,
    arrays_of,
    not_converged,
    require_tied,
    settings_of,
    sources,
    view,
)

Theta = dict[str, Array]
Product = Callable[[Array], Array]

MAX_NEWTON, MAX_HALVINGS = 100, 40
LONGEST_CYCLE, MAX_CYCLES = 400, 5


class JaxBackend:
    """The protocol of a backend, in JAX.

    Parameters
    ----------
    compiled : bool
        Whether maps go through jax.jit, once for each setting and shape.
    """

    def __init__(self, compiled: bool = True):
        self.compiled, self._programs = compiled, {}

    # What a backend offers.

    def asarray(self, x: np.ndarray | Array) -> Array:
        """A JAX array from a NumPy array, as a copy in the same precision."""
        with jax.enable_x64(True):
            return x if isinstance(x, Array) else jnp.array(x)

    def apply(self, problem: Any, u: Array) -> Array:
        """T(u), E8."""
        return self._run("step", problem, u)

    def energy(self, problem: Any, u: Array) -> Array:
        """E(u) of each image, E2; tied only."""
        return self._run("energies", require_tied(problem), u)

    def gradient(self, problem: Any, u: Array) -> Array:
        """∇E(u); tied only."""
        return self._run("energy_gradient", require_tied(problem), u)

    def jvp(self, problem: Any, u: Array, v: Array) -> Array:
        """∂_u T v."""
        return self._run("step_jvp", problem, u, v)

    def hvp(self, problem: Any, u: Array, v: Array) -> Array:
        """∇²E(u) v; tied only."""
        return self._run("energy_hvp", require_tied(problem), u, v)

    def vjp(self, problem: Any, u: Array, w: Array) -> Array:
        """(∂_u T)ᵀ w."""
        return self._run("step_vjp", problem, u, w)

    def params_vjp(self, problem: Any, u: Array, w: Array) -> Theta:
        """(∂_θ T)ᵀ w."""
        return self._run("step_params_vjp", problem, u, w)

    def fixed_point(self, problem: Any, *, tol: float) -> Array:
        """u* with ‖T(u*) − u*‖ ≤ tol ‖u*‖ for each image.

        Raises
        ------
        NotConvergedError
            If an image does not get there.
        """
        with jax.enable_x64(True):
            return self.solve(*self._parts(problem), tol)

    def hypergradient(self, problem: Any, *, tol: float) -> Theta:
        """dℓ/dθ and the loss, E10 and E11, by one backward pass."""
        settings, arrays, theta = self._parts(problem)
        p = view(settings, arrays)

        def loss(theta):
            return self.loss(p, self.implicit(settings, arrays, theta, tol))

        with jax.enable_x64(True):
            value, gradient = jax.value_and_grad(loss)(theta)
        return gradient | {"loss": value}

    # The maps.

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

    def forward(self, p: View, u: Array) -> Array:
        """K u; blur is true convolution, correlation with the flipped kernel."""
        if p.operator == "mask":
            return p.mask * u
        if p.operator == "matrix":
            return u.reshape(len(u), -1) @ p.matrix.T
        if p.operator == "convolution":
            each = u.reshape(-1, 1, *u.shape[2:])
            kernel = p.kernel[::-1, ::-1][None, None]
            return self.correlate(each, kernel, p.operator_boundary).reshape(u.shape)
        return u

    def transpose(self, p: View, z: Array) -> Array:
        """Kᵀ z."""
        zero = jnp.zeros((len(z), *p.target.shape[1:]), z.dtype)
        return vjp(lambda u: self.forward(p, u), zero)[1](z)[0]

    def analyse(self, p: View, A: Array, u: Array) -> Array:
        """A u: (N, F, H, W), or (N, F) for dense rows."""
        if p.analysis == "dense":
            return u.reshape(len(u), -1) @ A.T
        return self.correlate(u, A, p.boundary)

    def synthesise(self, p: View, C: Array, z: Array) -> Array:
        """Cᵀ z."""
        zero = jnp.zeros((len(z), *p.target.shape[1:]), z.dtype)
        return vjp(lambda u: self.analyse(p, C, u), zero)[1](z)[0]

    def per_filter(self, p: View, x: Array) -> Array:
        """Numbers (F,) that broadcast against responses."""
        return x if p.analysis == "dense" else x[:, None, None]

    def norm(self, p: View, A: Array) -> Array:
        """‖A‖ of the whole operator: as a matrix, whose columns are responses to unit images."""
        shape = p.target.shape[1:]
        count = math.prod(shape)
        units = jnp.eye(count, dtype=A.dtype).reshape(count, *shape)
        return jnp.linalg.norm(self.analyse(p, A, units).reshape(count, -1), 2)

    def used(self, p: View, theta: Theta) -> Theta:
        """θ with A and C rescaled to the problem's norm, if it has one."""
        if p.norm is None:
            return theta
        banks = {name: x for name, x in theta.items() if name in ("A", "C")}
        return theta | {name: p.norm / self.norm(p, x) * x for name, x in banks.items()}

    def responses(self, p: View, theta: Theta, u: Array) -> Array:
        """A u + b."""
        return self.analyse(p, theta["A"], u) + self.per_filter(p, theta["b"])

    def potential(self, p: View, z: Array) -> Array:
        """φ(z)."""
        return POTENTIALS[p.potential](z, **p.parameters)

    def activation(self, p: View, z: Array) -> Array:
        """σ(z) = φ′(z)."""
        return ACTIVATIONS[p.potential](z, **p.parameters)

    def data_energy(self, p: View, u: Array) -> Array:
        """λ/2 ‖K u − y‖² of each image."""
        return p.lam / 2 * ((self.forward(p, u) - p.y) ** 2).reshape(len(u), -1).sum(1)

    def experts_energy(self, p: View, theta: Theta, u: Array) -> Array:
        """γ Σ w φ(A u + b) of each image."""
        phi = self.potential(p, self.responses(p, theta, u))
        return p.gamma * (self.per_filter(p, theta["weights"]) * phi).reshape(len(u), -1).sum(1)

    def energies(self, p: View, theta: Theta, u: Array) -> Array:
        """E(u) of each image, E2."""
        return self.data_energy(p, u) + self.experts_energy(p, self.used(p, theta), u)

    def energy_gradient(self, p: View, theta: Theta, u: Array) -> Array:
        """∇E(u): the gradient of the sum, since images are independent."""
        return grad(lambda x: self.energies(p, theta, x).sum())(u)

    def data_gradient(self, p: View, u: Array) -> Array:
        """λ Kᵀ(K u − y)."""
        return p.lam * self.transpose(p, self.forward(p, u) - p.y)

    def field(self, p: View, theta: Theta, u: Array) -> Array:
        """F(u) = γ Cᵀ(w ⊙ σ(A u + b)), E3, with C = A where θ has no C."""
        sigma = self.activation(p, self.responses(p, theta, u))
        weighted = self.per_filter(p, theta["weights"]) * sigma
        return p.gamma * self.synthesise(p, theta.get("C", theta["A"]), weighted)

    def direction(self, p: View, theta: Theta, u: Array) -> Array:
        """G(u): ∇E when tied, else λ Kᵀ(K u − y) + F(u)."""
        if p.tied:
            return self.energy_gradient(p, theta, u)
        return self.data_gradient(p, u) + self.field(p, self.used(p, theta), u)

    def step(self, p: View, theta: Theta, u: Array) -> Array:
        """T(u) = u − τ G(u), E8."""
        return u - p.tau * self.direction(p, theta, u)

    def loss(self, p: View, u: Array) -> Array:
        """Mean squared difference from the target, E11."""
        return ((u - p.target) ** 2).mean()

    # Derivatives.

    def step_jvp(self, p: View, theta: Theta, u: Array, v: Array) -> Array:
        """∂_u T v."""
        return jvp(lambda x: self.step(p, theta, x), (u,), (v,))[1]

    def step_vjp(self, p: View, theta: Theta, u: Array, w: Array) -> Array:
        """(∂_u T)ᵀ w."""
        return vjp(lambda x: self.step(p, theta, x), u)[1](w)[0]

    def energy_hvp(self, p: View, theta: Theta, u: Array, v: Array) -> Array:
        """∇²E(u) v: forward mode over reverse mode."""
        return jvp(lambda x: self.energy_gradient(p, theta, x), (u,), (v,))[1]

    def step_params_vjp(self, p: View, theta: Theta, u: Array, w: Array) -> Theta:
        """(∂_θ T)ᵀ w."""
        return vjp(lambda t: self.step(p, t, u), theta)[1](w)[0]

    def direction_jvp(self, p: View, theta: Theta, u: Array, v: Array) -> Array:
        """J v with J = ∂_u G."""
        return jvp(lambda x: self.direction(p, theta, x), (u,), (v,))[1]

    def direction_vjp(self, p: View, theta: Theta, u: Array, w: Array) -> Array:
        """Jᵀ w."""
        return vjp(lambda x: self.direction(p, theta, x), u)[1](w)[0]

    # Fixed point and implicit differentiation.

    def start(self, p: View, theta: Theta) -> Array:
        """Kᵀ y."""
        return self.transpose(p, p.y)

    def solve(self, settings: Settings, arrays: Theta, theta: Theta, tol: float) -> Array:
        """u* of every image, each by itself from Kᵀ y."""
        theta = self._program("used", settings)(arrays, theta)
        settings, stars = settings._replace(norm=None), []
        for n in range(len(arrays["y"])):
            alone = arrays | {"y": arrays["y"][n : n + 1]}
            start = self._program("start", settings)(alone, theta)
            stars.append(self.newton(settings, alone, theta, start, tol))
        return jnp.concatenate(stars)

    def newton(
        self, settings: Settings, arrays: Theta, theta: Theta, u: Array, tol: float
    ) -> Array:
        """u* of one image by steps u + t d with (J + s I) d = −G(u), t halved until ‖G‖ falls.

        The shift s = ‖G‖ / (‖u‖ + τ ‖G‖) keeps steps as short as u where J is nearly singular,
        and vanishes at u*. Both tests must hold: τ ‖G(u)‖ ≤ tol ‖u‖, and, since any u passes for
        tiny τ, a last step ‖d‖ ≤ √tol ‖u‖. The system is solved to √tol, so that such a step
        leaves an error of tol.
        """
        direction = partial(self._program("direction", settings), arrays, theta)
        product = partial(self._program("direction_jvp", settings), arrays, theta)
        for _ in range(MAX_NEWTON):
            g = direction(u)
            shift = size(g) / (size(u) + settings.tau * size(g) or 1)
            d = self.solve_linear(shifted(partial(product, u), shift), -g, tol**0.5)
            new = self.line_search(direction, u, g, d)
            residual, length = settings.tau * size(direction(new)), size(new)
            if residual <= tol * length and size(d) <= tol**0.5 * length:
                return new
            if new is u:
                break
            u = new
        raise not_converged("fixed_point", residual / length, tol)

    def line_search(self, direction: Product, u: Array, g: Array, d: Array) -> Array:
        """u + t d for the largest t = 1, 1/2, … that makes ‖G‖ fall; else u itself."""
        trials = (u + 0.5**k * d for k in range(MAX_HALVINGS))
        return next((x for x in trials if size(direction(x)) < size(g)), u)

    def solve_linear(self, product: Product, b: Array, tol: float) -> Array:
        """x with ‖b − M x‖ ≤ tol ‖b‖, by SciPy's GMRES: only products are worth compiling."""

        def matvec(x: np.ndarray) -> np.ndarray:
            return np.array(product(jnp.asarray(x.reshape(b.shape), b.dtype))).ravel()

        M = LinearOperator((b.size, b.size), matvec=matvec, dtype=b.dtype)
        cycle = min(b.size, LONGEST_CYCLE)
        x = gmres(M, np.asarray(b).ravel(), rtol=tol, restart=cycle, maxiter=MAX_CYCLES)[0]
        return jnp.asarray(x.reshape(b.shape), b.dtype)

    def solve_adjoint(
        self, settings: Settings, arrays: Theta, theta: Theta, u: Array, b: Array, tol: float
    ) -> Array:
        """q of (I − ∂_u T)ᵀ q = τ Jᵀ q = b for each image, E9, to ‖b − τ Jᵀ q‖ ≤ tol ‖b‖."""
        theta = self._program("used", settings)(arrays, theta)
        settings, rows = settings._replace(norm=None), []
        for n in range(len(u)):
            one, alone = slice(n, n + 1), arrays | {"y": arrays["y"][n : n + 1]}
            product = partial(self._program("direction_vjp", settings), alone, theta, u[one])
            x = self.solve_linear(product, b[one], tol)
            left = size(b[one] - product(x))
            if not left <= tol * size(b[one]):
                raise not_converged("hypergradient: adjoint", left / size(b[one]), tol)
            rows.append(x / settings.tau)
        return jnp.concatenate(rows)

    def implicit(self, settings: Settings, arrays: Theta, theta: Theta, tol: float) -> Array:
        """u*, with the derivative dℓ/dθ = (∂_θ T)ᵀ q, E10, in place of that of the iterations."""

        @jax.custom_vjp
        def star(theta):
            return self.solve(settings, arrays, theta, tol)

        def forward(theta):
            u = star(theta)
            return u, (theta, u)

        def backward(saved, cotangent):
            theta, u = saved
            q = self.solve_adjoint(settings, arrays, theta, u, cotangent, tol)
            return (self._program("step_params_vjp", settings)(arrays, theta, u, q),)

        star.defvjp(forward, backward)
        return star(theta)

    # From problems to programs.

    def _parts(self, problem: Any) -> tuple[Settings, Theta, Theta]:
        """Settings, arrays and θ of a problem, as JAX arrays."""
        groups = (arrays_of(problem, names) for names in (ARRAYS, PARAMETERS))
        arrays, theta = ({k: self.asarray(x) for k, x in group.items()} for group in groups)
        return settings_of(problem), arrays, theta

    def _run(self, name: str, problem: Any, *images: Array) -> Any:
        """One of the maps at these images."""
        settings, arrays, theta = self._parts(problem)
        with jax.enable_x64(True):
            return self._program(name, settings)(arrays, theta, *map(self.asarray, images))

    def _program(self, name: str, settings: Settings) -> Callable:
        """A map as a function of arrays, θ and images; compiled once for each settings."""

        def program(arrays, theta, *images):
            return getattr(self, name)(view(settings, arrays), theta, *images)

        if not self.compiled:
            return program
        if (name, settings) not in self._programs:
            self._programs[name, settings] = jax.jit(program)
        return self._programs[name, settings]


def size(x: Array) -> float:
    """‖x‖ of all values together."""
    return float(np.linalg.norm(x))


def shifted(product: Product, shift: float) -> Product:
    """v ↦ J v + s v."""
    return lambda v: product(v) + shift * v
