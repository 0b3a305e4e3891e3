"""The README: its equation index leads to the functions, and its example runs."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from refimpl.cli.crosschecks import settings
from refimpl.crosscheck import crosscheck

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INDEX = dict(re.findall(r"^\| (E\d+) \|.*\| `([\w.]+)` \|$", README, flags=re.M))
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)
TAG = re.compile(r"\bE\d+\b")


def resolve(name: str):
    """The object of a dotted name: the longest importable module, then attributes."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute)
        return found
    raise LookupError(name)


def tags_in_docstrings() -> set[str]:
    """Every equation tag in a docstring of the package."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found: set[str] = set()
    for path in (ROOT / "refimpl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, nodes):
                found |= set(TAG.findall(ast.get_docstring(node) or ""))
    return found


def test_index_has_the_twelve_equations():
    assert list(INDEX) == [f"E{n}" for n in range(1, 13)]


@pytest.mark.parametrize("tag", [f"E{n}" for n in range(1, 13)])
def test_function_of_the_index_carries_its_tag(tag):
    assert tag in TAG.findall(resolve(INDEX[tag]).__doc__)


def test_every_tag_in_a_docstring_is_in_the_index():
    assert tags_in_docstrings() <= set(INDEX)


def test_unknown_name_in_the_index_is_found_out():
    with pytest.raises(AttributeError):
        resolve("refimpl.maps.Step.no_such_method")


def test_example_runs_and_denoises(capsys):
    code, _ = BLOCKS
    namespace: dict = {}
    exec(compile(code, "README.md", "exec"), namespace)
    gain = namespace["psnr"](namespace["star"].x, namespace["truth"], (0, 1)) - namespace["psnr"](
        namespace["y"], namespace["truth"], (0, 1)
    )
    assert namespace["star"].all_converged and (gain > 5).all()
    assert "->" in capsys.readouterr().out


def test_wrong_backend_of_the_readme_is_diagnosed_as_it_says():
    _, code = BLOCKS
    namespace: dict = {}
    exec(code, namespace)
    only = settings(re.search(r"--only (\S+)", README)[1])
    options = {"cases": 4, "only": only, "time_limit": 120.0, "budget": 600.0}
    report = crosscheck(namespace["Mine"](), **options)
    first = report.first_wrong
    assert f"{first.stage}: {first.causes[0]}. {first.explanation}" in README
    exec(code.replace("convolve", "correlate"), namespace)
    assert crosscheck(namespace["Mine"](), **options).agrees
