"""`python -m fuzz`: 10,000 random calls, and the faults among them; 1 if there are any."""

import argparse
import faulthandler
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fuzz import files, functions
from fuzz.verdicts import Verdict, judge

# Seconds that a call may take, and bytes that all may take together.
SECONDS, MEMORY = 60.0, 4 * 2**30
SHARE_OF_FILES = 0.3


def main(arguments: Sequence[str] | None = None) -> int:
    """Call, count, print faults."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of all calls (default: 0)")
    parser.add_argument("--only", type=int, metavar="N", help="the call of this number alone")
    options = parser.parse_args(arguments)
    limit_memory()
    numbers = range(options.calls) if options.only is None else [options.only]
    begin, counts, faults, longest = time.perf_counter(), Counter(), Counter(), 0.0
    for number, said, verdict in judged(options.seed, numbers):
        counts[verdict.outcome] += 1
        longest = max(longest, verdict.seconds)
        if verdict.outcome == "fault":
            faults[verdict.said] += 1
            if faults[verdict.said] == 1:
                print(f"{number}: {said}\n    {verdict.said}", flush=True)
        elif options.only is not None:
            print(f"{said}\n    {verdict}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{len(numbers)} calls: {counts['answered']} answered, {counts['refused']} refused in one "
        f"line, {counts['fault']} faults of {len(faults)} kinds; the longest {longest:.1f} s, "
        f"memory {peak:.1f} GB, {time.perf_counter() - begin:.0f} s"
    )
    return int(bool(faults))


def judged(seed: int, numbers: Sequence[int]) -> Iterator[tuple[int, str, Verdict]]:
    """Number, call in words, and verdict."""
    for number in numbers:
        rng = np.random.default_rng((seed, number))
        with tempfile.TemporaryDirectory() as folder:
            with warnings.catch_warnings(action="ignore"):  # of spoilt numbers
                call = draw(rng, Path(folder))
            said = str(call)
            faulthandler.dump_traceback_later(5 * SECONDS, exit=True)
            yield number, said, judge(call, SECONDS)
            faulthandler.cancel_dump_traceback_later()


def draw(rng: np.random.Generator, folder: Path) -> Callable:
    """A call of a function, or of a reader with files in `folder`/x."""
    if rng.random() >= SHARE_OF_FILES:
        return functions.draw(rng)
    (folder / "x").mkdir()
    return files.draw(rng, folder / "x")


def limit_memory() -> None:
    """Have Python refuse more than `MEMORY` beyond what is taken now, where the system can."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = Path("/proc/self/statm")
    if taken.exists():
        now = int(taken.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))


if __name__ == "__main__":
    sys.exit(main())
