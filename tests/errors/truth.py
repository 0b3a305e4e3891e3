"""The truth about one image: u*, the adjoint state and dℓ/dθ from dense matrices in np.longdouble.

    G(u) = λ Kᵀ(K u − y) + γ Cᵀ(w ⊙ σ(A u + b))        J = λ KᵀK + γ Cᵀ diag(w σ′) A

Newton's method starts from the state that is judged, so that the same zero of G is meant. Damping
is by the natural test ‖J⁻¹G(new)‖ < ‖J⁻¹G(old)‖, which no scaling of equations changes. Where it
fails, `followed` leads on, from the state and from Kᵀy. The way to the zero is gone in float64, the
last steps in np.longdouble.

Rounding: G is computed to ε t, with t the sum of the sizes of its terms, and so u* to ε |J⁻¹| t.
`rounding` is that of float64, below which no answer can be held to a factor; `own` is that of
extended precision, which the truth itself may be wrong by.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from errors.extended import EPS, LONG, Array, Factors, Sigma, length, sigma, spectral_norm
from refimpl.verification.checks.dense_matrices import convolution_matrix, correlation_matrix

EPS64 = float(np.finfo(np.float64).eps)
# Newton steps: a pixel between two saturated edges moves by 1/(2χ) in each of them.
MOST = 300
SMALLEST_DAMPING = 1e-5
STEPS = 400
# Where so short a step, in units of 1/D, does not reduce G any more, none does.
LONGEST = 1e4
# G is 0 if it is below so many times its rounding.
ZERO = 10
# A zero is not known where extended precision leaves more than this of it open.
OPEN = 1e-3


@dataclass(frozen=True)
class Dense:
    """A problem of one image as matrices."""

    K: Array
    A: Array
    C: Array
    y: Array
    lam: float
    gamma: float
    b: Array
    w: Array
    potential: object
    tied: bool

    @cached_property
    def rough(self) -> "Dense":
        """The same in float64."""
        names = ("K", "A", "C", "y", "lam", "gamma", "b", "w")
        return replace(self, **{name: getattr(self, name).astype(float) for name in names})

    @cached_property
    def KtK(self) -> Array:
        """λ KᵀK."""
        return self.lam * (self.K.T @ self.K)

    @cached_property
    def largest_rows(self) -> Array:
        """Row sums of the sizes of J's entries where σ′ is largest."""
        steepest = abs(self.gamma * self.w) * self.potential.sup_second
        data = abs(self.K).T @ abs(self.K).sum(axis=1) * self.lam
        rows = data + abs(self.C).T @ (steepest * abs(self.A).sum(axis=1))
        return np.where(rows > 0, rows, 1)

    def sigma(self, u: Array) -> Sigma:
        """σ at the responses of u."""
        return sigma(self.potential, self.A @ u + self.b)

    def direction(self, u: Array) -> Array:
        """G(u), the saturated parts first, so that they cancel where they can."""
        head, rest = self.halves(u, self.sigma(u))
        return head + rest

    def halves(self, u: Array, s: Sigma) -> tuple[Array, Array]:
        """Data term and saturated parts; the rest."""
        data = self.lam * (self.K.T @ (self.K @ u - self.y))
        head = data + self.gamma * (self.C.T @ (self.w * s.saturated))
        return head, self.gamma * (self.C.T @ (self.w * s.rest))

    def jacobian(self, u: Array) -> Array:
        """J(u)."""
        slope = self.gamma * self.w * self.sigma(u).slope
        return self.KtK + self.C.T @ (slope[:, None] * self.A)

    def term_sizes(self, u: Array) -> tuple[Array, Array]:
        """t, the sizes of the terms of G in plain arithmetic, and in that of `direction`."""
        s, K, C = self.sigma(u), abs(self.K), abs(self.C)
        strength = abs(self.gamma * self.w)
        moved = s.slope_size() * (abs(self.A) @ abs(u) + abs(self.b))
        data = self.lam * (K.T @ (K @ abs(u) + abs(self.y)))
        plain = data + C.T @ (strength * (abs(s.value) + moved))
        head = np.where(self.halves(u, s)[0] == 0, 0, data + C.T @ (strength * abs(s.saturated)))
        return plain, head + C.T @ (strength * (abs(s.rest) + moved))

    def jacobian_sizes(self, u: Array) -> Array:
        """The same of the entries of J."""
        slope = abs(self.gamma * self.w) * self.sigma(u).slope_size()
        return self.lam * abs(self.K).T @ abs(self.K) + abs(self.C).T @ (
            slope[:, None] * abs(self.A)
        )


def dense(problem, n: int) -> Dense:
    """Image n of a problem of refimpl, of which only the numbers are taken."""
    theta, bank = problem.theta.astype(LONG), problem.bank
    A = bank_matrix(bank, theta.A)
    each = len(A) // len(theta.b)
    return Dense(
        K=operator_matrix(problem.operator), A=A, C=bank_matrix(bank, theta.synthesis),
        y=problem.y[n].ravel().astype(LONG), lam=LONG(problem.lam), gamma=theta.gamma,
        b=np.repeat(theta.b, each), w=np.repeat(theta.weights, each), potential=problem.potential,
        tied=problem.tied,
    )  # fmt: skip


def bank_matrix(bank, filters: Array) -> Array:
    """A or C as a matrix."""
    if filters.ndim == 2:
        return filters
    return correlation_matrix(filters, bank.image_shape, bank.boundary)


