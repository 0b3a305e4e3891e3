"""`python -m errors`: what is stated and called converged, beside the truth.

Exit code 1 if a goal of `errors.table` is missed.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from errors import runs, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    options = parser().parse_args(arguments)
    if options.seed is not None:
        return one(options)
    missed = 0
    for name, count in (("random", options.problems), ("hard", options.hard)):
        if count:
            found = runs.judgements(name, count, options.processes)
            missed += table.report(f"{name} problems", found, names=options.names)
    print(f"\n{missed} goals missed")
    return int(missed > 0)


def one(options: argparse.Namespace) -> int:
    """Print the judgements of one seed, in the sets that are asked for."""
    for name in runs.SETS if options.set is None else (options.set,):
        for judgement in runs.judged_seed((name, options.seed)):
            print(table.line(judgement))
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m errors", description=__doc__.split("\n")[0])
    found.add_argument("--problems", type=int, default=2000, help="random problems")
    found.add_argument("--hard", type=int, default=700, help="hard problems")
    found.add_argument("--seed", type=int, help="judge only this one, and print all of it")
    found.add_argument("--set", choices=tuple(runs.SETS), help="of which set the seed is")
    found.add_argument("--names", type=int, default=table.NAMES, help="seeds listed of each kind")
    found.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    return found


if __name__ == "__main__":
    sys.exit(main())
