"""Wall times of paired, interleaved repetitions, and their ratios.

Rounds call every function once each, so that a load on the machine meets all of them alike.
Ratios are medians of ratios within rounds. First calls are not counted: they compile.
"""

import time
from collections.abc import Callable

import numpy as np


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def interleaved(
    calls: dict[str, Callable[[], object]], rounds: dict[str, int]
) -> dict[str, list[float]]:
    """Times of every function: in round i those are called that have more than i rounds."""
    times = {name: [] for name in calls}
    for i in range(max(rounds.values(), default=0)):
        for name, call in calls.items():
            if i < rounds[name]:
                times[name].append(seconds(call))
    return times


def ratio(times: list[float], base: list[float]) -> float:
    """Median over common rounds of times / base."""
    common = min(len(times), len(base))
    return float(np.median(np.divide(times[:common], base[:common])))


def paired(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """`interleaved` with one warm-up call of each and the same number of rounds."""
    for call in calls.values():
        call()
    return interleaved(calls, dict.fromkeys(calls, rounds))
