"""Stage three: every figure and table, each by a script of its own.

A script is a module of `figures.scripts` with `draw(output)`, which reads what the first two
stages saved and writes files named like itself.
"""

from importlib import import_module
from pathlib import Path

from figures.workers import run_side_by_side

SCRIPTS = (
    "reconstructions",
    "learning",
    "filters",
    "untying",
    "activations",
    "optimisers",
    "eigenvalues",
    "solver_convergence",
    "tolerance",
    "hypergradient_methods",
    "gradient_checks",
    "normalization",
    "table",
    "benchmark",
)
NEEDS = {"benchmark": ("benchmark.json", "make bench")}


def draw_all(output: Path, only: list[str] | None, say) -> int:
    """Draw the chosen figures, all if `only` is None; return how many.

    A script that needs a file which another command writes is passed over when it is missing.

    Raises
    ------
    ValueError
        If a name in `only` is unknown.
    """
    unknown = sorted(set(only or ()) - set(SCRIPTS))
    if unknown:
        raise ValueError(
            f"figures: {', '.join(unknown)} unknown; choose among {', '.join(SCRIPTS)}"
        )
    chosen = [name for name in SCRIPTS if only is None or name in only]
    for name in [name for name in chosen if name in NEEDS]:
        needed, command = NEEDS[name]
        if not (output / needed).exists():
            say(f"skipped {name}: no {needed} in {output}; {command} writes it")
            chosen.remove(name)
    for (name, _), _ in run_side_by_side(draw_one, [(name, output) for name in chosen]):
        say(f"drew {name}")
    return len(chosen)


def draw_one(name: str, output: Path) -> None:
    """Draw one figure or table."""
    import_module(f"figures.scripts.{name}").draw(output)
