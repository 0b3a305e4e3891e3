"""The step T, whose fixed point is the reconstruction, and its linearisation (E8).

    G(u) = λ Kᵀ(K u − y) + F(u)        T(u) = u − τ G(u)        u* = T(u*)  ⇔  G(u*) = 0

Tied: G = ∇E with E of E2, so T is a gradient step and u* a stationary point of E. Untied: no
energy exists. With J = ∂_u G = λ KᵀK + ∂F,

    ∂_u T v = v − τ J v      (∂_u T)ᵀ q = q − τ Jᵀ q      (∂_θ T)ᵀ q = −τ (∂_θ F)ᵀ q.

The fixed point does not depend on τ; the speed, and the convergence, of u ← T(u) do. These are the
maps of `refimpl.paper.equations`, for real arrays, fast: `make_step` chooses how, once.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refimpl.arrays import Array, positive, same_dtype
from refimpl.engine.field import Field, FieldLinearization, make_field
from refimpl.engine.safe_steps import safe_tau
from refimpl.engine.single import in_single
from refimpl.engine.twins import compiled
from refimpl.kernels.vectors import dot
from refimpl.paper.operators.banks import DenseBank
from refimpl.paper.operators.base import LinearOperator
from refimpl.paper.parameters import Parameters
from refimpl.paper.problem import Problem

# Values of images that are solved together.
PART = 32768


@dataclass(frozen=True, eq=False)
class Step:
    """T(u) = u − τ ( λ Kᵀ(K u − y) + F(u) ), E8, for an untied field.

    Attributes
    ----------
    problem : Problem
    tau : float
        τ > 0.
    operator : LinearOperator
        K, compiled where it can be.
    field : Field
    """

    problem: Problem
    tau: float
    operator: LinearOperator
    field: Field

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.problem!r}, tau {self.tau:.3g})"

    def apply(self, u: Array) -> Array:
        """T(u), E8."""
        return u - self.tau * self.direction(u)

    def direction(self, u: Array) -> Array:
        """G(u) = λ Kᵀ(K u − y) + F(u), which vanishes at the fixed point."""
        return self.data_gradient(u) + self.field.value(u)

    def data_gradient(self, u: Array) -> Array:
        """λ Kᵀ(K u − y)."""
        return self.problem.lam * self.operator.adjoint(self.residual(u))

    def data_hvp(self, v: Array) -> Array:
        """λ KᵀK v."""
        return self.problem.lam * self.operator.adjoint(self.operator.matvec(v))

    def residual(self, u: Array) -> Array:
        """K u − y."""
        y = self.problem.y
        if u.dtype != y.dtype or len(u) != len(y):
            same_dtype(u=u, y=y)
            raise ValueError(
                f"u: {len(u)} images, but y holds data of {len(y)}; these must be equal"
            )
        return self.operator.matvec(u) - y

    def linearize(self, u: Array) -> "StepLinearization":
        """T with its derivatives at `u`; they are computed when asked for, so u must stay."""
        return StepLinearization(self, self.field.linearize(u))

    @property
    def dtype(self) -> np.dtype:
        """The precision of images, data and parameters."""
        return self.problem.dtype

    @cached_property
    def steepness(self) -> float:
        """L ≥ ‖J(u)‖ for every u (`refimpl.engine.safe_steps`), or 1/τ where none is found."""
        try:
            return 1 / safe_tau(self.problem)
        except ValueError:
            return 1 / self.tau

    @cached_property
    def rough(self) -> "Step":
        """This in float32, without data, where that is near enough for corrections, else this."""
        problem = in_single(self.problem)
        if problem is None:
            return self
        # Not `make_step`: whoever extends this class finds its extension in products, too.
        operator, field = compiled(problem.operator), make_field(problem.experts)
        return replace(self, problem=problem, operator=operator, field=field)

    def image(self, n: int) -> "Step":
        """The step for image n alone, a batch of one."""
        return self.images(slice(n, n + 1))

    def images(self, part: slice) -> "Step":
        """The step for some of the images."""
        return replace(self, problem=self.problem.images(part))

    def parts(self) -> list[slice]:
        """The batch in parts that are solved apart, each with a working set that fits a cache.

        They depend on the size of an image alone. A dense bank multiplies matrices, for which the
        batch is better left whole.
        """
        N, bank = len(self.problem.y), self.problem.bank
        size = N if isinstance(bank, DenseBank) else max(1, PART // int(np.prod(bank.image_shape)))
        return [slice(first, min(first + size, N)) for first in range(0, N, size)]


class TiedStep(Step):
    """The gradient step T(u) = u − τ ∇E(u) on the energy of E2."""

    def energy(self, u: Array) -> Array:
        """E(u) = λ/2 ‖K u − y‖² + R(u), one value for each image, E2."""
        return self.data_energy(u) + self.field.energy(u)

    def data_energy(self, u: Array) -> Array:
        """λ/2 ‖K u − y‖² for each image."""
        residual = self.residual(u)
        return self.problem.lam / 2 * dot(residual, residual)

    def gradient(self, u: Array) -> Array:
        """∇E(u)."""
        return self.direction(u)

    def linearize(self, u: Array) -> "TiedStepLinearization":
        """T with its derivatives at `u`."""
        return TiedStepLinearization(self, self.field.linearize(u))


@dataclass(frozen=True, eq=False)
class StepLinearization:
    """T and G at one u.

    Attributes
    ----------
    step : Step
    field : FieldLinearization
    """

    step: Step
    field: FieldLinearization

    @property
    def u(self) -> Array:
        """The state at which everything is evaluated."""
        return self.field.u

    @cached_property
    def direction(self) -> Array:
        """G(u)."""
        return self.step.data_gradient(self.u) + self.field.value

    @property
    def value(self) -> Array:
        """T(u) = u − τ G(u), E8."""
        return self.u - self.step.tau * self.direction

    def direction_jvp(self, v: Array) -> Array:
        """J v = λ KᵀK v + ∂F v."""
        return self.step.data_hvp(v) + self.field.jvp(v)

    def direction_vjp(self, q: Array) -> Array:
        """Jᵀ q = λ KᵀK q + (∂F)ᵀ q."""
        return self.step.data_hvp(q) + self.field.vjp(q)

    def jvp(self, v: Array) -> Array:
        """∂_u T v = v − τ J v, E8."""
        return v - self.step.tau * self.direction_jvp(v)

    def vjp(self, q: Array) -> Array:
        """(∂_u T)ᵀ q = q − τ Jᵀ q, E8."""
        return q - self.step.tau * self.direction_vjp(q)

    def params_vjp(self, q: Array) -> Parameters:
        """(∂_θ T)ᵀ q = −τ (∂_θ F)ᵀ q, E8, summed over the batch."""
        return self.field.params_vjp(-self.step.tau * q)

    def safeguarded(self, previous: "StepLinearization | None") -> "StepLinearization":
        """This with Newton's slopes only as far as `previous`, the model before, was right about u.

        J, and with it the preconditioners, has the slopes of `refimpl.engine.slopes` and the
        precision of `Step.rough`, which has no data: only its products count.
        """
        step, before = self.step.rough, None if previous is None else previous.field
        field = self.field if step is self.step else step.field.linearize(self.u.astype(step.dtype))
        return type(self)(step, field.safeguarded(before))

    @cached_property
    def rounded(self) -> "StepLinearization":
        """The linearisation of `step.rough` at u, with this Jacobian rounded, not computed anew."""
        step = self.step.rough
        return self if step is self.step else type(self)(step, self.field.rounded(step.field))

    @property
    def transposed(self) -> "StepLinearization":
        """This with J and Jᵀ exchanged: what solves Jᵀ p = b with it solves J p = b."""
        return TransposedStepLinearization(self.step, self.field)

    def images(self, part: slice) -> "StepLinearization":
        """The linearisation at some of the images, which computes anew what it needs."""
        return replace(self, step=self.step.images(part), field=self.field.images(part))


class TransposedStepLinearization(StepLinearization):
    """T and G at one u, with J and Jᵀ exchanged."""

    direction_jvp = StepLinearization.direction_vjp
    direction_vjp = StepLinearization.direction_jvp

    @property
    def transposed(self) -> StepLinearization:
        """The linearisation itself."""
        return StepLinearization(self.step, self.field)


class TiedStepLinearization(StepLinearization):
    """∇E at one u: J is the Hessian H = λ KᵀK + ∇²R, symmetric."""

    @cached_property
    def energy(self) -> Array:
        """E(u), one value for each image, E2."""
        return self.step.data_energy(self.u) + self.field.energy

    @property
    def gradient(self) -> Array:
        """∇E(u)."""
        return self.direction

    @property
    def transposed(self) -> "StepLinearization":
        """Itself: J is symmetric."""
        return self

    def hvp(self, v: Array) -> Array:
        """H v."""
        return self.direction_jvp(v)


def as_step(thing: "Problem | Step") -> Step:
    """A step, or that of a problem with a safe τ.

    Raises
    ------
    TypeError
        For anything else.
    """
    if isinstance(thing, Step):
        return thing
    return make_step(thing)


def make_step(problem: Problem, tau: float | None = None) -> Step:
    """The step of a problem, `TiedStep` if it is tied; how it is computed is chosen here.

    θ is copied: what is changed in it afterwards, in place, the step does not see.

    Parameters
    ----------
    problem : Problem
    tau : float, optional
        τ > 0; left out: one that is safe (`refimpl.engine.safe_steps`).

    Raises
    ------
    TypeError
        If `problem` is no Problem.
    """
    if not isinstance(problem, Problem):
        raise TypeError(
            f"problem: given a {type(problem).__name__}, expected a Problem, "
            "refimpl.Problem(operator, y, experts, lam)"
        )
    problem = problem.with_theta(problem.theta.copy())
    tau = safe_tau(problem) if tau is None else positive(tau, "tau")
    step = TiedStep if problem.tied else Step
    return step(problem, tau, compiled(problem.operator), make_field(problem.experts))
