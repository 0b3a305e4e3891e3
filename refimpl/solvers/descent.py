"""Minimisers of an energy from its gradient: Nesterov's method and L-BFGS.

Only the tied model has an energy E. Both stop each image by the residual of the gradient step
T(u) = u − τ ∇E(u), which is that of the fixed-point solvers, so that one tolerance serves all:

    r(u) = ‖T(u) − u‖ / max(‖u‖, ‖u0‖) = τ ‖∇E(u)‖ / max(‖u‖, ‖u0‖)        (0/0 = 0)

Not here: methods with Hessian products (`refimpl.solvers.newton`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy  # which imports scipy.optimize when it is used

from refimpl.arrays import Array, count, per_image, positive
from refimpl.kernels.vectors import dot, norm
from refimpl.results import BreakdownError, SolverResult
from refimpl.solvers._progress import Callback, Progress, as_batch, like, ratio

Objective = Callable[[Array], tuple[float, Array]]

# What an L-BFGS line search that fails means, short of a wrong gradient.
LOST_DIGITS = (
    "the line search finds no lower energy: differences of energies are lost to rounding; "
    "raise tol, or use newton, which then compares gradients"
)


@np.errstate(over="ignore", invalid="ignore")
def nesterov(
    gradient: Callable[[Array], Array],
    u0: Array,
    *,
    step: float,
    tol: float = 1e-6,
    max_iterations: int = 10_000,
    restart: bool = True,
    callback: Callback | None = None,
) -> SolverResult:
    """Nesterov's accelerated gradient method with adaptive restart.

        u⁺ = v − τ ∇E(v),   t⁺ = (1 + √(1 + 4t²)) / 2,   v⁺ = u⁺ + (t − 1)/t⁺ (u⁺ − u)

    With `restart`, t = 1 for an image whose step turned uphill, ⟨∇E(v), u⁺ − u⟩ > 0.

    Parameters
    ----------
    gradient : callable
        ∇E, from a batch (N, ...) to a batch of the same shape and dtype.
    u0 : array (N, ...), float32 or float64
    step : float
        τ, at most 1 / L for a gradient with Lipschitz constant L.
    tol : float
        Relative residual r to reach for each image, measured at v, which is what is returned.
    max_iterations : int
        Most updates of an image; the gradient is evaluated once more than that.
    restart : bool
    callback : callable (iteration, v, residuals), optional

    Returns
    -------
    SolverResult

    Raises
    ------
    BreakdownError
        When a gradient becomes NaN or infinite.

    References
    ----------
    B. O'Donoghue and E. Candès, Adaptive restart for accelerated gradient schemes, Found.
    Comput. Math. 15 (2015): the gradient scheme.
    """
    u = v = as_batch(u0, "nesterov: u0")
    tau = u.dtype.type(positive(step, "nesterov: step"))
    progress = Progress(
        "nesterov", u, tol, max_iterations, remedy="reduce step", callback=callback
    )
    t = np.ones(len(u), dtype=u.dtype)
    while True:
        g = like(gradient(v), v, "nesterov: gradient")
        if not progress.record(progress.relative_residual(tau * g, v), v):
            return progress.result(v, evaluations=progress.rows)
        previous, u = u, v - tau * g
        if restart:
            t = np.where(dot(g, u - previous) > 0, 1, t).astype(u.dtype)
        t, momentum = _next_momentum(t)
        v = progress.keep(u + per_image(momentum, u) * (u - previous), v)


def _next_momentum(t: Array) -> tuple[Array, Array]:
    """t⁺ = (1 + √(1 + 4t²)) / 2 and the weight (t − 1) / t⁺."""
    following = (1 + np.sqrt(1 + 4 * t * t)) / 2
    return following, (t - 1) / following


class _Monitor:
    """One image's objective as SciPy calls it, with the residual of every iterate.

    SciPy reports an iterate right after evaluating there, so the last gradient is the iterate's.
    """

    def __init__(self, objective: Objective, image: int, u0: Array, step: float, tol: float):
        self.objective, self.image, self.u, self.g = objective, image, u0, None
        self.step, self.tol, self.start = step, tol, norm(u0)
        self.evaluations = 0
        self.history: list[Array] = []

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Energy and gradient at a flat float64 vector."""
        self.u = x.reshape(self.u.shape).astype(self.u.dtype)
        energy, g = self.objective(self.u)
        self.g = like(g, self.u, "lbfgs: objective")
        self.evaluations += 1
        if not (np.isfinite(energy) and np.isfinite(g).all()):
            raise BreakdownError(
                f"lbfgs: iteration {len(self.history)}: energy of {{image}} is {energy}, largest "
                f"gradient entry {np.abs(g).max()}, expected finite numbers; start nearer to the "
                "minimum",
                self.image,
            )
        return float(energy), g.ravel().astype(np.float64)

    def record(self) -> bool:
        """Enter r(u) into the history; whether it is at most tol."""
        scale = np.maximum(norm(self.u), self.start)
        self.history.append(ratio(self.step * norm(self.g), scale)[0])
        return bool(self.history[-1] <= self.tol)

    def callback(self, intermediate_result: "scipy.optimize.OptimizeResult") -> None:
        """Stop SciPy's iteration by our residual."""
        if not np.array_equal(intermediate_result.x.astype(self.u.dtype), self.u.ravel()):
            self(intermediate_result.x)
        if self.record():
            raise StopIteration


