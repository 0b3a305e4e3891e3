"""`python -m kills`: kill training and figures, and count what was not resumed bit-identically.

Exit code 1 if a file was damaged, differs from that of an uninterrupted run or was left behind, or
a process was.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from kills import chains
from kills.jobs import FIGURES, TRAINING


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m kills", description=__doc__.split("\n")[0])
    parser.add_argument("--training", type=int, default=100, help="kills (default: 100)")
    parser.add_argument("--figures", type=int, default=20, help="kills (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args(arguments)
    begin, failed = time.perf_counter(), False
    for job, kills in ((TRAINING, options.training), (FIGURES, options.figures)):
        if kills:
            with tempfile.TemporaryDirectory() as folder:
                outcome = chains.run(job, kills, Path(folder), options.seed, say)
            for complaint in outcome.complaints:
                print(complaint)
            failed |= bool(outcome.complaints)
            print(
                f"{job.name}: {outcome.kills} kills, {outcome.ends} runs resumed to the end, "
                f"{len(outcome.complaints)} complaints, {time.perf_counter() - begin:.0f} s"
            )
    return int(failed)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
