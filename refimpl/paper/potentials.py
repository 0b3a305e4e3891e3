"""The seven potentials φ of the regulariser, with σ = φ′ and σ′.

Each potential is a frozen dataclass whose fields are its parameters. Its methods are the
definition in plain NumPy: they take float32, float64 or complex arrays of any shape and return
the same dtype. Complex arguments z = x + ih serve the complex step Im φ(z) / h = σ(x): conditions
look at the real part, and |z| stands for the analytic continuation sign(x) z.

The formulas neither overflow nor lose digits for |x| from 1e-300 to 1e300; where the true value
is no floating-point number the result is infinite or zero. NaN stays NaN in φ and σ.

A potential of one's own is a class with `value`, `derivative` and `second_derivative`, array to
array; `TRAITS` has what is assumed of the other attributes where it does not state them.

Not here: the same formulas as loops over rows (`refimpl.kernels.activations`), and weights.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np

from refimpl.arrays import Array, positive, shown


class Potential(Protocol):
    """What a regulariser needs to know of φ: three functions, element by element."""

    def value(self, z: Array) -> Array:
        """φ(z)."""

    def derivative(self, z: Array) -> Array:
        """σ(z) = φ′(z)."""

    def second_derivative(self, z: Array) -> Array:
        """σ′(z) = φ″(z)."""


METHODS = ("value", "derivative", "second_derivative")

# What a potential may state besides, and what is assumed where it does not: whether φ is convex;
# whether σ is differentiable everywhere, and where not (there `second_derivative` is the derivative
# from the flat side); sup σ′ and sup |σ″|, the latter infinite if there are kinks; φ, σ, σ′ of one
# number, as functions that Numba compiles.
TRAITS = {
    "convex": False, "smooth": False, "kinks": (), "sup_second": math.inf, "sup_third": math.inf,
    "scalars": None,
}  # fmt: skip


def trait(potential: Potential, name: str) -> Any:
    """An attribute of `TRAITS`, as the potential states it or as it is assumed.

    What a class states holds for objects of this class: a subclass with anything of its own may be
    another function, and states its own traits.
    """
    own = getattr(potential, "__dict__", {})
    if name in own:
        return own[name]
    classes = type(potential).__mro__
    stated = next((n for n, c in enumerate(classes) if name in vars(c)), len(classes))
    changed = next(n for n, c in enumerate(classes) if any(x[:2] != "__" for x in vars(c)))
    if stated > changed or any(method in own for method in METHODS):
        return TRAITS[name]
    return getattr(potential, name)


def check_potential(potential: Any) -> None:
    """Raise TypeError unless it has the three methods of `Potential`."""
    missing = [name for name in METHODS if not callable(getattr(potential, name, None))]
    if isinstance(potential, type) or missing:
        kind = isinstance(potential, type)
        what = f"the class {potential.__name__}" if kind else shown(potential)
        raise TypeError(
            f"potential: given {what}, expected an object with the methods {', '.join(METHODS)}; "
            "make_potential('log_cosh') returns one"
        )


# Overflow is meant: φ(z) may exceed the largest number, and np.where takes the other branch.
quietly = np.errstate(over="ignore")


class _Parametrised:
    """A potential's parameter, which is its only field if it has one, and what most have."""

    kinks: ClassVar[tuple[float, ...]] = ()
    sup_third: ClassVar[float] = math.inf

    def __post_init__(self) -> None:
        for field in fields(self):
            positive(getattr(self, field.name), f"{type(self).__name__}.{field.name}")

    @property
    def parameter(self) -> float:
        """t, χ, ν or δ; 0 for potentials without."""
        return float(next((getattr(self, field.name) for field in fields(self)), 0))


@dataclass(frozen=True)
class Quadratic(_Parametrised):
    """φ(z) = z²/2, σ the identity."""

    name: ClassVar[str] = "quadratic"
    convex: ClassVar[bool] = True
    smooth: ClassVar[bool] = True
    sup_second: ClassVar[float] = 1.0
    sup_third: ClassVar[float] = 0.0

    @quietly
    def value(self, z: Array) -> Array:
        """φ(z) = z²/2."""
        return half_square(z)

    def derivative(self, z: Array) -> Array:
        """σ(z) = z."""
        return +z

    def second_derivative(self, z: Array) -> Array:
        """σ′(z) = 1."""
        return np.ones_like(z)


@dataclass(frozen=True)
class HalfSquaredReLU(_Parametrised):
    """φ(z) = max(z, 0)²/2, σ = ReLU."""

    name: ClassVar[str] = "half_squared_relu"
    convex: ClassVar[bool] = True
    smooth: ClassVar[bool] = False
    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    sup_second: ClassVar[float] = 1.0

    @quietly
    def value(self, z: Array) -> Array:
        """φ(z) = max(z, 0)²/2."""
        return half_square(self.derivative(z))

    def derivative(self, z: Array) -> Array:
        """σ(z) = max(z, 0)."""
        # np.where takes ten times as long; complex z need it, whose imaginary part must vanish too.
        return np.maximum(z, 0) if np.isrealobj(z) else np.where(np.real(z) <= 0, 0, z)

    def second_derivative(self, z: Array) -> Array:
        """σ′(z) = 1 for z > 0, else 0 (also at the kink z = 0)."""
        return np.greater(np.real(z), 0).astype(np.result_type(z))


