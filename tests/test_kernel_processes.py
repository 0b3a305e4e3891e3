"""How kernels run: with any number of threads, without the compiler, after an edit of the source.

Each run is a process of its own, because Numba reads its settings once.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_problem import POTENTIALS, Problem, settings_of

from refimpl import kernels
from refimpl.kernels import jit, vectors
from refimpl.kernels.threads import limited

TESTS = Path(__file__).parent
SMALL = (3, 2, 5, 6), (3, 2, 3, 5)
LONG = (8, 1, 40, 60), (4, 1, 3, 3)  # long enough for two threads to meet in shared memory


def outputs(dtype, shapes=SMALL):
    """Every output of every kernel on one problem, in a fixed order."""
    problem = Problem(*shapes, 7, dtype)
    up, qp, A, C, b, w, z, d = problem.inputs("up qp A C b w z d")
    up1, A1, C1 = (np.ascontiguousarray(x[:, :1]) for x in (up, A, C))
    yield kernels.correlate(up, A)
    yield kernels.correlate_adjoint(z, A)
    yield kernels.correlate_adjoint_filters(up, z)
    yield kernels.tangent(up, A, C, d)
    yield vectors.dot(up, up + 1)
    yield vectors.plus(up, np.arange(len(up)).astype(dtype), up + 1)
    rows, columns = (np.r_[-1, np.arange(side), 0] for side in up.shape[2:])
    yield kernels.pad(up, rows, columns)
    yield kernels.fold(kernels.pad(up, rows, columns), rows, columns, *up.shape[2:])
    for potential in POTENTIALS:
        settings = settings_of(potential)
        yield from kernels.parameters(up, qp, A, C, b, w, *settings)
        yield from kernels.field(up, A, C, b, w, *settings, True)
        yield kernels.slopes(up, A, b, *settings)
        first, lines = kernels.safeguarded_slopes(up, None, A, b, *settings)
        yield first
        yield kernels.safeguarded_slopes(up + 1, lines, A, b, *settings)[0]
        yield kernels.stencil(up1, False, None, A1, C1, b, w, *settings, False)[0]
        for half in (False, True):
            lines = kernels.stencil(up1, True, None, A1, C1, b, w, *settings, half)[2]
            arguments = A1, C1, b, w, *settings, half
            S, sums, lines = kernels.stencil(up1 + 1, True, lines, *arguments)
            yield from (S, sums, kernels.stencil(up1 - 1, True, lines, *arguments)[0])
            margin, last = S.shape[2] - up1[0].size, len(S[0]) - 1
            terms = np.array([[0, 0, 1], [last, -1, margin], [last, 0, -margin]])
            yield kernels.stencil_product(up1, terms, S, margin)


def save_outputs(path, dtype, shapes=SMALL, threads=1):
    """Write `outputs` to a file, computed with the given number of threads."""
    with limited(threads):
        np.savez(path, *outputs(np.dtype(dtype), shapes))


def run_in_new_process(code, *paths, **environment):
    """Run Python code that raises on warnings, with `paths` in front of the module path."""
    path = os.pathsep.join(map(str, [*paths, TESTS, TESTS.parent]))
    completed = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=TESTS,
        env=os.environ | environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_results_are_bit_identical_for_every_number_of_threads(dtype, tmp_path):
    name = np.dtype(dtype).name
    # Ten runs with two threads, because threads that share memory do not collide every time.
    code = f"""
import test_kernel_processes as t
t.kernels.jit.LARGE = 0
for run in range(11):
    t.save_outputs(f"{tmp_path}/{{run}}.npz", "{name}", t.LONG, threads=min(run + 1, 2))
