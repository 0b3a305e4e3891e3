"""Two processes side by side, as every stage uses them.

Each has one thread for every library, as `__main__` set it: on two cores that is faster than one
process with two threads. A worker ends with the process that started it, however that ends.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed


def run_side_by_side(function: Callable, calls: Iterable[tuple]) -> Iterator[tuple[tuple, object]]:
    """Each call's arguments with what `function` returned, as they are done.

    An exception of a call is raised here, and the calls not yet begun are dropped.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn, initializer=end_with_parent) as pool:
        futures = {pool.submit(function, *arguments): arguments for arguments in calls}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Have this process end when its parent is gone: killed, it says nothing to its workers.

    The parent holds one end of a pipe, which closes with it on every system.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
