"""Stage three: every figure and table, each by a script of its own.

A script is a module of `figures.scripts` with `draw(output)`, which reads what the first two
stages saved and writes files named like itself.
"""

from importlib import import_module
from pathlib import Path

SCRIPTS = (
    "reconstructions",
    "losses",
    "filters",
    "solver_convergence",
    "tolerance",
    "hypergradient_methods",
    "gradient_checks",
    "eigenvalues",
    "normalization",
    "noise_levels",
    "robustness",
    "table",
)


def draw_all(output: Path, only: list[str] | None, say) -> int:
    """Draw the chosen figures, all if `only` is None; return how many.

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
    for name in chosen:
        import_module(f"figures.scripts.{name}").draw(output)
        say(f"drew {name}")
    return len(chosen)
