"""The package keeps the rules of its shape, and each rule finds a planted violation."""

import pytest
from architecture import (
    ROOT,
    RULES,
    Module,
    cycles,
    knowing_solvers,
    missing_docstrings,
    parse,
    past_a_door,
    shared_classes,
    shared_stems,
    too_long,
    work_at_import,
    wrong_doors,
    wrong_floors,
)


@pytest.fixture(scope="module")
def package():
    return parse(ROOT / "refimpl")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps_the_rule(rule, package):
    complaints = rule(package)
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("directory", ["tests", "figures"])
def test_files_and_functions_outside_the_package_keep_the_lengths(directory):
    complaints = too_long(parse(ROOT / directory))
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def plant(tmp_path):
    """Write little modules into a package and parse it."""

    def write(**sources: str) -> list[Module]:
        for name, source in sources.items():
            path = tmp_path / "refimpl" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, "utf-8")
        return parse(tmp_path / "refimpl")

    return write


DOC = '"""A module."""\n'


def test_imports_going_down_are_accepted(plant):
    sources = {
        "arrays": DOC,
        "solvers/__init__": DOC + "from refimpl.solvers.krylov import cg",
        "solvers/krylov": DOC + "from ..arrays import dot\nfrom . import stopping",
        "solvers/stopping": DOC + "import refimpl.arrays",
        "cli": DOC + "import argparse\nfrom refimpl import solvers\nprint_all = print\n",
        "__init__": DOC + "from refimpl.cli import main",
    }
    modules = plant(**sources)
    assert [complaint for rule in RULES for complaint in rule(modules)] == []


@pytest.mark.parametrize(
    "source",
    [
        "from refimpl.equilibrium import Step",
        "from refimpl import equilibrium",
        "import refimpl.equilibrium",
        "from .equilibrium import Step",
        "from . import equilibrium",
        "def f():\n    from refimpl.equilibrium import Step",
    ],
)
def test_import_going_up_is_found_in_every_spelling(plant, source):
    modules = plant(arrays=DOC + source, equilibrium=DOC)
    assert wrong_floors(modules) == ["arrays: imports equilibrium"]


def test_siblings_that_import_each_other_are_found(plant):
    modules = plant(solvers=DOC + "from refimpl.engine import F", engine=DOC)
    assert wrong_floors(modules) == ["solvers: imports engine"]


def test_import_of_the_package_itself_is_found(plant):
    modules = plant(__init__=DOC, training=DOC + "from refimpl import Step")
    assert wrong_floors(modules) == ["training: imports the package"]


def test_import_up_out_of_a_subpackage_is_found(plant):
    modules = plant(
        **{"paper/loss": DOC + "from ..engine.step import B", "engine/step": DOC}
    )
    assert wrong_floors(modules) == ["paper.loss: imports engine.step"]


def test_module_without_a_floor_is_found(plant):
    assert wrong_floors(plant(utilities=DOC)) == [
        "utilities: stands on no floor; give 'utilities' one in FLOORS"
    ]


@pytest.mark.parametrize(
    ("name", "source", "library"),
    [
        ("training", "import numba", "numba"),
        ("kernels/a", "import matplotlib.pyplot as plt", "matplotlib"),
        ("training", "from skimage.data import camera", "skimage"),
        ("training", "def f():\n    import torch", "torch"),
        ("experiments", "from jax import numpy", "jax"),
        ("training", "from argparse import ArgumentParser", "argparse"),
        ("training", "def f():\n    print(1)", "print"),
    ],
)
def test_library_outside_its_door_is_found(plant, name, source, library):
    complaint = f"{name.replace('/', '.')}: uses {library}"
    assert wrong_doors(plant(**{name: DOC + source})) == [complaint]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("kernels/a", "from numba import njit"),
        ("images/data", "import skimage.data"),
        ("verification/b", "import torch"),
        ("cli", "def f():\n    print(1)"),
    ],
)
def test_library_at_its_door_is_accepted(plant, name, source):
    assert wrong_doors(plant(**{name: DOC + source})) == []


