"""The training curve: what every step did, and how long a solve may take by what is usual.

A solve may take `PATIENCE` times the iterations and products that are usual in the run, so that one
that fails costs little more than one that does not.
"""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import numpy as np

from refimpl.training.objective import Evaluation

# What a solve may take: of the median so far, and never fewer. "auto" tries two methods.
PATIENCE = {"forward_iterations": 3, "forward_products": 3, "adjoint_iterations": 2}
FEWEST = {"forward_iterations": 10, "forward_products": 100, "adjoint_iterations": 10}

STEPS = ("loss", "psnr", "gradient_norm", "forward_iterations", "forward_products",
         "adjoint_iterations", "images", "left_out", "step_seconds")  # fmt: skip


class Effort:
    """The steps of one epoch: losses, iterations and residuals, the largest over each batch."""

    def __init__(self, records: tuple[dict, ...] = ()):
        self.rejected, self.residuals = 0, {"forward": 0.0, "adjoint": 0.0}
        self.steps: dict[str, list] = {name: [] for name in STEPS}
        self.last: dict[str, Any] = {}
        self.before = records[-1]["steps"] if records and "steps" in records[-1] else {}

    def limits(self) -> dict[str, int]:
        """What a solve may take at most, from the steps of this epoch and the one before.

        Each step that fails after another doubles it: what is usual may have changed.
        """
        row = len(list(takewhile(lambda loss: loss is None, reversed(self.steps["loss"]))))
        found, longer = {}, 2 ** min(max(row - 1, 0), 6)
        for name, patience in PATIENCE.items():
            usual = [n for n in self.before.get(name, []) + self.steps[name] if n is not None]
            if usual:
                most = max(FEWEST[name], int(np.ceil(patience * np.median(usual))))
                found[name] = longer * most
        return found

    def step(self, evaluation: Evaluation, psnr: float, norm: float, seconds: float) -> None:
        """Add one step that was taken, with the norm of its gradient."""
        state, adjoint = evaluation.state, evaluation.adjoint
        for solve, result in (("forward", state), ("adjoint", adjoint)):
            largest = float(result.residuals[result.converged].max())
            self.residuals[solve] = max(self.residuals[solve], largest)
        self._add(
            loss=_short(evaluation.loss), psnr=_short(psnr), gradient_norm=_short(norm),
            forward_iterations=int(state.iterations[state.converged].max()),
            forward_products=state.products,
            adjoint_iterations=int(adjoint.iterations[adjoint.converged].max()),
            images=evaluation.used, left_out=evaluation.left_out,
            step_seconds=_short(seconds),
        )  # fmt: skip

    def reject(self, seconds: float) -> None:
        """Add one step that was taken back."""
        self.rejected += 1
        self._add(**dict.fromkeys(STEPS) | {"step_seconds": _short(seconds)})

    def _add(self, **entries: Any) -> None:
        self.last = entries
        for name, value in entries.items():
            self.steps[name].append(value)

    def record(self, value_range: tuple[float, float]) -> dict:
        """The entries of the epoch's record; `steps` has a list of each number for every step.

        The training loss is the mean of the steps', where no survey has a better one.
        """
        losses, train = list(_there(self.steps["loss"])), {}
        if losses:
            loss = float(np.mean(losses))
            train = {"loss_train": loss, "psnr_train": mean_psnr(loss, value_range)}
        most = {n: max(_there(self.steps[n]), default=0) for n in STEPS if n.endswith("iterations")}
        residuals = {f"{solve}_residual": r for solve, r in self.residuals.items()}
        return train | most | residuals | {"rejected_steps": self.rejected, "steps": self.steps}


def _there(values: list) -> Iterator:
    return (value for value in values if value is not None)


def _short(x: float | None) -> float | None:
    """Five digits, which keep records small."""
    return None if x is None else float(f"{x:.5g}")


def mean_psnr(loss: float, value_range: tuple[float, float]) -> float:
    """PSNR in dB of a mean squared error: 10 log₁₀ (range² / loss)."""
    width = value_range[1] - value_range[0]
    return float(10 * np.log10(width**2 / max(loss, np.finfo(float).tiny)))
