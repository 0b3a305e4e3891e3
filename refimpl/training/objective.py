"""The loss of a set of images as a function of the parameters, with its gradient.

    θ̂ ↦ ℓ(u*(θ̂)),   ℓ(u) = mean over all entries of (u − u†)²        E11
    dℓ/dθ̂ by implicit differentiation                                  E9, E10

Not here: how θ̂ is moved (`refimpl.training.loop`).
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from refimpl.arrays import Array, as_images, same_dtype
from refimpl.engine import Step
from refimpl.equilibrium.adjoint import KRYLOV
from refimpl.equilibrium.implicit import Hypergradient, hypergradient
from refimpl.equilibrium.state import reconstruct
from refimpl.paper.loss import squared_loss, squared_loss_gradient
from refimpl.paper.parameters import Parameters
from refimpl.results import BreakdownError, NotConvergedError, SolverResult
from refimpl.training.model import Model

# δ of adjoint systems that cannot be solved as they are.
DAMPING = 1e-3


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
    """

    loss: float
    state: SolverResult
    gradient: Parameters | None = None
    adjoint: SolverResult | None = None
    damped: bool = False


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
        """ℓ at θ̂ = `raw`, the reconstruction started at `u0`."""
        state = self._solve(self.model.step(raw, self.y), u0)
        return Evaluation(squared_loss(state.x, self.truth), state)

    def gradient(self, raw: Parameters, u0: Array | None = None) -> Evaluation:
        """ℓ and dℓ/dθ̂ at θ̂ = `raw`.

        Where the adjoint system cannot be solved, as with missing pixels that a steep potential
        leaves all but undetermined, it is damped, which leaves such pixels without much say.

        Raises
        ------
        NotConvergedError
            If a forward or an adjoint solve did not converge.
        """
        step = self.model.step(raw, self.y)
        state = self._solve(step, u0)
        try:
            result, damped = self._hypergradient(step, state), False
        except (NotConvergedError, BreakdownError):
            if not state.all_converged or self.solvers.adjoint not in ("auto", *KRYLOV):
                raise
            result, damped = self._hypergradient(step, state, damping=DAMPING), True
        loss, gradient = squared_loss(state.x, self.truth), result.gradient
        return Evaluation(loss, state, self.model.pull_back(raw, gradient), result.adjoint, damped)

    def subset(self, indices: Array) -> "Objective":
        """The objective over the images chosen; its loss averages over them alone."""
        return replace(self, truth=self.truth[indices], y=self.y[indices])

    def _hypergradient(self, step: Step, state: SolverResult, **options: float) -> Hypergradient:
        s = self.solvers
        return hypergradient(
            step, state, squared_loss_gradient(state.x, self.truth),
            method=s.adjoint, residual_tol=s.adjoint_tol, max_iterations=s.adjoint_max_iterations,
            preconditioner=s.preconditioner, options={**s.adjoint_options, **options},
        )

    def _solve(self, step: Step, u0: Array | None) -> SolverResult:
        s = self.solvers
        return reconstruct(
            step, u0, method=s.forward, residual_tol=s.forward_tol,
            max_iterations=s.forward_max_iterations, preconditioner=s.preconditioner,
            options=s.forward_options,
        )
