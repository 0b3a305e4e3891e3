"""refimpl: learned regularisers for imaging inverse problems, with hand-derived gradients.

An image u is recovered from data y = K u + noise as the fixed point of

    T(u) = u − τ ( λ Kᵀ(K u − y) + γ Cᵀ( w ⊙ σ(A u + b) ) )

with C = A (bilevel learning: u minimises an energy) or C free (deep equilibrium model). The
README's equation index leads from every formula of the paper to its function.

Modules stand on floors, each importing only lower ones:

    0   threads
    1   kernels/, arrays, results, storage
    2   vectors
    3   solvers/, checks/, parts
    4   operators/, potentials, parameters, images/
    5   datafit, normalization, fields_of_experts/
    6   maps
    7   preconditioners, certificates, models, drafts
    8   equilibrium, implicit
    9   objective
    10  training/
    11  experiments/, cases/, identities/, backends/
    12  crosscheck/
    13  cli

References
----------
Riccio, Ehrhardt and Benning, Regularization of Inverse Problems: Deep Equilibrium Models versus
Bilevel Learning, arXiv:2206.13193v2.
"""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """`refimpl.crosscheck` without importing it first; the package is callable."""
    if name == "crosscheck":
        return import_module("refimpl.crosscheck")
    raise AttributeError(f"module 'refimpl' has no attribute {name!r}")
