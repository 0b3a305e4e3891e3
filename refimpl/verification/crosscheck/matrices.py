"""Fixed points, adjoint states and hypergradients of `Parts`, with Jacobians as matrices.

For images of at most `refimpl.verification.cases.accuracy.DENSE_LIMIT` values: u* by Newton's
method from a given state, q by one dense solve for each image, both in float64.
"""

from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.kernels.vectors import norm
from refimpl.verification.crosscheck.anatomy import (
    Parts,
    Responses,
    activated,
    identity,
    parameters_vjp,
)

MAX_NEWTON = 20
MAX_HALVINGS = 6

# Newton steps shorter than this, relatively, are the last: the next would be its square.
NEWTON_TOL = 1e-8


class Matrices(NamedTuple):
    """K°K, KᵀK°ᵀ (n, n); A and C°ᵀ (R, n); C° and Aᵀ (n, R) of parts that act as they are."""

    data: Array
    data_transposed: Array
    analysis: Array
    synthesis_transpose: Array
    synthesis: Array
    analysis_adjoint: Array

    @classmethod
    def of(cls, parts: Parts) -> "Matrices":
        """Every map applied to all unit vectors."""
        images = identity(parts.image_shape)
        K, K_adjoint = parts.operator, parts.operator_adjoint
        z = parts.analysis.apply(parts.A, images)
        units = np.eye(z[0].size).reshape(-1, *z.shape[1:])
        return cls(
            columns(K_adjoint.forward(K.forward(images))),
            columns(K.transpose(K_adjoint.transpose(images))),
            columns(z),
            columns(parts.synthesis_transpose.apply(parts.C, images)),
            columns(parts.synthesis.adjoint(parts.C, units)),
            columns(parts.analysis_adjoint.adjoint(parts.A, units)),
        )

    def jacobian(self, parts: Parts, d: Array) -> Array:
        """∂G of each image, (N, n, n), from its d = γ w σ′."""
        d = d.reshape(len(d), 1, -1)
        return parts.lam * self.data + (self.synthesis * d) @ self.analysis

    def transposed(self, parts: Parts, d: Array) -> Array:
        """What the parts have for (∂G)ᵀ, (N, n, n)."""
        d = d.reshape(len(d), 1, -1)
        adjoint = (self.analysis_adjoint * d) @ self.synthesis_transpose
        return parts.lam * self.data_transposed + adjoint


def times(matrix: Array, x: Array) -> Array:
    """One matrix times every image of a batch, flat."""
    return x.reshape(len(x), -1) @ matrix.T


def columns(batch: Array) -> Array:
    """The images of unit vectors as the columns of a matrix."""
    return np.ascontiguousarray(batch.reshape(len(batch), -1).T)


class MatrixSystem(NamedTuple):
    """Parts, the same as they act, their matrices, and K°y."""

    parts: Parts
    acting: Parts
    matrices: Matrices
    data: Array

    @classmethod
    def of(cls, parts: Parts) -> "MatrixSystem":
        """The system of parts."""
        acting = parts.acting()
        return cls(parts, acting, Matrices.of(acting), acting.operator_adjoint.forward(acting.y))

    def responses(self, u: Array) -> Responses:
        """z, w σ(z) and γ w σ′(z)."""
        bank = self.acting.analysis
        z = times(self.matrices.analysis, u)
        z = z.reshape(-1, *bank.response_shape)
        return activated(self.acting, z)

    def jacobian(self, u: Array) -> Array:
        """∂G(u), (N, n, n)."""
        return self.matrices.jacobian(self.acting, self.responses(u).d)

    def transposed(self, u: Array) -> Array:
        """(∂G(u))ᵀ as the parts have it, (N, n, n)."""
        return self.matrices.transposed(self.acting, self.responses(u).d)

    def direction(self, u: Array) -> Array:
        """G(u)."""
        p, s = self.acting, self.responses(u).s
        data = times(self.matrices.data, u).reshape(u.shape) - self.data
        return p.lam * data + p.gamma * times(self.matrices.synthesis, s).reshape(u.shape)

    def step(self, u: Array) -> Array:
        """T(u)."""
        return u - self.acting.tau * self.direction(u)

    def newton_step(self, u: Array) -> Array:
        """−J⁻¹ G(u)."""
        return solve(self.jacobian(u), -self.direction(u))

    def fixed_point(self, near: Array) -> Array | None:
        """u* of every image by damped Newton steps from `near`; None if one is not found."""
        u, g = near, self.direction(near)
        for _ in range(MAX_NEWTON):
            d = solve(self.jacobian(u), -g)
            if not np.isfinite(d).all():
                return None
            if (norm(d) <= NEWTON_TOL * norm(u)).all():
                return u + d
            u, g = self._damped(u, d, g)
        return None

    def _damped(self, u: Array, d: Array, g: Array) -> tuple[Array, Array]:
        """Full steps, halved for the images whose ‖G‖ would grow."""
        share = np.ones(len(u))
        for _ in range(MAX_HALVINGS):
            trial = u + per_image(share, u) * d
            new = self.direction(trial)
            worse = ~(norm(new) <= norm(g))
            if not worse.any():
                break
            share[worse] /= 2
        return trial, new

    def adjoint_state(self, u: Array, b: Array) -> Array:
        """q of (I − ∂T)ᵀ q = b, E9."""
        return solve(self.transposed(u), b) / self.parts.tau

    def hypergradient(self, u: Array) -> dict[str, Array]:
        """dℓ/dθ at the fixed point u, E10."""
        return parameters_vjp(self.parts, u, self.adjoint_state(u, self.loss_gradient(u)))

    def loss_gradient(self, u: Array) -> Array:
        """∇ℓ(u), E11."""
        return 2 / u.size * (u - self.parts.target)

    def loss(self, u: Array) -> Array:
        """ℓ(u), E11."""
        return np.asarray(np.mean((u - self.parts.target) ** 2))


def solve(matrices: Array, b: Array) -> Array:
    """One system for each image; NaN where a matrix is singular."""
    try:
        return np.linalg.solve(matrices, b.reshape(len(b), -1, 1)).reshape(b.shape)
    except np.linalg.LinAlgError:
        return np.full(b.shape, np.nan)
