"""Training: the objective's gradient, Adam and its schedules, failures survived, checkpoints."""

from dataclasses import replace

import numpy as np
import pytest

from refimpl.images import add_noise
from refimpl.kernels.vectors import dot
from refimpl.paper.operators import FilterBank, Identity
from refimpl.paper.parameters import make_parameters, pack, unpack
from refimpl.paper.potentials import make_potential
from refimpl.results import NotConvergedError
from refimpl.training import (
    AdamState,
    TrainingSettings,
    adam_step,
    learning_rate,
    load_checkpoint,
    run_epochs,
    save_checkpoint,
)
from refimpl.training.adam import plateaus
from refimpl.training.curve import Effort
from refimpl.training.loop import SMALLEST_REDUCTION
from refimpl.training.model import Model
from refimpl.training.normalization import Normalization
from refimpl.training.objective import (
    Objective,
    SolverSettings,
    squared_loss,
    squared_loss_gradient,
)
from refimpl.training.parametrisations import Parametrisation

SHAPE = (1, 7, 6)
NEWTON = SolverSettings("newton", "cg", 1e-12, 1e-12)
KRYLOV = SolverSettings("newton_krylov", "gmres", 1e-12, 1e-12)


def problem(images: int = 4, *, solvers: SolverSettings = NEWTON, normalized: bool = False):
    """A small denoising objective and tied parameters to start from."""
    rng = np.random.default_rng(3)
    bank = FilterBank(SHAPE, (3, 3, 3), "reflect")
    truth = rng.uniform(size=(images, *SHAPE))
    y = add_noise(truth, 0.1, rng)
    P = Parametrisation(Normalization(bank, norm=2.0) if normalized else None)
    model = Model(Identity(SHAPE), bank, make_potential("log_cosh"), 2.0, 0.1, P)
    A = 0.5 * rng.standard_normal(bank.coefficients_shape)
    return Objective(model, truth, y, solvers), make_parameters(A, b=0.1 * rng.standard_normal(3))


def test_loss_gradient_is_the_derivative_of_the_loss():
    rng = np.random.default_rng(0)
    u, truth, v = rng.standard_normal((3, 2, *SHAPE))
    h = 1e-30
    derivative = np.mean((u + 1j * h * v - truth) ** 2).imag / h
    assert dot(squared_loss_gradient(u, truth), v).sum() == pytest.approx(derivative, rel=1e-13)
    assert squared_loss(truth, truth) == 0


@pytest.mark.parametrize("function", [squared_loss, squared_loss_gradient])
def test_losses_of_whole_numbers_are_refused(function):
    u = np.zeros((1, 1, 2, 2))
    with pytest.raises(TypeError, match="u is uint8, expected .* divide 8-bit images by 255"):
        function(u.astype(np.uint8), u)
    with pytest.raises(TypeError, match="truth is .*list"):
        function(u, u.tolist())


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_gradient_of_the_objective_agrees_with_finite_differences(tied, normalized):
    """Central differences with h = eps^(1/3) leave about eps^(2/3) of the gradient's scale."""
    objective, start = problem(solvers=NEWTON if tied else KRYLOV, normalized=normalized)
    start = start if tied else start.untie()
    names = ("A", "C", "b", "weights", "gamma")
    x, h = pack(start, names), np.cbrt(np.finfo(float).eps)
    gradient = pack(objective.gradient(start).gradient, names)
    v = np.random.default_rng(1).standard_normal(x.shape)
    ahead, behind = (objective.loss(unpack(x + s * h * v, start, names)).loss for s in (1, -1))
    error = abs((ahead - behind) / (2 * h) - gradient @ v)
    assert error <= 100 * h**2 * np.linalg.norm(gradient) * np.linalg.norm(v)


def test_subset_averages_over_its_own_images():
    objective, start = problem()
    losses = [objective.subset(np.array([n])).loss(start).loss for n in range(4)]
    assert objective.loss(start).loss == pytest.approx(np.mean(losses), rel=1e-12)


def test_adam_first_step_has_the_length_of_the_rate():
    """After one step m̂/√v̂ = sign(g) but for ε."""
    g = np.array([3.0, -1e-3, 5e4])
    settings = TrainingSettings(epochs=1)
    _, x = adam_step(AdamState(np.zeros(3), np.zeros(3)), np.zeros(3), g, 0.1, settings)
    np.testing.assert_allclose(x, -0.1 * np.sign(g), rtol=settings.epsilon / 1e-3)


