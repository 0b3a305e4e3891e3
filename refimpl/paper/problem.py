"""The problem: data y = K u† + ε n (E1), and what a reconstruction knows beforehand.

    FieldOfExperts   the bank of A and C, the potential φ and θ = (A, C, b, w, γ)
    Problem          K, y, λ and a field of experts: all of E2 and E8 but u and τ

Not here: the equations (`refimpl.paper.equations`).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refimpl.arrays import Array, as_finite, positive, same_dtype, shown
from refimpl.paper.operators.banks import DenseBank, FilterBank, is_complex
from refimpl.paper.operators.base import (
    Composition,
    FromScipy,
    LinearOperator,
    Multiple,
    Sum,
    require_adjoint,
)
from refimpl.paper.operators.convolution import Convolution
from refimpl.paper.operators.padding import Padding
from refimpl.paper.operators.pointwise import Identity, Mask, Matrix
from refimpl.paper.operators.sampling import Downsample
from refimpl.paper.parameters import Parameters, make_parameters
from refimpl.paper.potentials import Potential, check_potential

OPERATOR = ("domain_shape", "range_shape", "matvec", "adjoint")
EXPERTS = ("bank", "potential", "theta")
BANK = (
    "image_shape", "coefficients_shape", "response_shape", "apply", "adjoint", "adjoint_filters",
    "per_filter", "sum_per_filter",
)  # fmt: skip

# Operators whose adjoint is proved, or tested when they are made, with the parts of the others.
PROVED = {
    **dict.fromkeys((Identity, Mask, Downsample, Matrix, Convolution, Padding, FromScipy), ()),
    Composition: ("outer", "inner"), Sum: ("left", "right"), Multiple: ("operator",),
}  # fmt: skip


def is_proved(operator: LinearOperator) -> bool:
    """Whether an operator is refimpl's, or made of such ones: its adjoint needs no test."""
    parts = PROVED.get(type(operator))
    if parts is None or {"matvec", "adjoint"} & operator.__dict__.keys():
        return False
    return all(is_proved(getattr(operator, part)) for part in parts)


def require(thing: Any, attributes: tuple[str, ...], name: str, example: str) -> None:
    """Raise TypeError unless an object has what is asked of its kind."""
    if isinstance(thing, type) or not all(hasattr(thing, attribute) for attribute in attributes):
        given = f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
        raise TypeError(
            f"{name}: given {given}, expected an object with {', '.join(attributes)}, for example "
            f"refimpl.{example}"
        )


def require_pair(p: Any, u: Any) -> None:
    """Raise unless `p` is a problem, or a field, and `u` has an image for each of its data."""
    require(p, EXPERTS, "p", "Problem(operator, y, experts, lam)")
    if not hasattr(p, "operator"):
        raise TypeError("p: given a FieldOfExperts, which has no data; pass a Problem")
    if not isinstance(u, np.ndarray):
        hint = "; pass its x" if hasattr(u, "x") else ""
        raise TypeError(f"u: given a {type(u).__name__}, expected an array (N, C, H, W){hint}")
    if u.ndim != 4:
        raise ValueError(f"u: shape is {u.shape}, expected (N, C, H, W), here u[None, None]")
    if len(u) != len(p.y):
        raise ValueError(f"u: {len(u)} images, but y holds data of {len(p.y)}; pass one each")


def require_alike(u: Any, v: Any, name: str) -> None:
    """Raise if two batches have other numbers of images, none of them 1."""
    given, expected = (getattr(x, "shape", ())[:1] for x in (v, u))
    if given != expected and (1,) not in (given, expected):
        raise ValueError(f"{name}: given {shown(v)}, expected as many images as u: {shown(u)}")


