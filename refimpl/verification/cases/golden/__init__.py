"""The golden suite: small portable cases with reference outputs, shipped inside the package.

`recipes` lists the cases, `generate` draws them and writes the directories below `suite/`, and
`outputs` computes all outputs again and holds them to the stored ones. To rewrite the files:

    rm -r refimpl/verification/cases/golden/suite
    python -c "from refimpl.verification.cases.golden import write_suite; write_suite()"

Not here: the format (`docs/case-format.md`), and judging somebody else's outputs.
"""

from refimpl.verification.cases.golden.generate import draw, shortcomings, write_suite
from refimpl.verification.cases.golden.outputs import SUITE, GoldenCase, golden_checks, read_suite
from refimpl.verification.cases.golden.recipes import RECIPES, Recipe

__all__ = [
    "RECIPES",
    "SUITE",
    "GoldenCase",
    "Recipe",
    "draw",
    "golden_checks",
    "read_suite",
    "shortcomings",
    "write_suite",
]
