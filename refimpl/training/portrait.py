"""A trained model as a picture: its filters, its training, what it does to a photograph.

matplotlib is imported when a picture is drawn.
"""

from typing import Any

import numpy as np

from refimpl.arrays import Array
from refimpl.engine import make_step
from refimpl.equilibrium import reconstruct
from refimpl.images import add_noise, photograph_crops, psnr, rescale
from refimpl.images.sets import UNIT_RANGE
from refimpl.paper.filters import total_variation
from refimpl.paper.operators import Identity
from refimpl.paper.parameters import Parameters
from refimpl.paper.problem import Problem

SIDE = 128
MOST = 48
# λ ε of total variation; the best is within an eighth of a power of two.
WEIGHTS = 2.0 ** np.arange(-1, 2.25, 0.25)
RESIDUAL = 1e-5


def portrait(model: Any) -> Any:
    """A figure of filters by weight, the training curve, and a photograph before and after.

    Parameters
    ----------
    model : TrainedModel

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(repr(model), fontsize=10)
    above, below = figure.subfigures(2, 1)
    untied = not model.theta.tied
    panels = above.subplots(1, 2 + untied, width_ratios=[1.5] * (1 + untied) + [1])
    order = by_weight(model.theta)
    _draw_filters(panels[0], model.theta.A[order], "A, by weight")
    if untied:
        _draw_filters(panels[1], model.theta.C[order], "C, in the same order")
    _draw_curves(panels[-1], model)
    for axes, (title, image) in zip(below.subplots(1, 4), before_and_after(model).items()):
        axes.imshow(np.clip(np.moveaxis(image, 0, -1), 0, 1), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    figure.supxlabel(_story(model.provenance), fontsize=7)
    return figure


def by_weight(theta: Parameters) -> Array:
    """Indices of the filters, those first whose w_k ‖a_k‖ ‖c_k‖ is largest."""
    sizes = [np.linalg.norm(x.reshape(len(x), -1), axis=1) for x in (theta.A, theta.synthesis)]
    return np.argsort(-np.abs(theta.weights) * sizes[0] * sizes[1], kind="stable")


def _draw_filters(axes: Any, filters: Array, title: str) -> None:
    """The first `MOST` filters, each from its own least to its own largest value."""
    shown = filters[:MOST]
    F, C, h, w = shown.shape
    columns = int(np.ceil(np.sqrt(2 * F)))
    sheet = np.ones((-(-F // columns) * (h + 1) - 1, columns * (w + 1) - 1, C))
    for n, a in enumerate(shown):
        i, j = n // columns * (h + 1), n % columns * (w + 1)
        largest = np.abs(a).max() or 1
        sheet[i : i + h, j : j + w] = np.moveaxis(0.5 + a / (2 * largest), 0, -1)
    sheet = sheet if C == 3 else sheet.mean(axis=2)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    left_out = f" ({F} of {len(filters)})" if len(filters) > F else ""
    axes.set_title(title + left_out, fontsize=9)
    axes.set_axis_off()


def _draw_curves(axes: Any, model: Any) -> None:
    """Every PSNR that the records have, dashed where it is that of total variation."""
    names = {name for record in model.records for name in record if name.startswith("psnr_")}
    for name in sorted(names):
        rows = [(_moment(n, r), r[name]) for n, r in enumerate(model.records) if name in r]
        line = "--" if name.endswith("total_variation") else "-"
        axes.plot(*zip(*rows), line, label=name.removeprefix("psnr_").replace("_", " "))
    if names:
        axes.legend(fontsize=7)
    unit = "step" if any("step" in record for record in model.records) else "epoch"
    axes.set(xlabel=unit, ylabel="PSNR (dB)")
    axes.set_title("training", fontsize=9)


def _moment(number: int, record: dict) -> float:
    """Where on the axis of training a record stands."""
    return record.get("step", record.get("epoch", number))


def before_and_after(model: Any) -> dict[str, Array]:
    """A photograph (C, H, W), its data, and what TV (with its best λ) and the model make of them.

    Every name has its PSNR.
    """
    colour = model.channels == 3
    truth = photograph_crops(SIDE, colour=colour).test[:1]
    y = add_noise(truth, model.unit_noise_level, np.random.default_rng(0))
    data = rescale(y, UNIT_RANGE, model.value_range)
    u = reconstruct(make_step(model.problem(data)), residual_tol=RESIDUAL).x
    after = {
        "data": y,
        "total variation": max(_total_variation(y, model.unit_noise_level), key=_quality(truth)),
        "the model": rescale(u, model.value_range, UNIT_RANGE),
    }
    titled = {f"{name}, {psnr(x, truth)[0]:.2f} dB": x[0] for name, x in after.items()}
    return {"truth": truth[0], **titled}


def _quality(truth: Array) -> Any:
    return lambda u: psnr(u, truth)[0]


def _total_variation(y: Array, noise_level: float) -> list[Array]:
    """Results of total variation with every λ of `WEIGHTS`."""
    experts, K = total_variation(y.shape[1:]), Identity(y.shape[1:])
    steps = (make_step(Problem(K, y, experts, lam / noise_level)) for lam in WEIGHTS)
    return [reconstruct(step, y, residual_tol=RESIDUAL).x for step in steps]


def _story(provenance: dict) -> str:
    """What is known of where a model comes from, in a line for each name."""
    lines = (f"{name}: {value}" for name, value in provenance.items())
    return "\n".join(line if len(line) <= 160 else f"{line[:159]}…" for line in lines)
