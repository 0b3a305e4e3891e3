"""What a linear operator is, and how operators combine.

    (P Q) u = P (Q u)        (P Q)ᵀ z = Qᵀ (Pᵀ z)
    (P + Q) u = P u + Q u    (P + Q)ᵀ z = Pᵀ z + Qᵀ z
    (α P) u = α (P u)        (α P)ᵀ z = α (Pᵀ z)

`FromScipy` lets in whatever SciPy takes for a linear operator (`LinearOperator`, PyLops operators,
sparse and dense matrices); `Operator.as_scipy` leads the other way. What is not refimpl's own is
held to ⟨K u, z⟩ = ⟨u, Kᵀ z⟩ once, when it is let in.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator
from scipy.sparse.linalg import aslinearoperator

from refimpl.arrays import Array, as_image_shape, count
from refimpl.storage import said


class LinearOperator(Protocol):
    """A linear map K from images of `domain_shape` to arrays of `range_shape`."""

    domain_shape: tuple[int, ...]
    range_shape: tuple[int, ...]

    def matvec(self, u: Array) -> Array:
        """K u for a batch (N, *domain_shape)."""

    def adjoint(self, z: Array) -> Array:
        """Kᵀ z for a batch (N, *range_shape)."""


def check_shape(operator: LinearOperator, x: Array, shape: tuple[int, ...], name: str) -> None:
    """Raise unless `x` is a batch of arrays of this shape."""
    if not isinstance(x, np.ndarray):
        refuse_other_than_arrays(x, name)
    if x.ndim == 0 or x.shape[1:] != tuple(shape):
        raise ValueError(
            f"{type(operator).__name__}: {name} has shape {x.shape}, "
            f"expected (N,) + {tuple(shape)}; the first axis counts the images"
        )


def refuse_other_than_arrays(x: Any, name: str) -> None:
    """Raise TypeError for lists, numbers and other things that are no arrays."""
    raise TypeError(
        f"{name}: given a {type(x).__name__}, expected an array of images or responses; "
        "np.asarray makes one"
    )


def check_dtype(operator: LinearOperator, x: Array, coefficients: Array) -> None:
    """Raise TypeError unless real arrays `x` share the dtype of the operator's coefficients."""
    if not np.iscomplexobj(x) and x.dtype != coefficients.dtype:
        raise TypeError(
            f"{type(operator).__name__}: its coefficients are {coefficients.dtype}, "
            f"the array is {x.dtype}; "
            "build the operator from coefficients of the dtype of the images"
        )


def require_adjoint(operator: LinearOperator, dtype: np.dtype, name: str) -> None:
    """Raise ValueError unless ⟨K u, z⟩ = ⟨u, Kᵀ z⟩ at a random u, for a random z and for z = K u.

    Notes
    -----
    The two sides may differ by 64 eps √n of max(‖K u‖ ‖z‖, ‖u‖ ‖Kᵀ z‖): each sums n products whose
    rounding errors add like a random walk, and 64 covers those inside K. A random z shows any
    error, but a factor 1 + δ as δ/√n only; z = K u shows δ whole.
    """
    rng = np.random.default_rng(0)
    domain, codomain = (1, *operator.domain_shape), (1, *operator.range_shape)
    u, z = (rng.standard_normal(shape).astype(dtype) for shape in (domain, codomain))
    Ku = _asked(operator.matvec, u, codomain, f"{name}: matvec(u)")
    for point in (z, Ku.astype(dtype)):
        Ktz = _asked(operator.adjoint, point, domain, f"{name}: adjoint(z)")
        left, right = inner(Ku, point), inner(u, Ktz)
        scale = max(length(Ku) * length(point), length(u) * length(Ktz))
        if not abs(left - right) <= rounding_bound(u, z) * scale:
            raise ValueError(
                f"{name}: for random u and z ⟨K u, z⟩ is {left:.10g}, ⟨u, Kᵀ z⟩ is {right:.10g}, "
                f"expected equal to {rounding_bound(u, z) * scale:.1e}: the adjoint is not that of "
                "K, or K is not linear, or computes in single precision and does not say so "
                "(dtype=np.float32); refimpl.check shows more"
            )


