"""Dot tests of every operator and the three-way test of every bank.

    ⟨K u, z⟩ = ⟨u, Kᵀ z⟩        ⟨A u, z⟩ = ⟨u, Aᵀ z⟩ = ⟨A, B*(u, z)⟩

The three maps of a filter bank are also held to their definitions in plain NumPy.
"""

from collections.abc import Iterator

from refimpl.checks import bilinear_test, dot_test
from refimpl.identities import registry
from refimpl.identities.compare import agree
from refimpl.operators import DenseBank, FilterBank
from refimpl.results import Check


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
    plain = uncompiled(bank)
    gradient = plain.adjoint_filters(u, z)
    yield agree(f"kernel of A u: {name}", bank.apply(A, u), plain.apply(A, u))
    yield agree(f"kernel of Aᵀ z: {name}", bank.adjoint(A, z), plain.adjoint(A, z))
    yield agree(f"kernel of B*(u, z): {name}", bank.adjoint_filters(u, z), gradient)


def uncompiled(bank: FilterBank) -> FilterBank:
    """The same bank, computed by the plain NumPy definitions."""
    F, _, h, w = bank.coefficients_shape
    return FilterBank(bank.image_shape, (F, h, w), bank.boundary, compiled=False)
