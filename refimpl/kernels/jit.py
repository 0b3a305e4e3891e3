"""How the loops are compiled: the only place where compiler options are named.

`formula` compiles arithmetic on one number, `row_function` a loop over a row, `reduction` one that
sums along it, and `over_items` a kernel that does some of the items of work, each a band of an
image. The machine code is cached on disk.

fastmath is limited to `contract`, and in a `reduction` to `reassoc` as well: a product and a sum
may become one fused multiply-add, which rounds once instead of twice, and a sum along a row may run
as several partial sums. Both are settled when the code is compiled, so that every number is the
result of one fixed sequence of roundings, whatever the number of threads. error_model="numpy" makes
division by zero give inf or NaN instead of an exception, whose test would keep a loop from
vectorising.

Numba dates cached code by the file that defines the function, but a kernel contains the code of
the row functions that it calls, which stand in other files. `_dated_by_package` dates it by all
files of this package, so that an edit of any of them recompiles every kernel.

Compiling all kernels takes about 20 seconds, once for each precision. `Announcement` says so by
the logger "refimpl", which writes to standard error unless the program configures it otherwise.
"""

import logging
from functools import cache
from pathlib import Path

from numba import njit
from numba.core import event

from refimpl.kernels.threads import available, side_by_side

RULES = {"cache": True, "error_model": "numpy", "fastmath": {"contract"}}

# Work below this is done by one thread: a second one saves less than 0.2 ms where cores are idle,
# and costs milliseconds where one of them is busy.
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


def over_items(function):
    """Compile a kernel f(first, last, ...) that does the items of work from `first` to `last`."""
    return _dated_by_package(njit(nogil=True, **RULES)(function))


def share(kernel, items, work, *arguments):
    """Have a kernel do `items` items of work, in as many threads as are available and pay.

    `work` is the number of multiplications, or up to as many times more as there are channels. Each
    thread gets adjacent items.
    """
    _listen()
    threads = min(available(), items) if work >= LARGE else 1
    if threads == 1:  # without the list of parts: some kernels take no longer than that
        kernel(0, items, *arguments)
        return
    cuts = [items * k // threads for k in range(threads + 1)]
    side_by_side(lambda part: kernel(*part, *arguments), zip(cuts, cuts[1:]))


class Announcement(event.Listener):
    """Says, once in a process, that loops are being compiled and not read from the disk."""

    said = False

    def on_start(self, event):
        """Called by Numba before it compiles a function, of this package or of another."""
        module = event.data["dispatcher"].py_func.__module__ or ""
        if module.startswith(__package__) and not Announcement.said:
            Announcement.said = True
            logging.getLogger("refimpl").warning(
                "compiling loops for this machine: up to a minute; the code is kept on disk"
            )

    def on_end(self, event):
        """Nothing more to say."""


@cache
def _listen():
    """Have compilations announced, from the first kernel on."""
    event.register("numba:compile", Announcement())


def _dated_by_package(compiled):
    """Let the cached code expire when any source file of this package changes."""
    cache_file = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        stats = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
        cache_file._source_stamp = tuple((stat.st_mtime, stat.st_size) for stat in stats)
    return compiled
