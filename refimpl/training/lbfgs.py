"""Training by L-BFGS on the whole training set, for problems with few images or few parameters.

    x ← x + t d,   d = −H g,   g = dℓ/dθ̂

H is the inverse Hessian that the last `memory` pairs s = x⁺ − x, r = g⁺ − g describe; with memory
0 it is ⟨s, r⟩ / ‖r‖², the step of Barzilai and Borwein. The step length satisfies the weak Wolfe
conditions, found by doubling and bisection (Lewis and Overton):

    ℓ(x + t d) ≤ ℓ(x) + 1e-4 t ⟨g, d⟩,   ⟨g(x + t d), d⟩ ≥ 0.9 ⟨g, d⟩

Inexact solves blur the loss more than the gradient. Where two losses are equal to `NOISE`, the
slope along d decides instead, which must be less than 0.9 |⟨g, d⟩| in modulus (Hager and Zhang).

Every solve starts at the last reconstruction. A step at which one fails is a step too long. Solves
begin loose, and are tightened where no further descent is found.

References
----------
Nocedal and Wright, Numerical Optimization, 2nd edition, algorithm 7.4.
Hager and Zhang, A new conjugate gradient method with guaranteed descent, SIAM J. Optim. 16, 2005.
Lewis and Overton, Nonsmooth optimization via quasi-Newton methods, Math. Program. 141, 2013.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, count
from refimpl.paper.parameters import Parameters, pack, unpack
from refimpl.results import NotConvergedError
from refimpl.training.objective import FAILURES, Objective

# Of the tolerances, at first; adjoint states known to 3 % still point downhill.
LOOSE, TIGHTER, LOOSEST_ADJOINT = 10.0, 10.0, 3e-2
TRIALS = 8  # step lengths of one line search
NOISE = 1e-4  # of the loss
FIRST = 0.02  # ‖x⁺ − x‖ / ‖x‖ of the first step
WINDOW = 10  # iterations in which the loss must fall


@dataclass(frozen=True)
class LbfgsSettings:
    """The options of `train_lbfgs`, as presets state them."""

    max_iterations: int
    trained: tuple[str, ...] = ("A", "C")
    tol: float = 1e-3
    stall: float = 2e-3
    memory: int = 20

    def __post_init__(self):
        count(self.max_iterations, "LbfgsSettings: max_iterations", least=0)
        count(self.memory, "LbfgsSettings: memory", least=0)


class LbfgsProgress(NamedTuple):
    """One accepted step: what a callback sees.

    Attributes
    ----------
    iteration : int
    parameters : Parameters
        θ̂.
    loss : float
    gradient : float
        ‖g‖ over that at the start.
    evaluations : int
        Losses computed so far, each over all images; gradients at the same θ̂ are not counted.
    states : array (N, C, H, W)
        The reconstructions.
    """

    iteration: int
    parameters: Parameters
    loss: float
    gradient: float
    evaluations: int
    states: Array


class LbfgsResult(NamedTuple):
    """The last parameters, the loss of every step, and what ended the search."""

    parameters: Parameters
    losses: Array
    converged: bool
    message: str


def train_lbfgs(
    objective: Objective,
    start: Parameters,
    *,
    trained: tuple[str, ...] = ("A", "C"),
    max_iterations: int = 100,
    tol: float = 1e-3,
    stall: float = 2e-3,
    memory: int = 20,
    states: Array | None = None,
    callback: Callable[[LbfgsProgress], str | None] | None = None,
) -> LbfgsResult:
    """Minimise `objective` from θ̂ = `start` until ‖dℓ/dθ̂‖ is `tol` times that at the start.

    Parameters
    ----------
    objective : Objective
        Its tolerances are those of the last steps.
    start : Parameters
    trained : tuple of str
        Names of what is moved; the rest stays as in `start`.
    max_iterations : int
    tol : float
    stall : float
        Training ends, too, when ten iterations lower the loss by less than this share of it.
    memory : int
        Pairs kept; 0: Barzilai and Borwein's steps.
    states : array (N, C, H, W), optional
        Where the first solves start.
    callback : callable, optional
        Called with `LbfgsProgress` at the start and after each step; what it returns, if not
        empty, says why to end.

    Returns
    -------
    LbfgsResult
        `converged`: the gradient is small, or the loss has stalled; `message` says which.

    Raises
    ------
    NotConvergedError, BreakdownError
        If no gradient can be computed at `start` itself.
    """
    search = _Search(objective, start, trained, memory, stall, states)
    while not (message := search.ended(max_iterations, tol, callback)):
        better = search.advance()
        if better is not None:
            search.accept(better)
        elif search.looseness > 1:
            message = "" if search.tightened() else "a solve fails at tighter tolerances"
        elif search.pairs:
            search.pairs.clear()
        else:
            message = "no step along the gradient lowers the loss"
        if message:
            break
    settled = search.stalled or search.slope <= tol
    return LbfgsResult(search.parameters, np.array(search.losses), settled, message)


class _Point(NamedTuple):
    """θ̂ packed, the loss there, its gradient, and the reconstructions."""

    x: Array
    loss: float
    gradient: Array
    states: Array


class _Search:
    """The point reached, the pairs that describe the Hessian, and how loose the solves are."""

    def __init__(self, objective, start, trained, memory, stall, states):
        self.given, self.start, self.trained = objective, start, trained
        self.memory, self.stall = memory, stall
        self.pairs, self.losses = deque(maxlen=max(memory, 1)), []
        self.evaluations, self.told = 0, -1
        self.point = _Point(pack(start, trained), np.inf, np.empty(0), states)
        self.solve_to(LOOSE)
        self.losses.append(self.point.loss)
        self.first = np.linalg.norm(self.point.gradient)

    @property
    def parameters(self) -> Parameters:
        """θ̂ of the point reached."""
        return unpack(self.point.x, self.start, self.trained)

    @property
    def slope(self) -> float:
        """‖g‖ over that at the start."""
        return float(np.linalg.norm(self.point.gradient) / self.first) if self.first else 0.0

    @property
    def stalled(self) -> bool:
        """Whether the last `WINDOW` steps at the final tolerances hardly lowered the loss."""
        recent = self.losses[self.settled :][-WINDOW - 1 :]
        return len(recent) > WINDOW and recent[-1] > (1 - self.stall) * recent[0]

    def solve_to(self, looseness: float) -> None:
        """Solve to this multiple of the tolerances from here on."""
        s = self.given.solvers
        adjoint = max(s.adjoint_tol, min(looseness * s.adjoint_tol, LOOSEST_ADJOINT))
        solvers = replace(s, forward_tol=looseness * s.forward_tol, adjoint_tol=adjoint)
        self.objective, self.looseness = replace(self.given, solvers=solvers), looseness
        self.settled = len(self.losses)
        self.point = self.evaluated(self.point.x, self.point.states)

    def tightened(self) -> bool:
        """Solve to `TIGHTER` times smaller tolerances; False where that fails."""
        try:
            self.solve_to(max(self.looseness / TIGHTER, 1.0))
        except FAILURES:
            return False
        return True

    def evaluated(self, x: Array, states: Array | None, below: float = np.inf) -> _Point | None:
        """The point `x`, or None where the loss is above `below`, which spares the gradient."""
        raw = unpack(x, self.start, self.trained)
        evaluation = self.objective.loss(raw, states)
        self.evaluations += 1
        if not (evaluation.state.all_converged and evaluation.loss <= below):
            if below == np.inf:
                raise NotConvergedError(f"train_lbfgs: no fixed point: {evaluation.state.message}")
            return None
        evaluation = self.objective.gradient(raw, evaluation.state.x)
        gradient = pack(evaluation.gradient, self.trained).astype(np.float64)
        return _Point(x, evaluation.loss, gradient, evaluation.state.x)

    def ended(self, max_iterations: int, tol: float, callback) -> str:
        """Why to end, or ""."""
        p, iterations = self.point, len(self.losses) - 1
        said = ""
        if callback is not None and self.told < iterations:
            seen = self.evaluations, p.states
            said = callback(LbfgsProgress(iterations, self.parameters, p.loss, self.slope, *seen))
        self.told = iterations
        if said:
            return said
        if self.slope <= tol:
            return f"the gradient is {self.slope:.1e} times that at the start"
        if self.looseness == 1 and self.stalled:
            return f"the loss fell by less than {self.stall:.1%} in {WINDOW} iterations"
        return f"the limit of {max_iterations} iterations" if iterations >= max_iterations else ""

    def accept(self, new: _Point) -> None:
        """Go to a point, and keep the pair (s, r) if curvature along it is positive."""
        s, r = new.x - self.point.x, new.gradient - self.point.gradient
        if s @ r > 1e-10 * np.linalg.norm(s) * np.linalg.norm(r):
            self.pairs.append((s, r))
        self.point = new
        self.losses.append(new.loss)

    def direction(self) -> Array:
        """−H g by the two-loop recursion; at first, a step of `FIRST` times ‖x‖ down the slope."""
        g = self.point.gradient
        if not self.pairs:
            return -g * (FIRST * np.linalg.norm(self.point.x) or FIRST) / np.linalg.norm(g)
        kept = list(self.pairs) if self.memory else []
        d, factors = -g, []
        for s, r in reversed(kept):
            factors.append((s @ d) / (s @ r))
            d = d - factors[-1] * r
        s, r = self.pairs[-1]
        d = d * ((s @ r) / (r @ r))
        for (s, r), factor in zip(kept, reversed(factors), strict=True):
            d = d + (factor - (r @ d) / (s @ r)) * s
        return d

    def advance(self) -> _Point | None:
        """The point of one line search, or None where no trial lowered the loss, or it stalls."""
        d, low, high, t, found = self.direction(), 0.0, np.inf, 1.0, None
        slope = self.point.gradient @ d
        if self.stalled:
            return None
        for trial in range(TRIALS):
            new = self.tried(self.point.x + t * d, (1 + NOISE) * self.point.loss)
            if new is None or not self.descends(new, new.gradient @ d, t, slope):
                high = t
            else:
                found, low = new, t
                if new.gradient @ d >= 0.9 * slope or trial >= TRIALS // 2:
                    break
            t = 2 * t if high == np.inf else (low + high) / 2 if low else high / 4
        return found

    def descends(self, new: _Point, slope: float, t: float, first: float) -> bool:
        """Whether the loss fell enough, or, equal to `NOISE`, the slope along d did."""
        enough = new.loss <= self.point.loss + 1e-4 * t * first
        return enough or abs(slope) <= 0.9 * abs(first)

    def tried(self, x: Array, below: float) -> _Point | None:
        """The point `x` if its loss is below a bound and its solves succeed."""
        try:
            return self.evaluated(x, self.point.states, below)
        except FAILURES:
            return None
