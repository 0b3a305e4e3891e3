"""How far an answer is from the exact one: errors, where a solver knows residuals.

A zero u* of G and a state u near it differ by −J(u)⁻¹ G(u), to first order. One Newton correction

    J(u) d = −G(u),    e = ‖d‖ / ‖u‖

therefore measures the error of u, whatever method found it. d need not be accurate: it is solved to
`CORRECTION` of its own error, which the Krylov methods bound (`refimpl.solvers._systems`). Three
things can make e wrong; each is looked at where e is otherwise small enough:

- A direction in which J is small may be no part of G's residual that the solver notices. A probe
  J x = ξ with a random ξ, to a residual of 1/√n of it, misses none: what J⁻¹ makes of a residual is
  taken from there, and d is solved again where it was not accurate after all.
- J changes on the way to u*, or there is no u*. Then a correction does not contract: G(u + d) must
  ask for a second one of at most `CONTRACTION` ‖d‖.
- G is known to its rounding errors s, eps times the magnitudes that each value adds up. They move u
  by about s ⊙ x, which e gains. Where J is numerically singular that is large, and u* is not
  determined; where G(u + 64 s x) is not G(u) + 64 s ξ, not even by how much.

Where G is strongly monotone with a proved constant μ (`certificates`), ‖G(u)‖ / μ proves a bound
without a system.

Not here: how a method is run until its error is small enough (`refimpl.equilibrium.tolerances`).
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, per_image
from refimpl.engine import Step, StepLinearization, TiedStep
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.equilibrium.automatic import Attempt, adjoint_attempts
from refimpl.equilibrium.certificates import distance, residual
from refimpl.equilibrium.proved import magnitudes
from refimpl.equilibrium.tolerances import Measured
from refimpl.kernels.vectors import norm
from refimpl.paper.potentials import trait
from refimpl.results import SINGULAR, BreakdownError, SolverResult
from refimpl.solvers import random_probe, ratio

NOT_NEAR = "Newton corrections do not contract: u* is not near, or does not exist"
OF_SCALES = (
    "G is at the rounding errors of its largest part, next to which the others vanish: take a "
    "smaller lam, or larger filters"
)

# Relative errors that are larger say only that nothing is known.
USEFUL = 0.3

# Relative error of a correction.
CORRECTION = 0.05

# A correction after a correction, relative to it, beyond which the first is not believed.
CONTRACTION = 0.2

# Residuals, and corrections, within this factor of rounding errors; such need not contract.
ROUNDED = 4

# Multiples of the rounding errors by which J is tried, and how far G may then be from its tangent.
TRIED, CURVED = 64, 0.3

# The part of a tolerance up to which rounding needs no second look.
LOST = 0.01

# Relative length up to which a step is a correction.
LONGEST = 0.1

# Most iterations of a system.
MAX_ITERATIONS = 300

# By how much the residual of a correction falls where it is not accurate enough.
REFINED = 100


def state_error(step: Step, u: Array, tol: float, mu: float, least: Array | float = 0) -> Measured:
    """The error of a state, proved where μ shows it to be at most `tol`, else estimated.

    Relative to ‖u‖, or to `least` where that is more.
    """
    lin = step.linearize(u)
    proved = proved_error(lin, mu)
    enough = (proved <= tol) & np.isfinite(proved)
    if enough.all():
        return Measured(proved, ("proved",) * len(u), u, ("",) * len(u))
    estimate = estimated_error(lin, tol, least)
    better = enough | (proved < estimate.error)
    return estimate._replace(
        error=np.where(better, proved, estimate.error),
        kind=tuple(np.where(better, "proved", estimate.kind).tolist()),
        why=tuple(np.where(better, "", estimate.why).tolist()),
    )


def proved_error(lin: StepLinearization, mu: float) -> Array:
    """e / (1 − e) ≥ ‖u − u*‖ / ‖u*‖, e = ( ‖G(u)‖ + its rounding ) / (μ ‖u‖); infinite if e ≥ 1."""
    if mu <= 0:
        return np.full(len(lin.u), np.inf)
    e = ratio(distance(residual(lin), mu), norm(lin.u).astype(float))
    return np.where(e < 1, e / np.where(e < 1, 1 - e, 1), np.inf)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def estimated_error(lin: StepLinearization, tol: float, least: Array | float = 0) -> Measured:
    """The error by one Newton correction; what can make it wrong is looked at where it is ≤ tol."""
    u, size = lin.u, np.maximum(norm(lin.u).astype(float), least)
    newton = SystemSolution.of(lin, -lin.direction)
    rounded = norm(lin.direction) <= ROUNDED * norm(rounding(lin))
    why, floor = np.full(len(u), "", dtype=object), np.zeros(len(u))
    why[~newton.accurate] = "no Newton correction can be computed there"
    near = newton.accurate & ((newton.length <= tol * size) | rounded)
    contracts = newton.accurate
    if near.any():
        probe = RandomProbe.of(lin)
        newton = newton.refined(lin, -lin.direction, probe.amplified, near)
        contracts = np.where(near, contract(lin, newton, probe.amplified, near), contracts)
        floor = np.where(near, probe.floor, 0)
        why[floor > tol / 2] = f"{u.dtype} does not determine u*: {SINGULAR}"
        floor = np.where((floor > LOST * tol) & probe.curved(lin), np.inf, floor)
    tiny = newton.accurate & (newton.length <= ROUNDED * floor * size)
    wild = near & ~(contracts | tiny)
    why[wild] = np.where(rounded, OF_SCALES, NOT_NEAR)[wild]
    error = np.where(newton.length > 0, newton.length / size, 0) + floor
    error = np.where((contracts | tiny) & (error <= USEFUL), error, np.inf)
    kind = np.where(np.isfinite(error), "estimated", "unknown")
    short = per_image(newton.length <= LONGEST * size, u)
    return Measured(error, tuple(kind.tolist()), np.where(short, u + newton.x, u), tuple(why))


def contract(
    lin: StepLinearization, newton: "SystemSolution", amplified: Array, images: Array
) -> Array:
    """Whether u + d is to be corrected by much less than u, in its largest value too."""
    d = np.where(per_image(images & np.isfinite(newton.length), lin.u), newton.x, 0)
    after = lin.step.linearize(lin.u + d)
    second = SystemSolution.of(after, -after.direction)
    second = second.refined(after, -after.direction, amplified, images)
    lengths = second.length + second.amplified * second.left <= CONTRACTION * newton.length
    values = largest(second.x) <= CONTRACTION * largest(newton.x)
    return newton.accurate & lengths & values


class SystemSolution(NamedTuple):
    """x of J x = b, what its system left, and how far off x may be for that.

    Attributes
    ----------
    x : array (N, C, H, W)
    length : array (N,)
        ‖x‖.
    left : array (N,)
        ‖b − J x‖.
    amplified : array (N,)
        What J⁻¹ makes of a residual of size 1.
    """

    x: Array
    length: Array
    left: Array
    amplified: Array

    @classmethod
    def of(cls, lin: StepLinearization, b: Array, **tolerance: float) -> "SystemSolution":
        """That of right-hand sides; x = 0, of which nothing is known, where no method finds it.

        Where a method breaks down, each image goes on alone, so that none decides for another.
        """
        finite = np.isfinite(b).all(axis=(1, 2, 3))
        b = np.where(per_image(finite, b), b, 0)
        solved = _solved(lin, b, **(tolerance or {"tol": CORRECTION}))
        if solved is None and len(b) > 1:
            ones = (slice(n, n + 1) for n in range(len(b)))
            found = (cls.of(lin.images(n), b[n], **tolerance) for n in ones)
            return cls(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))
        unknown = np.full(len(b), np.inf)
        if solved is None:
            return cls(np.zeros_like(b), 0 * unknown, unknown, unknown)
        length = norm(solved.x).astype(float)
        left = np.where(finite, solved.residuals * norm(b).astype(float), np.inf)
        return cls(solved.x, length, left, ratio(solved.error * length, left))

    def refined(
        self, lin: StepLinearization, b: Array, amplified: Array, images: Array
    ) -> "SystemSolution":
        """This, of `images` solved again where it is not accurate if J⁻¹ amplifies so much."""
        best = self._replace(amplified=np.maximum(self.amplified, np.where(images, amplified, 0)))
        tol, open_ = CORRECTION / np.sqrt(b[0].size), images & ~best.accurate
        while tol > np.finfo(b.dtype).eps and open_.any():
            better = SystemSolution.of(lin, b, residual_tol=tol)
            open_ &= better.left < best.left
            better = better._replace(amplified=np.maximum(better.amplified, amplified))
            both = zip(best, better, strict=True)
            best = SystemSolution(*(np.where(per_image(open_, b), b, a) for a, b in both))
            open_, tol = open_ & ~best.accurate, tol / REFINED
        return best

    @property
    def accurate(self) -> Array:
        """Whether x is known to about `CORRECTION`."""
        return ~(self.amplified * self.left > 2 * CORRECTION * self.length)


class RandomProbe(NamedTuple):
    """x of J x = ξ for a random ξ of ±1, the same for every image.

    Attributes
    ----------
    xi, x : array (N, C, H, W)
    size : array (N,)
        s, the rounding error of values of G where x is large.
    amplified : array (N,)
        What J⁻¹ makes of a residual of size 1; infinite where x is not found.
    floor : array (N,)
        s ‖x‖ / ‖u‖, by how much rounding moves u.
    """

    xi: Array
    x: Array
    size: Array
    amplified: Array
    floor: Array

    @classmethod
    def of(cls, lin: StepLinearization) -> "RandomProbe":
        """That of one state."""
        xi, part = random_probe(lin.u)
        found = SystemSolution.of(lin, xi, residual_tol=part)
        moved = norm(rounding(lin) * np.abs(found.x)).astype(float)
        stated = (
            ratio(moved, found.length), found.amplified, ratio(moved, norm(lin.u).astype(float))
        )
        solved = found.left <= part * norm(xi).astype(float)
        return cls(xi, found.x, *(np.where(solved, x, np.inf) for x in stated))

    def curved(self, lin: StepLinearization) -> Array:
        """Whether some value of G(u + t x) is far from that of G(u) + t ξ, t = 64 s."""
        t = per_image(TRIED * self.size, lin.u).astype(lin.u.dtype)
        off = lin.step.direction(lin.u + t * self.x) - lin.direction - t * self.xi
        return ~(largest(off) <= CURVED * TRIED * self.size)


def largest(d: Array) -> Array:
    """max |d| of each image."""
    return np.abs(d).reshape(len(d), -1).max(axis=1)


def rounding(lin: StepLinearization) -> Array:
    """About the rounding error of every value of G(u): eps times the magnitudes that it adds up."""
    sizes, x = magnitudes(lin.step), abs(lin.u)
    steepest = trait(lin.step.problem.potential, "sup_second")
    if not np.isfinite(steepest):
        size = x.dtype.type(np.finfo(x.dtype).eps * lin.step.steepness)
        return np.full_like(x, size) * per_image(largest(x), x)
    terms = sizes.data_gradient(x) + x.dtype.type(steepest) * sizes.field.value(x)
    return np.finfo(x.dtype).eps * terms


def _solved(lin: StepLinearization, b: Array, **tolerance: float) -> SolverResult | None:
    """J x = b; None where all methods break down, or the first does on more than one image."""
    for method, given in methods(lin.step):
        preconditioner = given.pop("preconditioner", None)
        with suppress(BreakdownError):
            result = solve_adjoint(
                lin.transposed, b, method=method, max_iterations=MAX_ITERATIONS,
                preconditioner=preconditioner, options={**given, "probe": False}, **tolerance,
            )
            return result._replace(x=lin.step.tau * result.x)
        if len(b) > 1:
            break
    return None


def methods(step: Step) -> Sequence[Attempt]:
    """By which to solve, one after the other where they break down.

    Tied, where conjugate gradients end unconverged GMRES would too, and take longer.
    """
    if isinstance(step, TiedStep):
        return adjoint_attempts(step, {})
    return (Attempt("auto", {}),)
