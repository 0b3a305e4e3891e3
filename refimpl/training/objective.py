"""The loss of a set of images as a function of the parameters, with its gradient.

    θ̂ ↦ ℓ(u*(θ̂)),   ℓ(u) = mean over all entries of (u − u†)²        E11
    dℓ/dθ̂ by implicit differentiation                                  E9, E10

Not here: how θ̂ is moved (`refimpl.training.loop`).
"""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array, as_images, per_image, same_dtype
from refimpl.engine import Step, StepLinearization
from refimpl.equilibrium.adjoint import KRYLOV, solve_adjoint
from refimpl.equilibrium.state import reconstruct
from refimpl.paper.loss import squared_loss, squared_loss_gradient
from refimpl.paper.parameters import Parameters
from refimpl.results import BreakdownError, NotConvergedError, SolverResult
from refimpl.training.model import Model

# What a solve raises where there is no loss or no gradient.
FAILURES = (NotConvergedError, BreakdownError)
# δ of adjoint systems that cannot be solved as they are.
DAMPING = 1e-3
# Methods that are or have one of Newton's, which count products.
NEWTON = ("auto", "newton", "newton_krylov")


@dataclass(frozen=True)
class SolverSettings:
    """How fixed points and adjoint states are found.

    Attributes
    ----------
    forward, adjoint : str
        Methods of `refimpl.equilibrium.state` and `refimpl.equilibrium.adjoint`; "auto" chooses by
        the model.
    forward_tol, adjoint_tol : float
        Relative residuals.
    forward_max_iterations, adjoint_max_iterations : int or None
        Left out: the methods' own.
    preconditioner : str or None
        Of both solves.
    forward_options, adjoint_options : dict
        Further options of the methods, for example {"memory": 10}.
    without_tau : bool
        Whether `forward_tol` is of ‖G(u)‖ / (λ ‖u‖) in place of τ ‖G(u)‖ / ‖u‖: a safe τ falls as
        filters grow, and with it what a fixed residual proves.
    leave_out : bool
        Whether images whose solves do not converge are left out of the gradient, or are an error.
    """

    forward: str = "auto"
    adjoint: str = "auto"
    forward_tol: float = 1e-8
    adjoint_tol: float = 1e-8
    forward_max_iterations: int | None = None
    adjoint_max_iterations: int | None = None
    preconditioner: str | None = None
    forward_options: dict[str, Any] = field(default_factory=dict)
    adjoint_options: dict[str, Any] = field(default_factory=dict)
    without_tau: bool = False
    leave_out: bool = False


