"""Solvers: each takes callables and arrays, and returns a `SolverResult`.

    picard, anderson             fixed points u = T(u)
    nesterov, lbfgs              minima of an energy, from its gradient
    newton, newton_krylov        minima and zeros, with second-order products
    cg, gmres, bicgstab          linear systems
    lanczos                      largest eigenvalue of symmetric operators
    singular_triplet             largest singular value with its vectors
    with_fallback, continued     one solver, and another for what it leaves

All but the eigenvalues act on batches (N, ...) of independent problems, each of which stops on
its own test; messages call a problem an image. Not here: what the callables compute.
"""

from refimpl.solvers._fallback import continued, with_fallback
from refimpl.solvers._progress import ratio
from refimpl.solvers._systems import random_probe
from refimpl.solvers.descent import lbfgs, nesterov
from refimpl.solvers.fixed_point import anderson, picard
from refimpl.solvers.krylov import bicgstab, cg, gmres
from refimpl.solvers.newton import newton, newton_krylov
from refimpl.solvers.spectral import lanczos, singular_triplet

__all__ = [
    "anderson",
    "bicgstab",
    "cg",
    "continued",
    "gmres",
    "lanczos",
    "lbfgs",
    "nesterov",
    "newton",
    "newton_krylov",
    "picard",
    "random_probe",
    "ratio",
    "singular_triplet",
    "with_fallback",
]
