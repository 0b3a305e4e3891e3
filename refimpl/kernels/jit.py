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
the row functions that it calls, which stand in other files; and it runs damaged code as it is.
`CodeFiles` takes the place of its files: dated by all files of this package, so that an edit of any
of them recompiles every kernel, and with a hash of the code. What cannot be read is compiled again;
where nothing can be written, which is said once, everything is, in each process.

Compiling all kernels takes about 20 seconds, once for each precision. `Announcement` says so by
the logger "refimpl", which writes to standard error unless the program configures it otherwise.
"""

import hashlib
import logging
import pickle
from functools import cache
from pathlib import Path

from numba import __version__ as numba_version
from numba import njit
from numba.core import event, serialize
from numba.core.caching import FunctionCache

from refimpl.kernels.threads import available, side_by_side
from refimpl.storage import write_file

RULES = {"error_model": "numpy", "fastmath": {"contract"}}

# Work below this is done by one thread: a second one saves less than 0.2 ms where cores are idle,
# and costs milliseconds where one of them is busy.
LARGE = 200_000


def formula(function):
    """Compile a formula for one number, always inlined, so that loops around it vectorise."""
    return _compiled(function, forceinline=True)


def row_function(function):
    """Compile a loop over one row that kernels call."""
    return _compiled(function)


def reduction(function):
    """Compile a loop that sums along a row; the sums may be split over vector lanes.

    `reassoc` lets the compiler choose the order of additions, without which a sum of products takes
    one addition after the other. The order is that of the machine code, the same for every thread.
    """
    return _compiled(function, fastmath={"contract", "reassoc"})


def over_items(function):
    """Compile a kernel f(first, last, ...) that does the items of work from `first` to `last`."""
    return _compiled(function, nogil=True)


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
            kept = "not " if _say_uncached.cache_info().currsize else ""
            logging.getLogger("refimpl").warning(
                "compiling loops for this machine: up to a minute; the code is %skept on disk", kept
            )

    def on_end(self, event):
        """Nothing more to say."""


@cache
def _listen():
    """Have compilations announced, from the first kernel on."""
    event.register("numba:compile", Announcement())


def _compiled(function, **rules):
    """Compile by `RULES` and `rules`, with the code kept on disk where there is a place for it."""
    compiled = njit(**RULES | rules)(function)
    if hasattr(compiled, "_cache"):  # not where the compiler is disabled
        try:
            compiled._cache = CodeCache(function)
        except RuntimeError:  # Numba finds no folder that it can write to
            _say_uncached("no folder can be written, NUMBA_CACHE_DIR may name one")
    return compiled


@cache
def _package_stamp() -> tuple:
    """Times and sizes of all source files of this package."""
    stats = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return tuple((stat.st_mtime, stat.st_size) for stat in stats)


@cache
def _say_uncached(reason: str) -> None:
    logging.getLogger("refimpl").warning("compiled loops are not kept on disk: %s", reason)


class CodeCache(FunctionCache):
    """Numba's cache of one function, with `CodeFiles`, and going on where nothing can be kept."""

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = CodeFiles(Path(self.cache_path), self._impl.filename_base)

    def save_overload(self, sig, data):
        """Keep the code; that the disk is full costs the next process a compilation."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _say_uncached(error.strerror or str(error))


class CodeFiles:
    """Compiled code of one function, a file for each signature: a hash, then what it is of.

    It answers to what Numba asks of its own class: `load`, `save` and `flush`.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name

    def load(self, key: tuple):
        """The code for a signature; None where there is none, or a damaged or older one."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        check, code = content[:32], content[32:]
        if hashlib.sha256(code).digest() != check:
            return None
        made_for, code = pickle.loads(code)
        return code if made_for == self._made_for(key) else None

    def save(self, key: tuple, code) -> None:
        """Keep the code, whole or not at all."""
        content = serialize.dumps((self._made_for(key), code))
        write_file(self._path(key), hashlib.sha256(content).digest() + content)

    def flush(self) -> None:
        """Forget everything."""
        for path in self.folder.glob(f"{self.name}.*.nbc"):
            path.unlink(missing_ok=True)

    def _path(self, key: tuple) -> Path:
        signature = hashlib.sha256(repr(key[0]).encode()).hexdigest()[:16]
        return self.folder / f"{self.name}.{signature}.nbc"

    def _made_for(self, key: tuple) -> tuple:
        return numba_version, _package_stamp(), repr(key)
