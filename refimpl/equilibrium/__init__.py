"""The equilibrium u* = T(u*), its adjoint state and the hypergradient.

    reconstruct     u* by any solver                                    E8
    solve_adjoint   q of (I − ∂_u T)ᵀ q = ∇ℓ(u*)                        E9
    hypergradient   dℓ/dθ = (∂_θ T)ᵀ q                                  E10
    certify         bounds on their errors                              E12

What "auto" decides is in `automatic`; `norms` has those of whole operators.
"""

from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.equilibrium.certificates import certify
from refimpl.equilibrium.implicit import hypergradient
from refimpl.equilibrium.state import reconstruct

__all__ = ["certify", "hypergradient", "reconstruct", "solve_adjoint"]
