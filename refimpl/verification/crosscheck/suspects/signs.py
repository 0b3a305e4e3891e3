"""Causes that are seen on the difference itself: where it is, and how large.

Border, images and transposition say where; rounding to a lower precision and unfinished
iterations say how large.
"""

from collections.abc import Iterator

import numpy as np

from refimpl.arrays import Array
from refimpl.kernels.vectors import norm
from refimpl.verification.crosscheck.anatomy import terms
from refimpl.verification.crosscheck.suspects.evidence import Evidence, Prediction
from refimpl.verification.crosscheck.suspects.gradients import starts

MOST_STEPS = 400
MOST_STATES = 40

# Largest relative error that counts as an unfinished solve.
UNFINISHED = 0.05

# Next lower precision, with the least and the largest relative error that it explains: from a
# thousandth of float32's roundoff, where one small term has it, to a thousand; from a hundredth of
# float16's to a few of bfloat16's.
LOWER = {"float64": (np.float32, 1e-10, 1e-4), "float32": (np.float16, 1e-5, 0.03)}


def rearranged(evidence: Evidence) -> Iterator[Prediction]:
    """Rows and columns exchanged, reversed axes, the images of a batch in another order."""
    x = evidence.expected
    if sum(n > 1 for n in x.shape) > 2:  # else those of an image, below
        yield Prediction("axes_reversed", x.transpose().reshape(x.shape))
        yield Prediction("axes_reversed", x.reshape(x.shape, order="F"))
    if x.ndim == 4 and x.shape[2] == x.shape[3]:
        slug = "transposed_image" if evidence.parameter is None else "filters_transposed"
        yield Prediction(slug, x.swapaxes(2, 3))
    if x.ndim == 4:
        slug = "flipped_image" if evidence.parameter is None else "filters_flipped"
        yield Prediction(slug, x[:, :, ::-1, ::-1])
    if x.ndim == 4 and x.shape[2] != x.shape[3]:
        order = np.ascontiguousarray(x.swapaxes(2, 3)).reshape(x.shape)
        yield Prediction("transposed_image", order)
    if evidence.parameter is None and x.ndim >= 1 and len(x) > 1:
        yield Prediction("batch_reversed", x[::-1])
        yield Prediction("one_image_for_all", np.broadcast_to(x[:1], x.shape))
        mean = np.broadcast_to(x.mean(axis=0, keepdims=True), x.shape)
        yield Prediction("images_averaged", mean)
        yield Prediction("images_added", len(x) * mean)


def clipped(evidence: Evidence) -> Iterator[Prediction]:
    """Images clipped to [0, 1], at the end or, of a fixed point, after each step."""
    if evidence.name in ("map", "fixed_point"):
        yield Prediction("clipped", evidence.expected.clip(0, 1))
    if evidence.name == "fixed_point":
        p, u = evidence.parts, evidence.value
        yield Prediction("clipped", (u - p.tau * sum(terms(p, u))).clip(0, 1))


def other_outputs(evidence: Evidence) -> Iterator[Prediction]:
    """Another output of the case, of the same shape."""
    for name, x in evidence.reference.outputs.items():
        if name != evidence.name and x.shape == evidence.expected.shape and x.size > 1:
            yield Prediction(f"other_output:{name}", x)


def border(evidence: Evidence) -> bool:
    """Whether the difference is confined to a border, with something right inside."""
    if evidence.parameter is not None or evidence.expected.ndim != 4:
        return False
    H, W = evidence.expected.shape[2:]
    pixels = np.abs(evidence.value - evidence.expected).max(axis=(0, 1))
    allowed = evidence.tolerance / np.sqrt(evidence.expected.size)
    for k in range(1, (min(H, W) - 1) // 2 + 1):
        if (pixels[k : H - k, k : W - k] <= allowed).all():
            return True
    return False


def some_images(evidence: Evidence) -> bool:
    """Whether some images of the batch agree and others do not."""
    if evidence.parameter is not None or evidence.expected.ndim == 0:
        return False
    apart = norm(np.atleast_2d(evidence.value - evidence.expected).reshape(len(evidence.value), -1))
    right = apart <= evidence.tolerance / np.sqrt(len(apart))
    return bool(right.any() and not right.all())


def hidden_precision(evidence: Evidence) -> bool:
    """Whether the error is that of computing in the next lower precision.

    Small enough for that, and either large enough too or with values exactly of that precision;
    of a solve, which may stop at any error, only the latter counts.
    """
    lower, least, most = LOWER[evidence.reference.precision.name]
    relative = evidence.error / (np.linalg.norm(evidence.expected) or 1.0)
    exact = bool((evidence.value == evidence.value.astype(lower)).all())
    large = relative >= least and not evidence.solved
    return bool(relative <= most and (large or exact))


def unfinished_state(evidence: Evidence) -> Iterator[Prediction]:
    """States, or their losses, after K plain iterations from a start."""
    system = evidence.system
    for u in starts(evidence):
        for _ in range(MOST_STEPS):
            u = evidence.system.step(u)
            if not np.isfinite(u).all():
                break
            value = system.loss(u) if evidence.name == "loss" else u
            yield Prediction("too_few_forward_iterations", value)


def unfinished_gradient(evidence: Evidence) -> Iterator[Prediction]:
    """Hypergradients at the state after K plain iterations from a start."""
    for u in starts(evidence):
        for _ in range(MOST_STATES):
            u = evidence.system.step(u)
            if not np.isfinite(u).all():
                break
            gradient = evidence.system.hypergradient(u)[evidence.parameter]
            yield Prediction("too_few_forward_iterations", gradient)


def unfinished(evidence: Evidence) -> bool:
    """Whether the residual of the state is above what was asked, and the state is near u*."""
    residuals, sizes = _residuals(evidence), norm(evidence.value)
    near = evidence.error <= UNFINISHED * np.linalg.norm(evidence.expected)
    return bool(near and (residuals > 2 * evidence.reference.tol * sizes).any())


def _residuals(evidence: Evidence) -> Array:
    """‖T(u) − u‖ of each image at the value."""
    return evidence.parts.tau * norm(sum(terms(evidence.parts, evidence.value)))


def small(evidence: Evidence) -> bool:
    """Whether the error is that of a solve that stopped early."""
    return bool(evidence.error <= UNFINISHED * np.linalg.norm(evidence.expected))
