"""The definition with a linear map exchanged: filters, their boundary and transpose, K."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.paper.operators import BOUNDARIES
from refimpl.verification.builders import make_bank, make_operator
from refimpl.verification.crosscheck.anatomy import Linear, Parts
from refimpl.verification.crosscheck.suspects.evidence import Evidence
from refimpl.verification.crosscheck.suspects.mutants import Mutant
from refimpl.verification.crosscheck.suspects.wrong_banks import (
    InsideOnly,
    PaddedResponses,
    Rearranged,
    flip,
    flip_columns,
    flip_rows,
    reverse_channels,
    transpose,
)

REARRANGED = {
    "filters_flipped": flip,
    "filter_rows_flipped": flip_rows,
    "filter_columns_flipped": flip_columns,
    "channels_reversed": reverse_channels,
}


def analysed_by(parts: Parts, bank: Any) -> Parts:
    """Another bank for A, and its exact transpose."""
    return replace(parts, analysis=bank, analysis_adjoint=bank)


def synthesised_by(parts: Parts, bank: Any) -> Parts:
    """Another bank for C, and its exact transpose."""
    return replace(parts, synthesis=bank, synthesis_transpose=bank)


def filters(evidence: Evidence) -> Iterator[Mutant]:
    """A or C or both flipped or transposed, and C replaced by A."""
    p = evidence.parts
    if evidence.case.analysis == "convolution":
        for slug, change in REARRANGED.items():
            yield from _everywhere(slug, p, Rearranged(p.analysis, change))
        tall = make_bank(p.image_shape, transpose(p.A).shape, evidence.case.boundary)
        yield from _everywhere("filters_transposed", p, Rearranged(tall, transpose))
        h, w = p.A.shape[2:]
        for rings in range(1, max(h, w) // 2 + 1):
            bank = InsideOnly(p.analysis, min(rings, h // 2), min(rings, w // 2))
            yield from _everywhere(f"padding_short:{rings}", p, bank)
        whole = InsideOnly(p.analysis, h // 2, w // 2)
        yield from _everywhere("border_responses_dropped", p, whole)
    if not p.tied:
        yield Mutant("c_ignored", replace(p, C=p.A, tied=True))
        yield Mutant("c_ignored", replace(p, C=p.A))
        yield Mutant("a_ignored", replace(p, A=p.C))
        yield Mutant("a_c_exchanged", replace(p, A=p.C, C=p.A))


def _everywhere(slug: str, parts: Parts, bank: Any) -> Iterator[Mutant]:
    """A bank for A and C (and the norm), and for one of them."""
    both = synthesised_by(analysed_by(parts, bank), bank)
    yield Mutant(slug, both)
    if parts.normalizer is not None:
        yield Mutant(slug, replace(both, normalizer=replace(parts.normalizer, bank=bank)))
    yield Mutant(slug, analysed_by(parts, bank))
    # Where C is A, filters turned in Cᵀ alone are those of a transpose that was left out.
    left_out = parts.tied and slug == "filters_flipped"
    yield Mutant("synthesis_not_transposed" if left_out else slug, synthesised_by(parts, bank))


def boundaries(evidence: Evidence) -> Iterator[Mutant]:
    """The filters under another boundary: A and C, A alone, C alone, Aᵀ alone."""
    p, case = evidence.parts, evidence.case
    if case.analysis != "convolution":
        return
    for name in BOUNDARIES:
        if name != case.boundary:
            bank, slug = make_bank(p.image_shape, p.A.shape, name), f"analysis_boundary:{name}"
            both = synthesised_by(analysed_by(p, bank), bank)
            yield Mutant(slug, both)
            if p.normalizer is not None:
                yield Mutant(slug, replace(both, normalizer=replace(p.normalizer, bank=bank)))
            yield Mutant(slug, analysed_by(p, bank))
            yield Mutant(slug, replace(p, analysis=bank))
            yield Mutant(f"synthesis_boundary:{name}", synthesised_by(p, bank))
            yield Mutant(f"synthesis_boundary:{name}", replace(p, synthesis=bank))
            yield Mutant(f"analysis_adjoint_boundary:{name}", replace(p, analysis_adjoint=bank))


def filters_and_boundaries(evidence: Evidence) -> Iterator[Mutant]:
    """Filters turned, and under any boundary."""
    p = evidence.parts
    if evidence.case.analysis != "convolution":
        return
    for name in BOUNDARIES:
        for slug, change in REARRANGED.items():
            bank = Rearranged(make_bank(p.image_shape, p.A.shape, name), change)
            both = synthesised_by(analysed_by(p, bank), bank)
            yield Mutant(f"{slug}+analysis_boundary:{name}", both)


def blurs(evidence: Evidence) -> Iterator[Mutant]:
    """The kernel flipped, and under any boundary."""
    case, p = evidence.case, evidence.parts
    if case.operator != "convolution":
        return
    for name in BOUNDARIES:
        slug = f"kernel_flipped+operator_boundary:{name}"
        other = make_operator("convolution", p.image_shape, flip(case.arrays["kernel"]), name)
        yield Mutant(slug, operated_by(p, other))
        yield Mutant(slug, replace(p, operator=Linear.of(other)))


def transposes(evidence: Evidence) -> Iterator[Mutant]:
    """Cᵀ or Aᵀ as a correlation: filters not turned, or padding in place of its adjoint."""
    p, case = evidence.parts, evidence.case
    if case.analysis != "convolution":
        return
    own_bank = make_bank(p.image_shape, p.A.shape, case.boundary)
    for name in (case.boundary, *(x for x in BOUNDARIES if x != case.boundary)):
        for turned in (False, True):
            bank = PaddedResponses(own_bank, name, turned)
            own = "not_transposed" if not turned else "padding_adjoint_missing"
            other = own if not turned else f"boundary:{name}"
            end = own if name == case.boundary else other
            yield Mutant(f"synthesis_{end}", synthesised_by(p, bank))
            yield Mutant(f"synthesis_{end}", replace(p, synthesis=bank))
            ends = f"analysis_{end.replace('boundary:', 'adjoint_boundary:')}"
            yield Mutant(ends, replace(p, analysis_adjoint=bank))


def operated_by(parts: Parts, operator: Any) -> Parts:
    """Another K, and its exact transpose."""
    linear = Linear.of(operator)
    return replace(parts, operator=linear, operator_adjoint=linear.T)


def operators(evidence: Evidence) -> Iterator[Mutant]:
    """K changed, or its adjoint."""
    case, p = evidence.case, evidence.parts
    if case.operator == "convolution":
        yield from _kernels(evidence)
    elif case.operator == "mask":
        mask = 1 - np.asarray(case.arrays["mask"], float)
        if mask.any():
            other = make_operator("mask", p.image_shape, mask)
            yield Mutant("mask_complement", operated_by(p, other))
    elif case.operator == "matrix" and len(set(case.arrays["matrix"].shape)) == 1:
        matrix = np.ascontiguousarray(case.arrays["matrix"].T)
        other = make_operator("matrix", p.image_shape, matrix)
        yield Mutant("matrix_transposed", operated_by(p, other))
    if p.y.shape == evidence.case.arrays["u"].shape and case.operator != "identity":
        same = Linear(np.asarray, np.asarray)
        yield Mutant("operator_ignored", replace(p, operator=same, operator_adjoint=same))
        yield Mutant("operator_adjoint_ignored", replace(p, operator_adjoint=same))


class Shifted(NamedTuple):
    """A blur whose images are moved around, as an FFT does with a kernel that is not centred."""

    blur: Linear
    shift: tuple[int, int]

    def matvec(self, u: Array) -> Array:
        """K u, moved."""
        return np.roll(self.blur.forward(u), self.shift, (2, 3))

    def adjoint(self, z: Array) -> Array:
        """The transpose of `matvec`."""
        back = (-self.shift[0], -self.shift[1])
        return self.blur.transpose(np.roll(z, back, (2, 3)))


def shifts(size: tuple[int, int]) -> list[tuple[int, int]]:
    """By one pixel, and by half of a kernel, in any direction."""
    steps = [sorted({-(n // 2), -1, 0, 1, n // 2}) for n in size]
    return [(a, b) for a in steps[0] for b in steps[1] if (a, b) != (0, 0)]


def _kernels(evidence: Evidence) -> Iterator[Mutant]:
    """Blurs: the kernel flipped or transposed, the boundary, and what stands for Kᵀ."""
    case, p = evidence.case, evidence.parts
    kernel, own = case.arrays["kernel"], case.operator_boundary
    blur = partial(make_operator, "convolution", p.image_shape)
    flipped = blur(flip(kernel), own)
    yield Mutant("kernel_flipped", operated_by(p, flipped))
    yield Mutant("kernel_flipped", replace(p, operator=Linear.of(flipped)))
    other = blur(transpose(kernel), own)
    yield Mutant("kernel_transposed", operated_by(p, other))
    yield Mutant("kernel_adjoint_missing", replace(p, operator_adjoint=p.operator))
    padded = Linear.of(flipped)
    yield Mutant("operator_padding_adjoint_missing", replace(p, operator_adjoint=padded))
    for shift in shifts(kernel.shape):
        slug = f"kernel_not_centred:{shift[0]}, {shift[1]}"
        yield Mutant(slug, operated_by(p, Shifted(p.operator, shift)))
    for name in BOUNDARIES:
        if name != own:
            other, slug = blur(kernel, name), f"operator_boundary:{name}"
            yield Mutant(slug, operated_by(p, other))
            yield Mutant(slug, replace(p, operator=Linear.of(other)))
            yield Mutant(slug, replace(p, operator_adjoint=Linear.of(other).T))
