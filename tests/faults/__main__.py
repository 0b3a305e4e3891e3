"""`python -m faults`: the table of planted faults, or the study of false alarms.

Exit code 1 if a fault is not detected, fewer than 95 % have the right first stage, fewer than
85 % the right cause, or a correct backend is said to be wrong.
"""

import argparse
import sys
from collections.abc import Sequence

from faults import alarms, runs
from faults.catalogue import CATALOGUE, NOT_SEPARABLE

RATES = (("detected", 1.0), ("stage right", 0.95), ("cause named", 0.85))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for."""
    options = parser().parse_args(arguments)
    frameworks = tuple(options.frameworks.split(","))
    precisions = tuple(options.precisions.split(","))
    if options.seeds:
        return alarms.study(frameworks, precisions, options.seeds)
    faults = tuple(f for f in CATALOGUE if not options.only or f.name in options.only.split(","))
    return catalogue(runs.tasks(frameworks, precisions, faults))


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m faults", description=__doc__.split("\n")[0])
    found.add_argument("--frameworks", default="torch,jax")
    found.add_argument("--precisions", default="float64,float32")
    found.add_argument("--only", metavar="NAME,…", help="only these faults")
    found.add_argument(
        "--seeds", type=int, default=0, help="study false alarms at so many seeds in place of this"
    )
    return found


def catalogue(tasks: list[runs.Task]) -> int:
    """Print one line for each task, then the rates."""
    print(line("fault", "framework", "precision", "detected", "stage", "cause", "cases"))
    outcomes = []
    for outcome in runs.in_parallel(runs.hold, tasks):
        outcomes.append(outcome)
        print(cells(outcome), flush=True)
    return summary(outcomes)


def cells(outcome: runs.Outcome) -> str:
    """One line of the table."""
    stage = (outcome.stage or "-") + ("" if outcome.stage_right else " WRONG")
    cause = (outcome.causes or ("-",))[0] + (" (ambiguous)" if outcome.ambiguous else "")
    cause += "" if outcome.named else " NOT NAMED"
    detected = "yes" if outcome.detected else "MISSED"
    return line(*outcome.task, detected, stage, cause, str(outcome.cases))


def line(*cells: str) -> str:
    """Cells under each other."""
    widths = (32, 9, 9, 8, 20, 44, 5)
    return " ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()


def summary(outcomes: list[runs.Outcome]) -> int:
    """Print the rates and what cannot be found; the exit code."""
    n, code = len(outcomes), 0
    counts = [sum(x) for x in zip(*((o.detected, o.stage_right, o.named) for o in outcomes))]
    faults = len({outcome.task.fault for outcome in outcomes})
    print(f"\n{faults} faults, {n} runs")
    for (name, wanted), count in zip(RATES, counts):
        code |= count < wanted * n
        print(f"{name:<12} {count:>4} of {n} = {100 * count / n:5.1f} %, wanted {wanted:.0%}")
    print("\nNot counted, because no check separates them:")
    for mistake, reason in NOT_SEPARABLE.items():
        print(f"  {mistake}: {reason}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
