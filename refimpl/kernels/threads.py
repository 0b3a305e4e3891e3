"""Threads: one function on several parts of the work, side by side.

NumPy, SciPy's FFT and the compiled loops let other threads run while they work. How work is cut
into parts must not depend on the number of threads; then neither do results. The number is that
of the cores that the process may use, or OMP_NUM_THREADS where that is set, as for BLAS. Inside a
part there are no further threads.

Not here: what the parts are.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import lru_cache
from typing import Any

_limit: ContextVar[int | None] = ContextVar("limit", default=None)


def available() -> int:
    """How many threads `side_by_side` uses here: 1 inside a part."""
    limit = _limit.get()
    return _cores() if limit is None else limit


@lru_cache(maxsize=1)
def _cores() -> int:
    """OMP_NUM_THREADS, or the cores that the process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit():
        return max(1, int(given))
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def limited(threads: int):
    """Within the context, use at most so many threads."""
    token = _limit.set(threads)
    try:
        yield
    finally:
        _limit.reset(token)


def side_by_side(function: Callable[[Any], Any], parts: Iterable[Any]) -> list[Any]:
    """[function(part) for part in parts], on as many threads as are available.

    An exception of any part is raised here, once all have ended.
    """
    parts = list(parts)
    if available() == 1 or len(parts) == 1:
        return [function(part) for part in parts]
    pool = _pool(os.getpid(), available())
    futures = [pool.submit(copy_context().run, _alone, function, part) for part in parts]
    wait(futures)
    return [future.result() for future in futures]


def _alone(function: Callable[[Any], Any], part: Any) -> Any:
    _limit.set(1)
    return function(part)


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """The threads of this process; those of a parent do not live on in a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="refimpl")
