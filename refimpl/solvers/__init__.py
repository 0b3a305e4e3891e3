"""Solvers: each takes callables and arrays, and returns a `SolverResult`.

    picard, anderson             fixed points u = T(u)
    nesterov, lbfgs              minima of an energy, from its gradient
    newton, newton_krylov        minima and zeros, with second-order products
    cg, gmres, bicgstab          linear systems
    power_iteration, lanczos     extremal eigenvalues of symmetric operators
    singular_triplet             largest singular value with its vectors
    arnoldi, spectral_radius     leading eigenvalues of any operator
    with_fallback                one solver, and another for what it leaves

All but the eigenvalues act on batches (N, ...) of independent problems, each of which stops on
its own test. Not here: what the callables compute; no module here knows of images or fields.
"""

from refimpl.solvers._fallback import with_fallback
from refimpl.solvers.descent import lbfgs, nesterov
from refimpl.solvers.fixed_point import anderson, picard
from refimpl.solvers.krylov import bicgstab, cg, gmres
from refimpl.solvers.newton import newton, newton_krylov
from refimpl.solvers.spectral import (
    arnoldi,
    lanczos,
    power_iteration,
    singular_triplet,
    spectral_radius,
)

__all__ = [
    "anderson",
    "arnoldi",
    "bicgstab",
    "cg",
    "gmres",
    "lanczos",
    "lbfgs",
    "nesterov",
    "newton",
    "newton_krylov",
    "picard",
    "power_iteration",
    "singular_triplet",
    "spectral_radius",
    "with_fallback",
]