class Evaluation(NamedTuple):
    """Loss at one θ̂, with the gradient when it was asked for.

    Attributes
    ----------
    loss : float
        E11 at the state.
    state : SolverResult
        The reconstruction.
    gradient : Parameters or None
        dℓ/dθ̂.
    adjoint : SolverResult or None
        The adjoint state.
    damped : bool
        Whether the adjoint system had to be damped.
    used, left_out : int
        Images that loss and gradient are the mean of, and those whose solves failed.
    """

    loss: float
    state: SolverResult
    gradient: Parameters | None = None
    adjoint: SolverResult | None = None
    damped: bool = False
    used: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Objective:
    """ℓ over a fixed set of images.

    Attributes
    ----------
    model : Model
    truth : array (N, C, H, W)
        u†.
    y : array (N, *K.range_shape)
        Data of the same images, E1.
    solvers : SolverSettings
    """

    model: Model
    truth: Array
    y: Array
    solvers: SolverSettings = SolverSettings()

    def __post_init__(self):
        as_images(self.truth, "truth", self.model.bank.image_shape)
        same_dtype(truth=self.truth, y=self.y)
        if len(self.truth) != len(self.y):
            raise ValueError(
                f"truth: {len(self.truth)} images, but y holds data of {len(self.y)}; pair them"
            )

    def loss(self, raw: Parameters, u0: Array | None = None) -> Evaluation:
        """ℓ at θ̂ = `raw`, the reconstruction started at `u0`; left out: at the data."""
        state = self._solve(self.model.step(raw, self.y), u0)
        return Evaluation(squared_loss(state.x, self.truth), state)

    def nearby(self, raw: Parameters) -> Array | None:
        """Where an untied solve had better begin: at the minimiser of the energy with (A + C)/2.

        Newton's method on an energy needs no good start. From the data of a potential that is not
        convex, that on G(u) = 0 took a hundred times as many products as from there.
        """
        if raw.tied:
            return None
        with suppress(*FAILURES):
            return self.loss(raw.symmetrised()).state.x

    def settled(self, raw: Parameters, u0: Array | None = None) -> Evaluation | None:
        """`loss`, from `nearby` if `u0` is left out; None where some image has no fixed point."""
        try:
            found = self.loss(raw, self.nearby(raw) if u0 is None else u0)
        except FAILURES:
            return None
        return found if found.state.all_converged else None

    def gradient(self, raw: Parameters, u0: Array | None = None) -> Evaluation:
        """ℓ and dℓ/dθ̂ at θ̂ = `raw`.

        Where the adjoint system cannot be solved, as with missing pixels that a steep potential
        leaves all but undetermined, it is damped, which leaves such pixels without much say.

        Raises
        ------
        NotConvergedError
            If a forward or an adjoint solve did not converge; with `leave_out`, if none did.

        Notes
        -----
        dℓ/dθ is linear in the adjoint state, one term for each image: what is left out has q = 0.
        An image without a state is linearised at the truth, where ∇ℓ = 0.
        """
        step = self.model.step(raw, self.y)
        state = self._solve(step, u0)
        self._require(state, "the forward solve")
        u = np.where(per_image(state.converged, self.truth), state.x, self.truth)
        slope, lin = squared_loss_gradient(u, self.truth), step.linearize(u)
        adjoint, damped = self._adjoint(lin, slope)
        self._require(adjoint, "the adjoint solve")
        used = state.converged & adjoint.converged
        if not used.any():
            raise NotConvergedError("train: no image of the batch has a gradient")
        q = np.where(per_image(used, u), adjoint.x, 0) * float(len(used) / used.sum())
        loss = squared_loss(u[used], self.truth[used])
        gradient = self.model.pull_back(raw, lin.params_vjp(q))
        counts = int(used.sum()), int(np.sum(~used))
        return Evaluation(loss, state, gradient, adjoint, damped, *counts)

    def subset(self, indices: Array) -> "Objective":
        """The objective over the images chosen; its loss averages over them alone."""
        return replace(self, truth=self.truth[indices], y=self.y[indices])

    def limited(self, limits: dict[str, int]) -> "Objective":
        """The objective whose solves take at most what `limits` of `refimpl.training.curve` say."""
        s, options = self.solvers, dict(self.solvers.forward_options)
        if s.forward in NEWTON and "forward_products" in limits:
            options["max_products"] = limits["forward_products"]
        return replace(self, solvers=replace(
            s, forward_options=options,
            forward_max_iterations=limits.get("forward_iterations", s.forward_max_iterations),
            adjoint_max_iterations=limits.get("adjoint_iterations", s.adjoint_max_iterations),
        ))  # fmt: skip

    def _enough(self, result: SolverResult) -> bool:
        return bool(result.converged.any()) if self.solvers.leave_out else result.all_converged

    def _require(self, result: SolverResult, what: str) -> None:
        if not self._enough(result):
            raise NotConvergedError(f"train: {what} failed: {result.message}")

    def _adjoint(self, lin: StepLinearization, slope: Array) -> tuple[SolverResult, bool]:
        """The adjoint state, damped if the system could not be solved as it is."""
        if self.solvers.adjoint not in ("auto", *KRYLOV):
            return self._solve_adjoint(lin, slope), False
        with suppress(BreakdownError):
            found = self._solve_adjoint(lin, slope)
            if self._enough(found):
                return found, False
        return self._solve_adjoint(lin, slope, damping=DAMPING), True

    def _solve_adjoint(self, lin: StepLinearization, slope: Array, **options: float):
        s = self.solvers
        return solve_adjoint(
            lin, slope, method=s.adjoint, residual_tol=s.adjoint_tol,
            max_iterations=s.adjoint_max_iterations, preconditioner=s.preconditioner,
            options={**s.adjoint_options, **options},
        )

    def _solve(self, step: Step, u0: Array | None) -> SolverResult:
        s = self.solvers
        tol = s.forward_tol * (step.tau * self.model.lam if s.without_tau else 1)
        return reconstruct(
            step, u0, method=s.forward, residual_tol=tol,
            max_iterations=s.forward_max_iterations, preconditioner=s.preconditioner,
            options=s.forward_options,
        )