@dataclass(frozen=True)
class SoftShrinkage(_Parametrised):
    """φ(z) = max(|z| - t, 0)²/2 with t = `threshold`, σ the soft-shrinkage (not Huber)."""

    threshold: float = 0.1
    name: ClassVar[str] = "soft_shrinkage"
    convex: ClassVar[bool] = True
    smooth: ClassVar[bool] = False
    sup_second: ClassVar[float] = 1.0

    @property
    def kinks(self) -> tuple[float, ...]:
        """±t."""
        return (-self.parameter, self.parameter)

    @quietly
    def value(self, z: Array) -> Array:
        """φ(z) = max(|z| - t, 0)²/2."""
        return half_square(self.derivative(z))

    def derivative(self, z: Array) -> Array:
        """σ(z) = sign(z) max(|z| - t, 0) = z - max(min(z, t), -t)."""
        rest = z - np.clip(np.real(z), -self.parameter, self.parameter)
        # As for ReLU. The real part of `rest` is 0 where |Re z| ≤ t, and nowhere else.
        return rest if np.isrealobj(z) else np.where(np.real(rest) == 0, 0, rest)

    def second_derivative(self, z: Array) -> Array:
        """σ′(z) = 1 for |z| > t, else 0 (also at the kinks)."""
        return (np.abs(np.real(z)) > self.parameter).astype(np.result_type(z))


@dataclass(frozen=True)
class LogCosh(_Parametrised):
    """φ(z) = log cosh(χz) / χ with χ = `slope`, σ(z) = tanh(χz)."""

    slope: float = 1.0
    name: ClassVar[str] = "log_cosh"
    convex: ClassVar[bool] = True
    smooth: ClassVar[bool] = True

    @property
    def sup_second(self) -> float:
        """σ′(0) = χ."""
        return self.parameter

    @property
    def sup_third(self) -> float:
        """|σ″| = 2χ² |tanh| sech² is largest where tanh² = 1/3: 4χ² / (3√3)."""
        return 4 * self.parameter**2 / (3 * math.sqrt(3))

    @quietly
    def value(self, z: Array) -> Array:
        """φ(z) = log cosh(χz) / χ.

        With x = χ|z|: log(1 + 2 sinh²(x/2)) for x ≤ 1, and x + log(1 + e^(-2x)) - log 2 beyond.
        """
        a, e = self._size_and_exponential(z)
        small = np.real(a) <= 1 / self.parameter
        x = self.parameter * np.where(small, a, np.zeros_like(a))
        inner = np.log1p(2 * np.sinh(x / 2) ** 2) / self.parameter
        outer = a + (np.log1p(e) - math.log(2)) / self.parameter
        return np.where(small, inner, outer)

    @quietly
    def derivative(self, z: Array) -> Array:
        """σ(z) = tanh(χz)."""
        return np.tanh(self.parameter * z)

    @quietly
    def second_derivative(self, z: Array) -> Array:
        """σ′(z) = χ sech²(χz) = 4χe / (1 + e)² with e = e^(-2χ|z|)."""
        _, e = self._size_and_exponential(z)
        return self.parameter * (4 * e / (1 + e) ** 2)

    def _size_and_exponential(self, z: Array) -> tuple[Array, Array]:
        """|z| and e^(-2χ|z|), the exponent cut off at -800, where e is 0."""
        a = absolute(z)
        cut = np.real(a) * self.parameter > 400
        return a, np.exp(
            -2 * self.parameter * np.where(cut, np.full_like(a, 400 / self.parameter), a)
        )


@dataclass(frozen=True)
class Lorentzian(_Parametrised):
    """φ(z) = log(1 + z²), not convex; σ(z) = 2z / (1 + z²).

    Every formula is written in v = 1/z for |z| > 1, whose square cannot overflow.
    """

    name: ClassVar[str] = "lorentzian"
    convex: ClassVar[bool] = False
    smooth: ClassVar[bool] = True
    sup_second: ClassVar[float] = 2.0
    # |σ″| = 4 |z| |z² - 3| / (1 + z²)³ is largest at z = √2 - 1.
    sup_third: ClassVar[float] = 1.5 + math.sqrt(2)

    def value(self, z: Array) -> Array:
        """φ(z) = log(1 + z²) = 2 log|z| + log(1 + v²)."""
        outer, v = self._inverted(z)
        large = np.where(outer, absolute(z), np.ones_like(z))
        return 2 * np.log(large) + np.log1p(v * v)

    def derivative(self, z: Array) -> Array:
        """σ(z) = 2z / (1 + z²) = 2v / (1 + v²)."""
        _, v = self._inverted(z)
        return 2 * v / (1 + v * v)

    def second_derivative(self, z: Array) -> Array:
        """σ′(z) = 2 (1 - z²) / (1 + z²)² = 2 (1 - z)v (1 + z)v v² / (1 + v²)²."""
        outer, v = self._inverted(z)
        w = np.where(outer, v, np.ones_like(z))
        return 2 * ((1 - z) * w) * ((1 + z) * w) * (w / (1 + v * v)) ** 2

    @staticmethod
    def _inverted(z: Array) -> tuple[Array, Array]:
        """Where |z| > 1, and v = 1/z there and z elsewhere."""
        outer = np.abs(np.real(z)) > 1
        return outer, np.where(outer, 1 / np.where(outer, z, np.ones_like(z)), z)


