"""The data term λ/2 ‖K u − y‖² of E2, its gradient and its Hessian.

    gradient  λ Kᵀ(K u − y)
    Hessian   λ KᵀK

Not here: the operators K (`refimpl.operators`) and the noise in y (`refimpl.images`, E1).
"""

from dataclasses import dataclass, replace

import numpy as np

from refimpl.arrays import Array, as_finite, positive, same_dtype
from refimpl.operators import LinearOperator
from refimpl.vectors import dot


@dataclass(frozen=True)
class DataFit:
    """λ/2 ‖K u − y‖² for a batch of data y.

    Attributes
    ----------
    operator : LinearOperator
        K.
    y : array (N, *K.range_shape)
        Data, one entry for each image.
    lam : float
        λ > 0.

    Raises
    ------
    ValueError
        If `y` does not have the shape of K's range or is not finite, or λ is not positive.
    """

    operator: LinearOperator
    y: Array
    lam: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "y", as_finite(self.y, "y"))
        # A NumPy scalar would turn float32 images into float64.
        object.__setattr__(self, "lam", positive(self.lam, "lam"))
        if (
            self.y.shape[1:] != tuple(self.operator.range_shape)
            or self.y.ndim == 0
            or len(self.y) == 0
        ):
            raise ValueError(
                f"y: shape is {self.y.shape}, expected (N,) + {tuple(self.operator.range_shape)}"
            )

    def energy(self, u: Array) -> Array:
        """λ/2 ‖K u − y‖² for each image, shape (N,), E2."""
        residual = self.residual(u)
        return self.lam / 2 * dot(residual, residual)

    def gradient(self, u: Array) -> Array:
        """λ Kᵀ(K u − y)."""
        return self.lam * self.operator.adjoint(self.residual(u))

    def hvp(self, v: Array) -> Array:
        """λ KᵀK v."""
        return self.lam * self.operator.adjoint(self.operator.matvec(v))

    def residual(self, u: Array) -> Array:
        """K u − y."""
        if not np.iscomplexobj(u):
            same_dtype(u=u, y=self.y)
        if len(u) != len(self.y):
            raise ValueError(
                f"u: {len(u)} images, but y holds data of {len(self.y)}; these must be equal"
            )
        return self.operator.matvec(u) - self.y

    def images(self, part: slice) -> "DataFit":
        """The data term of some of the images."""
        return replace(self, y=self.y[part])
