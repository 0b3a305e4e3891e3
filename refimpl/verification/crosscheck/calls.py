"""Calling one stage of a backend: whatever it does becomes values in NumPy or a finding.

A call runs in a daemon thread under a time limit. Its arguments are fresh arrays, compared
afterwards with what was handed over; its results are copied, so that nothing that the backend
does later changes them. A stage that hangs is not called again.

Not here: whether the values are right.
"""

import queue
import sysconfig
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from refimpl.arrays import Array
from refimpl.storage import first_line, said
from refimpl.verification.cases import Case
from refimpl.verification.crosscheck.stages import STAGES, output_shapes
from refimpl.verification.question import ARRAYS, Question, converted, in_precision

# Times the limit for the first call of a stage, which may compile.
FIRST_CALL = 3

FRAMEWORKS = ("torch", "jax", "jaxlib")

# Seconds that the end of an idle thread may take.
LAST_WAIT = 5.0


class Finding(NamedTuple):
    """Something wrong: the slug of its cause, and a line that says what was seen."""

    cause: str
    message: str


class Call(NamedTuple):
    """What came of one call.

    Attributes
    ----------
    outputs : dict of arrays
        By the names of `outputs.npz`; those that can be compared.
    findings : tuple of Finding
        What is wrong whatever the values are.
    refused : bool
        Whether the backend raised NotImplementedError: it does not offer that problem.
    """

    outputs: dict[str, Array]
    findings: tuple[Finding, ...] = ()
    refused: bool = False


class Worker:
    """One daemon thread that runs functions one after another."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (function := self._tasks.get()) is not None:
            try:
                self._results.put((function(), None))
            except BaseException as error:  # a backend may even raise SystemExit
                self._results.put((None, error))

    def run(self, function: Callable[[], Any], seconds: float) -> tuple[Any, BaseException | None]:
        """The result, or the exception raised; TimeoutError where neither comes in time."""
        self._tasks.put(function)
        try:
            return self._results.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None

    def close(self) -> None:
        """End the idle thread, and wait for it: one that ends with the process can abort that."""
        self._tasks.put(None)
        self._thread.join(LAST_WAIT)


class Session:
    """A backend under test.

    Parameters
    ----------
    backend : object
        Holds some of the callables of `STAGES`, and optionally `asarray`; a class is called.
    precision : "float64" or "float32"
        What its results must be.
    tol : float
        Relative residual that solved stages are asked for.
    time_limit : float
        Seconds for each call; the first one of a stage, which may compile, gets three times that.
    only : mapping, optional
        Settings that every case has.

    Raises
    ------
    ValueError
        If the backend offers no stage at all, or is a class that cannot be called.
    """

    def __init__(
        self,
        backend: Any,
        *,
        precision: str,
        tol: float,
        time_limit: float = 10.0,
        only: Mapping[str, Any] | None = None,
    ):
        self.backend = instance(backend) if isinstance(backend, type) else backend
        self.tol, self.time_limit, self.only = tol, time_limit, dict(only or {})
        self.dtype = np.dtype(precision)
        self.called: set[str] = set()
        self.hung: set[str] = set()
        self._worker = Worker()
        if not any(self.offers(stage) for stage in STAGES):
            raise ValueError(
                f"{describe(backend)} offers no stage; give it at least one of the callables "
                f"{', '.join(STAGES)}"
            )

    def offers(self, stage: str) -> bool:
        """Whether the backend has this callable; of a module, one that it did not import."""
        function = getattr(self.backend, stage, None)
        return callable(function) and not imported(function, self.backend)

    def close(self) -> None:
        """Let the thread end."""
        self._worker.close()

    def call(self, stage: str, case: Case, *, tol: float | None = None) -> Call:
        """Call one stage on the arrays of a case, in the precision of the session."""
        if stage in self.hung:
            return Call({}, (Finding("hangs", f"{stage} is not called again"),))
        limit = self.time_limit * (1 if stage in self.called else FIRST_CALL)
        self.called.add(stage)
        try:
            problem, arguments = self._arguments(stage, case)
        except Exception as error:  # the backend's asarray
            return Call({}, (raised("asarray", error),))
        given = in_numpy(problem, arguments)
        before = {name: x.copy() for name, x in given.items()}
        function = getattr(self.backend, stage)
        if STAGES[stage].solved:
            function = partial(function, tol=tol or self.tol)
        try:
            result, error = self._worker.run(lambda: outcome(function(problem, *arguments)), limit)
        except TimeoutError:
            return self._hung(stage, limit)
        changed = modified(before, given)
        if isinstance(error, NotImplementedError) and not of_a_framework(error):
            return Call({}, changed, refused=True)
        if error is not None:
            return Call({}, (*changed, raised(stage, error)))
        call = checked(result, stage, case, self.dtype)
        shared = views(call.outputs, given)
        copies = {name: np.array(x, np.float64) for name, x in call.outputs.items()}
        return Call(copies, (*changed, *shared, *call.findings))

    def _arguments(self, stage: str, case: Case) -> tuple[Question, list[Any]]:
        case = in_precision(case, self.dtype)
        asarray = getattr(self.backend, "asarray", None)
        arguments = [converted(case.arrays[name], asarray) for name in STAGES[stage].arguments]
        return Question.from_case(case, asarray), arguments

    def _hung(self, stage: str, limit: float) -> Call:
        """Give up on the thread, and on the stage."""
        self.hung.add(stage)
        self._worker = Worker()
        message = f"no result after {limit:g} s; not called again"
        return Call({}, (Finding("hangs", message),))


def instance(backend: type) -> Any:
    """A backend given as a class, made without arguments."""
    try:
        return backend()
    except Exception as error:  # whatever the user's class does when it is made
        reason = f"{type(error).__name__}: {said(error)}"
        raise ValueError(
            f"{describe(backend)}() cannot be made ({reason}); name an instance"
        ) from error


def imported(function: Any, backend: Any) -> bool:
    """Whether the backend is a module and the function one of another package, as torch's jvp."""
    if not isinstance(backend, ModuleType) or not isinstance(function, FunctionType):
        return False
    home, package = function.__module__ or "", backend.__name__
    return home.partition(".")[0] != package.partition(".")[0]


