"""Fixed points u = T(u) from evaluations of T alone: plain and Anderson-accelerated iteration.

    picard      u ← T(u)
    anderson    u ← Σ_i α_i (u_i + β f_i),  f_i = T(u_i) − u_i,  α = argmin ‖Σ_i α_i f_i‖, Σ α_i = 1

Both stop each image when its relative residual

    r(u) = ‖T(u) − u‖ / max(‖u‖, ‖u0‖)        (0/0 = 0)

is at most `tol`, and return the u at which r was measured. Each iteration evaluates T once. For
a contraction with factor q < 1 the error obeys ‖u − u*‖ ≤ ‖T(u) − u‖ / (1 − q), so it exceeds
the residual by orders of magnitude when q is near 1.

Not here: what T is (`refimpl.engine.step`).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from refimpl.arrays import Array, count, per_image, positive, shown
from refimpl.kernels.vectors import dot
from refimpl.results import SolverResult
from refimpl.solvers._progress import Callback, Progress, as_batch, like

Map = Callable[[Array], Array]


@np.errstate(over="ignore", invalid="ignore")
def picard(
    apply: Map,
    u0: Array,
    *,
    tol: float = 1e-6,
    max_iterations: int = 10_000,
    reference: Array | None = None,
    callback: Callback | None = None,
) -> SolverResult:
    """Iterate u ← T(u) until ‖T(u) − u‖ ≤ tol · max(‖u‖, ‖u0‖).

    Parameters
    ----------
    apply : callable
        T, from a batch (N, ...) to a batch of the same shape and dtype.
    u0 : array (N, ...), float32 or float64
        Start.
    tol : float
        Relative residual to reach for each image, > 0.
    max_iterations : int
        Most updates of an image; T is evaluated once more than that.
    reference : array (N,), optional
        Norms that replace max(‖u‖, ‖u0‖) in the residual.
    callback : callable (iteration, u, residuals), optional
        Called after every evaluation, the start included.

    Returns
    -------
    SolverResult
        Its residuals are r(u) as defined in the module's docstring, at the `x` returned.

    Raises
    ------
    BreakdownError
        When a residual becomes NaN or infinite.
    """
    u = as_batch(u0, "picard: u0")
    progress = Progress(
        "picard", u, tol, max_iterations,
        remedy="reduce the step size", callback=callback, reference=reference,
    )
    while True:
        value = like(apply(u), u, "picard: apply")
        if not progress.record(progress.relative_residual(value - u, u), u):
            return progress.result(u, evaluations=progress.rows)
        u = progress.keep(value, u)


class _Memory(NamedTuple):
    """The last iterates u_i and residuals f_i, oldest first, with the Gram matrix ⟨f_i, f_j⟩."""

    iterates: tuple[Array, ...]
    residuals: tuple[Array, ...]
    gram: Array

    def insert(self, u: Array, f: Array, size: int) -> "_Memory":
        """Append u and f; drop the oldest pair beyond `size`."""
        residuals = (*self.residuals, f)[-size:]
        k = len(residuals)
        # In float64: the ridge is below float32's rounding.
        row = np.stack([dot(f, g, dtype=np.float64) for g in residuals], axis=1)
        gram = np.empty((len(f), k, k))
        kept = self.gram.shape[1] - (k - 1)
        gram[:, :-1, :-1] = self.gram[:, kept:, kept:]
        gram[:, -1, :] = gram[:, :, -1] = row
        return _Memory((*self.iterates, u)[-size:], residuals, gram)


@np.errstate(over="ignore", invalid="ignore")
def anderson(
    apply: Map,
    u0: Array,
    *,
    memory: int = 5,
    ridge: float = 1e-10,
    ridge_scale: Literal["gram", "absolute"] = "gram",
    mixing: float = 1.0,
    preconditioner: Map | None = None,
    tol: float = 1e-6,
    max_iterations: int = 1_000,
    reference: Array | None = None,
    callback: Callback | None = None,
) -> SolverResult:
    """Anderson acceleration (type II) of u ← T(u).

    With f_i = T(u_i) − u_i and G_ij = ⟨f_i, f_j⟩ over the last m ≤ `memory` iterates,

        u ← Σ_i α_i (u_i + β f_i),    α = a / Σ_i a_i,    (G + δ I) a = 1,

    where δ = ridge ("absolute") or δ = ridge · trace(G) / m ("gram").

    Parameters
    ----------
    apply, u0, tol, reference, callback
        As for `picard`.
    memory : int
        m, the number of iterates combined; 1 is the plain iteration.
    ridge : float
        Regularisation, > 0.
    ridge_scale : "gram" or "absolute"
        "absolute" is the bordered system of the deep-equilibrium tutorial, which the authors
        use: as G falls below the ridge, α tends to 1/m and the acceleration is lost.
        "gram" is invariant under scaling of u.
    mixing : float
        β > 0.
    preconditioner : callable, optional
        P ≈ (I − ∂T)⁻¹, linear. Every f_i is then P (T(u_i) − u_i): the iteration accelerated is a
        Newton method with a fixed matrix. The residual remains that of u = T(u).
    max_iterations : int
        Most updates of an image.

    Returns
    -------
    SolverResult
        As for `picard`. An image whose small system is singular takes a plain step instead.

    References
    ----------
    H. F. Walker and P. Ni, Anderson acceleration for fixed-point iterations, SIAM J. Numer.
    Anal. 49 (2011). Z. Kolter, D. Duvenaud, M. Johnson, Deep implicit layers (NeurIPS 2020).
    """
    u = as_batch(u0, "anderson: u0")
    memory, ridge = count(memory, "anderson: memory"), positive(ridge, "anderson: ridge")
    mixing = u.dtype.type(positive(mixing, "anderson: mixing"))
    if ridge_scale not in ("gram", "absolute"):
        given = shown(ridge_scale)
        raise ValueError(f"anderson: ridge_scale is {given}, expected 'gram' or 'absolute'")
    relative = ridge_scale == "gram"
    progress = Progress(
        "anderson", u, tol, max_iterations,
        remedy="reduce the step size, or change memory or ridge",
        callback=callback, reference=reference,
    )
    past = _Memory((), (), np.empty((len(u), 0, 0)))
    while True:
        f = like(apply(u), u, "anderson: apply") - u
        if not progress.record(progress.relative_residual(f, u), u):
            return progress.result(u, evaluations=progress.rows)
        if preconditioner is not None:
            f = like(preconditioner(f), u, "anderson: preconditioner")
        past = past.insert(u, f, memory)
        u = progress.keep(_combine(past, mixing_weights(past.gram, ridge, relative), mixing), u)


def mixing_weights(gram: Array, ridge: float, relative: bool) -> Array:
    """α = a / Σ a with (G + δ I) a = 1, shape (N, m); the newest iterate alone if G is singular.

    The matrix is scaled to unit diagonal before its eigenvalues are taken: residuals of very
    different sizes are then no cause of ill-conditioning.
    """
    size = gram.shape[1]
    unusable = ~np.isfinite(gram).all(axis=(1, 2)) | (np.einsum("nii->ni", gram) <= 0).any(axis=1)
    identity = np.eye(size)
    gram = np.where(unusable[:, None, None], identity, gram)
    shift = ridge * (np.trace(gram, axis1=1, axis2=2) / size if relative else np.ones(len(gram)))
    matrix = gram + shift[:, None, None] * identity
    scale = 1 / np.sqrt(np.einsum("nii->ni", matrix))
    matrix = matrix * scale[:, :, None] * scale[:, None, :]
    unusable |= ~np.isfinite(matrix).all(axis=(1, 2))
    values, vectors = np.linalg.eigh(np.where(unusable[:, None, None], identity, matrix))
    singular = unusable | (values[:, 0] <= size * np.finfo(float).eps)
    safe = np.where(singular[:, None], 1, values)
    projected = (vectors.swapaxes(1, 2) @ scale[:, :, None]) / safe[:, :, None]
    a = scale * (vectors @ projected)[:, :, 0]
    return np.where(singular[:, None], identity[-1], a / a.sum(axis=1, keepdims=True))


def _combine(past: _Memory, alpha: Array, mixing: float) -> Array:
    """Σ_i α_i (u_i + β f_i), as differences from the newest so that Σ α_i = 1 holds exactly."""
    newest_u, newest_f = past.iterates[-1], past.residuals[-1]
    total = newest_u + mixing * newest_f
    older = zip(alpha.T[:-1], past.iterates[:-1], past.residuals[:-1], strict=True)
    for weight, u, f in older:
        weight = per_image(weight.astype(u.dtype), u)
        total += weight * ((u - newest_u) + mixing * (f - newest_f))
    return total