def _asked(function: Callable[[Array], Array], x: Array, shape: tuple, what: str) -> Array:
    """f(x), a copy, if it is a real finite array of this shape and x is left as it was."""
    given = x.copy()
    try:
        result = function(given)
    except Exception as error:
        if str(error).strip() and not isinstance(error, NotImplementedError):
            raise
        raise ValueError(
            f"{what} raises {said(error)}; define or mend it (for SciPy the adjoint is rmatvec)"
        ) from error
    if not isinstance(result, np.ndarray) or result.shape != shape:
        found = result.shape if isinstance(result, np.ndarray) else type(result).__name__
        raise ValueError(f"{what} gives {found}, expected an array {shape}")
    if np.iscomplexobj(result):
        raise ValueError(
            f"{what} gives complex numbers, expected real ones; stack real and imaginary parts"
        )
    if not np.isfinite(result).all():
        raise ValueError(f"{what} gives NaN or infinite values for finite ones; mend it")
    if not np.array_equal(given, x):
        raise ValueError(f"{what} changes its argument; let it work on a copy")
    return result.copy()


def inner(x: Array, y: Array) -> float:
    """⟨x, y⟩ over all entries, summed in float64."""
    return float(np.dot(_flat(x), _flat(y)))


def length(x: Array) -> float:
    """‖x‖ over all entries, in float64."""
    return float(np.linalg.norm(_flat(x)))


def _flat(x: Array) -> Array:
    return np.asarray(x, dtype=np.float64).ravel()


def rounding_bound(*arrays: Array) -> float:
    """64 eps √n: n the largest size, eps the coarsest precision among the arrays."""
    eps = max(np.finfo(np.asarray(x).dtype).eps for x in arrays)
    return float(64 * eps * np.sqrt(max(np.size(x) for x in arrays)))


class Operator:
    """Algebra shared by all operators: `P @ Q`, `P + Q`, `alpha * P`, `P - Q`, `as_scipy`."""

    domain_shape: tuple[int, ...]
    range_shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.domain_shape} -> {self.range_shape})"

    def __matmul__(self, other: LinearOperator) -> "Composition":
        return Composition(self, other)

    def __add__(self, other: LinearOperator) -> "Sum":
        return Sum(self, other)

    def __sub__(self, other: LinearOperator) -> "Sum":
        return Sum(self, Multiple(-1.0, other))

    def __rmul__(self, factor: float) -> "Multiple":
        return Multiple(factor, self)

    def as_scipy(self, dtype: np.dtype = np.float64) -> ScipyLinearOperator:
        """The same map between flat vectors, for SciPy's solvers."""
        return ScipyLinearOperator(
            shape=(int(np.prod(self.range_shape)), int(np.prod(self.domain_shape))),
            matvec=partial(_flat_to_flat, self.matvec, self.domain_shape),
            rmatvec=partial(_flat_to_flat, self.adjoint, self.range_shape),
            dtype=dtype,
        )


def _flat_to_flat(function: Callable[[Array], Array], shape: tuple[int, ...], x: Array) -> Array:
    """A map of batches on one flat array."""
    return function(x.reshape(1, *shape)).ravel()