"""
    run_in_new_process(code, OMP_NUM_THREADS="2")
    with np.load(tmp_path / "0.npz") as one_thread:
        assert len(one_thread.files) == 8 + 18 * len(POTENTIALS)
        for run in range(1, 11):
            with np.load(tmp_path / f"{run}.npz") as two_threads:
                for key, expected in one_thread.items():
                    np.testing.assert_array_equal(two_threads[key], expected, strict=True)


@pytest.mark.parametrize("work, parts", [(jit.LARGE - 1, [(0, 5)]), (jit.LARGE, [(0, 2), (2, 5)])])
def test_only_large_work_is_shared_among_threads(work, parts):
    done = []
    with limited(2):
        jit.share(lambda first, last: done.append((first, last)), 5, work)
    assert sorted(done) == parts


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_kernels_run_without_the_compiler(dtype, tmp_path):
    """Plain Python gives the same to a few units: only multiply-adds round differently."""
    path, name = tmp_path / "plain.npz", np.dtype(dtype).name
    code = f"import test_kernel_processes as t; t.save_outputs('{path}', '{name}')"
    run_in_new_process(code, NUMBA_DISABLE_JIT="1")
    compiled = list(outputs(dtype))
    with np.load(path) as plain:
        assert len(plain.files) == len(compiled)
        for key, result in zip(plain.files, compiled, strict=True):
            bound = 1000 * np.finfo(dtype).eps * np.abs(result).max()
            assert plain[key].dtype == dtype
            assert np.abs(plain[key] - result).max() <= bound


def test_arguments_are_left_alone():
    problem = Problem((2, 1, 4, 3), (2, 1, 3, 3), 5, np.float64)
    names = "up qp A C b w z d"
    before = [x.copy() for x in problem.inputs(names)]
    list(outputs(np.float64))
    up, qp, A, C, b, w, z, d = problem.inputs(names)
    kernels.field(up, A, C, b, w, kernels.LORENTZIAN, 0.0, True)
    for x, original in zip(problem.inputs(names), before, strict=True):
        np.testing.assert_array_equal(x, original)


def test_editing_a_row_function_recompiles_the_kernels_that_contain_it(tmp_path):
    package = tmp_path / "refimpl"
    source = TESTS.parent / "refimpl" / "kernels"
    shutil.copytree(source, package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source.parent / "storage.py", package)
    (package / "__init__.py").touch()
    code = (
        "import numpy as np; from refimpl.kernels import correlate; one = np.ones((1, 1, 1, 1)); "
        "print(correlate(one, one).item())"
    )
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert float(run_in_new_process(code, tmp_path, **cache)) == 1.0
    strips = package / "kernels" / "strips.py"
    text = strips.read_text()
    assert "= b[k]\n" in text
    strips.write_text(text.replace("= b[k]\n", "= b[k] + 41\n"))
    assert float(run_in_new_process(code, tmp_path, **cache)) == 42.0


def test_compiling_is_said_once_and_reading_from_the_disk_is_not(tmp_path):
    code = (
        "import numpy as np; from refimpl.kernels import correlate; one = np.ones((1, 1, 1, 1)); "
        "correlate(one, one); correlate(one.astype('f'), one.astype('f'))"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(TESTS.parent)}
    said = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
        for _ in range(2)
    ]
    assert said[0].count("compiling loops") == 1
    assert said[1] == ""


CORRELATE = (
    "import numpy as np; from refimpl.kernels import correlate; one = np.ones((1, 1, 1, 1)); "
    "print(correlate(one, one).item())"
)


def correlate_by(package_parent, **environment):
    """Standard error of a process that calls a kernel of a copy of the package."""
    variables = {k: x for k, x in os.environ.items() if k not in ("XDG_CACHE_HOME", "IPYTHONDIR")}
    variables |= {"PYTHONPATH": str(package_parent), **environment}
    command = [sys.executable, "-c", CORRELATE]
    done = subprocess.run(
        command, cwd=package_parent, env=variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1.0\n"
    return done.stderr


@pytest.fixture
def copied(tmp_path):
    """The kernels alone, as a package in a folder of its own."""
    source = TESTS.parent / "refimpl"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "kernels", tmp_path / "refimpl" / "kernels", ignore=ignored)
    shutil.copy(source / "storage.py", tmp_path / "refimpl")
    (tmp_path / "refimpl" / "__init__.py").touch()
    return tmp_path


def test_installation_that_cannot_be_written_compiles_and_says_so_once(copied):
    """A file stands where the folder of the cache would be, and home is no folder."""
    (copied / "refimpl" / "kernels" / "__pycache__").touch()
    said = correlate_by(copied, HOME="/dev/null", PYTHONDONTWRITEBYTECODE="1")
    assert said.count("compiled loops are not kept on disk: no folder can be written") == 1
    assert said.count("compiling loops") == 1 and "is not kept on disk" in said
    assert (copied / "refimpl" / "kernels" / "__pycache__").is_file()


def test_full_disk_while_code_is_kept_is_said_once(copied):
    (copied / "refimpl" / "storage.py").write_text(
        "def write_file(path, content): raise OSError(28, 'No space left on device')\n"
    )
    said = correlate_by(copied, NUMBA_CACHE_DIR=str(copied / "cache"))
    assert said.count("not kept on disk: No space left on device") == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign", "swapped"])
def test_damaged_code_is_compiled_again(damage, compiled_code):
    parent, folder = compiled_code
    files = sorted(folder.rglob("*.nbc"))
    before = {path: path.read_bytes() for path in files}
    for path, other in zip(files, [*files[1:], files[0]]):
        content = before[path]
        at = len(content) // 2
        path.write_bytes({
            "cut": content[:at], "empty": b"", "foreign": b"cos\nsystem\n(S'false'\ntR.",
            "flipped": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :],
            "swapped": before[other],
        }[damage])  # fmt: skip
    assert "compiling loops" in correlate_by(parent, NUMBA_CACHE_DIR=str(folder))
    assert correlate_by(parent, NUMBA_CACHE_DIR=str(folder)) == ""


@pytest.fixture(scope="module")
def compiled_code(tmp_path_factory):
    """The folder of the package, and one with its compiled code."""
    folder = tmp_path_factory.mktemp("code")
    correlate_by(TESTS.parent, NUMBA_CACHE_DIR=str(folder))
    return TESTS.parent, folder
