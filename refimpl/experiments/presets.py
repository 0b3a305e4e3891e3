"""The paper's experiments as named, frozen presets.

    conv-PROBLEM-FILTERS      photographs in [0, 1], A a filter bank, σ = tanh; 4 presets
    dense-PROBLEM-tanh        faces in [−1, 1], A dense; 3 presets
    noise-PROBLEM-LEVEL       8 filters on small crops, over noise levels; 12 presets
    sigma-PROBLEM-ACTIVATION  small faces, A dense, over activations; 12 presets
    seed-SEED                 noise-denoising-0.1 with another seed; 2 presets

Each is trained in three ways (`METHODS`): tied (bilevel learning), untied from the same start
(deep equilibrium), and untied from the tied solution. All three move the same parameters on the
same data, until training has converged.

The paper's: activations, masks, blurs, λ = 18.156, and numbers and sizes of filters. Ours:
everything else. The paper's slope of 100 leaves missing pixels all but undetermined (adjoint
systems take several times as many iterations, and total variation itself is worse); inpainting
takes 10.
Fixed points do not depend on τ, so that a safe one is taken. The paper's solvers take hundreds of
steps for dense inpainting and thousands for the convolutional model; training finds the fixed point
by the methods that "auto" chooses instead, and `with_paper_solvers` gives a preset the paper's.

Not here: building a preset (`setup`) and running it (`runs`).
"""

from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from itertools import chain, product, starmap

from refimpl.training import TrainingSettings
from refimpl.training.lbfgs import LbfgsSettings
from refimpl.training.objective import SolverSettings

METHODS = ("bilevel", "deq", "deq_from_bilevel")
PROBLEMS = ("denoising", "inpainting", "deconvolution")
ACTIVATIONS = {
    "tanh": "log_cosh",
    "relu": "half_squared_relu",
    "softshrink": "soft_shrinkage",
    "identity": "quadratic",
}
STARTS = {"dense": ("differences", "smooth"), "convolutional": ("random", "total_variation")}
NOISE_LEVELS = (0.01, 0.05, 0.1, 0.3)
SEEDS = (1, 2)
SLOPES = {"denoising": 100.0, "inpainting": 10.0, "deconvolution": 100.0}
FACE_SIZES = (25, 12)


@dataclass(frozen=True)
class Experiment:
    """One preset: problem, model, data and training.

    Attributes
    ----------
    name : str
    problem : one of `PROBLEMS`
    model : "dense" or "convolutional"
    activation : one of `ACTIVATIONS`
    slope : float
        χ of tanh(χ z); the other activations have none.
    noise_level : float
        ε of E1, in units of the images' values.
    filters : tuple
        (F,) for the dense model, (F, h, w) for the convolutional one.
    start : one of `STARTS` of the model
        Initial A; γ begins as the best for it.
    lam : float
        λ of E8.
    train_images, validation_images, test_images : int
        Dense models, which have more parameters than pixels to learn from, keep the parameters of
        the lowest loss on the validation images; 0: those of the last step.
    image_size : int
        H = W.
    training : LbfgsSettings or TrainingSettings
        L-BFGS on all images, or Adam over minibatches.
    tied_solvers, untied_solvers : SolverSettings
    seed : int
        Of noise and initial A.
    """

    name: str
    problem: str
    model: str
    activation: str
    slope: float
    noise_level: float
    filters: tuple[int, ...]
    start: str
    lam: float
    train_images: int
    validation_images: int
    test_images: int
    image_size: int
    training: LbfgsSettings | TrainingSettings
    tied_solvers: SolverSettings
    untied_solvers: SolverSettings
    seed: int = 0

    def __post_init__(self):
        choices = {
            "problem": PROBLEMS,
            "model": tuple(STARTS),
            "activation": tuple(ACTIVATIONS),
            "start": STARTS.get(self.model, ()),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Experiment: {name} is {getattr(self, name)!r}, expected one of {known}"
                )
        if self.model == "dense" and self.image_size not in FACE_SIZES:
            raise ValueError(
                f"Experiment: image_size is {self.image_size}, but the faces of the dense model "
                f"have sides of {FACE_SIZES} pixels"
            )

    def settings(self) -> dict:
        """Every effective setting, as plain values for JSON."""
        return asdict(self)