def describe(backend: Any) -> str:
    """A name for a backend."""
    return getattr(backend, "__name__", None) or type(backend).__name__


def outcome(result: Any) -> Any:
    """A result with its arrays in NumPy, or in a mapping of such; not yet copied."""
    if isinstance(result, Mapping):
        return {str(name): as_numpy(x) for name, x in result.items()}
    return as_numpy(result)


def as_numpy(x: Any) -> Any:
    """NumPy's view of an array, by DLPack if it is foreign; anything else as it is."""
    if hasattr(x, "detach"):
        x = x.detach()
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "__dlpack__"):
        return np.from_dlpack(x)
    return x


def in_numpy(problem: Question, arguments: list[Any]) -> dict[str, Array]:
    """Views of everything that a backend is given, by name; what is not an array is left out."""
    given = {name: getattr(problem, name) for name in ARRAYS}
    given |= {f"argument {k + 1}": x for k, x in enumerate(arguments)}
    views = {name: as_numpy(x) for name, x in given.items() if x is not None}
    return {name: x for name, x in views.items() if isinstance(x, np.ndarray)}


def modified(before: dict[str, Array], given: dict[str, Array]) -> tuple[Finding, ...]:
    """Which arguments are not what they were."""
    names = [name for name, x in before.items() if x.tobytes() != given[name].tobytes()]
    message = f"{', '.join(names)} changed in place"
    return (Finding("modifies_arguments", message),) if names else ()


