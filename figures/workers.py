"""Two processes side by side, as every stage uses them.

Each has one thread for every library, as `__main__` set it: on two cores that is faster than one
process with two threads.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context


def run_side_by_side(function: Callable, calls: Iterable[tuple]) -> Iterator[tuple[tuple, object]]:
    """Each call's arguments with what `function` returned, as they are done.

    An exception of a call is raised here, and the calls not yet begun are dropped.
    """
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(function, *arguments): arguments for arguments in calls}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)
