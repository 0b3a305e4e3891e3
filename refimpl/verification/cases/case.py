"""What a portable case is: its settings, its arrays, and the step T of E8 that they describe.

    setting              values
    operator             identity, mask, convolution, matrix: K
    operator_boundary    of the convolution
    analysis             convolution, dense: the form of A and C
    boundary             of the analysis convolution
    potential            φ by name, with potential_parameters
    tied                 whether C = A
    tau, lam, gamma      τ, λ, γ > 0
    norm                 s > 0, optional: A and C as given, Â and Ĉ, are rescaled before use,
                         A = s Â / ‖Â‖ and C = s Ĉ / ‖Ĉ‖, spectral norms of the whole operators;
                         gradients are then with respect to Â and Ĉ
                         (`refimpl.training.normalization`)

    array                shape
    y                    (N, C, H, W), or (N, M) for the operator "matrix"
    target, u, v, w      (N, C, H, W): u†, a state, a tangent, a cotangent
    A, C (untied)        (F, C, h, w), or (F, C·H·W) for the analysis "dense"
    b, weights           (F,), optional: 0 and 1
    mask                 (H, W) or (C, H, W), for the operator "mask"
    kernel               (h, w), for the operator "convolution"
    matrix               (M, C·H·W), for the operator "matrix"

All arrays but the mask share one dtype, float64 or float32. Arrays that a case does
not need it must not hold; a boundary where nothing is padded may be there and has no effect.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from refimpl.arrays import Array, as_finite, as_images, positive, same_dtype
from refimpl.engine import Step
from refimpl.paper.operators import BOUNDARIES, LinearOperator
from refimpl.paper.parameters import Parameters, make_parameters
from refimpl.paper.potentials import POTENTIALS, make_potential
from refimpl.results import BreakdownError, NotConvergedError
from refimpl.storage import said
from refimpl.training.model import Model
from refimpl.training.normalization import Normalization
from refimpl.training.parametrisations import Parametrisation
from refimpl.verification.builders import OPERATORS, make_bank, make_operator

FORMAT = "refimpl-case/1"
ANALYSES = ("convolution", "dense")
BATCHED = ("y", "target", "u", "v", "w")
OPTIONAL_ARRAYS = ("b", "weights")

# Relative accuracy of norms; singular vectors are less accurate by the relative gap.
NORM_TOL = 1e-14

# As an integer, so that integers of any size compare with it.
LARGEST = int(np.finfo(float).max)


class CaseError(ValueError):
    """A case that does not keep to the format."""


@dataclass(frozen=True, eq=False)
class Case:
    """One checked case; settings and arrays as in the module's docstring.

    Raises
    ------
    CaseError
        Naming the setting or array, what it is, what it must be and how to fix it.
    """

    operator: str
    analysis: str
    potential: str
    tied: bool
    tau: float
    lam: float
    gamma: float
    arrays: dict[str, Array]
    operator_boundary: str | None = None
    boundary: str | None = None
    potential_parameters: dict[str, float] = field(default_factory=dict)
    norm: float | None = None

    def __post_init__(self):
        try:
            _check_settings(self)
            object.__setattr__(self, "arrays", _checked_arrays(self))
            build_step(self)
        except CaseError:
            raise
        except (TypeError, ValueError, BreakdownError, NotConvergedError) as error:
            raise CaseError(said(error)) from error

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.arrays["u"].shape[1:]

    @property
    def forward(self) -> LinearOperator:
        """K."""
        array = self.arrays.get(OPERATORS[self.operator])
        return make_operator(self.operator, self.image_shape, array, self.operator_boundary)

    def description(self) -> dict[str, Any]:
        """The content of `case.json`; settings that are None are left out."""
        settings = {name: getattr(self, name) for name in SETTINGS}
        return {
            "format": FORMAT,
            **{name: value for name, value in settings.items() if value is not None},
        }


SETTINGS = tuple(f.name for f in fields(Case) if f.name != "arrays")
REQUIRED_SETTINGS = ("operator", "analysis", "potential", "tied", "tau", "lam", "gamma")


def all_parameters(case: Case) -> dict[str, float]:
    """The parameters of the potential, defaults included."""
    potential = make_potential(case.potential, **case.potential_parameters)
    return {f.name: float(getattr(potential, f.name)) for f in fields(potential)}


def build_step(case: Case) -> Step:
    """T of E8 with A and C normalised if the case has a norm; a `TiedStep` when it is tied."""
    return build_model(case).step(raw_parameters(case), case.arrays["y"])


def build_model(case: Case) -> Model:
    """Everything but θ and the data; the norm is differentiated exactly."""
    bank = make_bank(case.image_shape, case.arrays["A"].shape, case.boundary)
    scale = None if case.norm is None else Normalization(bank, norm=case.norm, tol=NORM_TOL)
    return Model(
        operator=case.forward,
        bank=bank,
        potential=make_potential(case.potential, **case.potential_parameters),
        lam=float(case.lam),
        tau=float(case.tau),
        parametrisation=Parametrisation(scale),
    )


def raw_parameters(case: Case) -> Parameters:
    """A, C, b, weights and γ as the case gives them."""
    optional = {name: case.arrays.get(name) for name in OPTIONAL_ARRAYS}
    A, C = case.arrays["A"], case.arrays.get("C")
    return make_parameters(A, C, **optional, gamma=float(case.gamma))


def _check_settings(case: Case) -> None:
    _choose(case.operator, "operator", OPERATORS)
    _choose(case.analysis, "analysis", ANALYSES)
    _choose(case.potential, "potential", POTENTIALS)
    if not isinstance(case.tied, bool):
        raise CaseError(f"tied: given {case.tied!r}, expected true or false")
    _check_boundary(
        case.operator_boundary, "operator_boundary", needed=case.operator == "convolution"
    )
    _check_boundary(case.boundary, "boundary", needed=case.analysis == "convolution")
    for name in ("tau", "lam", "gamma", *([] if case.norm is None else ["norm"])):
        positive(_number(getattr(case, name), name), name)
    if not isinstance(case.potential_parameters, dict):
        raise CaseError(
            f"potential_parameters: given {case.potential_parameters!r}, expected an object"
        )
    for name, value in case.potential_parameters.items():
        _number(value, f"potential_parameters: {name}")


def _choose(value: Any, name: str, known) -> None:
    if not isinstance(value, str) or value not in known:
        raise CaseError(f"{name}: given {value!r}, expected one of {', '.join(known)}")


def _check_boundary(value: Any, name: str, *, needed: bool) -> None:
    """A known name; it may be left out only where nothing is padded."""
    if value is not None:
        _choose(value, name, BOUNDARIES)
    elif needed:
        raise CaseError(
            f"{name}: missing, and a convolution needs it; add one of {', '.join(BOUNDARIES)}"
        )


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CaseError(f"{name}: given {value!r}, expected a number")
    if not abs(value) <= LARGEST:
        raise CaseError(f"{name}: given {value!r:.20}, expected a finite number")
    return float(value)


def _checked_arrays(case: Case) -> dict[str, Array]:
    """The arrays in native byte order and row-major, or CaseError."""
    _check_names(case)
    arrays = {name: _native(array, name) for name, array in case.arrays.items()}
    for name in BATCHED:
        if name != "y":
            as_images(arrays[name], name)
    _check_shapes(case, arrays)
    floats = {name: as_finite(array, name) for name, array in arrays.items() if name != "mask"}
    same_dtype(**floats)
    return arrays


def _check_names(case: Case) -> None:
    needed = [*BATCHED, "A", *([] if case.tied else ["C"])]
    needed += [name] if (name := OPERATORS[case.operator]) is not None else []
    missing = [name for name in needed if name not in case.arrays]
    extra = [name for name in case.arrays if name not in (*needed, *OPTIONAL_ARRAYS)]
    kind = f"a {'tied' if case.tied else 'untied'} case with operator {case.operator!r}"
    if missing:
        raise CaseError(f"arrays: {', '.join(missing)} missing; {kind} needs {', '.join(needed)}")
    if extra:
        allowed = ", ".join((*needed, *OPTIONAL_ARRAYS))
        raise CaseError(
            f"arrays: {', '.join(extra)} not expected; {kind} holds {allowed}; remove the others"
        )


def _native(array: Array, name: str) -> Array:
    """A row-major copy or view in native byte order; numbers and dtype unchanged."""
    array = np.asarray(array)
    kinds = "biuf" if name == "mask" else "f"
    if array.dtype.kind not in kinds:
        expected = "bool or zeros and ones" if name == "mask" else "float64 (or float32 throughout)"
        raise CaseError(
            f"{name}: dtype is {array.dtype}, expected {expected}; convert it, then write the case"
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _check_shapes(case: Case, arrays: dict[str, Array]) -> None:
    """Compare every array with the shape that `u` and `A` imply."""
    images, A = arrays["u"].shape, arrays["A"]
    pixels = int(np.prod(images[1:]))
    filters = (None, pixels) if case.analysis == "dense" else (None, images[1], None, None)
    rows = (
        arrays["matrix"].shape[0] if case.operator == "matrix" and arrays["matrix"].ndim else None
    )
    expected = {name: images for name in ("y", "target", "v", "w")}
    expected |= {"A": filters, "matrix": (None, pixels), "kernel": (None, None)}
    expected |= {"y": (images[0], rows)} if case.operator == "matrix" else {}
    for name, shape in expected.items():
        if name in arrays:
            _check_shape(name, arrays[name], shape)
    for name, shape in {"C": A.shape, "b": A.shape[:1], "weights": A.shape[:1]}.items():
        if name in arrays:
            _check_shape(name, arrays[name], shape)


def _check_shape(name: str, array: Array, shape: tuple[int | None, ...]) -> None:
    """Raise unless the array has this shape; None stands for any length but 0."""
    fits = array.ndim == len(shape) and all(
        (n > 0 if s is None else n == s) for n, s in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if s is None else str(s) for s in shape)
        raise CaseError(
            f"{name}: shape is {array.shape}, expected ({wanted}); it must agree with u and A"
        )