ANDERSON = {"memory": 5, "ridge": 1e-4}
# Good solves take 5 to 15 Newton steps and up to 80 products; what takes far more has failed.
DENSE = SolverSettings("auto", "auto", 1e-6, 1e-3, 30, 300, forward_options={"max_products": 400})
CONVOLUTIONAL = SolverSettings("auto", "auto", 1e-8, 1e-3, 30, 300)
TRAINED = ("A", "C", "b", "weights")


def convolutional_experiment(problem: str, filters: tuple[int, int, int]) -> Experiment:
    """30 filters of 3 × 3, or 2 of 11 × 11, on crops of 64 × 64.

    16 crops to denoise, 8 for the other problems, whose solves take several times as long: 32,768
    pixels for 300 or, untied, 570 parameters; 8 others say when to stop. 30 filters begin at
    random, 2 at total variation, which random ones of 11 × 11 do not reach.
    """
    return Experiment(
        name=f"conv-{problem}-{filters[1]}x{filters[2]}",
        problem=problem,
        model="convolutional",
        activation="tanh",
        slope=SLOPES[problem],
        noise_level=0.1 if problem == "denoising" else 0.01,
        filters=filters,
        start="random" if filters[1] == 3 else "total_variation",
        lam=18.156,
        train_images=16 if problem == "denoising" else 8,
        validation_images=8,
        test_images=16,
        image_size=64,
        training=LbfgsSettings(max_iterations=50, trained=("A", "C", "weights")),
        tied_solvers=CONVOLUTIONAL,
        untied_solvers=CONVOLUTIONAL,
    )


def noise_experiment(problem: str, noise_level: float, seed: int = 0) -> Experiment:
    """8 filters of 3 × 3 on 16 crops of 32 × 32: for sweeps over noise levels and seeds."""
    return replace(
        convolutional_experiment(problem, (8, 3, 3)),
        name=f"seed-{seed}" if seed else f"noise-{problem}-{noise_level:g}",
        noise_level=noise_level,
        train_images=16,
        validation_images=16,
        test_images=48,
        image_size=32,
        training=LbfgsSettings(max_iterations=30, trained=("A", "C", "weights")),
        seed=seed,
    )


def dense_experiment(problem: str, activation: str, noise_level: float) -> Experiment:
    """Dense model on all faces in [−1, 1], each of those to train on mirrored, too.

    With tanh, A begins as the differences of total variation. The other three have no part of
    linear growth and begin as a quadratic prior of differences.
    """
    return Experiment(
        name=f"dense-{problem}-{activation}",
        problem=problem,
        model="dense",
        activation=activation,
        slope=20.0,
        noise_level=noise_level,
        filters=(625 if activation in ("softshrink", "identity") else 1250,),
        start="differences" if activation == "tanh" else "smooth",
        lam=1.0,
        train_images=64,
        validation_images=16,
        test_images=20,
        image_size=25,
        training=LbfgsSettings(max_iterations=30, trained=TRAINED, memory=10),
        tied_solvers=DENSE,
        untied_solvers=DENSE,
    )


def activation_experiment(problem: str, activation: str) -> Experiment:
    """The same on faces of 12 × 12: for the sweep over activations."""
    dense = dense_experiment(problem, activation, DENSE_NOISE[problem])
    name, F = f"sigma-{problem}-{activation}", dense.filters[0] * 144 // 625
    return replace(dense, name=name, filters=(F,), image_size=12)


# At noise level 0.1 no dense model learns from 64 faces what total variation does not know.
DENSE_NOISE = {"denoising": 0.5, "inpainting": 0.1, "deconvolution": 0.1}
EXPERIMENTS = {
    experiment.name: experiment
    for experiment in chain(
        (convolutional_experiment(problem, (30, 3, 3)) for problem in PROBLEMS),
        [convolutional_experiment("denoising", (2, 11, 11))],
        (dense_experiment(problem, "tanh", DENSE_NOISE[problem]) for problem in PROBLEMS),
        starmap(noise_experiment, product(PROBLEMS, NOISE_LEVELS)),
        (noise_experiment("denoising", 0.1, seed) for seed in SEEDS),
        starmap(activation_experiment, product(PROBLEMS, ACTIVATIONS)),
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