@dataclass(frozen=True, eq=False)
class FieldOfExperts:
    """The regulariser: γ Σ_k w_k Σ φ((A u + b)_k) when tied, else only its field F (E3).

    Attributes
    ----------
    bank : FilterBank or DenseBank
        The form of A and C.
    potential : Potential
        φ, with σ = φ′.
    theta : Parameters
        θ; a bare array is taken as A, with C = A, b = 0, w = 1 and γ = 1.

    Raises
    ------
    TypeError
        If the potential lacks one of its three methods.
    ValueError
        If parameters do not have the shapes that the bank expects.
    """

    bank: FilterBank | DenseBank
    potential: Potential
    theta: Parameters

    def __post_init__(self):
        require(self.bank, BANK, "bank", "FilterBank((64, 64), (8, 3, 3))")
        if not isinstance(self.theta, Parameters):
            object.__setattr__(self, "theta", make_parameters(self.theta))
        check_potential(self.potential)
        filters = self.bank.coefficients_shape
        each = filters[:1]
        shapes = {"A": filters, "C": filters, "b": each, "weights": each, "gamma": ()}
        for name, array in self.theta.items():
            if np.shape(array) != shapes[name]:
                raise ValueError(
                    f"{name}: shape is {np.shape(array)}, the bank expects {shapes[name]}"
                )

    @property
    def tied(self) -> bool:
        """Whether C = A, so that F is the gradient of an energy."""
        return self.theta.tied

    def with_theta(self, theta: Parameters) -> "FieldOfExperts":
        """The same bank and potential with other parameters."""
        return replace(self, theta=theta)


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that determines the reconstruction u*.

    Attributes
    ----------
    operator : LinearOperator
        K.
    y : array (N, *K.range_shape), float32 or float64
        Data, one entry for each image.
    experts : FieldOfExperts
    lam : float
        λ > 0.
    bank, potential, theta
        Those of `experts`.
    tested : LinearOperator, optional
        K once its adjoint has passed the dot test, so that problems made of this one pass it on.

    Raises
    ------
    ValueError
        If `y` does not have the shape of K's range or is not finite, λ is not positive, or K acts
        on other images than the field; or if an operator of one's own has an adjoint that is not
        its own, or complex results.
    TypeError
        If the data and A differ in precision.
    """

    operator: LinearOperator
    y: Array
    experts: FieldOfExperts
    lam: float = 1.0
    bank: FilterBank | DenseBank = field(init=False, repr=False)
    potential: Potential = field(init=False, repr=False)
    theta: Parameters = field(init=False, repr=False)
    tested: LinearOperator | None = field(default=None, kw_only=True)

    def __post_init__(self):
        require(self.operator, OPERATOR, "operator", "Identity((64, 64))")
        require(self.experts, EXPERTS, "experts", "total_variation((64, 64))")
        for name in ("bank", "potential", "theta"):
            object.__setattr__(self, name, getattr(self.experts, name))
        object.__setattr__(self, "y", as_finite(self.y, "y"))
        # A NumPy scalar would turn float32 images into float64.
        object.__setattr__(self, "lam", positive(self.lam, "lam"))
        domain, expected = tuple(self.operator.domain_shape), tuple(self.operator.range_shape)
        if self.y.ndim == 0 or self.y.shape[1:] != expected or len(self.y) == 0:
            raise ValueError(
                f"y: shape is {self.y.shape}, expected (N,) + {expected}; the first axis counts "
                "the images, for one image take y[None]"
            )
        if self.bank.image_shape != domain:
            raise ValueError(
                f"Problem: the field acts on images {self.bank.image_shape}, the operator on "
                f"{domain}; make them equal"
            )
        if not is_complex(self.theta.A):
            same_dtype(y=self.y, A=self.theta.A)
        if self.tested is not self.operator and not is_proved(self.operator):
            require_adjoint(self.operator, self.y.dtype, type(self.operator).__name__)
        object.__setattr__(self, "tested", self.operator)

    def __repr__(self) -> str:
        tie = "tied" if self.tied else "untied"
        experts = f"{self.bank!r}, {self.potential!r}, {tie}"
        return f"Problem({len(self.y)} of {self.operator!r}, lam {self.lam:g}, {experts})"

    @property
    def tied(self) -> bool:
        """Whether C = A, so that an energy exists."""
        return self.experts.tied

    @property
    def dtype(self) -> np.dtype:
        """The precision of images, data and parameters."""
        return self.y.dtype

    def images(self, part: slice) -> "Problem":
        """The problem of some of the images."""
        return replace(self, y=self.y[part])

    def with_theta(self, theta: Parameters) -> "Problem":
        """The same problem with other parameters."""
        return replace(self, experts=self.experts.with_theta(theta))
