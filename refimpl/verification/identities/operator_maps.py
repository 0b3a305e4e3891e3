"""Dot tests of every operator and the three-way test of every bank.

    ⟨K u, z⟩ = ⟨u, Kᵀ z⟩        ⟨A u, z⟩ = ⟨u, Aᵀ z⟩ = ⟨A, B*(u, z)⟩

The three maps of a filter bank are also held to their definitions in plain NumPy.
"""

from collections.abc import Iterator

from refimpl.engine import compiled
from refimpl.paper.operators import DenseBank
from refimpl.results import Check
from refimpl.verification.checks import bilinear_test, dot_test
from refimpl.verification.identities import registry
from refimpl.verification.identities.agreement import agree


def checks(seed: int) -> Iterator[Check]:
    """All identities of operators and banks."""
    for name, operator in registry.operators(seed):
        rng = registry.stream(seed, name)
        u = rng.standard_normal((registry.IMAGES, *operator.domain_shape))
        z = rng.standard_normal((registry.IMAGES, *operator.range_shape))
        yield dot_test(operator.matvec, operator.adjoint, u, z, name=f"dot test: {name}")
    for name, bank in registry.banks():
        yield from _bank_checks(name, bank, seed)


def _bank_checks(name: str, bank: registry.Bank, seed: int) -> Iterator[Check]:
    rng = registry.stream(seed, f"bilinear {name}")
    A = registry.coefficients(bank, rng)
    u = rng.standard_normal((registry.IMAGES, *bank.image_shape))
    z = rng.standard_normal((registry.IMAGES, *bank.response_shape))
    maps = bank.apply, bank.adjoint, bank.adjoint_filters
    yield bilinear_test(*maps, A, u, z, name=f"bilinear: {name}")
    if isinstance(bank, DenseBank):
        return
    twin = compiled(bank)
    gradient = twin.adjoint_filters(u, z)
    yield agree(f"kernel of A u: {name}", twin.apply(A, u), bank.apply(A, u))
    yield agree(f"kernel of Aᵀ z: {name}", twin.adjoint(A, z), bank.adjoint(A, z))
    yield agree(f"kernel of B*(u, z): {name}", gradient, bank.adjoint_filters(u, z))