def test_adam_minimises_a_quadratic():
    target, x = np.array([1.0, -2.0]), np.zeros(2)
    state = AdamState(np.zeros(2), np.zeros(2))
    settings = TrainingSettings(epochs=1)
    for k in range(2000):
        state, x = adam_step(state, x, x - target, 0.1 * (1 - k / 2000), settings)
    assert np.abs(x - target).max() < settings.epsilon**0.5


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedules_lead_from_the_first_to_the_final_rate(schedule):
    settings = TrainingSettings(
        epochs=1, learning_rate=1e-3, final_learning_rate=1e-6, schedule=schedule
    )
    rates = [learning_rate(settings, s) for s in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([1e-3, (1e-3 + 1e-6) / 2, 1e-6], rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1, "schedule": "step"}, "schedule 'step' is unknown"),
        ({"epochs": -1}, "epochs"),
        ({"epochs": 1, "batch_size": 0}, "batch size"),
        ({"epochs": 1.5}, "epochs: given 1.5, expected an integer of at least 0"),
        ({"epochs": 1, "batch_size": 2.5}, "batch size: given 2.5, expected an integer"),
        ({"epochs": 1, "learning_rate": -0.02}, "learning_rate: given -0.02"),
        ({"epochs": 1, "learning_rate": "1e-3"}, "learning_rate: given '1e-3'"),
        ({"epochs": 1, "final_learning_rate": np.nan}, "final_learning_rate: given nan"),
        ({"epochs": 1, "beta1": 1.0}, "beta1: given 1.0, expected a number from 0 to below 1"),
        ({"epochs": 1, "trained": "gamma"}, r"given 'gamma', expected .* \('gamma',\)"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TrainingSettings(**options)


def test_training_lowers_the_loss_and_keeps_the_best():
    objective, start = problem()
    settings = TrainingSettings(epochs=15, learning_rate=1e-2)
    result = run_epochs(objective, objective, start, settings)
    losses = [record["loss_train"] for record in result.records]
    assert len(losses) == 16 and min(losses) < 0.9 * losses[0]
    assert objective.loss(result.parameters).loss == pytest.approx(min(losses), rel=1e-9)


def test_untied_training_from_the_tied_solution_never_ends_higher():
    objective, start = problem()
    settings = TrainingSettings(epochs=5, learning_rate=0.3)
    tied = run_epochs(objective, objective, start, settings).parameters
    untied = replace(objective, solvers=KRYLOV)
    result = run_epochs(untied, untied, tied.untie(), settings)
    ends = untied.loss(result.parameters).loss
    assert ends <= objective.loss(tied).loss * (1 + 1e-12)


def test_only_the_chosen_parameters_move():
    objective, start = problem()
    result = run_epochs(objective, objective, start, TrainingSettings(epochs=2, trained=("b",)))
    assert np.array_equal(result.parameters.A, start.A)
    assert not np.array_equal(result.parameters.b, start.b)


def test_minibatches_cover_every_image_once():
    objective, start = problem(images=5)
    seen = []

    class Spy(Objective):
        def subset(self, indices):
            seen.append(indices)
            return super().subset(indices)

    spy = Spy(objective.model, objective.truth, objective.y, objective.solvers)
    run_epochs(spy, objective, start, TrainingSettings(epochs=1, batch_size=2))
    assert sorted(np.concatenate(seen)) == list(range(5)) and [len(b) for b in seen] == [2, 2, 1]


def test_resumed_training_equals_an_uninterrupted_one(tmp_path):
    objective, start = problem()
    settings = TrainingSettings(epochs=6, batch_size=3, learning_rate=1e-2)
    whole = run_epochs(objective, objective, start, settings)
    saved = []

    def stop_after_three(progress):
        save_checkpoint(tmp_path / "run.npz", progress)
        saved.append(progress.epoch)
        if progress.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_epochs(objective, objective, start, settings, callback=stop_after_three)
    progress = load_checkpoint(tmp_path / "run.npz")
    resumed = run_epochs(objective, objective, start, settings, resume=progress)
    assert saved == [1, 2, 3]
    assert np.array_equal(resumed.parameters.A, whole.parameters.A)
    assert np.array_equal(resumed.progress.x, whole.progress.x)


def resumed_elsewhere(objective, test, start, settings, **other):
    """Resume, in a changed set-up, the state after one epoch of `problem()`."""
    first, beginning = problem()
    states = []
    run_epochs(first, first, beginning, SETTINGS, callback=states.append)
    return run_epochs(objective, test, start, settings, resume=states[0], **other)


SETTINGS = TrainingSettings(epochs=2, batch_size=3, learning_rate=1e-2)
CHANGES = {
    "seed": lambda o, s: (o, o, s, replace(SETTINGS, seed=1)),
    "epochs": lambda o, s: (o, o, s, replace(SETTINGS, epochs=3)),
    "one pixel": lambda o, s: (replace(o, truth=np.fmax(o.truth, o.truth[:1])), o, s, SETTINGS),
    "test data": lambda o, s: (o, replace(o, y=o.y * 1.5), s, SETTINGS),
    "start": lambda o, s: (o, o, replace(s, A=s.A * 1.001), SETTINGS),
    "lam": lambda o, s: (replace(o, model=replace(o.model, lam=o.model.lam * 2)), o, s, SETTINGS),
    "solvers": lambda o, s: (replace(o, solvers=SolverSettings(forward_tol=1e-3)), o, s, SETTINGS),
}


@pytest.mark.parametrize("name", CHANGES)
def test_resuming_with_other_settings_or_data_is_refused(name):
    objective, start = problem()
    with pytest.raises(ValueError, match="resume: the checkpoint is of other settings"):
        resumed_elsewhere(*CHANGES[name](objective, start))


def test_resuming_with_the_same_made_anew_goes_on():
    objective, start = problem()
    assert len(resumed_elsewhere(objective, objective, start, SETTINGS).records) == 3


def test_only_a_training_state_is_resumed():
    objective, start = problem()
    with pytest.raises(TypeError, match="resume: given a str, expected a TrainingState"):
        run_epochs(objective, objective, start, SETTINGS, resume="checkpoint.npz")


def test_damaged_checkpoint_is_refused_with_its_name(tmp_path):
    path = tmp_path / "run.npz"
    path.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="run.npz: not a complete npz"):
        load_checkpoint(path)


