"""Run a preset in one of the three ways, or total variation on its data, and keep what came of it.

A `Run` holds everything that tables and figures need, so that nothing is ever trained twice:
the settings, the records of training, the parameters, and the reconstructions of the test images.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.arrays import Array, shown
from refimpl.experiments.presets import METHODS, Experiment
from refimpl.experiments.setup import Setup, objectives, set_up, strengthened, total_variation
from refimpl.images import psnr, ssim
from refimpl.paper.filters import total_variation_filters
from refimpl.paper.parameters import NAMES, Parameters, make_parameters
from refimpl.storage import as_records, keep, read_kept
from refimpl.training import TrainingSettings, run_epochs
from refimpl.training.lbfgs import LbfgsProgress, train_lbfgs
from refimpl.training.loop import asymmetry
from refimpl.training.objective import Objective

BASELINE = "total_variation"
EVERY = 5  # steps from one look at the test images to the next
PATIENCE = 8  # steps in which the validation loss must fall


class Trained(NamedTuple):
    """Parameters θ̂ that a run kept, its records, and why it ended."""

    parameters: Parameters
    records: tuple[dict, ...]
    ended: str


def run(
    experiment: Experiment,
    method: str,
    *,
    start: Parameters | None = None,
    report: Callable[[dict], None] | None = None,
    callback=None,
    resume=None,
) -> Trained:
    """Train one preset in one of `METHODS`.

    Parameters
    ----------
    experiment : Experiment
    method : str
    start : Parameters, optional
        Tied parameters that replace the preset's start; "deq_from_bilevel" needs them, and
        they are what "bilevel" ended with.
    report : callable, optional
        Called with each record.
    callback, resume
        As in `refimpl.training.run_epochs`, for presets that Adam trains; L-BFGS, whose memory
        would make large checkpoints, trains a preset from start to end.

    Returns
    -------
    Trained

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
    sets = tied if method == "bilevel" else objectives(experiment, setup, tied=False)
    raw = theta if method == "bilevel" else theta.untie()
    # Untied with C = A (E7), the fixed points are those of the tied model, which are easier.
    first = None
    if method != "bilevel" and resume is None:
        first = tuple(objective.loss(theta).state.x for objective in tied)
    if isinstance(experiment.training, TrainingSettings):
        return _by_adam(experiment, setup, sets, raw, first, report, callback, resume)
    return _by_lbfgs(experiment, setup, sets, raw, first, report)


def _by_adam(experiment, setup: Setup, sets, raw, first, report, callback, resume) -> Trained:
    """Minibatches by `run_epochs`."""

    def each_epoch(state) -> None:
        if callback is not None:
            callback(state)
        if report is not None:
            report(state.records[-1])

    result = run_epochs(
        *sets, raw, experiment.training, value_range=setup.images.value_range, states=first,
        resume=resume, callback=each_epoch,
    )  # fmt: skip
    return Trained(result.parameters, result.records, result.ended)


def _by_lbfgs(experiment, setup: Setup, sets, raw, first, report) -> Trained:
    """All images at once by `train_lbfgs`, watched on validation and test images."""
    held_out = None
    if setup.validation is not None:
        truth, y = setup.validation
        held_out = replace(sets[0], truth=truth, y=y)
    watch = _Watch(*sets, held_out, setup.images.value_range, report)
    settings = experiment.training
    result = train_lbfgs(
        sets[0], raw, trained=settings.trained, max_iterations=settings.max_iterations,
        tol=settings.tol, stall=settings.stall, memory=settings.memory,
        states=None if first is None else first[0], callback=watch,
    )  # fmt: skip
    return Trained(watch.best, watch.closed(), result.message)


