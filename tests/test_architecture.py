"""The shape of the package: floors, doors, cycles, docstrings, lengths.

A walk over the syntax trees, without importing anything. Every rule is a function from parsed
modules to a list of complaints, and every rule is tested on a planted violation.
"""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (  # from the ground up; a module imports strictly lower floors only
    {"threads"},
    {"kernels", "arrays", "results", "storage"},
    {"vectors"},
    {"solvers", "checks", "parts"},
    {"operators", "potentials", "parameters", "images"},
    {"datafit", "fields_of_experts", "normalization"},
    {"maps"},
    {"preconditioners", "certificates", "models", "drafts"},
    {"implicit", "equilibrium"},
    {"objective"},
    {"training"},
    {"experiments", "cases", "backends", "identities"},
    {"crosscheck"},
    {"cli"},
    {"__main__"},
    {""},  # refimpl/__init__.py
)
FLOOR = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}
DOORS = {
    "numba": {"kernels"},
    "skimage": {"images"},
    "matplotlib": set(),
    "torch": {"backends"},
    "jax": {"backends"},
    "argparse": {"cli", "__main__"},
    "print": {"cli", "__main__"},
}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 45  # without the docstring
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def unit_of(name: str) -> str:
    """The module or subpackage directly below the package that a dotted name belongs to."""
    return name.split(".")[0]


class Module(NamedTuple):
    """A parsed file: its dotted name below the package, its path, its tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def unit(self) -> str:
        """The module or subpackage directly below the package."""
        return unit_of(self.name)


def parse(package: Path) -> list[Module]:
    """All modules of a package directory; a package's __init__ has the package's name."""
    modules = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        modules.append(Module(".".join(parts), path, ast.parse(path.read_text("utf-8"))))
    return modules


def imports(module: Module, names: set[str], root: str = "refimpl") -> Iterator[str]:
    """Names of the modules that a module imports: dotted below the package if inside it.

    A name from outside is yielded with a leading "/". `from refimpl.x import y` is x.y if that
    is a module, and x otherwise.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield inside(alias.name.split("."), names, root)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node, root)
            for alias in node.names:
                yield inside([*base, alias.name], names, root)


def absolute(module: Module, node: ast.ImportFrom, root: str) -> list[str]:
    """The dotted parts of `from X import`, with leading dots resolved."""
    given = node.module.split(".") if node.module else []
    if node.level == 0:
        return given
    here = [root, *filter(None, module.name.split("."))]
    package = here if module.path.name == "__init__.py" else here[:-1]
    return package[: len(package) - node.level + 1] + given


def inside(parts: list[str], names: set[str], root: str) -> str:
    """The longest prefix that is a module of the package, or "/" and the foreign package."""
    if parts[0] != root:
        return "/" + parts[0]
    candidates = (".".join(parts[1:end]) for end in range(len(parts), 0, -1))
    return next((name for name in candidates if name in names), ".".join(parts[1:]))


def import_graph(modules: list[Module]) -> dict[str, set[str]]:
    """Imports of each module, those from outside with a leading "/"."""
    names = {module.name for module in modules}
    return {module.name: set(imports(module, names)) for module in modules}


def wrong_floors(modules: list[Module]) -> list[str]:
    """Modules without a floor, and imports that do not go strictly down."""
    complaints = [
        f"{m.name}: stands on no floor; give {m.unit!r} one in FLOORS"
        for m in modules
        if m.unit not in FLOOR
    ]
    for name, targets in import_graph(modules).items():
        for target in sorted(t for t in targets if not t.startswith("/")):
            above, below = unit_of(name), unit_of(target)
            known = above in FLOOR and below in FLOOR
            if known and above != below and FLOOR[above] <= FLOOR[below]:
                complaints.append(f"{name}: imports {target or 'the package'}")
    return complaints


def wrong_doors(modules: list[Module]) -> list[str]:
    """Imports of guarded libraries, and calls of print, outside their doors."""
    complaints = []
    for module, targets in zip(modules, import_graph(modules).values()):
        used = {target[1:] for target in targets if target.startswith("/")}
        used |= {"print"} if calls(module.tree, "print") else set()
        for library in sorted(used & DOORS.keys()):
            if module.unit not in DOORS[library]:
                complaints.append(f"{module.name}: uses {library}")
    return complaints


def calls(tree: ast.AST, function: str) -> bool:
    """Whether a function of that name is called anywhere in the tree."""
    nodes = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(node, ast.Name) and node.id == function for node in nodes)


