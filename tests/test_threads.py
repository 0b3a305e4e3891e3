"""Threads: order, limits, errors, nesting, and what a part inherits."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from refimpl.kernels.threads import available, limited, side_by_side


def test_results_come_in_the_order_of_the_parts():
    with limited(3):
        assert side_by_side(lambda k: k * k, range(20)) == [k * k for k in range(20)]


def test_parts_run_on_other_threads_and_have_none_themselves():
    barrier = threading.Barrier(2, timeout=30)  # passes only if two parts run at the same time

    def part(_):
        barrier.wait()
        return available(), threading.current_thread() is threading.main_thread()

    with limited(2):
        assert side_by_side(part, range(2)) == [(1, False)] * 2
        assert available() == 2


@pytest.mark.parametrize("threads, parts", [(1, 3), (2, 1)])
def test_one_thread_or_one_part_stays_where_it_is(threads, parts):
    with limited(threads):
        where = side_by_side(lambda _: threading.current_thread(), range(parts))
    assert where == [threading.main_thread()] * parts


def test_an_error_of_a_part_is_raised_once_all_have_ended():
    failed, ended = threading.Event(), []

    def part(k):
        if k == 0:
            failed.set()
            raise ZeroDivisionError
        failed.wait(30)
        ended.append(k)

    with limited(2), pytest.raises(ZeroDivisionError):
        side_by_side(part, range(4))
    assert sorted(ended) == [1, 2, 3]


def test_parts_inherit_how_numpy_treats_floating_point_errors():
    with limited(2), np.errstate(divide="ignore"):
        assert side_by_side(lambda _: np.float64(1) / np.float64(0), range(2)) == [np.inf] * 2


@pytest.mark.parametrize("given, expected", [("3", 3), ("", len(os.sched_getaffinity(0)))])
def test_the_number_of_threads_is_that_of_the_environment_or_of_the_cores(given, expected):
    code = "from refimpl.kernels.threads import available; print(available())"
    environment = os.environ | {"OMP_NUM_THREADS": given}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert int(printed) == expected