def test_an_import_past_the_door_of_a_room_is_found(plant):
    sources = {
        "engine/__init__": DOC + "from refimpl.engine.step import Step",
        "engine/step": DOC,
        "equilibrium/state": DOC + "from refimpl.engine import Step",
        "equilibrium/norms": DOC + "def f():\n    from refimpl.engine.step import Step",
    }
    assert past_a_door(plant(**sources)) == [
        "equilibrium.norms: imports engine.step, past the door of engine"
    ]


def test_a_stem_or_a_class_of_another_module_is_found(plant):
    sources = {
        "paper/filters": DOC + "class A:\n    pass",
        "engine/filters": DOC,
        "images/sets": DOC + "class A:\n    pass\nclass B:\n    pass",
        "images/__init__": DOC,
        "paper/__init__": DOC,
    }
    modules = plant(**sources)
    assert shared_stems(modules) == ["paper.filters: stem of engine.filters"]
    assert shared_classes(modules) == ["paper.filters: class A of images.sets"]


@pytest.mark.parametrize(
    "source", ["def f(x):\n    return x.bank", "def f(x):\n    return getattr(x, 'open', 0)"]
)
def test_a_solver_that_knows_of_fields_is_found(plant, source):
    assert len(knowing_solvers(plant(**{"solvers/newton": DOC + source, "engine": source}))) == 1


def test_cycle_inside_a_package_is_found(plant):
    sources = {
        "solvers/__init__": DOC + "from .a import f",
        "solvers/a": DOC + "from refimpl.solvers.b import g",
        "solvers/b": DOC + "from refimpl.solvers import f",
    }
    modules = plant(**sources)
    assert wrong_floors(modules) == []
    assert cycles(modules)[0].startswith("cycle: ")


def test_cycle_through_a_package_above_is_found(plant):
    sources = {
        "solvers/__init__": DOC,
        "solvers/a": DOC + "from refimpl.solvers.b.c import f",
        "solvers/b/__init__": DOC + "from refimpl.solvers.a import g",
        "solvers/b/c": DOC,
    }
    assert cycles(plant(**sources))[0].startswith("cycle: ")


@pytest.mark.parametrize(
    "source",
    [
        "import os\nDATA = os.environ['DATA']",
        "import os\nDATA = os.getenv('DATA')",
        "from os import environ\nif environ:\n    x = 1",
        "class A:\n    '''A.'''\n    import os\n    x = os.environ.get('x')",
        "for i in range(3):\n    x = i",
        "open('f')",
    ],
)
def test_work_at_import_is_found(plant, source):
    assert len(work_at_import(plant(images=DOC + source))) == 1


def test_environment_read_in_a_function_is_not_work_at_import(plant):
    assert (
        work_at_import(plant(images=DOC + "import os\ndef f():\n    return os.environ['X']")) == []
    )


def test_global_statement_is_found(plant):
    modules = plant(images=DOC + "X = 0\ndef f():\n    global X\n    X = 1")
    assert work_at_import(modules) == ["images: global statement"]


def test_missing_docstrings_are_found(plant):
    source = "def f():\n    pass\nclass B:\n    def g(self):\n        pass\ndef _h():\n    pass\n"
    found = missing_docstrings(plant(training=source))
    assert [complaint.split(": ")[1] for complaint in found] == [
        "no docstring",
        "f has no docstring",
        "B has no docstring",
        "g has no docstring",
    ]


def test_long_function_and_file_are_found_and_docstrings_are_not_counted(plant):
    body = "    x = 1\n" * 44
    documented = 'def f():\n    """A.\n\n    B.\n    """\n' + body
    assert too_long(plant(equilibrium=DOC + documented)) == []
    assert "f has 46 lines" in too_long(plant(equilibrium=DOC + documented + "    x = 1\n"))[0]
    assert "equilibrium.py: 401 lines" in too_long(plant(equilibrium="\n" * 401))[0]
