"""The protocol of a backend, made of `maps`: what both frameworks share.

    fixed_point         Newton's method with autodiff products, image by image
    hypergradient       a backward pass through `implicit`, which carries the rule E9, E10

What a framework adds is in `torch_backend` and `jax_backend`; nothing here imports one.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, gmres

from refimpl.results import NotConvergedError
from refimpl.verification.backends.maps import Array, Maps, Product, Theta
from refimpl.verification.question import Question

MAX_NEWTON, MAX_HALVINGS = 100, 40
LONGEST_CYCLE, MAX_CYCLES = 400, 5


class Autodiff(Maps):
    """The protocol of a backend, up to what a framework must add.

    Parameters
    ----------
    compiled : bool
        Whether maps are compiled, once for each setting and shape.
    """

    def __init__(self, compiled: bool):
        self.compiled, self._programs = compiled, {}

    def __getstate__(self) -> dict[str, Any]:
        """What pickles and copies keep; programs are compiled again."""
        return self.__dict__ | {"_programs": {}}

    # What a framework adds.

    @abstractmethod
    def asarray(self, x: np.ndarray | Array) -> Array:
        """The framework's array from a NumPy array, as a copy in the same precision."""

    @abstractmethod
    def compile(self, program: Callable) -> Callable:
        """The same function of arrays, compiled."""

    @abstractmethod
    def implicit(self, settings: Question, arrays: Theta, theta: Theta, tol: float) -> Array:
        """u*, with the derivative dℓ/dθ = (∂_θ T)ᵀ q, E10, in place of that of the iterations."""

    @abstractmethod
    def value_and_grad(
        self, loss: Callable[[Theta], Array], theta: Theta
    ) -> tuple[Array, Theta]:
        """A loss and its gradient by one backward pass."""

    def precision(self) -> AbstractContextManager:
        """Where float64 must be asked for."""
        return nullcontext()

    def detached(self, x: Any) -> Any:
        """x without its history, where arrays have one."""
        return x

    # What a backend offers.

    def apply(self, problem: Question, u: Array) -> Array:
        """T(u), E8."""
        return self._run("step", problem, u)

    def energy(self, problem: Question, u: Array) -> Array:
        """E(u) of each image, E2; tied only."""
        return self._run("energies", require_tied(problem), u)

    def gradient(self, problem: Question, u: Array) -> Array:
        """∇E(u); tied only."""
        return self._run("energy_gradient", require_tied(problem), u)

    def jvp(self, problem: Question, u: Array, v: Array) -> Array:
        """∂_u T v."""
        return self._run("step_jvp", problem, u, v)

    def hvp(self, problem: Question, u: Array, v: Array) -> Array:
        """∇²E(u) v; tied only."""
        return self._run("energy_hvp", require_tied(problem), u, v)

    def vjp(self, problem: Question, u: Array, w: Array) -> Array:
        """(∂_u T)ᵀ w."""
        return self._run("step_vjp", problem, u, w)

    def params_vjp(self, problem: Question, u: Array, w: Array) -> Theta:
        """(∂_θ T)ᵀ w."""
        return self._run("step_params_vjp", problem, u, w)

    def fixed_point(self, problem: Question, *, tol: float) -> Array:
        """u* with ‖T(u*) − u*‖ ≤ tol ‖u*‖ for each image.

        Raises
        ------
        NotConvergedError
            If an image does not get there.
        """
        with self.precision():
            return self.solve(*self._parts(problem), tol)

    def hypergradient(self, problem: Question, *, tol: float) -> Theta:
        """dℓ/dθ and the loss, E10 and E11, by one backward pass."""
        settings, arrays, theta = self._parts(problem)
        p = replace(settings, **arrays)
        with self.precision():
            value, gradient = self.value_and_grad(
                lambda theta: self.loss(p, self.implicit(settings, arrays, theta, tol)), theta
            )
        return gradient | {"loss": value}

    def linearize(
        self, settings: Question, arrays: Theta, theta: Theta, u: Array
    ) -> tuple[Array, Product, Product]:
        """G(u), v ↦ J v and w ↦ Jᵀ w."""
        maps = (self._program(name, settings) for name in ("direction_jvp", "direction_vjp"))
        products = (partial(program, arrays, theta, u) for program in maps)
        return self._program("direction", settings)(arrays, theta, u), *products

    # Fixed point and implicit differentiation.

    def start(self, p: Question, theta: Theta) -> Array:
        """Kᵀ y."""
        return self.transpose(p, p.y)

    def solve(self, settings: Question, arrays: Theta, theta: Theta, tol: float) -> Array:
        """u* of every image, each by itself from Kᵀ y."""
        theta = self._program("used", settings)(arrays, theta)
        settings, stars = replace(settings, norm=None), []
        for n in range(len(arrays["y"])):
            alone = arrays | {"y": arrays["y"][n : n + 1]}
            start = self.detached(self._program("start", settings)(alone, theta))
            stars.append(self.newton(settings, alone, theta, start, tol))
        return self.xp.concatenate(stars)

    def newton(
        self, settings: Question, arrays: Theta, theta: Theta, u: Array, tol: float
    ) -> Array:
        """u* of one image by steps u + t d with (J + s I) d = −G(u), t halved until ‖G‖ falls.

        The shift s = ‖G‖ / (‖u‖ + τ ‖G‖) keeps steps as short as u where J is nearly singular,
        and vanishes at u*. Both tests must hold: τ ‖G(u)‖ ≤ tol ‖u‖, and, since any u passes for
        tiny τ, a last step ‖d‖ ≤ √tol ‖u‖. The system is solved to √tol, so that such a step
        leaves an error of tol.
        """
        program = partial(self._program("direction", settings), arrays, theta)

        def direction(u: Array) -> Array:
            return self.detached(program(u))

        for _ in range(MAX_NEWTON):
            g, product, _ = self.linearize(settings, arrays, theta, u)
            shift = size(g) / (size(u) + settings.tau * size(g) or 1)
            d = self.solve_linear(shifted(product, shift), -g, tol**0.5)
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
        right = np.asarray(b)

        def matvec(x: np.ndarray) -> np.ndarray:
            x = self.asarray(np.asarray(x.reshape(right.shape), right.dtype))
            return np.asarray(product(x)).flatten()

        M = LinearOperator((right.size, right.size), matvec=matvec, dtype=right.dtype)
        cycle = min(right.size, LONGEST_CYCLE)
        x = gmres(M, right.ravel(), rtol=tol, restart=cycle, maxiter=MAX_CYCLES)[0]
        return self.asarray(np.asarray(x.reshape(right.shape), right.dtype))

    def solve_adjoint(
        self, settings: Question, arrays: Theta, theta: Theta, u: Array, b: Array, tol: float
    ) -> Array:
        """q of (I − ∂_u T)ᵀ q = τ Jᵀ q = b for each image, E9, to ‖b − τ Jᵀ q‖ ≤ tol ‖b‖."""
        theta = self._program("used", settings)(arrays, theta)
        settings, rows = replace(settings, norm=None), []
        u, b = self.detached(u), self.detached(b)
        for n in range(len(u)):
            one, alone = slice(n, n + 1), arrays | {"y": arrays["y"][n : n + 1]}
            _, _, product = self.linearize(settings, alone, theta, u[one])
            x = self.solve_linear(product, b[one], tol)
            left = size(b[one] - product(x))
            if not left <= tol * size(b[one]):
                raise not_converged("hypergradient: adjoint", left / size(b[one]), tol)
            rows.append(x / settings.tau)
        return self.xp.concatenate(rows)

    def pull_back(
        self, settings: Question, arrays: Theta, theta: Theta, u: Array, b: Array, tol: float
    ) -> Theta:
        """(∂_θ T)ᵀ q with (I − ∂_u T)ᵀ q = b: E9 and E10 at the fixed point u."""
        q = self.solve_adjoint(settings, arrays, theta, u, b, tol)
        return self.detached(self._program("step_params_vjp", settings)(arrays, theta, u, q))

    # From questions to programs.

    def _parts(self, problem: Question) -> tuple[Question, Theta, Theta]:
        """Settings, arrays and θ of a question, as the framework's arrays."""
        settings, *groups = problem.taken_apart()
        arrays, theta = ({k: self.asarray(x) for k, x in group.items()} for group in groups)
        return settings, arrays, theta

    def _run(self, name: str, problem: Question, *images: Array) -> Any:
        """One of the maps at these images."""
        settings, arrays, theta = self._parts(problem)
        with self.precision():
            result = self._program(name, settings)(arrays, theta, *map(self.asarray, images))
        return self.detached(result)

    def _program(self, name: str, settings: Question) -> Callable:
        """A map as a function of arrays, θ and images; compiled once for each settings."""

        def program(arrays, theta, *images):
            return getattr(self, name)(replace(settings, **arrays), theta, *images)

        if not self.compiled:
            return program
        key = (name, settings.key())
        if key not in self._programs:
            self._programs[key] = self.compile(program)
        return self._programs[key]


def size(x: Array) -> float:
    """‖x‖ of all values together."""
    return float(np.linalg.norm(np.asarray(x)))


def shifted(product: Product, shift: float) -> Product:
    """v ↦ J v + s v."""
    return lambda v: product(v) + shift * v


def require_tied(problem: Question) -> Question:
    """The question, if it has an energy."""
    if not problem.tied:
        raise ValueError("the problem is untied, and has no energy; use apply, jvp and vjp")
    return problem


def not_converged(what: str, residual: float, tol: float) -> NotConvergedError:
    """The error of a solver that stopped short of its tolerance."""
    return NotConvergedError(
        f"{what}: relative residual {float(residual):.2e}, asked for {tol:.2e}; "
        "pass a larger tol, or float64 arrays"
    )
