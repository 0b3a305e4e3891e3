"""False alarms: correct backends over many seeds, in both precisions.

Runs of fifty cases through every stage with the checks of behaviour at a few of them, as in the
command; the seeds counted are those of cases.
"""

import math
from typing import NamedTuple

from faults import runs
from refimpl.verification.backends import make_backend
from refimpl.verification.crosscheck import runner
from refimpl.verification.crosscheck.records import DISAGREES

CASES = 50


class Trial(NamedTuple):
    """One run of a correct backend."""

    framework: str
    precision: str
    seed: int


class Alarm(NamedTuple):
    """What a trial found: how many cases it had, and what is said to be wrong with them."""

    trial: Trial
    cases: int
    complaints: tuple[str, ...]


def tried(trial: Trial) -> Alarm:
    """Run one trial."""
    report = runner.crosscheck(
        make_backend(trial.framework),
        seed=trial.seed,
        cases=CASES,
        precision=trial.precision,
        time_limit=600.0,
        budget=3600.0,
    )
    complaints = tuple(
        f"{stage.stage}: {', '.join(stage.causes) or 'disagrees'} "
        f"(seed {stage.worst_seed}, {stage.worst_output}: {stage.digits} digits of "
        f"{stage.expected_digits}) {'; '.join(stage.details)}"
        for stage in report.stages
        if stage.verdict == DISAGREES
    )
    return Alarm(trial, report.cases, complaints)


def study(frameworks: tuple[str, ...], precisions: tuple[str, ...], seeds: int) -> int:
    """Print every alarm and the totals; 1 if there is one."""
    trials = [
        Trial(framework, precision, seed)
        for framework in frameworks
        for precision in precisions
        for seed in range(math.ceil(seeds / CASES))
    ]
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for alarm in runs.in_parallel(tried, trials):
        key = alarm.trial[:2]
        cases, found = counts.get(key, (0, 0))
        counts[key] = cases + alarm.cases, found + bool(alarm.complaints)
        for complaint in alarm.complaints:
            print(f"ALARM {' '.join(key)} run {alarm.trial.seed}: {complaint}", flush=True)
        print(f"{' '.join(key)}: {counts[key][0]} cases, {counts[key][1]} alarms", flush=True)
    print("\nframework precision  cases  runs with an alarm")
    for (framework, precision), (cases, found) in counts.items():
        print(f"{framework:<9} {precision:<9} {cases:>6}  {found}")
    return int(any(found for _, found in counts.values()))
