"""The road of one T(u): how many functions of the package are called, and in how many files.

Counted are the calls of functions defined in the package while T(u) is computed, from `step` or
`apply` on, comprehensions left out. A call of an object that the road only asks something of is one
stop, and what happens inside it is not counted:

    definition   K, bank, φ and θ are asked for K u, A u, σ(z), …
    engine       a call of `refimpl.kernels` is one stop, and all its files are one
"""

import sys
from pathlib import Path

import numpy as np
import pytest

import refimpl
from refimpl import Convolution, FieldOfExperts, FilterBank, Identity, Problem, make_potential
from refimpl.engine import make_step
from refimpl.paper import equations

PACKAGE, SHAPE, TAU = Path(refimpl.__file__).parent, (1, 16, 14), 0.1
OBJECTS = ("paper/operators/", "paper/potentials.py", "paper/parameters.py")
OPERATORS = {
    "identity": Identity(SHAPE),
    "blur": Convolution(np.array([[0.1, 0.2, 0.1]]), SHAPE),
}


def road(call, stops: tuple[str, ...]) -> list[str]:
    """The functions called as "file function", without what is called inside `stops`."""
    calls, within = [], []

    def seen(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE) and not within:
            file, name = path.relative_to(PACKAGE).as_posix(), frame.f_code.co_qualname
            if not name.endswith(">"):  # comprehensions
                calls.append(f"{file} {name}")
            if file.startswith(stops):
                within.append(frame)
        elif event == "return" and within and frame is within[0]:
            within.clear()

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(before)
    return calls


def problem(name: str) -> tuple[Problem, np.ndarray]:
    rng = np.random.default_rng(0)
    experts = FieldOfExperts(
        FilterBank(SHAPE, (4, 3, 3)), make_potential("log_cosh"), rng.normal(size=(4, 1, 3, 3))
    )
    y, u = rng.normal(size=(2, 1, *SHAPE))
    return Problem(OPERATORS[name], y, experts), u


@pytest.mark.parametrize("name", OPERATORS)
def test_definition_of_a_step_is_five_functions_of_one_file_and_nine_questions(name):
    p, u = problem(name)
    calls = road(lambda: equations.step(p, TAU, u), OBJECTS)
    questions = [call for call in calls if call.startswith(OBJECTS)]
    equations_used = [call for call in calls if call not in questions]
    names = ("step", "direction", "residual", "field", "responses")
    assert equations_used == [f"paper/equations.py {name}" for name in names]
    assert len(questions) <= 9


@pytest.mark.parametrize("name", OPERATORS)
def test_fast_step_reaches_the_loops_in_twenty_calls_and_six_files(name):
    p, u = problem(name)
    step = make_step(p, TAU)
    step.apply(u)  # what is made once, and kept, is not on the road
    calls = road(lambda: step.apply(u), ("kernels/",))
    files = {"kernels" if call.startswith("kernels/") else call.split()[0] for call in calls}
    assert len(calls) <= 20, "\n".join(calls)
    assert len(files) <= 6, files


def test_a_detour_is_counted():
    p, u = problem("identity")
    step = make_step(p, TAU)

    def detour():
        step.residual(u)
        return step.apply(u)

    direct, longer = (road(call, ("kernels/",)) for call in (lambda: step.apply(u), detour))
    assert len(longer) == len(direct) + 3
