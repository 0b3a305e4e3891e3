"""Everything pickles and copies, and the copy computes the same bits."""

import copy
import pickle
from dataclasses import is_dataclass

import numpy as np
import pytest

import refimpl as ri
from refimpl import images
from refimpl.engine import compiled, make_step
from refimpl.equilibrium import solve_adjoint
from refimpl.experiments.presets import EXPERIMENTS
from refimpl.images import FileImage
from refimpl.paper.potentials import POTENTIALS
from refimpl.restoration import RULES
from refimpl.training.adam import TrainingSettings
from refimpl.training.model import Model
from refimpl.training.normalization import Normalization
from refimpl.training.objective import Objective, SolverSettings
from refimpl.training.parametrisations import Parametrisation, ZeroMean
from refimpl.verification.cases import evaluate
from refimpl.verification.cases.case import CaseError
from refimpl.verification.crosscheck import crosscheck, random_case
from refimpl.verification.identities import registry
from refimpl.verification.question import Question
from strategies import generator, normal

WAYS = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "oldest pickle": lambda x: pickle.loads(pickle.dumps(x, 2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
COMPILED = "_programs"  # of a backend; compiled again


def same(x, y, seen=None):
    """Whether x, a copy, is of the type of y and holds the same bits, all the way down."""
    seen = {} if seen is None else seen
    if x is y or (id(x), id(y)) in seen:
        return True
    seen[id(x), id(y)] = x, y  # kept, so that no other thing gets their ids
    if type(x) is not type(y):
        return False
    if isinstance(x, np.ndarray) and x.dtype != object:
        locked = y.flags.owndata and not y.flags.writeable  # on purpose: views may be so by chance
        alike = x.dtype == y.dtype and x.shape == y.shape and not (locked and x.flags.writeable)
        return alike and x.tobytes() == y.tobytes()
    if isinstance(x, dict):
        return list(x) == list(y) and all(same(x[k], y[k], seen) for k in x)
    if isinstance(x, (tuple, list)):
        return len(x) == len(y) and all(same(a, b, seen) for a, b in zip(x, y))
    if isinstance(x, BaseException):
        return str(x) == str(y) and same(x.__dict__, y.__dict__, seen)
    if is_dataclass(x) or hasattr(x, "__dict__"):
        first, second = ({k: v for k, v in vars(z).items() if k != COMPILED} for z in (x, y))
        return same(first, second, seen)
    if callable(x) or not isinstance(x, (float, np.floating)):
        return same(x.__reduce__(), y.__reduce__(), seen) if callable(x) else x == y
    return np.asarray(x).tobytes() == np.asarray(y).tobytes()


def solved():
    """A problem, its solution and what follows from it."""
    truth = images.photograph_crops(12).test[:2]
    experts = ri.total_variation(truth.shape[1:], slope=5.0)
    p = ri.Problem(ri.Identity(truth.shape[1:]), ri.add_noise(truth, 0.1, 0), experts, 12)
    star = ri.reconstruct(p, residual_tol=1e-10)
    gradient = ri.loss_gradient(star.x, truth)
    step = make_step(p)
    q = solve_adjoint(step.linearize(star.x), gradient)
    yield "problem", p
    yield "solver result", star
    yield "hypergradient", ri.hypergradient(p, star, gradient)
    yield "adjoint state", q
    yield "certificate", ri.certify(step, star.x, q.x, gradient)
    yield "report of check", ri.check(ri.make_potential("log_cosh"))


def learned():
    """What training takes and gives."""
    u = normal(generator(0), (2, 1, 8, 8))
    bank = ri.FilterBank((1, 8, 8), (2, 3, 3))
    P, log_cosh = Parametrisation(ZeroMean()), POTENTIALS["log_cosh"]()
    model = Model(ri.Identity((1, 8, 8)), bank, log_cosh, 2.0, None, P)
    theta = ri.make_parameters(normal(generator(1), (2, 1, 3, 3)))
    objective = Objective(model, u, u)
    yield "model", model
    yield "objective", objective
    yield "evaluation", objective.gradient(theta)
    yield "settings", (SolverSettings(), TrainingSettings(3, 0.1, 0.01, batch_size=2, seed=0))
    states = []
    crops = np.clip(u / 8 + 0.5, 0, 1)
    yield "trained model", ri.train(crops, 0.1, max_steps=2, callback=states.append)
    yield "training state", states[-1]
    yield "experiments", EXPERIMENTS


def verified():
    """Cases, questions, backends before and after use, and reports."""
    from refimpl.verification.backends.textbook import log_cosh

    case = random_case(3, only={"operator": "identity", "analysis": "convolution"})
    yield "case", case
    yield "evaluated case", evaluate(case)
    yield "question", Question.from_case(case)
    yield "formula of the textbook", log_cosh
    for module, name in (("jax", "JaxBackend"), ("torch", "TorchBackend")):
        try:
            found = __import__(f"refimpl.verification.backends.{module}_backend", fromlist=[name])
        except ModuleNotFoundError:
            continue
        backend = getattr(found, name)()
        yield f"{name} unused", backend
        report = crosscheck(backend, cases=1, stages=("apply",), budget=300.0, time_limit=120.0)
        yield f"{name} used", backend
        yield f"report on {name}", report


def parts():
    """Operators, banks, potentials, fields and all that is small."""
    for name, K in registry.operators():
        yield f"operator {name}", K
        yield f"compiled {name}", compiled(K)
        if hasattr(K, "as_scipy"):
            yield f"for SciPy {name}", K.as_scipy()
            yield f"multiple of {name}", 2 * K - K
    for name, bank in registry.banks():
        yield f"bank {name}", bank
        yield f"compiled bank {name}", compiled(bank)
    for name, potential in registry.potentials():
        yield f"potential {name}", potential
    for name, experts in registry.fields():
        yield f"experts {name}", experts
    yield "parameters", ri.make_parameters(np.ones((2, 1, 3, 3)), np.ones((2, 1, 3, 3)))
    yield "parametrisations", (ZeroMean(), Normalization(ri.FilterBank((5, 5), (2, 3, 3))))
    yield "images", images.photograph_crops(16)
    yield "image of a file", FileImage(np.ones((2, 3), np.uint16), None, b"profile")
    yield "table of images", images.describe()
    yield "rules", RULES
    yield "errors", (
        ri.BreakdownError("{image} has NaN", 3), ri.NotConvergedError("no"), CaseError("no such"),
        ri.BreakdownError("{image}").within(slice(2, 3)).advising("smaller steps"),
    )  # fmt: skip


@pytest.mark.parametrize("objects", [parts, solved, learned, verified], ids=lambda f: f.__name__)
def test_everything_pickles_and_copies(objects):
    wrong = []
    for name, thing in objects():
        for way, made in WAYS.items():
            try:
                if not same(made(thing), thing):
                    wrong.append(f"{way} of {name}: other contents")
            except Exception as error:  # all of them are told of together
                wrong.append(f"{way} of {name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_every_name_of_the_face_pickles_as_itself():
    for name in ri.__all__:
        assert pickle.loads(pickle.dumps(getattr(ri, name))) is getattr(ri, name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("used", [False, True])
def test_steps_and_linearisations_compute_the_same_bits(used, way):
    made = WAYS[way]
    for name, step in registry.steps():
        shape = len(step.problem.y), *step.problem.bank.image_shape
        u, v = normal(generator(0), (2, *shape), step.problem.dtype)
        linear = step.linearize(u)
        if used:
            linear.direction_jvp(v)
        again, twice = made(step), made(linear)
        assert np.array_equal(again.apply(u), step.apply(u)), name
        assert np.array_equal(twice.direction, linear.direction), name
        assert np.array_equal(twice.direction_jvp(v), linear.direction_jvp(v)), name
        assert np.array_equal(twice.direction_vjp(v), linear.direction_vjp(v)), name
        assert same(twice.params_vjp(v), linear.params_vjp(v)), name


@pytest.mark.parametrize("way", WAYS)
def test_copied_problems_and_models_give_the_same_bits(way):
    made = WAYS[way]
    for name, thing in (*solved(), *learned()):
        if name == "problem":
            assert same(ri.reconstruct(made(thing)), ri.reconstruct(thing))
        if name == "trained model":
            y = generator(2).random((12, 9))
            assert same(ri.denoise(y, 0.1, model=made(thing)), ri.denoise(y, 0.1, model=thing))


def test_contents_that_differ_are_seen():
    K = ri.Convolution(np.ones((3, 3)), (5, 5))
    other = ri.Convolution(np.ones((3, 3)) * (1 + 1e-16 * 4), (5, 5))
    assert same(K, ri.Convolution(np.ones((3, 3)), (5, 5))) and not same(K, other)
    unlocked = copy.deepcopy(K)
    unlocked.kernel.flags.writeable = True
    assert not same(unlocked, K) and not same((1.0, np.nan), (1.0, 0.0))