class Composition(Operator):
    """P Q: first Q, then P.

    Raises
    ------
    ValueError
        If the range of Q is not the domain of P.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator):
        if tuple(outer.domain_shape) != tuple(inner.range_shape):
            raise ValueError(
                f"Composition: the inner operator maps to {inner.range_shape}, "
                f"the outer one acts on {outer.domain_shape}; these must be equal"
            )
        self.outer, self.inner = outer, inner
        self.domain_shape, self.range_shape = inner.domain_shape, outer.range_shape

    def matvec(self, u: Array) -> Array:
        """P (Q u)."""
        return self.outer.matvec(self.inner.matvec(u))

    def adjoint(self, z: Array) -> Array:
        """Qᵀ (Pᵀ z)."""
        return self.inner.adjoint(self.outer.adjoint(z))


class Sum(Operator):
    """P + Q on one domain and one range.

    Raises
    ------
    ValueError
        If domains or ranges differ.
    """

    def __init__(self, left: LinearOperator, right: LinearOperator):
        shapes = [(tuple(op.domain_shape), tuple(op.range_shape)) for op in (left, right)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Sum: the operators map {shapes[0][0]} -> {shapes[0][1]} and "
                f"{shapes[1][0]} -> {shapes[1][1]}; domains and ranges must be equal"
            )
        self.left, self.right = left, right
        self.domain_shape, self.range_shape = shapes[0]

    def matvec(self, u: Array) -> Array:
        """P u + Q u."""
        return self.left.matvec(u) + self.right.matvec(u)

    def adjoint(self, z: Array) -> Array:
        """Pᵀ z + Qᵀ z."""
        return self.left.adjoint(z) + self.right.adjoint(z)


class Multiple(Operator):
    """α P for a finite real number α."""

    def __init__(self, factor: float, operator: LinearOperator):
        if not (np.isscalar(factor) and np.isreal(factor) and np.isfinite(factor)):
            raise ValueError(f"Multiple: the factor is {factor!r}, expected a finite real number")
        self.factor, self.operator = float(factor), operator
        self.domain_shape, self.range_shape = operator.domain_shape, operator.range_shape

    def matvec(self, u: Array) -> Array:
        """α (P u)."""
        return self.factor * self.operator.matvec(u)

    def adjoint(self, z: Array) -> Array:
        """α (Pᵀ z)."""
        return self.factor * self.operator.adjoint(z)


class FromScipy(Operator):
    """An operator given as a matrix, sparse or not, or as any object with `matvec` and `rmatvec`.

    Parameters
    ----------
    operator : scipy.sparse.linalg.LinearOperator, or what SciPy makes one of
        Acts on vectors of length C·H·W, images flattened in row-major order.
    domain_shape : tuple (C, H, W) or (H, W), optional
        Left out: `dims` of an operator that has them, as those of PyLops.
    range_shape : tuple, optional
        Left out: `dimsd` of such an operator, else (M,) with M the number of rows.

    Raises
    ------
    ValueError
        If `operator.shape` disagrees with the shapes, the operator is complex, or `rmatvec` is not
        the adjoint of `matvec`.
    TypeError
        If it is nothing that SciPy takes for a linear operator.
    """

    def __init__(
        self,
        operator: Any,
        domain_shape: tuple[int, ...] | None = None,
        range_shape: tuple[int, ...] | None = None,
    ):
        stated = (getattr(operator, name, None) for name in ("dims", "dimsd"))
        dims, dimsd = (tuple(x) if isinstance(x, (tuple, list)) else None for x in stated)
        operator = as_linear_operator(operator)
        if domain_shape is None and dims is None:
            raise TypeError("FromScipy: domain_shape is missing, expected (C, H, W) or (H, W)")
        domain_shape = as_image_shape(dims if domain_shape is None else domain_shape)
        if range_shape is None:
            range_shape = (operator.shape[0],) if dimsd is None else dimsd
        if not isinstance(range_shape, (tuple, list)):
            range_shape = (range_shape,)
        range_shape = tuple(count(n, "range_shape") for n in range_shape)
        expected = (int(np.prod(range_shape)), int(np.prod(domain_shape)))
        if tuple(operator.shape) != expected:
            raise ValueError(
                f"FromScipy: operator.shape is {tuple(operator.shape)}, domain {domain_shape} "
                f"and range {range_shape} need {expected}"
            )
        self.operator = operator
        self.domain_shape, self.range_shape = domain_shape, range_shape
        single = getattr(operator, "dtype", None) in (np.float16, np.float32)
        require_adjoint(self, np.float32 if single else np.float64, "FromScipy")

    def __repr__(self) -> str:
        return f"FromScipy({self.operator!r}, {self.domain_shape} -> {self.range_shape})"

    def matvec(self, u: Array) -> Array:
        """K u, image by image, in the dtype of `u`."""
        check_shape(self, u, self.domain_shape, "u")
        return self._each(self.operator.matvec, u, self.range_shape)

    def adjoint(self, z: Array) -> Array:
        """Kᵀ z, image by image, in the dtype of `z`."""
        check_shape(self, z, self.range_shape, "z")
        return self._each(self.operator.rmatvec, z, self.domain_shape)

    @staticmethod
    def _each(function, x: Array, shape: tuple[int, ...]) -> Array:
        out = np.empty((len(x), *shape), x.dtype)  # a foreign function may reuse what it returns
        for row, result in zip(x, out, strict=True):
            values = np.asarray(function(row.ravel()))
            if np.iscomplexobj(values) and not np.iscomplexobj(x):
                raise ValueError(
                    "FromScipy: the operator returns complex numbers, expected real ones; stack "
                    "its real and imaginary parts as rows"
                )
            result[...] = values.reshape(shape)
        return out


def as_linear_operator(operator: Any) -> ScipyLinearOperator:
    """The operator, or what `scipy.sparse.linalg.aslinearoperator` makes of a matrix; real."""
    if not (hasattr(operator, "matvec") and hasattr(operator, "rmatvec")):
        try:
            operator = aslinearoperator(operator)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"FromScipy: given a {type(operator).__name__}, expected a matrix or an object "
                "with shape, matvec and rmatvec"
            ) from error
    if np.issubdtype(getattr(operator, "dtype", None) or float, np.complexfloating):
        raise ValueError(
            "FromScipy: the operator is complex, expected a real one; stack its real and imaginary "
            "parts as rows"
        )
    return operator
