"""Compiled twins of banks and operators, for real arrays.

`compiled` gives the twin of an object that it knows by identity: one whose class is exactly one of
those below, with no method exchanged. Any other object, a subclass among them, may compute
something else, and is returned as it is: its own functions are its definition.
"""

from typing import Any

import numpy as np

from refimpl import kernels
from refimpl.arrays import Array
from refimpl.paper.operators.banks import Analysis, FilterBank, check_coefficients, check_pair
from refimpl.paper.operators.base import Composition, Multiple, Sum, check_dtype, check_shape
from refimpl.paper.operators.convolution import Convolution
from refimpl.paper.operators.padding import Padding


class CompiledPadding(Padding):
    """`Padding` by compiled loops."""

    def matvec(self, u: Array) -> Array:
        """P u."""
        check_shape(self, u, self.domain_shape, "u")
        return kernels.pad(np.ascontiguousarray(u), self.rows, self.columns)

    def adjoint(self, z: Array) -> Array:
        """Pᵀ z."""
        check_shape(self, z, self.range_shape, "z")
        sides = self.domain_shape[1:]
        return kernels.fold(np.ascontiguousarray(z), self.rows, self.columns, *sides)


class CompiledBank(FilterBank):
    """`FilterBank` by compiled loops."""

    def __init__(self, bank: FilterBank):
        F, _, *sides = bank.coefficients_shape
        super().__init__(bank.image_shape, (F, *sides), bank.boundary)
        self.padding = compiled(bank.padding)

    def apply(self, A: Array, u: Array) -> Array:
        """A u."""
        check_coefficients(self, A, u=u)
        return kernels.correlate(self.padding.matvec(u), A)

    def adjoint(self, A: Array, z: Array) -> Array:
        """Aᵀ z."""
        check_coefficients(self, A, z=z)
        check_shape(self, z, self.response_shape, "z")
        return self.padding.adjoint(kernels.correlate_adjoint(z, A))

    def adjoint_filters(self, u: Array, z: Array) -> Array:
        """B*(u, z)."""
        check_pair(self, u, z)
        return kernels.correlate_adjoint_filters(self.padding.matvec(u), z)


class CompiledConvolution(Convolution):
    """`Convolution` by compiled loops, in which every channel is an image of its own."""

    def __init__(self, convolution: Convolution):
        super().__init__(convolution.kernel, convolution.domain_shape, convolution.boundary)
        self.border = self._bank.padding.rows, self._bank.padding.columns

    def matvec(self, u: Array) -> Array:
        """k * u."""
        check_shape(self, u, self.domain_shape, "u")
        check_dtype(self, u, self.kernel)
        padded = kernels.pad(np.ascontiguousarray(u).reshape(-1, 1, *u.shape[2:]), *self.border)
        return kernels.correlate(padded, self._filters).reshape(u.shape)

    def adjoint(self, z: Array) -> Array:
        """Kᵀ z."""
        check_shape(self, z, self.range_shape, "z")
        check_dtype(self, z, self.kernel)
        padded = kernels.correlate_adjoint(z.reshape(-1, 1, *z.shape[2:]), self._filters)
        return kernels.fold(padded, *self.border, *z.shape[2:]).reshape(z.shape)


TWINS = {
    Padding: lambda p: CompiledPadding(p.domain_shape, p.widths, p.boundary),
    FilterBank: CompiledBank,
    Convolution: CompiledConvolution,
    Analysis: lambda P: Analysis(compiled(P.bank), P.A),
    Composition: lambda P: Composition(compiled(P.outer), compiled(P.inner)),
    Sum: lambda P: Sum(compiled(P.left), compiled(P.right)),
    Multiple: lambda P: Multiple(P.factor, compiled(P.operator)),
}


def compiled(thing: Any) -> Any:
    """The compiled twin of an operator or bank, or the object itself where there is none."""
    return TWINS[type(thing)](thing) if is_known(thing, TWINS) else thing


def is_known(thing: Any, classes) -> bool:
    """Whether an object is of exactly one of these classes, and has no method of its own."""
    own = getattr(thing, "__dict__", {}).values()
    return type(thing) in classes and not any(map(callable, own))