@dataclass(frozen=True)
class SmoothedL1(_Parametrised):
    """φ(z) = √(z² + ν²) with ν = `nu`, σ(z) = z / √(z² + ν²)."""

    nu: float = 0.1
    name: ClassVar[str] = "smoothed_l1"
    convex: ClassVar[bool] = True
    smooth: ClassVar[bool] = True

    @property
    def sup_second(self) -> float:
        """σ′(0) = 1/ν."""
        return 1 / self.parameter

    @property
    def sup_third(self) -> float:
        """|σ″| = 3ν² |z| / (z² + ν²)^(5/2) is largest at z = ν/2: (3/2) (4/5)^(5/2) / ν²."""
        return 1.5 * 0.8**2.5 / self.parameter**2

    def value(self, z: Array) -> Array:
        """φ(z) = √(z² + ν²) = m √((z/m)² + (ν/m)²) with m = max(|z|, ν)."""
        m = np.maximum(np.abs(np.real(z)), self.parameter)
        return m * np.sqrt((z / m) ** 2 + (self.parameter / m) ** 2)

    def derivative(self, z: Array) -> Array:
        """σ(z) = z / φ(z)."""
        return z / self.value(z)

    def second_derivative(self, z: Array) -> Array:
        """σ′(z) = ν² / φ(z)³."""
        phi = self.value(z)
        return (self.parameter / phi) ** 2 / phi


@dataclass(frozen=True)
class Huber(_Parametrised):
    """φ(z) = z²/(2δ) for |z| ≤ δ = `delta`, else |z| - δ/2; σ(z) = clip(z/δ, -1, 1)."""

    delta: float = 1.0
    name: ClassVar[str] = "huber"
    convex: ClassVar[bool] = True
    smooth: ClassVar[bool] = False

    @property
    def kinks(self) -> tuple[float, ...]:
        """±δ."""
        return (-self.parameter, self.parameter)

    @property
    def sup_second(self) -> float:
        """σ′ = 1/δ inside."""
        return 1 / self.parameter

    @quietly
    def value(self, z: Array) -> Array:
        """φ(z) = z²/(2δ) for |z| ≤ δ, else |z| - δ/2."""
        inner = np.abs(np.real(z)) <= self.parameter
        return np.where(inner, z / 2 * (z / self.parameter), absolute(z) - self.parameter / 2)

    @quietly
    def derivative(self, z: Array) -> Array:
        """σ(z) = z/δ for |z| ≤ δ, else sign(z)."""
        inner = np.abs(np.real(z)) <= self.parameter
        return np.where(inner, z / self.parameter, np.sign(np.real(z)))

    def second_derivative(self, z: Array) -> Array:
        """σ′(z) = 1/δ for |z| < δ, else 0 (also at the kinks)."""
        inner = np.abs(np.real(z)) < self.parameter
        return np.where(inner, np.full_like(z, 1 / self.parameter), np.zeros_like(z))


def half_square(z: Array) -> Array:
    """z²/2, without overflow before the result itself overflows."""
    return z / 2 * z


def absolute(z: Array) -> Array:
    """|z| for real z; for complex z its analytic continuation sign(Re z) z."""
    return np.where(np.real(z) < 0, -z, z)


_CLASSES = (Quadratic, HalfSquaredReLU, SoftShrinkage, LogCosh, Lorentzian, SmoothedL1, Huber)
POTENTIALS = {potential.name: potential for potential in _CLASSES}


def make_potential(name: str, **parameters: float) -> Potential:
    """The potential called `name`, with its parameters.

    Parameters
    ----------
    name : str
        A key of `POTENTIALS`.
    **parameters : float
        Fields of that class, positive; those left out take their defaults.

    Raises
    ------
    ValueError
        If the name or a parameter is unknown, or a parameter is not positive.
    """
    if not isinstance(name, str) or name not in POTENTIALS:
        raise ValueError(f"potential: given {shown(name)}, expected one of {', '.join(POTENTIALS)}")
    known = [field.name for field in fields(POTENTIALS[name])]
    unknown = [key for key in parameters if key not in known]
    if unknown:
        takes = f"the parameter {', '.join(known)}" if known else "no parameters"
        raise ValueError(f"potential {name}: given {', '.join(unknown)}, expected {takes}")
    return POTENTIALS[name](**parameters)
