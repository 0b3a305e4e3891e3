"""Peak memory and cold start, each in a process of its own.

    memory       growth of the resident set's peak over one hypergradient of denoising, from when
                 the program and the problem are loaded; threads' stacks are included
    cold start   a new interpreter until the first gradient, kernels cached; and with an empty cache
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST_GRADIENT = """
import numpy as np
from refimpl import FieldOfExperts, FilterBank, make_potential
from refimpl.engine import make_field
u = np.random.default_rng(0).uniform(size=(1, 1, 64, 64))
A = np.random.default_rng(1).standard_normal((30, 1, 3, 3))
bank, phi = FilterBank((1, 64, 64), (30, 3, 3)), make_potential("log_cosh", slope=100.0)
make_field(FieldOfExperts(bank, phi, A)).value(u)
"""


def cold_start(*, compiling: bool) -> dict[str, float]:
    """Seconds of a new interpreter, twice with cached kernels (the first fills the cache).

    Parameters
    ----------
    compiling : bool
        Also with an empty cache.
    """
    cached = [first_gradient(None) for _ in range(2)]
    seconds = {"cached": cached[-1]}
    if compiling:
        with tempfile.TemporaryDirectory() as folder:
            seconds["compiling"] = first_gradient(folder)
    return seconds


def first_gradient(cache: str | None) -> float:
    """Seconds of `python -c FIRST_GRADIENT`."""
    extra = {} if cache is None else {"NUMBA_CACHE_DIR": cache}
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST_GRADIENT], check=True, env=os.environ | extra)
    return time.perf_counter() - begin


def peak_memory(names: list[str], output: Path, flags: list[str]) -> dict[str, dict]:
    """What `memory_of` says of each variant, in megabytes, each in its own process."""
    rows = {}
    for name in names:
        command = [sys.executable, "-m", "figures.benchmarks.processes", name, str(output), *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        rows[name] = (
            json.loads(lines[-1])
            if done.returncode == 0 and lines
            else {"failed": done.stderr.strip().splitlines()[-1:]}
        )
    return rows


def memory_of(name: str, output: Path, size: tuple[int, int], images: int) -> dict[str, float]:
    """Peak resident megabytes before and after one hypergradient at a tolerance of 1e-6."""
    from figures.benchmarks.libraries import prepare_libraries
    from figures.benchmarks.problems import make_problem, trained_parameters
    from figures.benchmarks.variants import variants

    prepare_libraries()
    theta = trained_parameters(output, output.name.endswith("quick"), print)
    problem = make_problem("denoising", theta[True], size=size, images=images)
    variant = next(v for v in variants("conv2d", "shifts") if v.name == name)
    variant.make(problem.few(1))(1e-2)
    before = peak_resident()
    variant.make(problem)(1e-6)
    after = peak_resident()
    batch = problem.truth.nbytes / 2**20
    return {"before": before, "after": after, "growth": after - before, "batch": batch}


def peak_resident() -> float:
    """The resident set's peak in megabytes.

    On Linux VmHWM, because getrusage begins with what the parent process held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    name, output, height, width, images = sys.argv[1:]
    row = memory_of(name, Path(output), (int(height), int(width)), int(images))
    print(json.dumps(row))
