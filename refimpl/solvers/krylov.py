"""Linear systems M x = b from products with M: conjugate gradients, GMRES, BiCGStab.

    cg         M symmetric positive definite, preconditioner P ≈ M⁻¹ likewise
    gmres      any M; minimises ‖b − M x‖ over a Krylov space of at most `restart` dimensions
    bicgstab   any M; short recurrences, no minimisation

Each works on a batch (N, ...) of systems and stops each on its own relative residual

    ‖b − M x‖ / ‖b‖ ≤ tol,

which is that of the x returned, computed with one more product; b = 0 gives x = 0. With
preconditioning from the right, the residual is that of the original system throughout. The result's
`error` estimates ‖x − x*‖ / ‖x‖ from what the method saw of the spectrum, mostly from above. It is
too small where b has next to no part along a weak direction; a `probe` looks for such directions.

Not here: least squares, and the systems themselves (`refimpl.equilibrium.adjoint`).
"""

from functools import partial

from refimpl.arrays import Array, count
from refimpl.results import SolverResult
from refimpl.solvers._bicgstab import bicgstab_sweep
from refimpl.solvers._conjugate import conjugate_sweep
from refimpl.solvers._gmres import gmres_sweep
from refimpl.solvers._systems import Matvec, solve


def cg(
    matvec: Matvec,
    b: Array,
    *,
    x0: Array | None = None,
    preconditioner: Matvec | None = None,
    tol: float = 1e-10,
    max_iterations: int = 1_000,
    model: Matvec | None = None,
    error_tol: float | None = None,
    probe: bool = False,
) -> SolverResult:
    """Solve M x = b by preconditioned conjugate gradients, M symmetric positive definite.

    Parameters
    ----------
    matvec : callable
        M, from a batch (N, ...) to a batch of the same shape and dtype.
    b : array (N, ...), float32 or float64
    x0 : array (N, ...), optional
        Start; left out: 0.
    preconditioner : callable, optional
        P ≈ M⁻¹, symmetric positive definite.
    tol : float
        ‖b − M x‖ / ‖b‖ to reach for each image, > 0; verified with the true residual.
    max_iterations : int
        Most iterations of an image, each one product.
    model : callable, optional
        v ↦ M v in float32. The recurrence then uses it, with P on float32 arrays, and `matvec` only
        measures residuals (iterative refinement); images that it does not help go on with
        `matvec`, and as many iterations, so P must take both precisions. `products` counts both.
    error_tol : float, optional
        The error ‖x − x*‖ / ‖x‖ to reach for each image; `tol` is then the first residual to try.
    probe : bool
        Solve also for random signs, to 1 / (4 √n) of their norm for n entries, which shows every
        weak direction of M with a probability near 1.

    Returns
    -------
    SolverResult

    Raises
    ------
    BreakdownError
        For a direction p with ⟨p, M p⟩ ≤ 0, for ⟨r, P r⟩ ≤ 0, when the first two directions show
        that M is not symmetric, and for NaN or infinity.
    """
    return solve(
        "cg", conjugate_sweep, matvec, b, x0=x0, preconditioner=preconditioner,
        tol=tol, max_iterations=max_iterations, model=model, error_tol=error_tol,
        probe=probe, remedy="use a preconditioner",
    )


def gmres(
    matvec: Matvec,
    b: Array,
    *,
    x0: Array | None = None,
    preconditioner: Matvec | None = None,
    restart: int = 20,
    tol: float = 1e-10,
    max_iterations: int = 1_000,
    model: Matvec | None = None,
    error_tol: float | None = None,
    probe: bool = False,
) -> SolverResult:
    """Solve M x = b by GMRES(restart), preconditioned from the right.

    Parameters
    ----------
    matvec, b, x0, preconditioner, tol, model, error_tol, probe
        As for `cg`; M and P need not be symmetric.
    restart : int
        Length of a cycle; that many batches are held in memory.
    max_iterations : int
        Most iterations of an image over all cycles, each one product.

    Returns
    -------
    SolverResult

    Raises
    ------
    BreakdownError
        When a residual becomes NaN or infinite.

    References
    ----------
    Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed. (2003), algorithm 9.5.
    """
    sweep = partial(gmres_sweep, restart=count(restart, "gmres: restart"))
    return solve(
        "gmres", sweep, matvec, b, x0=x0, preconditioner=preconditioner,
        tol=tol, max_iterations=max_iterations, model=model, error_tol=error_tol,
        probe=probe, remedy="raise restart or use a preconditioner",
    )


def bicgstab(
    matvec: Matvec,
    b: Array,
    *,
    x0: Array | None = None,
    preconditioner: Matvec | None = None,
    tol: float = 1e-10,
    max_iterations: int = 1_000,
    model: Matvec | None = None,
    error_tol: float | None = None,
    probe: bool = False,
) -> SolverResult:
    """Solve M x = b by BiCGStab, preconditioned from the right.

    Parameters
    ----------
    matvec, b, x0, preconditioner, tol, model, error_tol, probe
        As for `cg`; M and P need not be symmetric.
    max_iterations : int
        Most iterations of an image, each two products.

    Returns
    -------
    SolverResult
        Where the recurrence breaks down (a division by zero to working precision), the image
        restarts from its true residual and, if that gains nothing, ends unconverged.

    Raises
    ------
    BreakdownError
        When a residual becomes NaN or infinite.

    References
    ----------
    H. A. van der Vorst, Bi-CGSTAB, SIAM J. Sci. Stat. Comput. 13 (1992).
    """
    return solve(
        "bicgstab", bicgstab_sweep, matvec, b, x0=x0, preconditioner=preconditioner,
        tol=tol, max_iterations=max_iterations, model=model, error_tol=error_tol,
        probe=probe, remedy="use gmres or a preconditioner",
    )