def raised(name: str, error: BaseException) -> Finding:
    """An exception in one line, with the last place that is neither of a library nor of refimpl."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if not of_a_library(f.filename)), None)
    last = last or next(reversed(frames), None)
    where = "" if last is None else f" ({Path(last.filename).name}, line {last.lineno})"
    what = f"{type(error).__name__}: {first_line(error)[:200]}"
    return Finding("raised", f"{name} raised {what}{where}")


def of_a_framework(error: BaseException) -> bool:
    """Whether torch or JAX raised it, which then lacks something; the backend refuses nothing."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "") if frames else ""
    return module.partition(".")[0] in FRAMEWORKS


def of_a_library(path: str) -> bool:
    """Whether a file belongs to an installed package, to Python or to this package."""
    own = Path(__file__).parents[2]
    homes = [*map(Path, sysconfig.get_paths().values()), own]
    return path.startswith("<") or any(Path(path).is_relative_to(home) for home in homes)


def views(outputs: dict[str, Array], given: dict[str, Array]) -> tuple[Finding, ...]:
    """Which results share memory with what was given."""
    pairs = [
        f"{name} shares memory with {other}"
        for name, x in outputs.items()
        for other, y in given.items()
        if np.may_share_memory(x, y)
    ]
    return (Finding("returns_view", "; ".join(pairs)),) if pairs else ()


def checked(result: Any, stage: str, case: Case, dtype: np.dtype) -> Call:
    """The outputs that can be compared, and what is wrong with the others."""
    shapes, prefix = output_shapes(stage, case), STAGES[stage].output
    if not STAGES[stage].mapping:
        return checked_outputs({prefix: result}, shapes, dtype)
    if not isinstance(result, Mapping):
        known = ", ".join(name.removeprefix(prefix) for name in shapes)
        message = f"{stage} returned a {type(result).__name__}, expected a mapping with {known}"
        return Call({}, (Finding("wrong_entries", message),))
    named = {name if name == "loss" else prefix + name: x for name, x in result.items()}
    unknown = [name for name in named if name not in shapes]
    call = checked_outputs({k: x for k, x in named.items() if k in shapes}, shapes, dtype)
    if not unknown and named:
        return call
    what = f"unknown entries {', '.join(unknown)}" if unknown else "no entries"
    message = f"{what}; known are {', '.join(name.removeprefix(prefix) for name in shapes)}"
    return Call(call.outputs, (*call.findings, Finding("wrong_entries", message)))


def checked_outputs(
    values: dict[str, Any], shapes: dict[str, tuple[int, ...]], dtype: np.dtype
) -> Call:
    """Each value in turn, with its name in front of what is wrong."""
    outputs, findings = {}, []
    for name, x in values.items():
        if name == "loss" and isinstance(x, (float, np.floating)):
            x = np.asarray(x, dtype)
        finding = wrong_array(x, shapes[name], dtype)
        if finding is not None:
            findings.append(finding._replace(message=f"{name}: {finding.message}"))
        # A wrong dtype is a fault, and its values still say whether there is another one.
        if finding is None or finding.cause == "wrong_dtype":
            outputs[name] = np.asarray(x)
    return Call(outputs, tuple(findings))


def wrong_array(x: Any, shape: tuple[int, ...], dtype: np.dtype) -> Finding | None:
    """What is wrong with one array besides its values."""
    if not isinstance(x, (np.ndarray, np.generic)):
        kind = type(x).__name__
        return Finding("wrong_type", f"a {kind}, expected an array (NumPy, or with __dlpack__)")
    if x.shape != shape:
        return Finding("wrong_shape", f"shape {x.shape}, expected {shape}")
    if x.dtype.kind not in "fiub":
        return Finding("wrong_type", f"an array of {x.dtype}, expected {dtype}")
    if not np.isfinite(x).all():
        count = int(np.count_nonzero(~np.isfinite(x)))
        return Finding("not_finite", f"{count} of {x.size} values are NaN or infinite")
    if x.dtype != dtype:
        return Finding("wrong_dtype", f"dtype {x.dtype}, expected {dtype}")
    return None
