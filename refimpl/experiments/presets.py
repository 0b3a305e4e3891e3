"""The paper's experiments as named, frozen presets.

    dense-PROBLEM-ACTIVATION-NOISE    faces in [−1, 1], A dense; 3 × 3 × 5 presets
    conv-PROBLEM-FILTERS-START        photographs in [0, 1], A a filter bank; 3 × 2 × 2 presets

Each is trained in three ways (`METHODS`): tied (bilevel learning), untied from the same start
(deep equilibrium), and untied from the tied solution.

The paper's: activations, noise levels, masks, blurs; for the dense model Anderson with memory 5
and Adam from 1e-3 towards 1e-6; for the convolutional one χ = 100, λ = 18.156, τ = 1/(8χ) and
numbers and sizes of filters. Ours: everything else, chosen so that all presets train in minutes
on two cores. The paper's solvers take hundreds of steps for dense inpainting and thousands for
the convolutional model; training finds the fixed point by the methods that "auto" chooses
instead. Fixed points do not depend on τ, and for a convex energy there is only one to find.
`with_paper_solvers` gives a preset the paper's.

Not here: building a preset (`setup`) and running it (`runs`).
"""

from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from itertools import chain, product, starmap

from refimpl.training import TrainingSettings
from refimpl.training.objective import SolverSettings

METHODS = ("bilevel", "deq", "deq_from_bilevel")
PROBLEMS = ("denoising", "inpainting", "deconvolution")
ACTIVATIONS = {
    "relu": "half_squared_relu",
    "softshrink": "soft_shrinkage",
    "identity": "quadratic",
    "tanh": "log_cosh",
}
STARTS = {"total_variation": "tv", "random": "random"}
NOISE_LEVELS = (0.0, 0.05, 0.1, 0.5, 1.0)
SLOPE = 100.0
FACE_SIZE = 25


@dataclass(frozen=True)
class Experiment:
    """One preset: problem, model, data and training.

    Attributes
    ----------
    name : str
    problem : one of `PROBLEMS`
    model : "dense" or "convolutional"
    activation : one of `ACTIVATIONS`
    noise_level : float
        ε of E1, in units of the images' values.
    filters : tuple
        (F,) for the dense model, (F, h, w) for the convolutional one.
    start : "random" or "total_variation"; "smooth" for the dense model
        Initial A.
    lam, gamma, tau : float
        Constants of E8.
    train_images, test_images : int
    image_size : int
        H = W.
    training : TrainingSettings
    tied_solvers, untied_solvers : SolverSettings
    seed : int
        Of noise and initial A.
    """

    name: str
    problem: str
    model: str
    activation: str
    noise_level: float
    filters: tuple[int, ...]
    start: str
    lam: float
    gamma: float
    tau: float
    train_images: int
    test_images: int
    image_size: int
    training: TrainingSettings
    tied_solvers: SolverSettings
    untied_solvers: SolverSettings
    seed: int = 0

    def __post_init__(self):
        choices = {
            "problem": PROBLEMS,
            "model": ("dense", "convolutional"),
            "activation": tuple(ACTIVATIONS),
            "start": ("smooth",) if self.model == "dense" else tuple(STARTS),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Experiment: {name} is {getattr(self, name)!r}, expected one of {known}"
                )
        if self.model == "dense" and self.image_size != FACE_SIZE:
            raise ValueError(
                f"Experiment: image_size is {self.image_size}, but the faces of the dense model "
                f"have {FACE_SIZE} x {FACE_SIZE} pixels"
            )

    def settings(self) -> dict:
        """Every effective setting, as plain values for JSON."""
        return asdict(self)


ANDERSON = {"memory": 5, "ridge": 1e-4}
DENSE = SolverSettings("auto", "auto", 1e-6, 1e-5, 100)
CONVOLUTIONAL = SolverSettings("auto", "auto", 1e-7, 1e-5, 100)


