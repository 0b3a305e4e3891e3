"""The list of golden cases: what each is made of, without its numbers.

Together they hold every potential, boundary, analysis and operator, tied and untied, with and
without b and w, one and three channels, one and three images, odd, even and elongated sizes,
images smaller than the filter and one pixel wide. Numbers are such that plain iterations
converge: λ > γ sup σ′ ‖A‖² would always do, and less does for most.
"""

from dataclasses import dataclass, field

BOTH = ("b", "weights")


@dataclass(frozen=True)
class Recipe:
    """One golden case, up to its random arrays.

    Attributes
    ----------
    potential, operator : str
    tied : bool
    boundary : str or None
        Of the analysis convolution; None for dense rows.
    size : tuple (H, W)
    channels, images : int
    filters : tuple (F, h, w), or (F,) for dense rows
    kernel : tuple (h, w), with operator_boundary, for the operator "convolution"
    given : tuple of str
        Which of b and weights the case holds.
    coloured_mask : bool
        Whether the mask is (C, H, W), as floating-point numbers, instead of a boolean (H, W).
    parameters : dict
        Of the potential.
    lam, gamma, tau : float
    norm : float or None
        Spectral norm to which A and C are rescaled.
    """

    potential: str
    operator: str
    tied: bool
    boundary: str | None
    size: tuple[int, int]
    channels: int = field(default=1, kw_only=True)
    images: int = field(default=1, kw_only=True)
    filters: tuple[int, ...] = field(default=(3, 3, 3), kw_only=True)
    kernel: tuple[int, int] = field(default=(3, 3), kw_only=True)
    operator_boundary: str | None = field(default=None, kw_only=True)
    given: tuple[str, ...] = field(default=BOTH, kw_only=True)
    coloured_mask: bool = field(default=False, kw_only=True)
    parameters: dict[str, float] = field(default_factory=dict, kw_only=True)
    lam: float = field(default=1.5, kw_only=True)
    gamma: float = field(default=0.5, kw_only=True)
    tau: float = field(default=0.25, kw_only=True)
    norm: float | None = field(default=None, kw_only=True)

    @property
    def analysis(self) -> str:
        """The form of A and C."""
        return "dense" if self.boundary is None else "convolution"

    @property
    def label(self) -> str:
        """Potential, tied or untied, boundary or "dense", operator, and whether there is a norm."""
        parts = [self.potential, "tied" if self.tied else "untied", self.boundary or "dense"]
        return "-".join([*parts, self.operator, *([] if self.norm is None else ["norm"])])


ROWS = (8,)
TIED, UNTIED = True, False

# fmt: off
_RECIPES = (
    Recipe("quadratic", "identity", TIED, "zero", (5, 5), given=()),
    Recipe("quadratic", "mask", UNTIED, "periodic", (4, 6), images=3),
    Recipe("quadratic", "matrix", TIED, None, (3, 4), filters=ROWS, given=("b",)),
    Recipe(
        "quadratic", "convolution", UNTIED, "symmetric", (4, 5),
        channels=3, operator_boundary="zero", given=("weights",),
    ),
    Recipe("half_squared_relu", "identity", TIED, "reflect", (4, 6), channels=3),
    Recipe(
        "half_squared_relu", "convolution", UNTIED, "replicate", (5, 4),
        images=3, operator_boundary="periodic", kernel=(3, 5), filters=(2, 5, 3),
    ),
    Recipe("half_squared_relu", "identity", TIED, None, (3, 5), images=3, filters=ROWS),
    Recipe("half_squared_relu", "matrix", UNTIED, None, (4, 4), filters=ROWS, given=()),
    Recipe(
        "soft_shrinkage", "convolution", TIED, "periodic", (5, 5),
        operator_boundary="symmetric", filters=(3, 3, 5),
    ),
    Recipe(
        "soft_shrinkage", "matrix", UNTIED, "zero", (3, 4),
        images=3, given=("b",), parameters={"threshold": 0.25},
    ),
    Recipe(
        "soft_shrinkage", "convolution", TIED, None, (4, 4),
        operator_boundary="reflect", filters=ROWS, given=("weights",),
    ),
    Recipe("soft_shrinkage", "identity", UNTIED, "symmetric", (6, 1), channels=3),
    Recipe(
        "log_cosh", "mask", TIED, "symmetric", (4, 5),
        channels=3, coloured_mask=True, filters=(5, 3, 3), parameters={"slope": 2.0},
    ),
    Recipe(
        "log_cosh", "convolution", UNTIED, "reflect", (5, 5),
        operator_boundary="replicate", kernel=(5, 3), filters=(4, 3, 3),
    ),
    Recipe(
        "log_cosh", "mask", TIED, None, (5, 3),
        images=3, filters=(12,), given=("weights",), parameters={"slope": 2.0},
    ),
    Recipe("log_cosh", "identity", UNTIED, None, (3, 4), channels=3, filters=ROWS, given=("b",)),
    Recipe(
        "lorentzian", "identity", TIED, "replicate", (4, 5),
        images=3, given=(), lam=4.0, tau=0.125,
    ),
    Recipe(
        "lorentzian", "convolution", UNTIED, "zero", (5, 4),
        operator_boundary="reflect", lam=4.0, tau=0.125,
    ),
    Recipe(
        "lorentzian", "matrix", TIED, "reflect", (2, 3),
        filters=(2, 5, 7), given=("b",), lam=4.0, tau=0.125,
    ),
    Recipe(
        "lorentzian", "convolution", UNTIED, None, (3, 3),
        operator_boundary="zero", filters=ROWS, lam=4.0, tau=0.125,
    ),
    Recipe(
        "smoothed_l1", "convolution", TIED, "zero", (2, 3),
        channels=3, operator_boundary="symmetric", kernel=(5, 5), filters=(3, 7, 5),
        parameters={"nu": 0.5},
    ),
    Recipe("smoothed_l1", "mask", UNTIED, "symmetric", (5, 4), parameters={"nu": 0.5}),
    Recipe("smoothed_l1", "matrix", TIED, None, (4, 3), filters=ROWS, gamma=0.125),
    Recipe(
        "smoothed_l1", "identity", UNTIED, "periodic", (2, 2),
        images=3, filters=(2, 3, 5), parameters={"nu": 0.5},
    ),
    Recipe("huber", "matrix", TIED, "symmetric", (1, 7), parameters={"delta": 0.75}),
    Recipe("huber", "mask", UNTIED, "replicate", (5, 5), filters=(5, 3, 3)),
    Recipe(
        "huber", "convolution", TIED, "replicate", (6, 1),
        images=3, operator_boundary="replicate", given=("b",),
    ),
    Recipe("huber", "identity", UNTIED, None, (4, 3), filters=ROWS, given=("weights",)),
    Recipe("log_cosh", "identity", TIED, "symmetric", (5, 4), parameters={"slope": 2.0}, norm=1.5),
    Recipe(
        "smoothed_l1", "convolution", UNTIED, "replicate", (4, 4),
        images=3, operator_boundary="reflect", parameters={"nu": 0.5}, norm=0.75,
    ),
)
# fmt: on

# Names fix both the directory and the random numbers of a case.
RECIPES = {f"{number:02d}-{r.label}": r for number, r in enumerate(_RECIPES, start=1)}
