"""A trained regulariser: filters, potential and λ, for data of any size, and its file.

    u* of λ/2 ‖K u − y‖² + γ Σ_k w_k Σ φ((A u + b)_k), or, untied, of the field with C

The file is an npz of plain arrays, θ and a JSON text with everything else; nothing is unpickled.

Not here: how it is trained (`refimpl.training.learn`).
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.arrays import Array, as_images, positive, shown
from refimpl.engine import make_step
from refimpl.equilibrium import reconstruct
from refimpl.images import UNIT_RANGE
from refimpl.images.sets import check_range
from refimpl.paper.operators import BOUNDARIES, FilterBank, Identity, LinearOperator
from refimpl.paper.parameters import NAMES, Parameters, make_parameters
from refimpl.paper.potentials import POTENTIALS, Potential, check_potential, make_potential
from refimpl.paper.problem import OPERATOR, FieldOfExperts, Problem
from refimpl.results import SolverResult
from refimpl.storage import as_records, first_line, keep, read_kept

FORMAT = "refimpl-model/1"

# ‖G‖ / (λ ‖u‖) where an untied solve begins, of the energy that is near.
NEAR = 1e-2
# Between the noise of a model and that of data.
MOST_SCALE = 1e6


@dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
    """What training found, and on what.

    Attributes
    ----------
    theta : Parameters
        θ, float64; A is (F, C, h, w).
    potential : Potential
        φ.
    boundary : str
        One of `refimpl.paper.operators.BOUNDARIES`.
    lam : float
        λ of the noise level that it was trained for.
    noise_level : float
        ε of the training data, in the unit of `value_range`.
    value_range : tuple (low, high)
        The values of black and white in the training images.
    records : tuple of dict
        One for each epoch; number 0 describes the start.
    ended : str
        Why training ended.
    provenance : dict
        Where it comes from, in values that JSON has: the names of the training data, seed, command,
        operator, commit, or whatever its maker wants to be known. Nothing is computed from it.
    """

    theta: Parameters
    potential: Potential
    boundary: str
    lam: float
    noise_level: float
    value_range: tuple[float, float] = UNIT_RANGE
    records: tuple[dict, ...] = ()
    ended: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        check_potential(self.potential)
        if self.theta.A.ndim != 4 or self.boundary not in list(BOUNDARIES):
            raise ValueError(
                f"TrainedModel: A of shape {self.theta.A.shape}, boundary {shown(self.boundary)}, "
                f"expected filters (F, C, h, w) and one of {', '.join(BOUNDARIES)}"
            )
        positive(self.lam, "lam")
        positive(self.noise_level, "noise_level")
        object.__setattr__(self, "value_range", check_range(self.value_range))
        object.__setattr__(self, "provenance", as_provenance(self.provenance))

    def __repr__(self) -> str:
        F, C, h, w = self.theta.A.shape
        tie, epochs = "tied" if self.theta.tied else "untied", max(len(self.records) - 1, 0)
        return (
            f"TrainedModel({F} filters of {C} × {h} × {w}, {self.potential!r}, {self.boundary}, "
            f"{tie}, noise level {self.noise_level:g}, {epochs} epochs)"
        )

    @property
    def channels(self) -> int:
        """How many channels the filters act on; with one, each channel is an image of its own."""
        return self.theta.A.shape[1]

    @property
    def unit_noise_level(self) -> float:
        """ε where black is 0 and white is 1."""
        low, high = self.value_range
        return self.noise_level / (high - low)

    def problem(self, y: Array, operator: LinearOperator | None = None) -> Problem:
        """The problem of data `y` with this regulariser, in the precision of y.

        Parameters
        ----------
        y : array (N, *K.range_shape), float32 or float64
            Images of any size, or other data.
        operator : LinearOperator, optional
            K; left out: the identity.
        """
        operator = as_operator(operator, as_images(y, "y").shape[1:] if operator is None else None)
        F, C, h, w = self.theta.A.shape
        image_shape = tuple(operator.domain_shape)
        if image_shape[0] != C:
            raise ValueError(
                f"model: images are {image_shape}, the filters act on {C} "
                f"channel{'s' * (C > 1)}; " + ("pass each channel as an image of its own, "
                "(N·C, 1, H, W)" if C == 1 else f"pass images (N, {C}, H, W)")
            )  # fmt: skip
        bank = FilterBank(image_shape, (F, h, w), self.boundary)
        theta = self.theta.astype(getattr(y, "dtype", np.float64))
        return Problem(operator, y, FieldOfExperts(bank, self.potential, theta), self.lam)

    def reconstruct(
        self, y: Array, operator: LinearOperator | None = None, *, tol: float | None = None
    ) -> SolverResult:
        """u* for data as `problem` takes them; the result's `x` are the images.

        `tol` bounds their relative errors; left out: 1e-4, float32 1e-3.
        """
        start = None
        if not self.theta.tied:
            near = make_step(self.tie().problem(y, operator))
            start = reconstruct(near, residual_tol=NEAR * near.tau * near.problem.lam).x
        return reconstruct(make_step(self.problem(y, operator)), start, tol=tol)

    def at(self, noise_level: float) -> "TrainedModel":
        """The model for data of another noise level, in the unit of `value_range`.

        With s = ε₀/ε, the model of ε₀ on s y has u ↦ s u for its result: A ↦ s A, C ↦ s C and
        λ ↦ s² λ (all of G, times s). For K = I, s y has the noise ε₀, and edges s times as high.
        """
        s = self.noise_level / positive(noise_level, "noise_level")
        if not 1 / MOST_SCALE <= s <= MOST_SCALE:
            raise ValueError(
                f"noise_level: given {shown(noise_level)}, the model's is {self.noise_level:g}, "
                f"expected one that differs by a factor of at most {MOST_SCALE:g}"
            )
        scaled = {name: s * x for name, x in self.theta.items() if name in ("A", "C")}
        theta = replace(self.theta, **scaled)
        return replace(self, theta=theta, lam=s**2 * self.lam, noise_level=noise_level)

    def untie(self) -> "TrainedModel":
        """The same field, with C = A a parameter of its own (E7), to train from."""
        return replace(self, theta=self.theta.untie())

    def tie(self) -> "TrainedModel":
        """The energy with (A + C)/2; its minimiser is where the solves of an untied model begin."""
        return replace(self, theta=self.theta.symmetrised())

    def plot(self) -> Any:
        """A matplotlib figure: filters by weight, training curve, a photograph before and after.

        In a notebook it is shown; `model.plot().savefig("model.png")` keeps it.
        """
        from refimpl.training.portrait import portrait

        return portrait(self)

    def save(self, path: Path | str) -> None:
        """Write the model to one npz file, whole or not at all.

        Raises
        ------
        TypeError
            For a potential that is none of refimpl's: a file holds names, no programs.
        """
        if type(self.potential) not in POTENTIALS.values():
            raise TypeError(
                f"save: the potential is {shown(self.potential)}, expected one of "
                f"{', '.join(POTENTIALS)}; keep θ by np.savez and make the model anew"
            )
        text = {
            "potential": self.potential.name,
            "potential_parameters": asdict(self.potential),
            **{name: getattr(self, name) for name in STATED},
        }
        keep(path, FORMAT, text, dict(self.theta.items()), compressed=True)


STATED = ("boundary", "lam", "noise_level", "value_range", "records", "ended", "provenance")


def as_provenance(given: Any) -> dict[str, Any]:
    """A copy of what JSON makes of a mapping from names to values."""
    try:
        found = json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"provenance: {first_line(error)}; expected values that JSON has"
        ) from error
    if not isinstance(found, dict):
        raise TypeError(f"provenance: given {shown(given)}, expected a dict of names and values")
    return found


def read_model(path: Path | str) -> TrainedModel:
    """Read what `TrainedModel.save` wrote; nothing in the file is executed.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or not a model of this format.
    """
    with read_kept(path, FORMAT) as (text, data):
        foreign = data.keys() - set(NAMES)
        if foreign:
            raise ValueError(f"{', '.join(sorted(foreign))} not expected")
        theta = make_parameters(data.pop("A"), **data)
        potential = make_potential(text["potential"], **text["potential_parameters"])
        text.setdefault("provenance", {})  # files of refimpl 0.1 have none
        stated = {name: text[name] for name in STATED}
        stated["records"], stated["ended"] = as_records(stated["records"]), str(stated["ended"])
        return TrainedModel(theta, potential, **stated)


def as_operator(
    operator: LinearOperator | None, image_shape: tuple[int, ...] | None
) -> LinearOperator:
    """The operator, or the identity on images of this shape where there is none."""
    if operator is None:
        return Identity(image_shape)
    missing = [name for name in OPERATOR if not hasattr(operator, name)]
    if missing:
        raise TypeError(
            f"operator: given {type(operator).__name__}, expected a linear operator with "
            f"{', '.join(OPERATOR)}, such as Identity(image_shape); FromScipy makes one of a matrix"
        )
    return operator