def dense_experiment(problem: str, activation: str, noise_level: float) -> Experiment:
    """Dense model on faces in [−1, 1]; Adam from 1e-3 to 1e-6.

    Adam moves every entry of A by about 1e-3, whatever their size. Only γ AᵀA matters to the
    start, so A begins large and γ small: with γ = 1 the first steps destroy the prior of the
    missing rows. (Of A multiplied by 1, 4 and 8, the largest ended with the lowest training loss
    in two of four presets tried; test losses were seen too.)
    """
    return Experiment(
        name=f"dense-{problem}-{activation}-{noise_level:g}",
        problem=problem,
        model="dense",
        activation=activation,
        noise_level=noise_level,
        filters=(1250 if activation == "relu" else 625,),
        start="smooth",
        lam=1.0,
        gamma=1 / 64,
        tau=0.6,
        train_images=20,
        test_images=6,
        image_size=FACE_SIZE,
        training=TrainingSettings(epochs=3, batch_size=10, trained=("A", "C", "b")),
        tied_solvers=DENSE,
        untied_solvers=DENSE,
    )


def convolutional_experiment(problem: str, filters: tuple[int, int, int], start: str) -> Experiment:
    """Convolutional model on photographs in [0, 1], σ = tanh(100 z), λ = 18.156, τ = 1/(8χ).

    λ suits noise of level 0.1; where the noise is ten times weaker, γ is made smaller instead.
    Those γ are the best of (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) by the PSNR of total variation on
    the training images.
    """
    rate = 5e-4 if filters[1] == 3 else 5e-5  # Adam moves every one of the 121 taps by it
    return Experiment(
        name=f"conv-{problem}-{filters[1]}x{filters[2]}-{STARTS[start]}",
        problem=problem,
        model="convolutional",
        activation="tanh",
        noise_level={"denoising": 0.1, "inpainting": 0.01, "deconvolution": 0.01}[problem],
        filters=filters,
        start=start,
        lam=18.156,
        gamma={"denoising": 1.0, "inpainting": 0.1, "deconvolution": 0.02}[problem],
        tau=1 / (8 * SLOPE),
        train_images=4,
        test_images=2,
        image_size=40,
        training=TrainingSettings(
            epochs=4, learning_rate=rate, final_learning_rate=rate / 10, trained=("A", "C")
        ),
        tied_solvers=CONVOLUTIONAL,
        untied_solvers=CONVOLUTIONAL,
    )


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in chain(
        starmap(
            dense_experiment,
            product(PROBLEMS, ("relu", "softshrink", "identity"), NOISE_LEVELS),
        ),
        starmap(
            convolutional_experiment,
            product(PROBLEMS, ((30, 3, 3), (2, 11, 11)), ("total_variation", "random")),
        ),
    )
}


def with_paper_solvers(experiment: Experiment) -> Experiment:
    """The preset with the paper's iterations: Anderson with memory 5 (dense), the step (else).

    The adjoint state comes from the same iteration. Looser tolerances, and far more iterations.
    """
    if experiment.model == "dense":
        solvers = SolverSettings(
            "anderson", "anderson", 1e-5, 1e-4, 1000, 1000,
            forward_options=ANDERSON, adjoint_options=ANDERSON,
        )
    else:
        solvers = SolverSettings("picard", "neumann", 1e-5, 1e-3, 100_000, 100_000)
    return replace(experiment, tied_solvers=solvers, untied_solvers=solvers)


def get_experiment(name: str) -> Experiment:
    """The preset of this name; ValueError lists the nearest names otherwise."""
    if name not in EXPERIMENTS:
        near = get_close_matches(name, EXPERIMENTS, n=3) or list(EXPERIMENTS)[:3]
        raise ValueError(
            f"experiment {name!r} is unknown; did you mean {', '.join(near)}? --list shows all"
        )
    return EXPERIMENTS[name]
