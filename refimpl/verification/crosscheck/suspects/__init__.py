"""What a wrong output looks like: causes whose prediction equals it.

`scaling`, `mutants`, `linear` and `gradients` predict the output of a program with one fault;
`signs` looks at the difference itself. A cause is listed if its prediction explains the value,
and a prediction that equals the reference explains nothing.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import chain

import numpy as np

from refimpl.arrays import Array
from refimpl.verification.crosscheck.reference import Reference
from refimpl.verification.crosscheck.suspects import gradients, linear_maps, mutants, scaling, signs
from refimpl.verification.crosscheck.suspects.evidence import Evidence, Known, Prediction
from refimpl.verification.crosscheck.suspects.explanations import EXPLANATIONS, explanation

__all__ = ["EXPLANATIONS", "explanation", "suspects"]

MUTANTS = (
    linear_maps.filters,
    linear_maps.boundaries,
    linear_maps.transposes,
    linear_maps.operators,
    mutants.exchanged_derivatives,
    mutants.bias_and_weights,
    mutants.normalisations,
    mutants.numbers,
    mutants.potentials,
    mutants.multiples,
)
TOGETHER = (linear_maps.filters_and_boundaries, linear_maps.blurs, mutants.frozen_norms)
ADJOINT = (
    gradients.adjoint_states,
    gradients.at_start,
    gradients.neumann,
    gradients.krylov,
    signs.unfinished_gradient,
    gradients.unrolled,
)


def suspects(
    reference: Reference,
    name: str,
    value: Array,
    known: Known | None = None,
    *,
    pairs: bool = False,
    only: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Every cause whose prediction equals `value`, the simplest first.

    Parameters
    ----------
    reference : Reference
        Of the case for which the backend gave `value`.
    name : str
        The output, as in `outputs.npz`.
    value : array
        What the backend gave.
    known : dict, optional
        Begun empty and handed to every call for outputs of the same case, it spares the solves of
        mutants after the first.
    pairs : bool
        Two mistakes at once, with a + between their names, and nothing else.
    only : collection of str, optional
        The causes to test.

    Returns
    -------
    tuple of str
        Slugs, keys of `EXPLANATIONS` up to the colon; empty where the value agrees with the
        reference, cannot be judged, has the wrong shape or is not finite.
    """
    if name not in reference.outputs or np.shape(value) != reference.outputs[name].shape:
        return ()
    if not np.isfinite(value).all():
        return ()
    evidence = Evidence(reference, name, value, known)
    if not evidence.disagrees:
        return ()
    with np.errstate(all="ignore"):
        if pairs:
            return tuple(dict.fromkeys(slugs_of(evidence, of_mutants(evidence, TOGETHER))))
        if only is not None:
            return tuple(dict.fromkeys(slugs_of(evidence, tested(evidence, only))))
        found = [slugs_of(evidence, simple(evidence))]
        # Mutants of a solve are dear, and less likely than what explains the numbers by itself.
        if not (found[0] and evidence.hypergradient):
            found.append(slugs_of(evidence, of_mutants(evidence)))
        found += [slugs_of(evidence, scaling.other(evidence)), list(signs_seen(evidence))]
    return tuple(dict.fromkeys(chain.from_iterable(found)))


def slugs_of(evidence: Evidence, predictions: Iterator[Prediction]) -> list[str]:
    """The causes of the predictions that explain the value."""
    return [p.slug for p in predictions if evidence.explains(p.value)]


def solvable(evidence: Evidence) -> bool:
    """Whether solves of the case can be predicted."""
    return evidence.dense and "fixed_point" in evidence.reference.outputs


def simple(evidence: Evidence) -> Iterator[Prediction]:
    """Predictions made from the right definition, the simplest first."""
    yield from scaling.scaled(evidence)
    yield from signs.rearranged(evidence)
    yield from signs.clipped(evidence)
    yield from gradients.parameter_pieces(evidence)
    if solvable(evidence) or not evidence.solved:
        yield from gradients.transposed(evidence)
    if solvable(evidence) and evidence.hypergradient:
        yield from chain.from_iterable(family(evidence) for family in ADJOINT)
    elif solvable(evidence) and evidence.solved:
        yield from signs.unfinished_state(evidence)
    yield from signs.other_outputs(evidence)


def tested(evidence: Evidence, only: Collection[str]) -> Iterator[Prediction]:
    """Every prediction of some causes."""
    yield from (p for p in simple(evidence) if p.slug in only)
    yield from of_mutants(evidence, (*MUTANTS, *TOGETHER), only)
    yield from (p for p in scaling.other(evidence) if p.slug in only)


def of_mutants(
    evidence: Evidence,
    families: tuple[Callable, ...] = MUTANTS,
    only: Collection[str] | None = None,
) -> Iterator[Prediction]:
    """Predictions of the definition with one part exchanged, or two."""
    everyone = chain.from_iterable(family(evidence) for family in families)
    for number, mutant in enumerate(everyone):
        if only is not None and mutant.slug not in only:
            continue
        if solvable(evidence) and evidence.hypergradient:
            yield Prediction(mutant.slug, evidence.predicted_parameters(number, mutant.parts))
        value = evidence.predicted(number, mutant.parts)
        if value is not None:
            yield Prediction(mutant.slug, value)


def signs_seen(evidence: Evidence) -> Iterator[str]:
    """Causes told from the difference itself, after all those that predict it."""
    state = evidence.name == "fixed_point"
    tests: tuple[tuple[str, bool, Callable[[Evidence], bool]], ...] = (
        ("hidden_precision", True, signs.hidden_precision),
        ("too_few_forward_iterations", state, signs.unfinished),
        ("too_few_adjoint_iterations", evidence.hypergradient, signs.small),
        ("too_few_forward_iterations", evidence.name == "loss", signs.small),
        ("border", True, signs.border),
        ("some_images", True, signs.some_images),
    )
    yield from (slug for slug, applies, test in tests if applies and test(evidence))
