"""Rules of the package's shape: floors, doors, cycles, names, docstrings, lengths.

A walk over the syntax trees, without importing anything. Every rule is a function from parsed
modules to a list of complaints; `test_architecture` keeps them and plants violations of each.
"""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

FLOORS = (  # from the ground up; a module imports strictly lower floors only
    {"arrays", "results", "storage"},
    {"paper", "kernels"},
    {"solvers", "images", "engine"},
    {"equilibrium"},
    {"training"},
    {"restoration", "experiments", "verification"},
    {"cli"},
    {"__main__"},
    {""},  # refimpl/__init__.py
)
FLOOR = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}
DOORS = {
    "numba": {"kernels"},
    "skimage": {"images"},
    "PIL": {"images"},
    "tifffile": {"images"},
    "matplotlib": {"training"},
    "torch": {"verification"},
    "jax": {"verification"},
    "argparse": {"cli", "__main__"},
    "print": {"cli", "__main__"},
}
# Rooms of the package of which others import the room itself, not a module inside it.
ROOMS_WITH_A_DOOR = ("engine",)
# What a module of the solvers must not name: they know problems, not pictures.
FOREIGN_TO_SOLVERS = set(
    "bank filters experts field potential operator theta "
    "open exact close energy_eps rough rounded".split()
)
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


def import_graph(modules: list[Module], root: str = "refimpl") -> dict[str, set[str]]:
    """Imports of each module, those from outside with a leading "/"."""
    names = {module.name for module in modules}
    return {module.name: set(imports(module, names, root)) for module in modules}


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


def cycles(modules: list[Module], root: str = "refimpl") -> list[str]:
    """The first import cycle, if there is one; who imports a.b.c runs a and a.b first."""
    graph = {
        name: targets | (set().union(*map(packages, targets)) - packages(name) - {name})
        for name, targets in import_graph(modules, root).items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["cycle: " + " -> ".join(error.args[1])]
    return []


def packages(name: str) -> set[str]:
    """The packages that a module stands in."""
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


def past_a_door(modules: list[Module], package: list[Module] | None = None) -> list[str]:
    """Imports from inside a room of the package that has a door; left out: by its own modules."""
    complaints, names = [], {module.name for module in package or modules}
    for module in modules:
        targets = set(imports(module, names))
        for room in ROOMS_WITH_A_DOOR:
            within = sorted(t for t in targets if t.startswith(room + "."))
            if within and (package or module.unit != room):
                complaints.append(f"{module.name}: imports {within[0]}, past the door of {room}")
    return complaints


def shared_stems(modules: list[Module]) -> list[str]:
    """Modules with the stem of another."""
    stems = [(m.path.stem, m.name, "stem") for m in modules if not m.path.stem.startswith("__")]
    return repeated(stems)


def shared_classes(modules: list[Module]) -> list[str]:
    """Classes with the name of another."""
    nodes = ((node, module) for module in modules for node in module.tree.body)
    classes = [
        (node.name, module.name, f"class {node.name}")
        for node, module in nodes
        if isinstance(node, ast.ClassDef)
    ]
    return repeated(classes)


def repeated(named: list[tuple[str, str, str]]) -> list[str]:
    """Complaints about names that came before: rows of name, module, and what it names."""
    complaints, first = [], {}
    for name, module, what in named:
        if name in first:
            complaints.append(f"{module}: {what} of {first[name]}")
        first.setdefault(name, module)
    return complaints


def knowing_solvers(modules: list[Module]) -> list[str]:
    """Attributes in the solvers, read or looked for, that belong to images, fields or float32."""
    complaints = []
    for module in (m for m in modules if m.unit == "solvers"):
        for node in ast.walk(module.tree):
            name = getattr(node, "attr", None)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "getattr",
                "hasattr",
            ):
                name = getattr(node.args[1], "value", None)
            if name in FOREIGN_TO_SOLVERS:
                complaints.append(f"{module.name}:{node.lineno}: names {name}")
    return complaints


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


RULES = (
    wrong_floors, wrong_doors, past_a_door, cycles, shared_stems, shared_classes, knowing_solvers,
    work_at_import, missing_docstrings, too_long,
)  # fmt: skip
