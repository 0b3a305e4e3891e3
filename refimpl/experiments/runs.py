"""Run a preset in one of the three ways, and keep what came of it.

A `Run` holds everything that tables and figures need, so that nothing is ever trained twice:
the settings, the records of training, the parameters, and the reconstructions of the test images.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, shown
from refimpl.experiments.presets import METHODS, Experiment
from refimpl.experiments.setup import objectives, set_up
from refimpl.images import psnr, ssim
from refimpl.paper.parameters import NAMES, Parameters
from refimpl.storage import as_records, keep, read_kept
from refimpl.training import TrainingResult, run_epochs


def run(
    experiment: Experiment,
    method: str,
    *,
    start: Parameters | None = None,
    callback=None,
    resume=None,
) -> TrainingResult:
    """Train one preset in one of `METHODS`.

    Parameters
    ----------
    experiment : Experiment
    method : str
    start : Parameters, optional
        Tied parameters that replace the preset's start; "deq_from_bilevel" needs them, and
        they are what "bilevel" ended with.
    callback, resume
        As in `refimpl.training.run_epochs`.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ValueError
        For an unknown method, or "deq_from_bilevel" without `start`.
    """
    if method not in METHODS:
        raise ValueError(f"method {shown(method)} is unknown; choose one of {', '.join(METHODS)}")
    if method == "deq_from_bilevel" and start is None:
        raise ValueError(
            "deq_from_bilevel: needs start, the parameters that run(..., 'bilevel') ended with"
        )
    setup = set_up(experiment)
    theta = setup.start if start is None else start
    tied = objectives(experiment, setup, tied=True)
    states = None
    if method != "bilevel" and resume is None:
        # Untied with C = A (E7), the fixed points are those of the tied model, which are easier.
        states = tuple(objective.loss(theta).state.x for objective in tied)
    return run_epochs(
        *(tied if method == "bilevel" else objectives(experiment, setup, tied=False)),
        theta if method == "bilevel" else theta.untie(),
        experiment.training,
        value_range=setup.images.value_range,
        states=states,
        callback=callback,
        resume=resume,
    )


class Run(NamedTuple):
    """One trained preset.

    Attributes
    ----------
    settings : dict
        The effective settings of the preset, with "method" and "value_range".
    records : tuple of dict
        One for each epoch, see `refimpl.training`.
    parameters : Parameters
        Raw θ̂ of the lowest training loss.
    effective : Parameters
        θ, after normalisation.
    truth, y, reconstruction : arrays
        Of the test images.
    psnr, ssim : arrays (N,)
        Of the reconstructions; NaN where no fixed point was found.
    converged : bool array (N,)
    """

    settings: dict
    records: tuple[dict, ...]
    parameters: Parameters
    effective: Parameters
    truth: Array
    y: Array
    reconstruction: Array
    psnr: Array
    ssim: Array
    converged: Array


def summarize(experiment: Experiment, method: str, result: TrainingResult) -> Run:
    """Reconstruct the test images with the trained parameters and measure them."""
    setup = set_up(experiment)
    _, test = objectives(experiment, setup, tied=method == "bilevel")
    state = test.loss(result.parameters, result.progress.test_states).state
    value_range = setup.images.value_range
    quality = (measure(state.x, setup.images.test, value_range) for measure in (psnr, ssim))
    settings = {**experiment.settings(), "method": method, "value_range": value_range}
    return Run(
        settings,
        result.records,
        result.parameters,
        setup.model.effective(result.parameters),
        setup.images.test,
        setup.y_test,
        state.x,
        *(np.where(state.converged, values, np.nan) for values in quality),
        state.converged,
    )


FORMAT = "refimpl-run/1"
PARTS = ("parameters", "effective")
ARRAYS = ("truth", "y", "reconstruction", "psnr", "ssim", "converged")


def save_run(path: Path | str, run: Run) -> None:
    """Write a run to one npz file, whole or not at all."""
    arrays = {name: getattr(run, name) for name in ARRAYS}
    for part in ("parameters",) if run.effective is run.parameters else PARTS:
        arrays |= {f"{part}_{name}": array for name, array in getattr(run, part).items()}
    keep(path, FORMAT, {"settings": run.settings, "records": run.records}, arrays)


def load_run(path: Path | str, *, parameters: bool = True) -> Run:
    """Read what `save_run` wrote.

    Parameters
    ----------
    path : path
    parameters : bool
        False: without parameters, which take a hundred times longer to read than the rest.

    Raises
    ------
    ValueError
        If the file is missing or damaged, or not a saved run.
    """
    with read_kept(path, FORMAT, None if parameters else ARRAYS) as (text, data):
        found = {part: _parameters(data, part) if parameters else None for part in PARTS}
        arrays, settings = {name: data[name] for name in ARRAYS}, text["settings"]
        if not isinstance(settings, dict):
            raise ValueError(f"settings: a {type(settings).__name__}, expected an object")
        records = as_records(text["records"])
    return Run(settings=settings, records=records, **found, **arrays)


def _parameters(data: dict[str, Array], part: str) -> Parameters:
    """The parameters of one part; θ is stored only where it differs from θ̂."""
    part = part if f"{part}_A" in data else "parameters"
    C = data.get(f"{part}_C")
    return Parameters(**{name: data[f"{part}_{name}"] for name in NAMES if name != "C"}, C=C)
