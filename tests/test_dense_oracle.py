"""The dense oracle against closed forms, complex steps, finite differences and autodiff."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.results import NotConvergedError
from refimpl.verification.checks import complex_step, dense_outputs
from refimpl.verification.checks.oracle import (
    dense_model,
    dense_parameters,
    displacement,
    energy,
    rounding_level,
    step,
)
from strategies import BOUNDARIES, boundaries, generator, seeds

OPERATORS = ("identity", "mask", "convolution", "matrix")

QUADRATIC = SimpleNamespace(
    value=lambda z: z**2 / 2,
    derivative=lambda z: z,
    second_derivative=np.ones_like,
)
RELU = SimpleNamespace(
    value=lambda z: np.where(z.real > 0, z**2 / 2, 0),
    derivative=lambda z: np.where(z.real > 0, z, 0),
    second_derivative=lambda z: np.where(z.real > 0, 1.0, 0.0),
)
SMOOTHED_L1 = SimpleNamespace(
    value=lambda z: np.sqrt(z**2 + 0.01),
    derivative=lambda z: z / np.sqrt(z**2 + 0.01),
    second_derivative=lambda z: 0.01 / (z**2 + 0.01) ** 1.5,
)
LORENTZIAN = SimpleNamespace(
    value=lambda z: np.log(1 + z**2),
    derivative=lambda z: 2 * z / (1 + z**2),
    second_derivative=lambda z: 2 * (1 - z**2) / (1 + z**2) ** 2,
)
POTENTIALS = {
    "quadratic": QUADRATIC,
    "half_squared_relu": RELU,
    "smoothed_l1": SMOOTHED_L1,
    "lorentzian": LORENTZIAN,
}


def description(operator="identity", analysis="convolution", boundary="periodic", tied=True):
    return {
        "format": "refimpl-case/1",
        "operator": operator,
        "operator_boundary": boundary,
        "analysis": analysis,
        "boundary": boundary,
        "tied": tied,
        "tau": 0.1,
        "lam": 2.0,
        "gamma": 0.3,
    }


def inputs(case, seed=0, shape=(2, 2, 4, 5), count=2):
    """Random arrays for a case; K is kept well conditioned so that u* is isolated."""
    rng = generator(seed)
    size = int(np.prod(shape[1:]))
    filters = (count, size) if case["analysis"] == "dense" else (count, shape[1], 3, 3)
    arrays = {k: rng.standard_normal(shape) for k in ("y", "target", "u", "v", "w")}
    arrays["A"] = rng.standard_normal(filters) / 3
    if not case["tied"]:
        arrays["C"] = arrays["A"] + rng.standard_normal(filters) / 10
    arrays |= {"b": rng.standard_normal(count), "weights": rng.uniform(0.5, 1.5, count)}
    arrays["mask"] = rng.uniform(0.5, 1.5, shape[2:])
    arrays["kernel"] = rng.uniform(0, 0.05, (3, 3)) + np.pad([[1.0]], 1)
    arrays["matrix"] = np.eye(size + 1, size) + rng.standard_normal((size + 1, size)) / 20
    if case["operator"] == "matrix":
        arrays["y"] = rng.standard_normal((shape[0], size + 1))
    return arrays


def one_pixel(a, y, target, *, b=0.0):
    pixel = {"y": y, "target": target, "u": 1.0, "v": 1.0, "w": 1.0}
    arrays = {name: np.full((1, 1, 1, 1), value) for name, value in pixel.items()}
    return arrays | {"A": np.full((1, 1, 1, 1), a), "b": np.array([b])}


def close(given_, expected, relative=1e-9):
    """Largest difference relative to the largest entry."""
    return np.abs(given_ - expected).max() <= relative * np.abs(expected).max()


def test_one_pixel_with_quadratic_potential_has_the_closed_form():
    # E = λ/2 (u − y)² + γ/2 (a u)², u* = λy / (λ + γa²), du*/da = −2γa u* / (λ + γa²).
    a, y, target, lam, gamma = 1.5, 0.7, 0.2, 2.0, 0.3
    outputs = dense_outputs(description(), one_pixel(a, y, target), QUADRATIC)
    h = lam + gamma * a**2
    star = lam * y / h
    gradient = 2 * (star - target)
    expected = {
        "energy": lam / 2 * (1 - y) ** 2 + gamma / 2 * a**2,
        "gradient": lam * (1 - y) + gamma * a**2,
        "hvp": h,
        "map": 1 - 0.1 * (lam * (1 - y) + gamma * a**2),
        "jvp": 1 - 0.1 * h,
        "vjp": 1 - 0.1 * h,
        "vjp_A": -0.1 * gamma * 2 * a,
        "vjp_b": -0.1 * gamma * a,
        "vjp_weights": -0.1 * gamma * a**2,
        "fixed_point": star,
        "loss": (star - target) ** 2,
        "hypergradient_A": gradient * -2 * gamma * a * star / h,
        "hypergradient_b": gradient * -gamma * a / h,
        "hypergradient_weights": gradient * -gamma * a**2 * star / h,
    }
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        assert np.ravel(outputs[name]) == pytest.approx([value], rel=1e-14), name


def test_one_pixel_with_relu_lies_on_the_side_of_its_bias():
    off = dense_outputs(description(), one_pixel(1.0, 0.7, 0.2, b=-5.0), RELU)
    on = dense_outputs(description(), one_pixel(1.0, 0.7, 0.2, b=5.0), RELU)
    assert off["fixed_point"].item() == pytest.approx(0.7, rel=1e-14)
    assert on["fixed_point"].item() == pytest.approx((2 * 0.7 - 0.3 * 5) / 2.3, rel=1e-14)
    assert off["hypergradient_A"].item() == 0


def test_outputs_have_the_names_and_shapes_of_the_exchange_format():
    for tied in (True, False):
        case = description(tied=tied)
        arrays = inputs(case)
        outputs = dense_outputs(case, arrays, SMOOTHED_L1)
        images = {"map", "jvp", "vjp", "fixed_point"} | ({"gradient", "hvp"} if tied else set())
        parameters = ["A", "b", "weights"] + ([] if tied else ["C"])
        assert all(outputs[name].shape == (2, 2, 4, 5) for name in images)
        for name in parameters:
            assert outputs[f"vjp_{name}"].shape == arrays[name].shape
            assert outputs[f"hypergradient_{name}"].shape == arrays[name].shape
        rest = {"loss", "energy"} if tied else {"loss"}
        assert len(outputs) == len(images | rest) + 2 * len(parameters)


def flat_model(case, arrays, potential):
    return dense_model(case, arrays, dense_parameters(case, arrays), potential)


@given(
    seeds(),
    boundaries(),
    st.sampled_from(OPERATORS),
    st.sampled_from(("convolution", "dense")),
    st.booleans(),
    st.sampled_from(sorted(POTENTIALS)),
)
def test_products_are_those_of_complex_steps(seed, boundary, operator, analysis, tied, potential):
    case = description(operator, analysis, boundary, tied)
    arrays = inputs(case, seed, shape=(1, 1, 3, 4))
    outputs = dense_outputs(case, arrays, POTENTIALS[potential])

    def at(name, value):
        changed = arrays | {name: value}
        model = flat_model(case, changed, POTENTIALS[potential])
        return step(model, changed["u"].reshape(1, -1), changed["y"].reshape(1, -1))

    for name in ["u", "A", "b", "weights"] + ([] if tied else ["C"]):
        product = outputs["vjp" if name == "u" else f"vjp_{name}"]
        check = complex_step(
            lambda x, name=name: at(name, x).ravel() @ arrays["w"].ravel(),
            lambda d, product=product: np.vdot(product, d),
            arrays[name],
            np.sign(product),  # adds the moduli of the entries, so that nothing cancels
            name=name,
        )
        assert check.passed, check
    jvp = complex_step(
        lambda x: at("u", x), lambda v: outputs["jvp"].reshape(1, -1), arrays["u"], arrays["v"]
    )
    assert jvp.passed, jvp


@pytest.mark.parametrize("potential", POTENTIALS)
def test_tied_gradient_is_the_complex_step_of_the_energy(potential):
    case = description("convolution")
    arrays = inputs(case, shape=(1, 2, 4, 5))
    outputs = dense_outputs(case, arrays, POTENTIALS[potential])
    model = flat_model(case, arrays, POTENTIALS[potential])
    y = arrays["y"].reshape(1, -1)
    check = complex_step(
        lambda x: energy(model, x.reshape(1, -1), y),
        lambda v: np.vdot(outputs["gradient"], v),
        arrays["u"],
        np.sign(outputs["gradient"]),
    )
    assert check.passed, check


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("tied", [True, False])
def test_hypergradient_is_the_central_difference_of_the_loss(operator, tied):
    case = description(operator, "convolution", "symmetric", tied)
    arrays = inputs(case, seed=3, shape=(2, 1, 3, 4), count=1)
    outputs = dense_outputs(case, arrays, SMOOTHED_L1)
    rng = generator(4)
    for name in ["A", "b", "weights"] + ([] if tied else ["C"]):
        direction = rng.standard_normal(arrays[name].shape)

        def loss(t, name=name, direction=direction):
            changed = arrays | {name: arrays[name] + t * direction}
            return dense_outputs(case, changed, SMOOTHED_L1)["loss"]

        # Richardson's extrapolation of central differences: error O(h⁴) + eps / h.
        h = 1e-3
        coarse, fine = ((loss(s) - loss(-s)) / (2 * s) for s in (h, h / 2))
        expected = (4 * fine - coarse) / 3
        scale = np.linalg.norm(outputs[f"hypergradient_{name}"]) * np.linalg.norm(direction)
        given_ = np.vdot(outputs[f"hypergradient_{name}"], direction)
        assert abs(given_ - expected) <= 1e-8 * scale


def test_tied_gradients_are_the_sums_of_the_untied_ones():
    tied = description("mask")
    arrays = inputs(tied)
    together = dense_outputs(tied, arrays, LORENTZIAN)
    apart = dense_outputs(tied | {"tied": False}, arrays | {"C": arrays["A"]}, LORENTZIAN)
    for name in ("vjp", "hypergradient"):
        assert close(together[f"{name}_A"], apart[f"{name}_A"] + apart[f"{name}_C"], 1e-12)
        assert close(together[f"{name}_b"], apart[f"{name}_b"], 1e-12)


def test_left_out_bias_and_weights_are_zero_and_one():
    case = description()
    arrays = inputs(case)
    explicit = arrays | {"b": np.zeros(2), "weights": np.ones(2)}
    implied = {k: x for k, x in arrays.items() if k not in ("b", "weights")}
    first, second = (dense_outputs(case, x, SMOOTHED_L1) for x in (explicit, implied))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("tied", [True, False])
def test_fixed_point_is_reached_to_rounding(potential, tied):
    case = description("matrix", tied=tied)
    arrays = inputs(case)
    model = flat_model(case, arrays, POTENTIALS[potential])
    star = dense_outputs(case, arrays, POTENTIALS[potential])["fixed_point"]
    for u, y in zip(star.reshape(2, -1), arrays["y"]):
        assert np.linalg.norm(displacement(model, u, y)) <= rounding_level(model, u, y)
        assert rounding_level(model, u, y) <= 1e-11 * np.linalg.norm(u)


def test_start_selects_one_of_several_fixed_points():
    # G(u) = 0.1 (u − 10) + 2u / (1 + u²) is negative at 0, positive at 1, negative at 7.
    case = description() | {"lam": 0.1, "gamma": 1.0}
    arrays = one_pixel(1.0, 10.0, 0.0)
    ends = [
        dense_outputs(case, arrays, LORENTZIAN, start=np.full((1, 1, 1, 1), start))["fixed_point"]
        for start in (0.0, 10.0)
    ]
    assert ends[0].item() < 1
    assert ends[1].item() > 7


def test_fixed_point_that_does_not_exist_is_refused():
    constant = SimpleNamespace(
        value=lambda z: z, derivative=np.ones_like, second_derivative=np.zeros_like
    )
    case = description("mask")
    arrays = inputs(case) | {"mask": np.zeros((4, 5))}
    with pytest.raises(NotConvergedError, match=r"‖G\(u\)‖ is .*, expected at most .*; pass a"):
        dense_outputs(case, arrays, constant)


def test_fixed_point_that_is_not_isolated_is_refused():
    case = description("mask")
    arrays = inputs(case) | {"mask": np.zeros((4, 5)), "A": np.zeros((2, 2, 3, 3))}
    with pytest.raises(np.linalg.LinAlgError, match="not isolated; take an operator"):
        dense_outputs(case, arrays, QUADRATIC)


@pytest.fixture
def torch():
    """Torch on one thread: its threads cost more than these images."""
    module = pytest.importorskip("torch", reason="autodiff comparison needs the extra 'backends'")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


def torch_question(case, arrays):
    """The backend in torch, and what it is asked: √(z² + 0.01) for φ."""
    from refimpl.verification.backends.torch_backend import TorchBackend
    from refimpl.verification.question import ARRAYS, SETTINGS, Question

    backend = TorchBackend()
    settings = case | {"potential": "smoothed_l1", "potential_parameters": {"nu": 0.1}}
    settings = {name: settings.get(name) for name in SETTINGS}
    own = {name: backend.asarray(arrays[name]) for name in ARRAYS if name in arrays}
    return backend, Question(**settings, **own)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(
    ("operator", "analysis", "tied"),
    [
        ("identity", "convolution", True),
        ("mask", "dense", False),
        ("convolution", "convolution", False),
        ("matrix", "convolution", True),
    ],
)
def test_outputs_are_those_of_autodiff(torch, boundary, operator, analysis, tied):
    case = description(operator, analysis, boundary, tied)
    arrays = inputs(case, seed=1)
    outputs = dense_outputs(case, arrays, SMOOTHED_L1)
    backend, p = torch_question(case, arrays)
    t = {name: torch.tensor(x) for name, x in arrays.items()}
    names = ["A", "b", "weights"] + ([] if tied else ["C"])

    def T(u, *values):
        return backend.step(p, dict(zip(names, values)), u)

    theta = [t[name] for name in names]
    assert close(outputs["map"], T(t["u"].requires_grad_(), *theta).detach().numpy(), 1e-12)
    vjp = torch.autograd.functional.vjp(T, (t["u"], *theta), t["w"])[1]
    for name, expected in zip(["vjp", *(f"vjp_{name}" for name in names)], vjp):
        assert close(outputs[name], expected.numpy(), 1e-12), name

    star = torch.tensor(outputs["fixed_point"], requires_grad=True)
    assert close(T(star, *theta).detach().numpy(), outputs["fixed_point"], 1e-12)
    size = star.numel()
    J = torch.autograd.functional.jacobian(lambda u: T(u, *theta), star).reshape(size, size)
    gradient = 2 * (star - t["target"]).detach().flatten() / size
    q = torch.linalg.solve((torch.eye(size, dtype=torch.float64) - J).T, gradient)
    hyper = torch.autograd.functional.vjp(
        lambda *p: T(star, *p), tuple(theta), q.reshape(t["u"].shape)
    )
    for name, expected in zip(names, hyper[1]):
        assert close(outputs[f"hypergradient_{name}"], expected.numpy(), 1e-10), name


def test_sigma_in_place_of_its_derivative_is_seen_by_the_complex_step():
    wrong = SimpleNamespace(
        value=SMOOTHED_L1.value,
        derivative=SMOOTHED_L1.derivative,
        second_derivative=SMOOTHED_L1.derivative,
    )
    case = description()
    arrays = inputs(case, shape=(1, 1, 3, 4))
    outputs = dense_outputs(case, arrays, wrong)
    model = flat_model(case, arrays, SMOOTHED_L1)
    y = arrays["y"].reshape(1, -1)
    check = complex_step(
        lambda x: step(model, x.reshape(1, -1), y),
        lambda v: outputs["jvp"].reshape(1, -1),
        arrays["u"],
        arrays["v"],
        name="jvp",
    )
    assert not check.passed
    assert check.name == "jvp"
