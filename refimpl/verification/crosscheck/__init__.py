"""Hold a backend against the reference: which outputs agree, and what is wrong with the others.

A backend is any object with some of these callables; what it lacks is not offered:

    operator(problem, u)  operator_adjoint(problem, z)              K u, Kᵀ z
    apply(problem, u)  energy(problem, u)  gradient(problem, u)     T(u), E(u), ∇E(u)
    jvp(problem, u, v)  hvp(problem, u, v)                          ∂_u T v, ∇²E(u) v
    vjp(problem, u, w)  params_vjp(problem, u, w)                   (∂_u T)ᵀ w, (∂_θ T)ᵀ w
    fixed_point(problem, *, tol)                                    ‖T(u) − u‖ ≤ tol ‖u‖, per image
    hypergradient(problem, *, tol)                                  dℓ/dθ, optionally "loss"

`problem` is a `Question`. Arrays are NumPy, or what the backend's `asarray` makes of them; results
are NumPy or anything with `__dlpack__`. `params_vjp` and `hypergradient` return mappings with
some of A, b, weights and (untied) C. Energies, gradients and Hessians are asked for where the
problem is tied. A stage that raises NotImplementedError does not offer that problem; it is left
out of the stage's count of cases. A backend may declare `only`, the settings that every problem
has, and `tol`, the relative residual that its solves are meant to reach.
"""

from refimpl.verification.crosscheck.compare import compare
from refimpl.verification.crosscheck.generation import random_case
from refimpl.verification.crosscheck.records import StageReport, Verdict
from refimpl.verification.crosscheck.report import Report, as_junit, as_plain, as_text
from refimpl.verification.crosscheck.runner import crosscheck
from refimpl.verification.crosscheck.shrinking import shrink
from refimpl.verification.crosscheck.testing import (
    assert_matches_reference,
    parametrize_with_cases,
)
from refimpl.verification.question import Question

__all__ = [
    "Question",
    "Report",
    "StageReport",
    "Verdict",
    "as_junit",
    "as_plain",
    "as_text",
    "assert_matches_reference",
    "compare",
    "crosscheck",
    "parametrize_with_cases",
    "random_case",
    "shrink",
]