def cycles(modules: list[Module]) -> list[str]:
    """The first import cycle, if there is one."""
    graph = {
        name: {t for t in targets if not t.startswith("/")}
        for name, targets in import_graph(modules).items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["cycle: " + " -> ".join(error.args[1])]
    return []


def work_at_import(modules: list[Module]) -> list[str]:
    """Statements at module level that do something, environment reads, and `global`."""
    complaints = []
    for module in modules:
        for node in module.tree.body:
            loops = isinstance(node, (ast.For, ast.While, ast.With))
            call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            reads = not isinstance(node, FUNCTIONS) and reads_environment(node)
            if loops or call or reads:
                complaints.append(f"{module.name}:{node.lineno}: work at import")
        if any(isinstance(node, ast.Global) for node in ast.walk(module.tree)):
            complaints.append(f"{module.name}: global statement")
    return complaints


def reads_environment(node: ast.AST) -> bool:
    """Whether os.environ or getenv is used in this statement, functions inside it left out."""
    if isinstance(node, (*FUNCTIONS, ast.Lambda)):
        return False
    name = getattr(node, "attr", getattr(node, "id", None))
    return name in ("environ", "getenv") or any(map(reads_environment, ast.iter_child_nodes(node)))


def missing_docstrings(modules: list[Module]) -> list[str]:
    """Modules, public classes, functions and methods without a docstring."""
    complaints = [
        f"{m.name or '__init__'}: no docstring" for m in modules if not ast.get_docstring(m.tree)
    ]
    for module in modules:
        for node in public_definitions(module.tree):
            if not ast.get_docstring(node):
                complaints.append(f"{module.name}:{node.lineno}: {node.name} has no docstring")
    return complaints


def public_definitions(parent: ast.Module | ast.ClassDef) -> Iterator[ast.AST]:
    """Public functions and classes of a module, and the methods of public classes."""
    for node in parent.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node)


def too_long(modules: list[Module]) -> list[str]:
    """Files of more than 400 lines, and functions of more than 45 without their docstring."""
    complaints = []
    for module in modules:
        lines = len(module.path.read_text("utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            complaints.append(f"{module.path.name}: {lines} lines, at most {MAX_FILE_LINES}")
        for node in ast.walk(module.tree):
            if isinstance(node, FUNCTIONS) and function_lines(node) > MAX_FUNCTION_LINES:
                complaints.append(
                    f"{module.path.name}:{node.lineno}: {node.name} has {function_lines(node)} "
                    f"lines, at most {MAX_FUNCTION_LINES}"
                )
    return complaints


def function_lines(node: ast.FunctionDef) -> int:
    """Lines of a function, from def to its end, without the docstring."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node):
        lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    return lines


RULES = (wrong_floors, wrong_doors, cycles, work_at_import, missing_docstrings, too_long)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps_the_rule(rule):
    complaints = rule(parse(ROOT / "refimpl"))
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
        "from refimpl.maps import Step",
        "from refimpl import maps",
        "import refimpl.maps",
        "from .maps import Step",
        "from . import maps",
        "def f():\n    from refimpl.maps import Step",
    ],
)
def test_import_going_up_is_found_in_every_spelling(plant, source):
    modules = plant(arrays=DOC + source, maps=DOC)
    assert wrong_floors(modules) == ["arrays: imports maps"]


def test_siblings_that_import_each_other_are_found(plant):
    modules = plant(datafit=DOC + "from refimpl.fields_of_experts import F", fields_of_experts=DOC)
    assert wrong_floors(modules) == ["datafit: imports fields_of_experts"]


def test_import_of_the_package_itself_is_found(plant):
    modules = plant(__init__=DOC, maps=DOC + "from refimpl import Step")
    assert wrong_floors(modules) == ["maps: imports the package"]


def test_import_up_out_of_a_subpackage_is_found(plant):
    modules = plant(
        **{"solvers/newton": DOC + "from ..operators.bank import B", "operators/bank": DOC}
    )
    assert wrong_floors(modules) == ["solvers.newton: imports operators.bank"]


def test_module_without_a_floor_is_found(plant):
    assert wrong_floors(plant(utilities=DOC)) == [
        "utilities: stands on no floor; give 'utilities' one in FLOORS"
    ]


@pytest.mark.parametrize(
    ("name", "source", "library"),
    [
        ("maps", "import numba", "numba"),
        ("kernels/a", "import matplotlib.pyplot as plt", "matplotlib"),
        ("maps", "from skimage.data import camera", "skimage"),
        ("crosscheck", "def f():\n    import torch", "torch"),
        ("cases", "from jax import numpy", "jax"),
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
        ("backends/b", "import torch"),
        ("cli", "def f():\n    print(1)"),
    ],
)
def test_library_at_its_door_is_accepted(plant, name, source):
    assert wrong_doors(plant(**{name: DOC + source})) == []


def test_cycle_inside_a_package_is_found(plant):
    sources = {
        "solvers/__init__": DOC + "from .a import f",
        "solvers/a": DOC + "from refimpl.solvers.b import g",
        "solvers/b": DOC + "from refimpl.solvers import f",
    }
    modules = plant(**sources)
    assert wrong_floors(modules) == []
    assert cycles(modules)[0].startswith("cycle: ")


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
    found = missing_docstrings(plant(maps=source))
    assert [complaint.split(": ")[1] for complaint in found] == [
        "no docstring",
        "f has no docstring",
        "B has no docstring",
        "g has no docstring",
    ]


def test_long_function_and_file_are_found_and_docstrings_are_not_counted(plant):
    body = "    x = 1\n" * 44
    documented = 'def f():\n    """A.\n\n    B.\n    """\n' + body
    assert too_long(plant(maps=DOC + documented)) == []
    assert "f has 46 lines" in too_long(plant(maps=DOC + documented + "    x = 1\n"))[0]
    assert "maps.py: 401 lines" in too_long(plant(maps="\n" * 401))[0]
