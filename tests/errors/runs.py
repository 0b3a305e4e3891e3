"""All problems of a set, judged in parallel."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from errors.hard import hard_task
from errors.judgement import Judgement, judged
from errors.problems import random_task

SETS = {"random": random_task, "hard": hard_task}


def judgements(name: str, count: int, processes: int) -> list[Judgement]:
    """Those of seeds 0, 1, …, from several processes of one thread each."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # of the processes that are started next
    tasks, found = [(name, seed) for seed in range(count)], []
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for done, some in enumerate(pool.map(judged_seed, tasks, chunksize=4)):
            found += some
            if sys.stderr.isatty():
                print(f"\r{name} {done + 1} of {count} ", end="", file=sys.stderr, flush=True)
    return found


def judged_seed(task: tuple[str, int]) -> list[Judgement]:
    """The judgements of one seed of a set."""
    name, seed = task
    return judged(SETS[name](seed))
