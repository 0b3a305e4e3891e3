"""The step T, whose fixed point is the reconstruction, and its linearisation (E8).

    G(u) = λ Kᵀ(K u − y) + F(u)        T(u) = u − τ G(u)        u* = T(u*)  ⇔  G(u*) = 0

Tied: G = ∇E with E of E2, so T is a gradient step and u* a stationary point of E. Untied: no
energy exists. With J = ∂_u G = λ KᵀK + ∂F,

    ∂_u T v = v − τ J v      (∂_u T)ᵀ q = q − τ Jᵀ q      (∂_θ T)ᵀ q = −τ (∂_θ F)ᵀ q.

The fixed point does not depend on τ; the speed, and the convergence, of u ← T(u) do.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refimpl.arrays import Array, positive, same_dtype
from refimpl.datafit import DataFit
from refimpl.fields_of_experts import FieldLinearization, FieldsOfExperts, TiedFieldsOfExperts
from refimpl.operators import Convolution, DenseBank, FilterBank, Identity, Mask, Matrix
from refimpl.operators.banks import is_complex
from refimpl.operators.spectral_norm import bank_norm, operator_norm
from refimpl.parameters import Parameters
from refimpl.solvers import singular_triplet, spectral_radius
from refimpl.vectors import norm

# Values of images that are solved together.
PART = 32768

# ‖∂F‖ / λ up to which float32 is near enough for corrections.
MILD = 1e5
CONVERTIBLE = (Identity, Mask, Convolution, Matrix)


@dataclass(frozen=True)
class Step:
    """T(u) = u − τ ( λ Kᵀ(K u − y) + F(u) ), E8, for an untied field.

    Attributes
    ----------
    datafit : DataFit
    field : FieldsOfExperts
    tau : float
        τ > 0.
    """

    datafit: DataFit
    field: FieldsOfExperts
    tau: float

    def __post_init__(self):
        # A NumPy scalar would turn float32 images into float64.
        object.__setattr__(self, "tau", positive(self.tau, "tau"))
        image, domain = self.field.bank.image_shape, tuple(self.datafit.operator.domain_shape)
        if image != domain:
            raise ValueError(
                f"Step: the field acts on images {image}, the operator on {domain}; make them equal"
            )
        if not is_complex(self.field.parameters.A):
            same_dtype(y=self.datafit.y, A=self.field.parameters.A)

    def apply(self, u: Array) -> Array:
        """T(u), E8."""
        return u - self.tau * self.direction(u)

    def direction(self, u: Array) -> Array:
        """G(u) = λ Kᵀ(K u − y) + F(u), which vanishes at the fixed point."""
        return self.datafit.gradient(u) + self.field.value(u)

    def linearize(self, u: Array) -> "StepLinearization":
        """T with its derivatives at `u`."""
        return StepLinearization(self, self.field.linearize(u))

    @property
    def dtype(self) -> np.dtype:
        """The precision of images, data and parameters."""
        return self.datafit.y.dtype

    @cached_property
    def rough(self) -> "Step":
        """This in float32 where that is near enough for directions and corrections, else this.

        Near enough: it `is_mild`, λ, K and θ are of the size of float32's numbers, the bank is one
        of filters and K one of `CONVERTIBLE`. Its data are 0: products with J need none.
        """
        bank, theta, K = self.field.bank, self.field.parameters, self.datafit.operator
        convertible = isinstance(bank, FilterBank) and isinstance(K, CONVERTIBLE)
        if self.dtype == np.float32 or not (convertible and is_mild(self)):
            return self
        numbers = self.datafit.lam, *K.coefficients, *(x for _, x in theta.items())
        if not all(map(fits_single, numbers)):
            return self
        single = np.dtype(np.float32)
        zeros = np.zeros_like(self.datafit.y, dtype=single)
        datafit = replace(self.datafit, operator=K.astype(single), y=zeros)
        field = type(self.field)(bank, self.field.potential, theta.astype(single))
        return replace(self, datafit=datafit, field=field)

    def image(self, n: int) -> "Step":
        """The step for image n alone, a batch of one."""
        return self.images(slice(n, n + 1))

    def images(self, part: slice) -> "Step":
        """The step for some of the images."""
        return replace(self, datafit=self.datafit.images(part))

    def parts(self) -> list[slice]:
        """The batch in parts that are solved apart, each with a working set that fits a cache.

        They depend on the size of an image alone. A dense bank multiplies matrices, for which the
        batch is better left whole.
        """
        N, bank = len(self.datafit.y), self.field.bank
        size = N if isinstance(bank, DenseBank) else max(1, PART // int(np.prod(bank.image_shape)))
        return [slice(first, min(first + size, N)) for first in range(0, N, size)]


class TiedStep(Step):
    """The gradient step T(u) = u − τ ∇E(u) on the energy of E2."""

    def energy(self, u: Array) -> Array:
        """E(u) = λ/2 ‖K u − y‖² + R(u), one value for each image, E2."""
        return self.datafit.energy(u) + self.field.energy(u)

    def gradient(self, u: Array) -> Array:
        """∇E(u)."""
        return self.direction(u)

    def linearize(self, u: Array) -> "TiedStepLinearization":
        """T with its derivatives at `u`."""
        return TiedStepLinearization(self, self.field.linearize(u))


@dataclass(frozen=True)
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
        return self.step.datafit.gradient(self.u) + self.field.value

    @property
    def value(self) -> Array:
        """T(u) = u − τ G(u), E8."""
        return self.u - self.step.tau * self.direction

    def direction_jvp(self, v: Array) -> Array:
        """J v = λ KᵀK v + ∂F v."""
        return self.step.datafit.hvp(v) + self.field.jvp(v)

    def direction_vjp(self, q: Array) -> Array:
        """Jᵀ q = λ KᵀK q + (∂F)ᵀ q."""
        return self.step.datafit.hvp(q) + self.field.vjp(q)

    def jvp(self, v: Array) -> Array:
        """∂_u T v = v − τ J v, E8."""
        return v - self.step.tau * self.direction_jvp(v)

    def vjp(self, q: Array) -> Array:
        """(∂_u T)ᵀ q = q − τ Jᵀ q, E8."""
        return q - self.step.tau * self.direction_vjp(q)

    def safeguarded(self, previous: "StepLinearization | None") -> "StepLinearization":
        """This with Newton's slopes only as far as `previous`, the model before, was right about u.

        J, and with it the preconditioners, has the slopes of `refimpl.fields_of_experts.slopes` and
        the precision of `Step.rough`, which has no data: only its products count.
        """
        step, before = self.step.rough, None if previous is None else previous.field
        field = self.field if step is self.step else step.field.linearize(self.u.astype(step.dtype))
        return type(self)(step, field.safeguarded(before))

    @cached_property
    def rounded(self) -> "StepLinearization":
        """That of `step.rough` at the same u, with this Jacobian rounded, not computed anew."""
        step = self.step.rough
        return self if step is self.step else type(self)(step, self.field.rounded(step.field))

    def images(self, part: slice) -> "StepLinearization":
        """That of some of the images, which computes anew what it needs."""
        return replace(self, step=self.step.images(part), field=self.field.images(part))

    def asymmetry(self, *, tol: float = 1e-6) -> float:
        """‖J − Jᵀ‖ / ‖J‖ of a single image, by Lanczos iteration; 0 where it is at rounding.

        A field with an energy has a symmetric J; this says how far F is from having one.
        """
        start = random_image(self.u)

        def skew(v: Array) -> Array:
            return self.direction_jvp(v) - self.direction_vjp(v)

        rounding = 64 * np.finfo(start.dtype).eps * norm(self.direction_jvp(start))
        if norm(skew(start)) <= rounding:
            return 0.0
        whole = singular_triplet(self.direction_jvp, self.direction_vjp, start, tol=tol)
        return float(singular_triplet(skew, lambda v: -skew(v), start, tol=tol)[0] / whole[0])

    def spectral_radius(self, *, tol: float = 1e-6) -> float:
        """max |eigenvalue of ∂_u T| of a single image, by Arnoldi iteration.

        Below 1, u ← T(u) converges from nearby starts.
        """
        return float(spectral_radius(self.jvp, random_image(self.u), tol=tol).value)

    def params_vjp(self, q: Array) -> Parameters:
        """(∂_θ T)ᵀ q = −τ (∂_θ F)ᵀ q, E8, summed over the batch."""
        return self.field.params_vjp(-self.step.tau * q)


class TiedStepLinearization(StepLinearization):
    """∇E at one u: J is the Hessian H = λ KᵀK + ∇²R, symmetric."""

    @cached_property
    def energy(self) -> Array:
        """E(u), one value for each image, E2."""
        return self.step.datafit.energy(self.u) + self.field.energy

    @property
    def gradient(self) -> Array:
        """∇E(u)."""
        return self.direction

    def hvp(self, v: Array) -> Array:
        """H v."""
        return self.direction_jvp(v)


def parts_for(step: Step, options: dict) -> list[slice]:
    """The parts of a batch, or the whole where options of a solver speak of all its images."""
    speaks = any(options.get(name) is not None for name in ("callback", "reference", "x0"))
    return [slice(0, len(step.datafit.y))] if speaks else step.parts()


def random_image(u: Array) -> Array:
    """A fixed random start for spectral iterations on a batch of one.

    Raises
    ------
    ValueError
        If `u` holds more than one image, whose spectra would be mixed.
    """
    if len(u) != 1:
        raise ValueError(f"linearization: {len(u)} images; take one, step.image(n).linearize(u_n)")
    return np.random.default_rng(0).standard_normal(u.shape).astype(u.dtype)


def make_step(datafit: DataFit, field: FieldsOfExperts, tau: float) -> Step:
    """`TiedStep` for a tied field, else `Step`."""
    tied = isinstance(field, TiedFieldsOfExperts)
    return (TiedStep if tied else Step)(datafit, field, tau)


def lipschitz_bound(step: Step) -> float:
    """L ≥ ‖J(u)‖ for every u: L = λ ‖K‖² + γ max|w| sup|σ′| ‖A‖ ‖C‖.

    Norms include the error bounds of their iterations.
    """
    norm_A, norm_C = bank_norms(step)
    norm_K = operator_norm(step.datafit.operator, dtype=step.dtype)
    return step.datafit.lam * norm_K**2 + slope_bound(step) * norm_A * norm_C


def slope_bound(step: Step) -> float:
    """|γ| max|w| sup|σ′|."""
    return strength(step) * step.field.potential.sup_second


def is_mild(step: Step) -> bool:
    """Whether ‖∂F‖ ≤ 1e5 λ for every u, so that float32 rounds ∂F by less than λ/100.

    A bank of h × w filters has at most √(h w) times the norm of its coefficients, but for pixels
    that a boundary repeats.
    """
    theta, sides = step.field.parameters, step.field.bank.coefficients_shape[2:]
    size = np.linalg.norm(theta.A) * np.linalg.norm(theta.synthesis) * np.prod(sides)
    return bool(slope_bound(step) * size <= MILD * step.datafit.lam)


def fits_single(x: Array | float) -> bool:
    """Whether the largest magnitude of `x` is 0 or far from where float32 ends.

    Of images it is asked one by one, so that none depends on the others of its batch.
    """
    largest = np.abs(x).max()
    return bool(largest == 0 or 1e-6 <= largest <= 1e6)


def strength(step: Step) -> float:
    """|γ| max|w|."""
    theta = step.field.parameters
    return float(abs(theta.gamma) * abs(theta.weights).max())


def bank_norms(step: Step, *, tol: float = 1e-12) -> tuple[float, float]:
    """‖A‖ and ‖C‖, which are one computation when tied."""
    theta, bank = step.field.parameters, step.field.bank
    norm_A = bank_norm(bank, theta.A, tol=tol)
    return norm_A, norm_A if theta.tied else bank_norm(bank, theta.C, tol=tol)


def largest_safe_step(step: Step) -> float:
    """2 / L: for a tied convex energy, u ← T(u) converges for every τ below it."""
    return 2 / lipschitz_bound(step)
