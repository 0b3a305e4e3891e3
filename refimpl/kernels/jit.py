"""How the loops are compiled: the only place where compiler options are named.

`formula` compiles arithmetic on one number, `row_function` a loop over one image row, and
`over_images` a kernel whose outermost loop runs over the images of a batch in parallel. The
machine code is cached on disk.

fastmath is limited to `contract`: a product and a sum may become one fused multiply-add, which
rounds once instead of twice. No sum is reordered, so that every number is the result of one
fixed sequence of roundings, whatever the number of threads. error_model="numpy" makes division by
zero give inf or NaN instead of an exception, whose test would keep a loop from vectorising.

Numba dates cached code by the file that defines the function, but a kernel contains the code of
the row functions that it calls, which stand in other files. `_dated_by_package` dates it by all
files of this package, so that an edit of any of them recompiles every kernel.
"""

from functools import wraps
from pathlib import Path

from numba import get_num_threads, njit, set_num_threads

RULES = {"cache": True, "error_model": "numpy", "fastmath": {"contract"}}

# Work below this is done by one thread: a second one saves less than 0.2 ms where cores are idle,
# and costs milliseconds where one of them is busy. Work is taken to be the product of the sizes of
# the first two arrays: the number of multiplications, or more of them, with adjoints and gradients.
LARGE = 200_000


def formula(function):
    """Compile a formula for one number, always inlined, so that loops around it vectorise."""
    return _dated_by_package(njit(forceinline=True, **RULES)(function))


def row_function(function):
    """Compile a loop over one row that kernels call."""
    return _dated_by_package(njit(**RULES)(function))


def over_images(function):
    """Compile a kernel whose prange over images runs in parallel where that pays."""
    kernel = _dated_by_package(njit(parallel=True, **RULES)(function))

    @wraps(function)
    def on_threads(*arguments):
        threads = get_num_threads()
        several, work = len(arguments[0]) > 1, arguments[0].size * arguments[1].size
        if threads == 1 or (several and work >= LARGE):
            return kernel(*arguments)
        set_num_threads(1)
        try:
            return kernel(*arguments)
        finally:
            set_num_threads(threads)

    return on_threads


def _dated_by_package(compiled):
    """Let the cached code expire when any source file of this package changes."""
    cache_file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        stats = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
        cache_file._source_stamp = tuple((stat.st_mtime, stat.st_size) for stat in stats)
    return compiled
