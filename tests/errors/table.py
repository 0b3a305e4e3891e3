"""All judgements as rates, the goals they miss, and the names of what misses them.

Goals: 99 % of estimates within a factor 3 of the truth; no proved error below the truth; nothing
called converged that misses its tolerance by more than 3 ×, has no fixed point, or a singular J;
nothing given up by "auto" that is regular; no exception but those documented. Errors at the level
of rounding are left out of factors: there an estimate only must not exceed 3 × that level, or 3 ×
the truth.
"""

from collections.abc import Callable, Iterable

import numpy as np

from errors.answers import KINDS
from errors.judgement import FACTOR, Judgement

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
WANTED = 0.99
NAMES = 12


def report(title: str, judgements: list[Judgement], *, names: int = NAMES) -> int:
    """Print one set; the number of goals that it misses."""
    tasks = len({j.task for j in judgements})
    print(f"\n{title}: {tasks} problems, {len(judgements)} answers")
    conditions = np.array([j.condition for j in judgements if np.isfinite(j.condition)])
    if len(conditions):
        low, high = np.quantile(conditions, (0.01, 0.99))
        print(f"condition of J, 1 % to 99 %: {low:.1e} to {high:.1e}")
    missed = sum(errors_stated(judgements, quantity) for quantity in ("image", "gradient"))
    return missed + flags(judgements, names)


def errors_stated(judgements: list[Judgement], quantity: str) -> int:
    """Print the stated errors of one quantity beside the truth; the number of goals missed."""
    some = [j for j in judgements if j.quantity == quantity]
    heads = [f"{quantity} errors", "answers", "compared", f"within {FACTOR:g}", "below", "rounding"]
    print("\n" + cells(*heads, *(f"{100 * q:g} %" for q in QUANTILES)) + "  of stated / truth")
    return sum(kind_line(kind, [j for j in some if j.stated == kind]) for kind in KINDS)


def kind_line(kind: str, some: list[Judgement]) -> int:
    """Print one kind of error; the number of goals missed."""
    ratios = np.array([j.ratio for j in some if j.compared])
    within = (ratios >= 1 / FACTOR) & (ratios <= FACTOR)
    below = sum(j.too_small for j in some)
    rest = [j for j in some if at_rounding(j)]
    fine = sum(j.error <= FACTOR * max(j.truth, j.rounding) for j in rest)
    share = f"{100 * within.mean():.1f} %" if len(ratios) else "-"
    quantiles = np.quantile(ratios, QUANTILES) if len(ratios) else []
    counts = len(some), len(ratios), share, below, f"{fine} of {len(rest)}"
    print(cells(kind, *counts, *(f"{q:.2g}" for q in quantiles)))
    if kind == "estimated" and len(ratios):
        return int(within.mean() < WANTED)
    return int(kind == "proved" and below > 0)


def cells(first: str, *others: object) -> str:
    """A line of the table."""
    return f"{first:<18}" + "".join(f"{cell!s:>12}" for cell in others)


def at_rounding(j: Judgement) -> bool:
    """Whether an error is stated where the truth is below the level of rounding."""
    return j.zero == "zero" and j.stated != "unknown" and j.truth <= j.rounding


def flags(judgements: list[Judgement], names: int) -> int:
    """Print what is called converged, and what is not, by kinds; the number of goals missed."""
    claims = {
        "wrong": lambda j: j.wrong,
        "singular": lambda j: j.open,
        "given up": lambda j: j.given_up and j.method == "auto",
        "crashed": lambda j: bool(j.crashes),
        "others'": lambda j: j.given_up and j.method != "auto",
    }
    print("\n" + f"{'converged?':<34} {'asked':>7} {'converged':>9}"
          + "".join(f"{claim:>10}" for claim in claims))  # fmt: skip
    asked = [j for j in judgements if np.isfinite(j.tol) or j.crashes]
    for kind in dict.fromkeys((j.quantity, j.kind) for j in asked):
        some = [j for j in asked if (j.quantity, j.kind) == kind]
        print(flag_line(", ".join(kind[::-1]), some, claims))
        for claim, holds in claims.items():
            list_names(claim, [j for j in some if holds(j)], names)
    print(flag_line("all", asked, claims))
    goals = ("wrong", "singular", "given up", "crashed")
    return sum(any(claims[goal](j) for j in asked) for goal in goals)


def flag_line(kind: str, some: list[Judgement], claims: dict[str, Callable]) -> str:
    """One kind of problems."""
    counts = [sum(map(holds, some)) for holds in claims.values()]
    converged = sum(j.converged for j in some)
    return f"{kind:<34} {len(some):>7} {converged:>9}" + "".join(f"{n:>10}" for n in counts)


def list_names(claim: str, some: Iterable[Judgement], names: int) -> None:
    """Print which, for `--seed`."""
    which = list(dict.fromkeys(j.task.split()[1] for j in some))
    if which and claim != "others'":
        more = f" and {len(which) - names} more" if len(which) > names else ""
        print(f"    {claim}: {' '.join(which[:names])}{more}")


def line(j: Judgement) -> str:
    """One judgement in full."""
    claims = [name for name in ("wrong", "open", "given_up", "too_small") if getattr(j, name)]
    return (
        f"{j.task} ({j.kind}; {j.method}), {j.quantity}: "
        f"{'converged' if j.converged else 'not converged'}, {j.stated} {j.error:.2g}, "
        f"truth {j.truth:.2g} ({j.zero}{'' if j.near else ', elsewhere'}), "
        f"rounding {j.rounding:.1g}, tol {j.tol:.1g}, cond {j.condition:.1e}"
        + "".join(f"; {claim.upper()}" for claim in claims)
        + "".join(f"; {crash}" for crash in j.crashes)
    )