def test_failing_steps_are_taken_back_and_end_the_run():
    """An objective that fails everywhere but at the start: ten halvings, and the start is kept."""
    objective, start = problem()

    class Fragile(Objective):
        def gradient(self, raw, u0=None):
            if not np.array_equal(raw.A, start.A):
                raise NotConvergedError("planted")
            return super().gradient(raw, u0)

        def loss(self, raw, u0=None):
            if not np.array_equal(raw.A, start.A):
                raise NotConvergedError("planted")
            return super().loss(raw, u0)

    fragile = Fragile(objective.model, objective.truth, objective.y, objective.solvers)
    result = run_epochs(fragile, objective, start, TrainingSettings(epochs=100))
    assert np.array_equal(result.parameters.A, start.A)
    assert result.progress.adam.reduction <= SMALLEST_REDUCTION
    assert sum(record["rejected_steps"] for record in result.records) >= 10


class Lame(Objective):
    """An objective whose first image has no fixed point: NaN, not converged."""

    def _solve(self, step, u0):
        result = super()._solve(step, u0)
        x, first = result.x.copy(), np.arange(len(result.x)) == 0
        x[0] = np.nan
        return result._replace(x=x).rejected(first, "planted")


@pytest.mark.parametrize("tied", [True, False])
def test_images_whose_solves_fail_are_left_out_of_loss_and_gradient(tied):
    objective, start = problem(solvers=replace(NEWTON if tied else KRYLOV, leave_out=True))
    start = start if tied else start.untie()
    lame = Lame(objective.model, objective.truth, objective.y, objective.solvers)
    given, expected = lame.gradient(start), objective.subset(np.arange(1, 4)).gradient(start)
    assert (given.used, given.left_out) == (3, 1) and (expected.used, expected.left_out) == (3, 0)
    assert given.loss == pytest.approx(expected.loss, rel=1e-12)
    np.testing.assert_allclose(pack(given.gradient), pack(expected.gradient), rtol=1e-8, atol=1e-12)
    for broken in (
        lame.subset(np.array([0])), replace(lame, solvers=replace(lame.solvers, leave_out=False))
    ):  # fmt: skip
        with pytest.raises(NotConvergedError, match="forward solve failed.*planted"):
            broken.gradient(start)