class _Watch:
    """The callback of L-BFGS: records, the parameters to keep, and when to end early.

    Times are those of training alone, without what is computed here.
    """

    def __init__(self, train: Objective, test: Objective, held_out, value_range, report):
        self.train, self.test, self.held_out = train, test, held_out
        self.value_range, self.report = value_range, report
        self.records, self.best, self.lowest = [], None, (np.inf, 0)
        self.test_states = self.held_out_states = None
        self.clocks = time.perf_counter(), time.process_time()

    def __call__(self, progress: LbfgsProgress) -> str:
        wall, cpu = time.perf_counter() - self.clocks[0], time.process_time() - self.clocks[1]
        raw, iteration = progress.parameters, progress.iteration
        record = {
            "epoch": iteration,
            "loss_train": progress.loss,
            "psnr_train": self._psnr(progress.states, self.train),
            "loss_validation": self._validation_loss(raw),
            "gradient": progress.gradient,
            "images_seen": progress.evaluations * len(self.train.truth),
            "asymmetry": asymmetry(self.train.model.effective(raw)),
            "seconds": wall,
            "cpu_seconds": cpu,
        }
        if iteration % EVERY == 0:
            record |= self._tested(raw)
        self.records.append(record)
        if self.report is not None:
            self.report(record)
        better = record["loss_validation"] < self.lowest[0]
        if better or self.held_out is None:
            self.best, self.lowest = raw, (record["loss_validation"], iteration)
        self.clocks = time.perf_counter(), time.process_time()
        if iteration - self.lowest[1] >= PATIENCE:
            return f"the loss of the validation images has not fallen for {PATIENCE} steps"
        return ""

    def closed(self) -> tuple[dict, ...]:
        """The records, that of the parameters kept with "kept" and a test loss."""
        kept = self.records[self.lowest[1]]
        kept |= {"kept": True} | ({} if "loss_test" in kept else self._tested(self.best))
        return tuple(self.records)

    def _validation_loss(self, raw: Parameters) -> float:
        if self.held_out is None:
            return np.nan
        found = self.held_out.settled(raw, self.held_out_states)
        if found is None:
            return np.nan
        self.held_out_states = found.state.x
        return found.loss

    def _tested(self, raw: Parameters) -> dict:
        found = self.test.settled(raw, self.test_states)
        if found is None:
            return {"loss_test": np.nan, "psnr_test": np.nan}
        self.test_states = found.state.x
        return {"loss_test": found.loss, "psnr_test": self._psnr(found.state.x, self.test)}

    def _psnr(self, states: Array, objective: Objective) -> float:
        return float(psnr(states, objective.truth, self.value_range).mean())


class Run(NamedTuple):
    """One trained preset.

    Attributes
    ----------
    settings : dict
        The effective settings of the preset, with "method", "value_range" and "ended".
    records : tuple of dict
        One for each step or epoch; number 0 describes the start.
    parameters : Parameters
        Raw θ̂ that was kept.
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


def summarize(experiment: Experiment, method: str, result: Trained) -> Run:
    """Reconstruct the test images with the trained parameters and measure them."""
    setup = set_up(experiment)
    _, test = objectives(experiment, setup, tied=method == "bilevel")
    return _measured(experiment, method, result, setup, test)


def run_total_variation(experiment: Experiment) -> Run:
    """Total variation with its best weight, once for the training and once for the test images.

    What is learned is compared with it, so it is given what the others are not: the weight that is
    best for the very images that it is measured on.
    """
    setup = set_up(experiment)
    begin, cpu = time.perf_counter(), time.process_time()
    train, test = total_variation(experiment, setup)
    theta = make_parameters(total_variation_filters((2, 1, 3, 3)))
    best_train, best_test = (strengthened(objective, theta) for objective in (train, test))
    seconds = {
        "seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu
    }  # fmt: skip
    losses = train.loss(best_train).loss, test.loss(best_test).loss
    record = {"epoch": 0, "loss_train": losses[0], "loss_test": losses[1], "kept": True, **seconds}
    result = Trained(best_test, (record,), "the best weight was found")
    return _measured(experiment, BASELINE, result, setup, test)


def _measured(experiment, method: str, result: Trained, setup: Setup, test: Objective) -> Run:
    """What a run leaves: its settings and records, and the test images reconstructed."""
    theta = result.parameters
    state = test.loss(theta, test.nearby(theta)).state
    value_range = setup.images.value_range
    quality = (measure(state.x, setup.images.test, value_range) for measure in (psnr, ssim))
    settings = {
        **experiment.settings(),
        "method": method,
        "value_range": value_range,
        "ended": result.ended,
    }
    return Run(
        settings,
        result.records,
        result.parameters,
        test.model.effective(result.parameters),
        setup.images.test,
        setup.y_test,
        state.x,
        *(np.where(state.converged, values, np.nan) for values in quality),
        state.converged,
    )


FORMAT = "refimpl-run/2"
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
