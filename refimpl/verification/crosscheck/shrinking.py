"""From a failing case to a small one: parts are taken away for as long as it keeps failing."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from refimpl.verification.cases import Case, CaseError
from refimpl.verification.cases.case import BATCHED
from refimpl.verification.crosscheck.variants import with_arrays, with_images

Fails = Callable[[Case], bool]


def shrink(case: Case, fails: Fails, *, max_calls: int = 200, seconds: float = 5.0) -> Case:
    """The smallest case found that still fails.

    Greedy: the first smaller case that fails is kept, and the search begins again, until none
    fails or calls or time run out.

    Parameters
    ----------
    case : Case
    fails : function
        Whether a case shows the failure; exceptions of `ValueError` count as no.
    """
    deadline = time.monotonic() + seconds
    for _ in range(max_calls):
        smaller = next(failing(case, fails, deadline), None)
        if smaller is None:
            break
        case = smaller
    return case


def failing(case: Case, fails: Fails, deadline: float) -> Iterator[Case]:
    """Smaller cases that fail, largest reductions first."""
    for candidate in smaller_cases(case):
        if time.monotonic() > deadline:
            return
        try:
            if fails(candidate):
                yield candidate
        except ValueError:
            continue


def smaller_cases(case: Case) -> Iterator[Case]:
    """Valid cases with one part less."""
    for reduction in REDUCTIONS:
        try:
            yield from reduction(case)
        except CaseError:
            continue


def fewer_images(case: Case) -> Iterator[Case]:
    """One image of several."""
    N = len(case.arrays["u"])
    if N > 1:
        yield from (with_images(case, [n]) for n in range(N))


def no_operator(case: Case) -> Iterator[Case]:
    """K the identity, on the data Kᵀy."""
    if case.operator == "identity":
        return
    y = case.forward.adjoint(case.arrays["y"])
    arrays = {k: x for k, x in case.arrays.items() if k not in ("mask", "kernel", "matrix")}
    yield replace(
        case, operator="identity", operator_boundary=None, arrays=arrays | {"y": np.asarray(y)}
    )


def no_options(case: Case) -> Iterator[Case]:
    """Without norm, bias or weights."""
    if case.norm is not None:
        yield replace(case, norm=None)
    for name in ("b", "weights"):
        if name in case.arrays:
            yield replace(case, arrays={k: x for k, x in case.arrays.items() if k != name})


def fewer_filters(case: Case) -> Iterator[Case]:
    """Half of the filters, or all but one."""
    F = len(case.arrays["A"])
    for kept in (range(F // 2), range(F // 2, F), range(1, F), range(F - 1)):
        if 0 < len(kept) < F:
            names = [k for k in ("A", "C", "b", "weights") if k in case.arrays]
            yield with_arrays(case, **{k: case.arrays[k][list(kept)] for k in names})


def smaller_filters(case: Case) -> Iterator[Case]:
    """Without the outermost rows or columns of filters and kernel."""
    for name in ("filters", "kernel"):
        names = [k for k in (("A", "C") if name == "filters" else ("kernel",)) if k in case.arrays]
        if not names or (name == "filters" and case.analysis == "dense"):
            continue
        for rows, columns in ((1, 0), (0, 1)):
            h, w = case.arrays[names[0]].shape[-2:]
            if h > 2 * rows and w > 2 * columns:
                window = np.s_[..., rows : h - rows, columns : w - columns]
                yield with_arrays(case, **{k: case.arrays[k][window] for k in names})


def smaller_images(case: Case) -> Iterator[Case]:
    """One channel, half of the rows or columns, or one row or column less."""
    C, H, W = case.image_shape
    if C > 1:
        yield from (cropped(case, np.s_[c : c + 1, :, :]) for c in range(C))
    for rows, columns in ((H // 2, W), (H, W // 2), (H - 1, W), (H, W - 1)):
        if 0 < rows * columns < H * W:
            yield cropped(case, np.s_[:, :rows, :columns])


def cropped(case: Case, window: tuple[slice, slice, slice]) -> Case:
    """The case on a part of its images."""
    index = np.arange(np.prod(case.image_shape)).reshape(case.image_shape)[window]
    arrays = {}
    for name, x in case.arrays.items():
        if name in BATCHED and x.ndim == 4:
            arrays[name] = x[:, *window]
        elif name == "mask":
            arrays[name] = x[window] if x.ndim == 3 else x[window[1:]]
        elif name in ("A", "C"):
            arrays[name] = x[:, index.ravel()] if case.analysis == "dense" else x[:, window[0]]
        elif name == "matrix":
            arrays[name] = x[:, index.ravel()]
        else:
            arrays[name] = x
    return replace(case, arrays=arrays)


REDUCTIONS = (fewer_images, no_operator, smaller_images, fewer_filters, no_options, smaller_filters)