@pytest.mark.parametrize("tied", [True, False])
def test_a_solve_that_fails_costs_at_most_five_times_a_usual_one(tied):
    """A potential a thousand times as steep, and larger filters, are a far stiffer problem."""
    objective, start = problem(solvers=SolverSettings(forward_tol=1e-8, leave_out=True))
    start = start if tied else start.untie()
    effort = Effort()
    assert effort.limits() == {}
    usual = objective.gradient(start)
    for _ in range(3):
        effort.step(usual, 20.0, 1.0, 0.1)
    model = replace(objective.model, potential=make_potential("log_cosh", slope=1e3), tau=None)
    stiff, larger = replace(objective, model=model), replace(start, A=30 * start.A)
    states = [o.loss(larger).state for o in (stiff.limited(effort.limits()), stiff)]
    cost = [state.evaluations + state.products for state in (usual.state, *states)]
    assert not states[0].all_converged and cost[1] <= 5 * cost[0] < cost[2], cost


def test_failures_in_a_row_are_given_more_time():
    """The second doubles what a solve may take, a success ends that."""
    objective, start = problem()
    effort, usual = Effort(), objective.gradient(start)
    effort.step(usual, 20.0, 1.0, 0.1)
    first = effort.limits()
    factors = []
    for _ in range(9):
        effort.reject(0.1)
        factors.append(effort.limits()["forward_products"] / first["forward_products"])
    assert factors == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    effort.step(usual, 20.0, 1.0, 0.1)
    assert effort.limits() == first


def test_rates_and_warm_up_scale_the_first_step():
    """Adam's first step has the length of the rate in every coordinate."""
    objective, start = problem()

    def moved(**options):
        settings = TrainingSettings(
            1, 1e-3, 1e-3, schedule="constant", trained=("A", "b"), **options
        )
        x = run_epochs(objective, objective, start, settings).progress.x
        return x - pack(start, ("A", "b"))

    plain, slow = moved(), moved(rates={"b": 0.5}, warm_up=4)
    np.testing.assert_allclose(slow[:-3], plain[:-3] / 4, rtol=1e-9)
    np.testing.assert_allclose(slow[-3:], plain[-3:] / 8, rtol=1e-9)


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        ([1.0, 0.9, 0.8, 0.7], 0),
        ([1.0, 0.9999, 1.0], 0),
        ([1.0, 0.9999, 1.0, 1.1], 1),
        ([0.5] + [np.nan] * 6, 2),
        ([1.0, 0.5, 0.6, 0.6, 0.6, 0.4, 0.4], 1),
        ([1.0, 0.9995, 0.9985, 0.5], 0),
    ],
)
def test_a_plateau_is_a_window_without_improvement(losses, found):
    settings = TrainingSettings(epochs=9, window=3, tol=1e-3)
    assert plateaus(losses, settings) == found
    assert plateaus(losses, replace(settings, window=None)) == 0


def test_a_run_on_a_fixed_set_ends_when_it_has_converged():
    objective, start = problem()
    settings = TrainingSettings(epochs=300, learning_rate=0.03, window=5, tol=1e-4, drops=1)
    result = run_epochs(objective, objective, start, settings)
    assert result.converged and len(result.records) < 300
    words = f"converged after {len(result.records) - 1} epochs: the loss fell by less than 0.01% in"
    assert result.ended.startswith(words)
    limited = run_epochs(objective, objective, start, replace(settings, epochs=2))
    assert not limited.converged and limited.ended == "not converged: the limit of 2 epochs"


def test_no_fixed_point_at_the_start_is_an_error():
    objective, start = problem(
        solvers=SolverSettings("picard", "cg", 1e-12, 1e-12, 1)
    )
    with pytest.raises(NotConvergedError, match="start"):
        run_epochs(objective, objective, start, TrainingSettings(epochs=1))