def lbfgs(
    objectives: Sequence[Objective],
    u0: Array,
    *,
    step: float,
    tol: float = 1e-6,
    max_iterations: int = 1_000,
    memory: int = 10,
) -> SolverResult:
    """Minimise one energy per image by SciPy's L-BFGS-B without bounds.

    Parameters
    ----------
    objectives : sequence of N callables
        The n-th takes image n as an array (1, ...) and returns its energy and gradient (1, ...).
    u0 : array (N, ...), float32 or float64
        Start. SciPy works in float64 between evaluations; x has the dtype of `u0`.
    step : float
        τ in the residual r; the iterates do not depend on it.
    tol : float, or array (N,)
        Relative residual r to reach for each image. SciPy's own tests are switched off.
    max_iterations : int
    memory : int
        Number of correction pairs.

    Returns
    -------
    SolverResult
        `evaluations` is the largest number of energies with gradients that one image took, as
        if the images had run as one batch. SciPy's inner products are those of the BLAS, so the
        last digits of large images depend on its number of threads.

    Raises
    ------
    BreakdownError
        When an energy or gradient is NaN or infinite.
    """
    u = as_batch(u0, "lbfgs: u0")
    if len(objectives) != len(u):
        raise ValueError(
            f"lbfgs: given {len(objectives)} objectives for {len(u)} images; pass one per image"
        )
    tau = positive(step, "lbfgs: step")
    tol = Progress("lbfgs", u, tol, max_iterations, remedy=LOST_DIGITS).tol
    options = {"maxcor": count(memory, "lbfgs: memory"), "ftol": 0.0, "gtol": 0.0}
    options["maxiter"] = count(max_iterations, "lbfgs: max_iterations")
    # Each of SciPy's line searches takes at most 20 evaluations, so this limit never binds.
    options["maxfun"] = 21 * (options["maxiter"] + 1)
    monitors, images = [], []
    for n, objective in enumerate(objectives):
        monitors.append(_Monitor(objective, n, u[n : n + 1], tau, tol[n]))
        images.append(_minimize(monitors[n], u[n : n + 1], options))
    return _assemble(np.concatenate(images), monitors, tol, max_iterations)


def _minimize(monitor: _Monitor, u0: Array, options: dict) -> Array:
    """The image that L-BFGS-B ends at, of the dtype of `u0`."""
    flat = u0.ravel().astype(np.float64)
    start = monitor(flat)
    if monitor.record():
        return u0
    # SciPy evaluates at the start again; it is given what is known already.
    first = iter([start])
    found = scipy.optimize.minimize(
        lambda x: next(first, None) or monitor(x), flat,
        jac=True, method="L-BFGS-B", callback=monitor.callback, options=options,
    )
    return found.x.reshape(u0.shape).astype(u0.dtype)


def _assemble(x: Array, monitors: list[_Monitor], tol: Array, max_iterations: int) -> SolverResult:
    """One result from all histories, the shorter ones continued by their last value."""
    progress = Progress("lbfgs", x, tol, max_iterations, remedy=LOST_DIGITS)
    lengths = [len(monitor.history) for monitor in monitors]
    for k in range(max(lengths)):
        progress.pause(np.array(lengths) <= k)
        row = [monitor.history[min(k, len(monitor.history) - 1)] for monitor in monitors]
        progress.record(np.array(row, dtype=x.dtype))
    ended = (progress.residuals > tol) & (progress.iterations < max_iterations)
    progress.stall(ended)
    return progress.result(x, evaluations=max(monitor.evaluations for monitor in monitors))
