"""The identities of the reference: what must hold for every operator, potential, field and map.

`registry` lists the objects, one builder for each family, and the modules beside it evaluate the
identities on them:

    operator_maps  ⟨K u, z⟩ = ⟨u, Kᵀ z⟩ and the three sides of the bilinear map of a bank
    scalar         φ, σ, σ′ against each other, their bounds, and the compiled potentials
    fields         E2 to E7 against complex steps, Taylor orders and the compiled kernels
    steps          E8 likewise
    adjoints       E9 by every method; E10 against dense matrices and against unrolling
    certified      E12: true errors below their certificates
    normalized     the exact derivative of A = s Â / ‖Â‖, and the frozen one that is not

A class that is not in the registry has no checks, and a test refuses it.
"""

from collections.abc import Iterator

from refimpl.results import Check
from refimpl.verification.identities import (
    adjoints,
    certified,
    fields,
    normalized,
    operator_maps,
    scalar,
    steps,
)

FAMILIES = (operator_maps, scalar, fields, steps, adjoints, certified, normalized)


def all_checks(seed: int = 0) -> Iterator[Check]:
    """Evaluate every identity on every object of the registry.

    Parameters
    ----------
    seed : int
        Of the random arrays. Each object has a stream of its own, so that its numbers do not
        depend on what else is registered.

    Yields
    ------
    Check
        With a name that says which identity, of what.
    """
    for family in FAMILIES:
        yield from family.checks(seed)
