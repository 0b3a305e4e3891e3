"""Planted faults of single stages, of solves and of places are named; right values are not.

The planted values come from torch autodiff (`torch_oracle`), or from arithmetic on the reference.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from case_factory import make_case
from faults.derivatives import sigma_itself, written_jvp, written_params_vjp
from suspect_cases import settings_of
from torch_oracle import Oracle

from refimpl.verification.crosscheck.anatomy import local_output, make_parts
from refimpl.verification.crosscheck.reference import make_reference
from refimpl.verification.crosscheck.suspects import EXPLANATIONS, explanation, suspects

# torch announces this itself on the first use of torch.func.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def planted(fault, name, *, count=3, precision="float64", **options):
    """Causes left when `fault(reference, oracle)` gives the output of that name."""
    left = None
    for k in range(count):
        case = make_case(**(settings_of(k, 7) | {"potential": "log_cosh"} | options))
        reference = make_reference(case, precision)
        value = fault(reference, Oracle(reference.case))
        if value is None:
            continue
        found = suspects(reference, name, np.asarray(value))
        left = found if left is None else tuple(s for s in left if s in found)
    return left


def scaled(name, factor):
    return lambda r, o: factor(r) * r.outputs[name]


SCALINGS = [
    ("factor_two", "energy", lambda r: 2),
    ("factor_half", "loss", lambda r: 0.5),
    ("sign", "vjp_A", lambda r: -1),
    ("zero", "gradient", lambda r: 0),
    ("sum_not_mean", "loss", lambda r: r.case.arrays["u"].size),
    ("times_pixels", "hypergradient_A", lambda r: r.case.arrays["u"][0].size),
    ("divided_by_pixels", "vjp_b", lambda r: 1 / r.case.arrays["u"][0].size),
    ("mean_not_sum", "vjp_weights", lambda r: 1 / r.case.arrays["u"].size),
    ("adjoint_scaled_by_tau", "hypergradient_A", lambda r: r.case.tau),
    ("factor:one_over_tau", "vjp_A", lambda r: 1 / r.case.tau),
    ("factor:0.37", "hvp", lambda r: 0.37),
]


@pytest.mark.parametrize(("slug", "name", "factor"), SCALINGS)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_scaled_output_is_named(slug, name, factor, precision):
    assert planted(scaled(name, factor), name, precision=precision)[0] == slug


@pytest.mark.parametrize(("slug", "power"), [("times_batch", 1), ("divided_by_batch", -1)])
def test_batch_factor_is_named_where_there_are_several_images(slug, power):
    def fault(reference, _):
        N = len(reference.case.arrays["u"])
        return None if N == 1 else float(N) ** power * reference.outputs["hypergradient_A"]

    assert planted(fault, "hypergradient_A")[0] == slug


def gradient_of_A(oracle, u, q):
    """(∂_A T)ᵀ q at u."""
    return oracle.step_params_vjp(oracle.p, oracle.theta, u, q)["A"].detach().numpy()


def with_adjoint(solve):
    """A fault: the hypergradient of A with q = solve(∂T, ∇ℓ) for each image."""

    def fault(reference, oracle):
        star, q = torch.from_numpy(reference.outputs["fixed_point"]), []
        for n, g in enumerate(oracle.loss_gradient(star)):
            G = oracle.jacobian(star[n : n + 1], n)
            J = torch.eye(len(G), dtype=G.dtype) - reference.case.tau * G
            q.append(solve(J, g.reshape(-1)).reshape(g.shape))
        return gradient_of_A(oracle, star, torch.stack(q))

    return fault


def neumann(K):
    def solve(J, g):
        return sum(torch.linalg.matrix_power(J.T, k) @ g for k in range(K))

    return solve


def gradients(K):
    """K conjugate gradient steps on (I − ∂T)ᵀ q = g."""

    def solve(J, g):
        H = torch.eye(len(J), dtype=J.dtype) - J.T
        q, r = 0 * g, g
        s = r
        for _ in range(K):
            a = (r @ r) / (s @ H @ s)
            q, new = q + a * s, r - a * (H @ s)
            s, r = new + (new @ new) / (r @ r) * s, new
        return q

    return solve


@pytest.mark.parametrize(
    ("slug", "solve", "tied"),
    [
        ("jacobian_free", lambda J, g: g, True),
        ("truncated_neumann:2", neumann(2), True),
        ("truncated_neumann:25", neumann(25), False),
        ("too_few_adjoint_iterations", gradients(2), True),
        (
            "adjoint_not_transposed",
            lambda J, g: torch.linalg.solve(torch.eye(len(J)) - J, g),
            False,
        ),
    ],
)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_wrong_adjoint_state_is_named(slug, solve, tied, precision):
    count = 3 if precision == "float64" else 2
    left = planted(
        with_adjoint(solve), "hypergradient_A", tied=tied, precision=precision, count=count
    )
    assert left[0] == slug, left


def test_failed_adjoint_solves_are_named():
    zero = planted(with_adjoint(lambda J, g: 0 * g), "hypergradient_A")
    assert zero[0] == "adjoint_zero"

    def right_hand_side(r, o):
        return with_adjoint(lambda J, g: g / r.case.tau)(r, o)

    assert planted(right_hand_side, "hypergradient_A")[0] == "adjoint_is_right_hand_side"


def unrolled(K):
    def fault(_, oracle):
        def loss(theta):
            u = oracle.p.y
            for _ in range(K):
                u = oracle.step(oracle.p, theta, u)
            return oracle.loss(oracle.p, u)

        return oracle.value_and_grad(loss, oracle.theta)[1]["A"].numpy()

    return fault


@pytest.mark.parametrize(("K", "precision"), [(1, "float32"), (12, "float64")])
def test_unrolled_gradient_is_named(K, precision):
    left = planted(unrolled(K), "hypergradient_A", count=2, precision=precision)
    assert left[0] == f"truncated_unrolled:{K}", left


def test_gradient_at_the_start_is_named():
    def fault(_, oracle):
        u = oracle.p.y
        return gradient_of_A(oracle, u, oracle.adjoint_states(u, oracle.loss_gradient(u)))

    assert planted(fault, "hypergradient_A")[0] == "at_start_not_fixed_point"


def iterated(K, name):
    def fault(_, oracle):
        u = oracle.p.y
        for _ in range(K):
            u = oracle.T(u)
        return (u if name == "fixed_point" else oracle.loss(oracle.p, u)).numpy()

    return fault


@pytest.mark.parametrize("name", ["fixed_point", "loss"])
@pytest.mark.parametrize("K", [3, 25])
def test_too_few_iterations_are_named(K, name):
    assert planted(iterated(K, name), name)[0] == "too_few_forward_iterations"


def half(oracle, name):
    """An output computed in a lower precision."""
    return Oracle(oracle.case, torch.float32).local()[name].double().numpy()


@pytest.mark.parametrize("name", ["map", "gradient", "hvp", "vjp_A", "energy"])
def test_hidden_precision_is_named(name):
    assert planted(lambda r, o: half(o, name), name)[0] == "hidden_precision"


@pytest.mark.parametrize("name", ["map", "vjp_A"])
def test_hidden_half_precision_is_named(name):
    def fault(reference, oracle):
        exact = reference.outputs[name]
        return torch.tensor(exact).bfloat16().double().numpy()

    assert planted(fault, name, precision="float32")[0] == "hidden_precision"


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_sigma_in_place_of_its_derivative_is_named(precision):
    def fault(_, o):
        u, v = o.arrays["u"], o.arrays["v"]
        return written_jvp(o, o.p, o.theta, u, v, sigma_itself).detach().numpy()

    assert planted(fault, "jvp", precision=precision)[0] == "sigma_for_sigma_prime"


def test_tangent_in_place_of_cotangent_is_named():
    def fault(_, o):
        return o.step_jvp(o.p, o.theta, o.arrays["u"], o.arrays["w"]).detach().numpy()

    assert planted(fault, "vjp", tied=False)[0] == "adjoint_not_transposed"


def test_one_of_the_two_terms_of_the_tied_gradient_is_named():
    def one_term(_, o):
        u, w = o.arrays["u"], o.arrays["w"]
        found = written_params_vjp(o, o.p, o.theta, u, w, terms=lambda A, C: A)
        return found["A"].detach().numpy()

    assert planted(one_term, "vjp_A")[0] == "one_of_two_terms"


def test_exchanged_gradients_of_A_and_C_are_named():
    fault = planted(lambda r, o: r.outputs["vjp_C"], "vjp_A", tied=False)
    assert fault[0] == "a_c_exchanged"


@pytest.mark.parametrize(("given", "name"), [("jvp", "vjp"), ("vjp_weights", "vjp_b")])
def test_output_in_the_place_of_another_is_named(given, name):
    fault = planted(lambda r, o: r.outputs[given], name, tied=False)
    assert fault[0] == f"other_output:{given}"


@pytest.mark.parametrize("name", ["vjp_A", "hypergradient_A"])
def test_frozen_norm_is_named(name):
    def fault(reference, _):
        case, A = reference.case, reference.case.arrays["A"]
        used = make_parts(case).used[0]
        plain = replace(case, norm=None, arrays=case.arrays | {"A": used})
        scale = np.linalg.norm(used) / np.linalg.norm(A)
        return scale * make_reference(plain).outputs[name]

    assert planted(fault, name, norm=1.2)[0] == "norm_frozen"


def test_differences_in_place_are_named():
    def border(r, _):
        x = r.outputs["map"].copy()
        x[:, :, 0] += np.random.default_rng(0).standard_normal(x[:, :, 0].shape)
        return x

    def image(r, _):
        x = r.outputs["gradient"].copy()
        x[-1] += np.random.default_rng(0).standard_normal(x[-1].shape)
        return x if len(x) > 1 else None

    def transposed(r, _):
        x = r.outputs["hvp"]
        return x.swapaxes(2, 3).copy() if x.shape[2] == x.shape[3] else None

    assert planted(border, "map") == ("border",)
    assert planted(image, "gradient") == ("some_images",)
    assert planted(transposed, "hvp")[0] == "transposed_image"


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_right_values_have_no_cause(precision):
    eps, rng = np.finfo(precision).eps, np.random.default_rng(0)
    for k in range(4):
        reference = make_reference(make_case("smoothed_l1", **settings_of(k, 3)), precision)
        for name, x in reference.outputs.items():
            assert suspects(reference, name, x * (1 + eps * rng.uniform(-1, 1, x.shape))) == ()


def test_noise_has_no_cause():
    rng, left = np.random.default_rng(0), {}
    for k in range(3):
        reference = make_reference(make_case("log_cosh", **settings_of(k, 5)))
        known = {}
        for name, x in reference.outputs.items():
            noise = rng.standard_normal(x.shape) * (1 + abs(x))
            found = suspects(reference, name, x + noise, known)
            left[name] = set(found) & left.get(name, set(found))
    assert not any(left.values()), left


def test_causes_are_the_same_with_what_is_known_from_other_outputs():
    case = make_case("log_cosh", **settings_of(0, 5))
    reference, other = make_reference(case), make_reference(replace(case, gamma=1.0)).outputs
    names, known = ("vjp_weights", "loss", "hypergradient_b", "hypergradient_weights"), {}
    for name in names:
        alone = suspects(reference, name, other[name])
        assert "gamma_ignored" in alone
        assert suspects(reference, name, other[name], known) == alone


def test_shapes_values_and_names_that_cannot_be_diagnosed_give_nothing():
    reference = make_reference(make_case("quadratic", tied=False))
    assert suspects(reference, "map", np.zeros(3)) == ()
    assert suspects(reference, "map", np.nan * reference.outputs["map"]) == ()
    assert suspects(reference, "energy", np.zeros(2)) == ()


def test_every_explanation_is_a_sentence_and_fills_its_detail():
    assert all(text and "  " not in text for text in EXPLANATIONS.values())
    assert "7 terms" in explanation("truncated_neumann:7")
    assert "by one over tau" in explanation("factor:one_over_tau").replace("times", "by")


def test_norm_that_is_not_exact_is_named():
    def rescaled(reference, name):
        parts = make_parts(reference.case).acting()
        parts = replace(parts, A=1.003 * parts.A, C=(1.003 if parts.tied else 0.99) * parts.C)
        return local_output(parts, name, reference.case.arrays)

    for tied in (True, False):
        case = replace(make_case("log_cosh", tied=tied), norm=1.3)
        reference = make_reference(case)
        for name in ("map", "jvp", "vjp"):
            assert "norm_inexact" in suspects(reference, name, rescaled(reference, name)), name


def test_constant_added_to_the_potential_is_named():
    reference = make_reference(make_case("smoothed_l1"))
    parts, arrays = make_parts(reference.case), reference.case.arrays
    nu = reference.case.potential_parameters["nu"]
    wrong = replace(parts, phi=lambda z: parts.phi(z) - nu)
    assert "potential_shifted" in suspects(
        reference, "energy", local_output(wrong, "energy", arrays)
    )