def operator_matrix(K) -> Array:
    """K as a matrix."""
    if hasattr(K, "kernel"):
        return convolution_matrix(K.kernel.astype(LONG), K.domain_shape, K.boundary)
    if hasattr(K, "mask"):
        return np.diag(np.broadcast_to(K.mask, K.domain_shape).ravel().astype(LONG))
    if hasattr(K, "matrix"):
        return K.matrix.astype(LONG)
    return np.eye(int(np.prod(K.domain_shape)), dtype=LONG)


class Zero(NamedTuple):
    """What is known of the zero of G that a state is near.

    Attributes
    ----------
    kind : str
        "zero"; "open" where G vanishes to rounding and J is singular to rounding; "none".
    u : array
        u*, where there is one.
    rounding, own : float
        Relative errors of u* that float64 and this computation cannot avoid.
    condition : float
        ‖J‖ ‖J⁻¹‖.
    inverse : array
        J⁻¹ at u*.
    first : float
        ‖first correction‖ / ‖u*‖ from the state on; what lies much further away is another zero.
    """

    kind: str
    u: Array
    rounding: float = np.inf
    own: float = np.inf
    condition: float = np.inf
    first: float = np.inf
    inverse: Array | None = None


def zero_near(d: Dense, state: Array) -> Zero:
    """The zero of G that Newton's method reaches from a state, in extended precision."""
    state, start = state.ravel(), d.rough.K.T @ d.rough.y
    with np.errstate(all="ignore"):
        first = correction(d.rough, state)
        for way, begin in ((newton, state), (followed, state), (followed, start)):
            u = way(d.rough, begin) if np.isfinite(begin).all() else None
            if u is None or not np.isfinite(u).all():
                continue
            found = newton(d, u.astype(LONG))
            if found is not None:
                return described(d, found, first)
            if vanishes(d, u.astype(LONG)):
                return Zero("open", u)
    return Zero("none", state)


def vanishes(d: Dense, u: Array) -> bool:
    """Whether G(u) is 0 to the rounding of float64."""
    return bool((abs(d.direction(u)) <= ZERO * EPS64 * d.term_sizes(u)[0]).all())


def described(d: Dense, u: Array, first: float) -> Zero:
    """The zero with what rounding leaves open."""
    J = d.jacobian(u)
    try:
        factors = Factors(J)
    except ZeroDivisionError:
        return Zero("open", u)
    inverse, size = factors.inverse(), length(u)
    plain, split = d.term_sizes(u)
    reach = [length(abs(inverse) @ t) / size for t in (plain, split)]
    own = max(EPS * reach[1], length(factors.solve(d.direction(u))) / size)
    condition = float(spectral_norm(J) * spectral_norm(inverse))
    return Zero(
        "zero" if own <= OPEN else "open", u, float(EPS64 * reach[0]), float(own), condition,
        float(first / size), inverse,
    )  # fmt: skip


def correction(d: Dense, u: Array) -> float:
    """‖J⁻¹G‖ at u, infinite where J is singular."""
    try:
        return length(Factors(d.jacobian(u)).solve(d.direction(u)))
    except ZeroDivisionError:
        return np.inf


def newton(d: Dense, u: Array) -> Array | None:
    """Damped Newton steps, in the precision of u, until nothing moves, or None."""
    eps = np.finfo(u.dtype).eps
    for _ in range(MOST):
        try:
            factors = Factors(d.jacobian(u))
        except ZeroDivisionError:
            return None
        move = factors.solve(d.direction(u))
        size, damping = length(move), 1.0
        if size <= eps / 8 * length(u):
            return u
        while not length(factors.solve(d.direction(u - damping * move))) <= (
            1 - damping / 4
        ) * size:
            damping /= 2
            if damping < SMALLEST_DAMPING or not np.isfinite(size):
                # At the level of rounding no step is better than another.
                return u if size <= np.sqrt(eps) * length(u) else None
        u = u - damping * move
    return None


def followed(d: Dense, u: Array) -> Array:
    """Shortened steps from anywhere, longer as G falls, until it is down to rounding.

    Tied, implicit Euler steps of D u′ = −G(u) with (J + μD)⁻¹ G, where D are the row sums of the
    largest |J|, so that each pixel has a time scale of its own; on a convex energy every short one
    reduces ‖D^(−1/2) G‖. Untied, steps of Levenberg and Marquardt with (JᵀD⁻¹J + μD)⁻¹ JᵀD⁻¹G,
    which find a zero also where there is a line of them.
    """
    D, g, mu = d.largest_rows, d.direction(u), 1.0
    for _ in range(STEPS):
        J = d.jacobian(u)
        M, r = (J, g) if d.tied else (J.T @ (J / D[:, None]), J.T @ (g / D))
        try:
            new = u - Factors(M + mu * np.diag(D)).solve(r)
            after = d.direction(new)
            ratio = length(after / np.sqrt(D)) / length(g / np.sqrt(D))
        except ZeroDivisionError:
            ratio = np.inf
        if ratio < 1:
            u, g = new, after
            mu *= min(max(ratio, 0.1), 0.5)
        else:
            mu *= 4
        if mu > LONGEST or (abs(g) <= EPS64 * d.term_sizes(u)[0]).all():
            break
    return u
