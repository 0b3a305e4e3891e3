"""Start a job, kill it, look at what it left, start it again: until one run ends by itself."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kills.jobs import ROOT, Job, contents, differences, environment, unreadable

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
KILLED = tuple(-number for number in SIGNALS)
# Seconds until every worker of a killed process must have ended, and that a run may take.
PATIENCE, LONGEST = 30.0, 1800.0


class Outcome(NamedTuple):
    """Kills, runs that ended by themselves, and complaints."""

    kills: int
    ends: int
    complaints: list[str]


def start(job: Job, folder: Path, kill_at: int = 0) -> subprocess.Popen:
    """The job in a session of its own, so that all its processes can be found."""
    return subprocess.Popen(
        job.command(folder), cwd=ROOT, env=environment(kill_at), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def reference(job: Job, folder: Path) -> tuple[dict[str, object], float]:
    """What the job leaves when nobody interrupts it, and the seconds it takes."""
    begin = time.perf_counter()
    finish(start(job, folder))
    return contents(folder), time.perf_counter() - begin


def finish(process: subprocess.Popen) -> None:
    """Wait for a run that must end well."""
    _, said = process.communicate(timeout=LONGEST)
    if process.returncode != 0:
        raise RuntimeError(f"exit code {process.returncode}: {said.strip()[-400:]}")


def run(
    job: Job, kills: int, folder: Path, seed: int, say: Callable[[str], None] = print
) -> Outcome:
    """Kill a job so many times, in chains that each end with a run to the end."""
    rng = np.random.default_rng(seed)
    expected, seconds = reference(job, folder / "reference")
    say(f"{job.name}: {len(expected)} files in {seconds:.1f} s, uninterrupted")
    done, ends, complaints = 0, 0, []
    while done < kills:
        work = folder / f"chain-{ends}"
        for complaint in chain(job, work, seconds, kills - done, rng):
            done += 1
            complaints += complaint
            say(f"{job.name}: {done} of {kills} kills, {len(complaints)} complaints")
        complaints += [f"{job.name}: differs: {name}" for name in differences(work, expected)]
        shutil.rmtree(work)
        ends += 1
        say(f"{job.name}: {ends} resumed to the end, {len(complaints)} complaints")
    return Outcome(done, ends, complaints)


def chain(
    job: Job, folder: Path, seconds: float, most: int, rng: np.random.Generator
) -> Iterator[list[str]]:
    """Runs in one folder, each killed but the last: the complaints about each kill.

    Every other run, where the job can, kills itself while it writes.
    """
    for number in range(most):
        if job.steps and number % 2:
            process = start(job, folder, int(rng.integers(1, job.steps + 1)))
        else:
            process = start(job, folder)
            wait(process, rng.uniform(0, job.share * seconds))
            process.send_signal(SIGNALS[number // 2 % 2])
        if process.wait() not in KILLED:
            finish(process)
            return
        process.stderr.close()
        left = [] if ended(process.pid) else [f"{job.name}: workers are left"]
        yield left + unreadable(folder)
    finish(start(job, folder))


def wait(process: subprocess.Popen, seconds: float) -> None:
    """Wait for a moment, or until the process ends by itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def ended(group: int) -> bool:
    """Whether every process of a group ends in time; what is left is then killed."""
    limit = time.perf_counter() + PATIENCE
    while time.perf_counter() < limit:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    return False
