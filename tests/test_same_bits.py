"""With filter banks, what belongs to an image has the same bits for any threads, batch and layout.

Dense banks and `Matrix` go through BLAS, whose order of additions changes with the threads and with
the number of images: there results agree to rounding, which the README and their docstrings say.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from same_bits import CASES, IMAGES, SHAPE, answers, problem

import refimpl as ri
from refimpl.engine import make_step
from refimpl.kernels.threads import limited

IDS = [" ".join([name, *(f"{k}={getattr(v, '__name__', v)}" for k, v in o.items())])
       for name, o in CASES]  # fmt: skip
SPLITS = [(1, 1, 1, 1), (3, 1)]
ORDERS = [(3, 2, 1, 0), (2, 0, 3, 1)]


def assert_same(given, expected):
    for x, y in zip(given, expected, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y)


@pytest.fixture(scope="module", params=range(len(CASES)), ids=IDS)
def case(request):
    name, options = CASES[request.param]
    p = problem(name, **options)
    return p, answers(p)


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_any_split_of_a_batch(case, split):
    p, whole = case
    ends = np.cumsum((0, *split))
    parts = [answers(p.images(slice(*ends[k : k + 2]))) for k in range(len(split))]
    assert_same([np.concatenate(x) for x in zip(*parts)], whole)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_any_order_of_images(case, order):
    p, whole = case
    order = np.array(order)
    assert_same(answers(replace(p, y=p.y[order])), [x[order] for x in whole])


@pytest.mark.parametrize("others", ["zeros", "larger", "repeated"])
def test_any_other_images_beside_it(case, others):
    p, whole = case
    y = p.y.copy()
    y[1:] = {"zeros": 0 * y[1:], "larger": 3 * y[1:], "repeated": y[:1] + 0 * y[1:]}[others]
    assert_same([x[:1] for x in answers(replace(p, y=y))], [x[:1] for x in whole])


def layouts(x):
    """The same numbers with other strides, alignments and permissions."""
    wide = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    wide[tuple(slice(None, None, 2) for _ in x.shape)] = x
    yield wide[tuple(slice(None, None, 2) for _ in x.shape)]
    yield np.asfortranarray(x)
    yield np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    buffer = np.zeros(x.nbytes + 64, np.uint8)[x.itemsize :]
    moved = buffer[: x.nbytes].view(x.dtype).reshape(x.shape)
    moved[...] = x
    moved.flags.writeable = False
    yield moved


def test_any_layout_in_memory(case):
    p, whole = case
    for y in layouts(p.y):
        assert_same(answers(replace(p, y=y)), whole)
    for A in layouts(p.theta.A):
        assert_same(answers(p.with_theta(replace(p.theta, A=A))), whole)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_in_a_process(case, threads):
    p, whole = case
    with limited(threads):
        assert_same(answers(p), whole)


@pytest.mark.parametrize("method", ["picard", "anderson", "newton_krylov", "newton", "nesterov"])
def test_any_split_by_every_method_that_does_not_go_through_blas(method):
    p = problem("identity")
    whole = answers(p, method)
    parts = [answers(p.images(slice(n, n + 1)), method) for n in range(IMAGES)]
    assert_same([np.concatenate(x) for x in zip(*parts)], whole)


def run_with(threads):
    """What the program prints with this number of threads, for its loops and for BLAS."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, here / "same_bits.py"], capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_and_two_threads_of_everything():
    one, two = run_with(1), run_with(2)
    assert len(one) == len(CASES) + 1 and one == two


# Dense banks and matrices


def with_matrix():
    rng = np.random.default_rng(4)
    K = ri.Matrix(rng.normal(size=(50, int(np.prod(SHAPE)))), SHAPE)
    return replace(problem("identity"), operator=K, y=rng.normal(size=(IMAGES, 50)))


@pytest.mark.parametrize("kind", ["bank", "matrix"])
def test_dense_banks_and_matrices_agree_to_rounding_for_any_split(kind):
    p = with_matrix() if kind == "matrix" else problem("identity", bank=ri.DenseBank(SHAPE, 60))
    u = np.random.default_rng(6).normal(size=(IMAGES, *SHAPE))
    whole = make_step(p, 1e-3).apply(u)
    for n in range(IMAGES):
        alone = make_step(p.images(slice(n, n + 1)), 1e-3).apply(u[n : n + 1])
        bound = 64 * np.finfo(float).eps * np.sqrt(u[0].size) * np.linalg.norm(whole[n])
        assert np.linalg.norm(alone[0] - whole[n]) <= bound


def test_what_goes_through_blas_says_so():
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert "Dense banks, `ri.Matrix` and `lbfgs`\ngo through BLAS" in readme
    for thing in (ri.DenseBank, ri.Matrix):
        assert "BLAS" in thing.__doc__
