"""What "auto" decides: method, preconditioner and limits, and another method where these fail.

    reconstruction   filter banks: newton (tied) or newton_krylov, preconditioned, then anderson;
                     dense banks: anderson with the Cholesky factors, then these Newton methods
    adjoint state    cg (tied) or bicgstab, preconditioned and refined with products in float32
                     where these are near enough (`refimpl.engine.step`), then gmres

Not here: the methods (`state`, `adjoint`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy  # which loads `scipy.ndimage` when it is first used

from refimpl.engine import Step, TiedStep, is_known
from refimpl.paper.operators import Convolution, DenseBank, FilterBank, Identity, Mask
from refimpl.results import SolverResult
from refimpl.solvers import with_fallback

# Memory of Anderson's method where "auto" falls back on it.
FALLBACK = 10

# Iterations in one precision after which BiCGStab, whose residual need not fall, gives way; where
# it converged on the trained presets, it took at most half as many.
PATIENCE = 200

# Cycles of GMRES where "auto" falls back on it; one of 40 stagnates at an indefinite J of 11 × 11
# filters trained for inpainting.
LONG_CYCLE = 60


# Side of a hidden square from which the circulant model is chosen: between gaps of 9 pixels, where
# the diagonal took half to all of its time, and a block of 59 × 73, where it took 1.5 to 1.8 times.
WIDE = 21

# Filters from which the circulant model is chosen where K = I: products with 48 of 7 × 7 fell to
# 0.43, time to 0.55 (denoising 64 × 64 and 481 × 321); with 30 of 3 × 3 and 2 of 11 × 11, time
# to 0.9 and 1.3.
MANY = 40


class Attempt(NamedTuple):
    """A method by name, with the keyword arguments for its function."""

    method: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """What results and messages call it, "newton with jacobi"."""
        preconditioner = self.settings.get("preconditioner")
        return f"{self.method} with {preconditioner}" if preconditioner else self.method


def tried(attempts: Sequence[Attempt], run: Callable[[Attempt], SolverResult]) -> SolverResult:
    """`run` on the one attempt, or on the first and, for the images where it fails, the second."""
    runs = [partial(run, attempt) for attempt in attempts]
    return runs[0]() if len(runs) == 1 else with_fallback(attempts[0].name, *runs)


def forward_attempts(step: Step, given: dict[str, Any]) -> tuple[Attempt, Attempt]:
    """What "auto" tries for u = T(u), with the user's settings.

    The second takes of them `max_iterations` and, if it is one of Newton's, the preconditioner;
    `max_products` is for Newton's.
    """
    newton = "newton" if isinstance(step, TiedStep) else "newton_krylov"
    preconditioner = {"preconditioner": given.get("preconditioner") or choose_preconditioner(step)}
    limit = {name: given[name] for name in ("max_iterations",) if name in given}
    products = {name: given[name] for name in ("max_products",) if name in given}
    if is_known(step.problem.bank, (DenseBank,)):
        others = {name: value for name, value in given.items() if name not in products}
        first = Attempt("anderson", others | preconditioner)
        return first, Attempt(newton, limit | products | preconditioner)
    second = Attempt("anderson", {"memory": FALLBACK, **limit})
    return Attempt(newton, given | preconditioner), second


def adjoint_attempts(step: Step, given: dict[str, Any]) -> tuple[Attempt, Attempt]:
    """What "auto" tries for the adjoint state, with the user's settings.

    GMRES takes the diagonal in place of the circulant model, which can mislead where the mean of σ′
    says little of J. Of the settings, `restart` is for it alone.
    """
    chosen = given.get("preconditioner") or choose_preconditioner(step)
    safer = "jacobi" if chosen == "circulant" else chosen
    common = {name: value for name, value in given.items() if name != "restart"}
    first = {"refined": True, **common, "preconditioner": chosen}
    second = Attempt("gmres", {"restart": LONG_CYCLE, **given, "preconditioner": safer})
    if isinstance(step, TiedStep):
        return Attempt("cg", first), second
    limit = given.get("max_iterations", PATIENCE)
    longer = isinstance(limit, (int, np.integer)) and limit > PATIENCE
    return Attempt("bicgstab", first | {"max_iterations": PATIENCE if longer else limit}), second


def choose_preconditioner(step: Step) -> str | None:
    """The name of the one with which the Krylov methods need least time, or None.

    A dense bank is worth one factorisation, but not where K is the identity: there J ≥ λ I, and ten
    products without cost less. For a filter bank, a convolution K or a mask with a wide gap leaves
    J badly conditioned, and the circulant model saves more products than its transforms cost; with
    narrow gaps it does not, and with K = I where products are dear, which many filters make them.
    Of any other K the answer to one impulse says too little.
    """
    operator = step.problem.operator
    if is_known(step.problem.bank, (DenseBank,)):
        return None if is_known(operator, (Identity,)) else "cholesky"
    if not is_known(step.problem.bank, (FilterBank,)):
        return None
    many = step.problem.bank.coefficients_shape[0] >= MANY
    if (
        is_known(operator, (Convolution,))
        or (is_known(operator, (Mask,)) and has_wide_gap(operator))
        or (is_known(operator, (Identity,)) and many)
    ):
        return "circulant"
    return "jacobi" if is_known(operator, (Identity, Mask)) else None


def has_wide_gap(operator: Mask) -> bool:
    """Whether the mask hides a square of `WIDE` pixels, mirrored at borders, in any channel."""
    sides = (1,) * (operator.mask.ndim - 2) + (WIDE, WIDE)
    return not scipy.ndimage.maximum_filter(operator.mask, size=sides).all()
