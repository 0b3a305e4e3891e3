"""How the loops are compiled: the only place where compiler options are named.

`formula` compiles arithmetic on one number, `row_function` a loop over one image row, and
`over_bands` a kernel whose outermost loop runs over bands of the images of a batch in parallel. The
machine code is cached on disk.

fastmath is limited to `contract`: a product and a sum may become one fused multiply-add, which
rounds once instead of twice. No sum is reordered, so that every number is the result of one
fixed sequence of roundings, whatever the number of threads. error_model="numpy" makes division by
zero give inf or NaN instead of an exception, whose test would keep a loop from vectorising.

Numba dates cached code by the file that defines the function, but a kernel contains the code of
the row functions that it calls, which stand in other files. `_dated_by_package` dates it by all
files of this package, so that an edit of any of them recompiles every kernel.

Compiling all kernels takes most of a minute, once for each precision. `Announcement` says so by
the logger "refimpl", which writes to standard error unless the program configures it otherwise.
"""

import logging
from functools import wraps
from pathlib import Path

from numba import get_num_threads, njit, set_num_threads
from numba.core import event

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


def reduction(function):
    """Compile a loop that sums along a row; the sums may be split over vector lanes.

    `reassoc` lets the compiler choose the order of additions, without which a sum of products takes
    one addition after the other. The order is that of the machine code, the same for every thread.
    """
    rules = RULES | {"fastmath": {"contract", "reassoc"}}
    return _dated_by_package(njit(**rules)(function))


def over_bands(function):
    """Compile a kernel whose prange over bands of images runs in parallel where that pays."""
    kernel = _dated_by_package(njit(parallel=True, **RULES)(function))

    @wraps(function)
    def on_threads(*arguments):
        threads = get_num_threads()
        alone = threads > 1 and arguments[0].size * arguments[1].size < LARGE
        try:
            set_num_threads(1 if alone else threads)
            with event.install_listener("numba:compile", Announcement()):
                return kernel(*arguments)
        finally:
            set_num_threads(threads)

    return on_threads


class Announcement(event.Listener):
    """Says, once in a process, that loops are being compiled and not read from the disk."""

    said = False

    def on_start(self, event):
        """Called by Numba before it compiles a function."""
        if not Announcement.said:
            Announcement.said = True
            logging.getLogger("refimpl").warning(
                "compiling loops for this machine: up to a minute, once; the code is kept on disk"
            )

    def on_end(self, event):
        """Nothing more to say."""


def _dated_by_package(compiled):
    """Let the cached code expire when any source file of this package changes."""
    cache_file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        stats = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
        cache_file._source_stamp = tuple((stat.st_mtime, stat.st_size) for stat in stats)
    return compiled
