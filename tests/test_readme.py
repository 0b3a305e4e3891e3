"""The README: entries of its equation index compute what they say, and its examples run."""

import ast
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import test_adapters

import refimpl as ri
from strategies import generator, normal

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (E\d+) \|.*\| `([\w.]+)` \| (?:`([\w.]+)` )?\|$", flags=re.M)
INDEX = {tag: [name for name in names if name] for tag, *names in ROW.findall(README)}
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)
PICTURE, TRAINING, PROBLEM, EXPERTS, LAYER, BACKEND = BLOCKS
TAG = re.compile(r"\bE\d+\b")


def resolve(name: str):
    """The object of a dotted name: the longest importable module, then attributes."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            found = getattr(found, attribute)
        return found
    raise LookupError(name)


def tags_in_docstrings() -> set[str]:
    """Every equation tag in a docstring of the package."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found: set[str] = set()
    for path in (ROOT / "refimpl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, nodes):
                found |= set(TAG.findall(ast.get_docstring(node) or ""))
    return found


class Small:
    """A small untied problem at which every entry of the index is executed, and a tied one."""

    def __init__(self):
        self.rng, shape = generator(0), (1, 4, 5)
        bank = ri.FilterBank(shape, (2, 3, 3))
        A, C = 0.3 * normal(self.rng, (2, 2, 1, 3, 3))
        self.theta = ri.make_parameters(A, C, b=np.ones(2), weights=np.array([1.0, 2.0]))
        self.u, self.v, self.q, self.truth, y = normal(self.rng, (5, 2, *shape))
        potential = ri.make_potential("log_cosh")

        def problem(theta):
            return ri.Problem(ri.Identity(shape), y, ri.FieldOfExperts(bank, potential, theta), 2)

        self.p, self.tied = problem(self.theta), problem(ri.make_parameters(A))
        self.step = ri.engine.make_step(self.p, 0.1)
        self.lin = self.step.linearize(self.u)
        self.star = ri.reconstruct(self.p, residual_tol=1e-14)
        self.loss_gradient = ri.loss_gradient(self.star.x, self.truth)

    def noise(self, add_noise):
        noise = add_noise(np.zeros((1, 1, 100, 100)), 2.0, self.rng)
        assert abs(np.std(noise) - 2) < 6 * 2 / np.sqrt(2 * noise.size)  # 6 standard errors

    def energy(self, energy, twin):
        return energy(self.tied, self.u), twin(ri.engine.make_step(self.tied), self.u)

    def tie(self, adjoint_tie):
        return adjoint_tie(self.theta).A, self.theta.A + self.theta.C

    def adjoint_state(self, adjoint_state, solve_adjoint):
        tau = 0.1
        q = adjoint_state(self.p, tau, self.star.x, self.loss_gradient, tol=1e-14)
        lin = self.step.linearize(self.star.x)
        return q, solve_adjoint(lin, self.loss_gradient, residual_tol=1e-14).x

    def hypergradient(self, definition, hypergradient):
        given = definition(self.p, 0.1, self.star.x, self.truth, tol=1e-14)
        fast = hypergradient(self.p, self.star, self.loss_gradient, residual_tol=1e-14)
        return given.A, fast.gradient.A

    def loss(self, loss):
        return loss(self.u, self.truth), np.mean((self.u - self.truth) ** 2)

    def certify(self, certify):
        assert (certify(self.p, self.u, self.q, self.loss_gradient).state >= 0).all()


EXECUTE = {
    "E1": Small.noise,
    "E2": Small.energy,
    "E3": lambda s, F, twin: (F(s.p, s.u), twin(s.step.field, s.u)),
    "E4": lambda s, jvp, twin: (jvp(s.p, s.u, s.v), twin(s.lin.field, s.v)),
    "E5": lambda s, vjp, twin: (vjp(s.p, s.u, s.q), twin(s.lin.field, s.q)),
    "E6": lambda s, vjp, twin: (vjp(s.p, s.u, s.q).C, twin(s.lin.field, s.q).C),
    "E7": Small.tie,
    "E8": lambda s, T, twin: (T(s.p, 0.1, s.u), twin(s.step, s.u)),
    "E9": Small.adjoint_state,
    "E10": Small.hypergradient,
    "E11": Small.loss,
    "E12": Small.certify,
}


# ‖given − expected‖ / ‖expected‖: roundings of short sums; and of adjoint states to tol = 1e-14
# ρ/(1 − ρ) tol by the iteration, ρ = ‖∂T‖ ≤ 0.84, and κ(J) tol ≤ 2.9 tol by the solver, together
# 8.1 tol, which E10 multiplies by ‖∂_A T‖ ‖q‖ / ‖(∂_A T)ᵀ q‖ ≤ 3.2.
ROUNDING = 64 * np.finfo(float).eps
TOLERANCE = {"E9": 9e-14, "E10": 3e-13}


@pytest.mark.parametrize("tag", EXECUTE)
def test_entries_of_the_index_carry_their_tag_and_compute_the_same(tag):
    functions = [resolve(name) for name in INDEX[tag]]
    assert all(tag in TAG.findall(function.__doc__) for function in functions)
    pair = EXECUTE[tag](Small(), *functions)
    if pair is not None:
        given, expected = map(np.asarray, pair)
        assert given.shape == expected.shape
        error = np.linalg.norm(given - expected)
        assert error <= TOLERANCE.get(tag, ROUNDING) * np.linalg.norm(expected)


def test_the_index_has_the_twelve_equations_and_every_tag_in_a_docstring():
    assert list(INDEX) == list(EXECUTE) == [f"E{n}" for n in range(1, 13)]
    assert tags_in_docstrings() <= set(INDEX)


def test_unknown_name_in_the_index_is_found_out():
    with pytest.raises(AttributeError):
        resolve("refimpl.engine.Step.no_such_method")


def run(source: str, capsys) -> tuple[dict, str]:
    """The names that a block of the README leaves, and what it prints."""
    namespace: dict = {}
    exec(compile(source, "README.md", "exec"), namespace)
    return namespace, capsys.readouterr().out


def test_first_example_is_short_and_denoises(capsys):
    lines = [line for line in PICTURE.splitlines() if line]
    assert len(lines) <= 8 and sum("import" in line for line in lines) == 1
    _, out = run(PICTURE, capsys)
    before, after = map(float, out.split())
    assert after > before + 5


def test_training_example_trains_saves_and_denoises(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shorter = TRAINING.replace("noise_level=0.1)", "noise_level=0.1, max_steps=25)")
    names, out = run(shorter.replace(".train  ", ".train[:2]  "), capsys)
    assert shorter != TRAINING and len(names["model"].records) == 2
    assert float(out) > 22  # the data have 20


def test_second_example_solves_and_differentiates(capsys):
    names, out = run(PROBLEM, capsys)
    assert names["star"].all_converged and names["star"].message in out
    assert names["result"].adjoint.all_converged


def test_experts_of_ones_own_pass_their_check_and_reconstruct(capsys):
    names, out = run(EXPERTS, capsys)
    assert "all" in out and "passed" in out
    y = normal(generator(0), (1, 1, 64, 64))
    problem = ri.Problem(ri.Identity((64, 64)), y, names["experts"], lam=20.0)
    assert ri.reconstruct(problem).all_converged


def test_layer_of_the_readme_is_judged_in_six_lines(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mine", test_adapters)
    assert len([line for line in LAYER.splitlines() if line]) <= 6
    few = LAYER.replace("crosscheck(backend", "crosscheck(backend, cases=2, budget=600")
    for source, verdict in ((few, "agrees in 2"), (few.replace("Layer()", "Layer(0.5)"), "half")):
        assert verdict in run(source, capsys)[1]


def test_wrong_backend_of_the_readme_is_diagnosed_as_it_says():
    namespace: dict = {}
    exec(BACKEND, namespace)
    only = re.search(r"--only (\S+)", README)[1]
    options = {"cases": 4, "only": only, "time_limit": 120.0, "budget": 600.0}
    report = ri.crosscheck(namespace["Mine"](), **options)
    first = report.first_wrong
    assert f"{first.stage}: {first.causes[0]}. {first.explanation}" in README
    exec(BACKEND.replace("convolve", "correlate"), namespace)
    assert ri.crosscheck(namespace["Mine"](), **options).agrees
