"""The paper's experiments: frozen presets, how to build one, and how to run and keep it."""

from refimpl.experiments.presets import (
    EXPERIMENTS,
    METHODS,
    NOISE_LEVELS,
    PROBLEMS,
    SEEDS,
    Experiment,
    dense_experiment,
    get_experiment,
    with_paper_solvers,
)
from refimpl.experiments.runs import (
    BASELINE,
    Run,
    load_run,
    run,
    run_total_variation,
    save_run,
    summarize,
)
from refimpl.experiments.setup import Setup, set_up

__all__ = [
    "BASELINE",
    "EXPERIMENTS",
    "METHODS",
    "NOISE_LEVELS",
    "PROBLEMS",
    "SEEDS",
    "Experiment",
    "Run",
    "Setup",
    "dense_experiment",
    "get_experiment",
    "load_run",
    "run",
    "run_total_variation",
    "save_run",
    "set_up",
    "summarize",
    "with_paper_solvers",
]
