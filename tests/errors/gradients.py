"""The true hypergradient dℓ/dθ of a batch, from the true states, in np.longdouble.

    Jᵀp = ∇ℓ(u*)        dℓ/dθ = −(∂_θ F)ᵀ p

summed over the images; ℓ is the mean over the batch of m (u − u†)², m = 1 where the loss looks.
"""

from typing import NamedTuple

import numpy as np

from errors.extended import EPS, LONG, Array, Factors, length
from errors.truth import EPS64, Dense, Zero
from refimpl.verification.checks.dense_matrices import source_indices

# Beyond this the errors that rounding leaves are not in proportion to ε.
PROPORTIONAL = 1e-3


class Gradient(NamedTuple):
    """The true dℓ/dθ as one vector, A, C (untied), b, weights, γ.

    Attributes
    ----------
    value : array
    rounding, own : float
        Relative errors that float64 and this computation cannot avoid, as of `truth.Zero`.
    """

    value: Array
    rounding: float
    own: float


def hypergradient(
    problem, images: list[Dense], zeros: list[Zero], target: Array, looked_at: Array | float = 1.0
) -> Gradient:
    """dℓ/dθ; what rounding leaves of it is measured, u* and p moved by as much at random."""
    curved = np.broadcast_to(2 * looked_at / target.size, target.shape[1:]).ravel()
    losses = [curved * (zero.u - goal.ravel()) for zero, goal in zip(zeros, target)]
    with np.errstate(all="ignore"):
        every = list(zip(images, zeros, losses))
        total = sum(one(problem, d, zero.u, zero.inverse.T @ loss) for d, zero, loss in every)

        def off(eps: float, split: bool) -> float:
            moved = sum(displaced(problem, *three, curved, eps, split) for three in every)
            distance = float(length(moved - total) / length(total))
            return max(distance, eps) if np.isfinite(distance) else np.inf

        rounding = off(EPS64, split=False)
        near = rounding < PROPORTIONAL
        return Gradient(total, rounding, rounding * EPS / EPS64 if near else off(EPS, split=True))


def displaced(
    problem, d: Dense, zero: Zero, loss: Array, curved: Array, eps: float, split: bool
) -> Array:
    """The gradient of one image at a state that is rounded, with an adjoint state that is, too."""
    rng = np.random.default_rng(0)

    def rounded(inverse: Array, sizes: Array) -> Array:
        return eps * (abs(inverse) @ sizes) * rng.choice([-1, 1], len(sizes))

    move = rounded(zero.inverse, d.term_sizes(zero.u)[int(split)])
    u, loss = zero.u + move, loss + curved * move
    try:
        inverse = Factors(d.jacobian(u)).inverse()
    except ZeroDivisionError:
        return np.array([np.inf], LONG)
    p = inverse.T @ loss
    p = p + rounded(inverse.T, d.jacobian_sizes(u).T @ abs(p) + abs(loss))
    return one(problem, d, u, p)


def one(problem, d: Dense, u: Array, p: Array) -> Array:
    """−(∂_θ F)ᵀ p of one image."""
    bank, s, Cp = problem.bank, d.sigma(u), d.C @ p
    r = d.gamma * d.w * s.slope * Cp
    strong = d.gamma * d.w * s.value
    filters = [by_filters(bank, u, r), by_filters(bank, p, strong)]
    if problem.tied:
        filters = [filters[0] + filters[1]]
    count = bank.coefficients_shape[0]
    per_filter = [x.reshape(count, -1).sum(axis=1) for x in (r, d.gamma * s.value * Cp)]
    gamma = np.sum(d.w * s.value * Cp)
    return -np.concatenate([*(x.ravel() for x in (*filters, *per_filter)), [gamma]])


def by_filters(bank, u: Array, z: Array) -> Array:
    """Σ over positions of z times the patch of u that the filter sees there."""
    if len(bank.coefficients_shape) == 2:
        return np.outer(z, u)
    F, C, h, w = bank.coefficients_shape
    _, H, W = bank.image_shape
    rows = source_indices(H, h // 2, bank.boundary)
    columns = source_indices(W, w // 2, bank.boundary)
    # Index −1 reads the zeros that are added behind the last row and column.
    padded = np.pad(u.reshape(C, H, W), ((0, 0), (0, 1), (0, 1)))[:, rows][:, :, columns]
    z, out = z.reshape(F, H, W), np.zeros(bank.coefficients_shape, LONG)
    for a, b in np.ndindex(h, w):
        window = padded[:, a : a + H, b : b + W]
        out[:, :, a, b] = z.reshape(F, -1) @ window.reshape(C, -1).T
    return out
