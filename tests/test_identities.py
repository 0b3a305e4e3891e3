"""Every identity holds, every class is registered, and every planted error is found by name."""

import inspect
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import refimpl.engine
import refimpl.engine.step
import refimpl.paper.operators
import refimpl.paper.potentials
from refimpl import kernels
from refimpl.engine.field import FieldLinearization, make_field
from refimpl.engine.step import StepLinearization, TiedStep
from refimpl.equilibrium import adjoint as implicit
from refimpl.paper import equations
from refimpl.paper.operators import BOUNDARIES, Convolution, FilterBank, Operator, Padding
from refimpl.paper.operators.base import Composition, FromScipy, Multiple, Sum
from refimpl.paper.parameters import Parameters
from refimpl.paper.potentials import POTENTIALS, LogCosh
from refimpl.results import Check
from refimpl.training.normalization import Normalization
from refimpl.verification.identities import (
    adjoints,
    all_checks,
    certified,
    fields,
    known_problems,
    normalized,
    operator_maps,
    registry,
    scalar,
    steps,
)


@pytest.fixture(scope="module")
def every_check():
    return list(all_checks())


def listing(checks):
    return "\n".join(f"{c.measured:9.2e} > {c.bound:.2e}  {c.name}" for c in checks)


def test_every_identity_holds(every_check):
    failed = [check for check in every_check if not check.passed]
    assert not failed, f"{len(failed)} of {len(every_check)} identities fail:\n{listing(failed)}"


def test_names_of_checks_are_unique(every_check):
    repeated = [name for name, n in Counter(c.name for c in every_check).items() if n > 1]
    assert not repeated


@pytest.mark.parametrize("identity", ["dot test", "bilinear", *(f"E{n}" for n in range(2, 13))])
def test_every_equation_has_checks(every_check, identity):
    assert any(check.name.startswith(identity) for check in every_check)


@pytest.mark.parametrize("family", [operator_maps, scalar], ids=lambda f: f.__name__)
def test_checks_repeat_bit_for_bit(family):
    assert list(family.checks(3)) == list(family.checks(3))


def test_another_seed_gives_other_numbers_and_the_same_verdict():
    one, other = list(operator_maps.checks(0)), list(operator_maps.checks(1))
    assert [check.name for check in one] == [check.name for check in other]
    assert [check.measured for check in one] != [check.measured for check in other]
    assert all(check.passed for check in other)


# Registration


def registered_classes():
    """Classes of all objects in the registry, of their parts, and of their linearisations."""
    objects = [
        x for build in (registry.operators, registry.fields, registry.steps) for _, x in build()
    ]
    objects += [x for build in (registry.banks, registry.potentials) for _, x in build()]
    made = [make_field(experts) for _, experts in registry.fields()]
    objects += made
    linearizations = [
        x.linearize(np.zeros((registry.IMAGES, *x.experts.bank.image_shape))) for x in made
    ]
    linearizations += [
        step.linearize(np.zeros((registry.IMAGES, *step.problem.bank.image_shape)))
        for _, step in registry.steps()
    ]
    linearizations += [x.transposed for x in linearizations if isinstance(x, StepLinearization)]
    return {type(x) for x in objects + linearizations}


def concrete_classes(module):
    """Public classes of a module or package that are not protocols, bases, or plain results."""
    for name, x in inspect.getmembers(module, inspect.isclass):
        own = x.__module__.startswith(module.__name__)
        if own and not name.startswith("_") and not getattr(x, "_is_protocol", False):
            yield x


def unregistered(modules, registered):
    found = {x for module in modules for x in concrete_classes(module)}
    found |= {x for x in subclasses(Operator) if x.__module__.startswith("refimpl.paper.")}
    return sorted(x.__name__ for x in found - registered - {Operator})


def subclasses(x):
    return {x}.union(*(subclasses(y) for y in x.__subclasses__()))


PACKAGES = (
    refimpl.paper.operators,
    refimpl.paper.potentials,
    refimpl.engine.field,
    refimpl.engine.step,
)


def test_nothing_enters_without_its_checks():
    assert unregistered(PACKAGES, registered_classes()) == []


def test_a_class_that_is_not_registered_is_found():
    registered = registered_classes() - {Composition, LogCosh}
    assert unregistered(PACKAGES, registered) == ["Composition", "LogCosh"]


def test_the_registry_has_every_name():
    names = {name for name, _ in registry.operators()}
    field_names = [name for name, _ in registry.fields()]
    for boundary in BOUNDARIES:
        assert {f"convolution, {boundary}", f"padding, {boundary}"} <= names
    for potential in POTENTIALS:
        for form in (*(f"filters, {boundary}" for boundary in BOUNDARIES), "dense rows"):
            for tied in ("tied", "untied"):
                assert f"{tied}, {form}, {potential}" in field_names
    assert {type(x) for _, x in registry.operators()} >= {Composition, FromScipy, Multiple, Sum}
    operators = {made.case.operator for _, made in known_problems.problems()}
    assert operators == set(known_problems.OPERATORS)


# Planted errors


def few(monkeypatch, family, builder, keep):
    """Let a family see only the objects whose names are kept; planting needs no more."""
    module = adjoints if family is adjoints else certified if family is certified else registry
    complete = getattr(module, builder)

    def some(seed=0):
        return ((name, x) for name, x in complete(seed) if keep in name)

    monkeypatch.setattr(module, builder, some)


def failures(family):
    return [check.name for check in family.checks(0) if not check.passed]


def test_an_adjoint_with_the_kernel_not_flipped_is_found(monkeypatch):
    monkeypatch.setattr(Convolution, "adjoint", Convolution.matvec)
    failed = failures(operator_maps)
    assert "dot test: convolution, symmetric" in failed
    assert "dot test: composition" in failed
    assert not any("matrix" in name or "mask" in name or "padding" in name for name in failed)


def test_a_padding_whose_adjoint_only_crops_is_found(monkeypatch):
    def crop(self, z):
        (_, H, W), (rows, columns) = self.domain_shape, self.widths
        return z[:, :, rows : rows + H, columns : columns + W].copy()

    monkeypatch.setattr(Padding, "adjoint", crop)
    failed = failures(operator_maps)
    assert "dot test: padding, symmetric" in failed
    assert "bilinear: filters, periodic (adjoint disagrees with the other two)" in failed
    assert not any("zero" in name for name in failed)


def test_a_mean_over_images_in_place_of_the_sum_is_found(monkeypatch):
    right = FilterBank.adjoint_filters
    monkeypatch.setattr(
        FilterBank, "adjoint_filters", lambda self, u, z: right(self, u, z) / len(u)
    )
    failed = failures(operator_maps)
    assert "bilinear: filters, zero (adjoint_filters disagrees with the other two)" in failed
    assert not any("dense" in name for name in failed)


def test_sigma_in_place_of_its_derivative_is_found(monkeypatch):
    monkeypatch.setattr(LogCosh, "second_derivative", LogCosh.derivative)
    failed = failures(scalar)
    assert {"σ′: log_cosh", "compiled σ′: log_cosh"} <= set(failed)
    assert all("log_cosh" in name for name in failed)
    few(monkeypatch, fields, "fields", "dense rows")
    failed = failures(fields)
    assert "E4 against E3, complex step: tied, dense rows, log_cosh" in failed
    assert "E4 against E2, Taylor: tied, dense rows, log_cosh: order 2.00, expected 3" in failed
    assert all("log_cosh" in name for name in failed)


def test_a_bound_of_the_curvature_that_is_too_small_is_found(monkeypatch):
    monkeypatch.setattr(LogCosh, "sup_third", 0.5)
    assert failures(scalar) == ["sup|σ″|: log_cosh", "sup|σ″|: log_cosh, slope 100"]


def test_a_tie_without_one_of_its_terms_is_found(monkeypatch):
    monkeypatch.setattr(Parameters, "adjoint_tie", lambda self: replace(self, C=None))
    few(monkeypatch, fields, "fields", "filters, reflect, log_cosh")
    failed = failures(fields)
    assert failed == [
        "E6 in A against E3, complex step: tied, filters, reflect, log_cosh",
        "E7, tied against untied: tied, filters, reflect, log_cosh, in A",
    ]


def test_a_forgotten_gamma_is_found(monkeypatch):
    right = FieldLinearization.params_vjp

    def wrong(self, q):
        gradient = right(self, q)
        return replace(gradient, weights=gradient.weights / self.field.experts.theta.gamma)

    monkeypatch.setattr(FieldLinearization, "params_vjp", wrong)
    few(monkeypatch, fields, "fields", "untied, dense rows, huber")
    name = "E6 in weights against E3, complex step: untied, dense rows, huber"
    assert failures(fields) == [name, "engine of E6: untied, dense rows, huber, in weights"]


def test_a_cotangent_that_is_the_tangent_is_found_where_A_and_C_differ(monkeypatch):
    monkeypatch.setattr(FieldLinearization, "vjp", FieldLinearization.jvp)
    few(monkeypatch, fields, "fields", "dense rows, log_cosh")
    failed = failures(fields)
    assert failed == [
        "E5 against E4, dot test: untied, dense rows, log_cosh",
        "engine of E5: untied, dense rows, log_cosh",
    ]


def test_a_kernel_that_forgets_the_bias_is_found(monkeypatch):
    right = kernels.field

    def wrong(up, A, C, b, *rest):
        return right(up, A, C, np.zeros_like(b), *rest)

    monkeypatch.setattr(kernels, "field", wrong)
    few(monkeypatch, fields, "fields", "untied, filters, zero, log_cosh")
    failed = failures(fields)
    assert "engine of E3: untied, filters, zero, log_cosh" in failed
    assert any("E4 against E3, Taylor: untied, filters, zero, log_cosh" in name for name in failed)
    assert not any(name.startswith(("engine of E4", "E6")) for name in failed)


def test_half_the_energy_is_found(monkeypatch):
    right = equations.regulariser
    monkeypatch.setattr(equations, "regulariser", lambda *x: right(*x) / 2)
    few(monkeypatch, fields, "fields", "tied, filters, zero, quadratic")
    failed = failures(fields)
    assert "E3 against E2, complex step: tied, filters, zero, quadratic" in failed
    assert "engine of E2: tied, filters, zero, quadratic" in failed
    assert not any("E4 against E3" in name for name in failed)


def test_a_step_whose_vjp_forgets_the_data_is_found(monkeypatch):
    monkeypatch.setattr(
        StepLinearization, "vjp", lambda self, q: q - self.step.tau * self.field.vjp(q)
    )
    few(monkeypatch, steps, "steps", "tied, matrix")
    names = [f"E8 vjp against jvp, dot test: {tied}, matrix" for tied in ("tied", "untied")]
    assert failures(steps) == names


def test_an_energy_without_one_half_is_found(monkeypatch):
    right = TiedStep.data_energy
    monkeypatch.setattr(TiedStep, "data_energy", lambda self, u: 2 * right(self, u))
    few(monkeypatch, steps, "steps", "mask, rows")
    failed = failures(steps)
    assert "engine of E2: tied, mask, rows" in failed
    assert all(name.startswith(("E2", "engine of E2")) for name in failed)


def test_an_adjoint_state_without_tau_is_found(monkeypatch):
    # p in the place of q = p / τ.
    monkeypatch.setattr(implicit, "_divided_by_tau", lambda result, linearization: result)
    few(monkeypatch, adjoints, "problems", "tied, identity, dense, huber")
    failed = failures(adjoints)
    assert "E9 by cg: tied, identity, dense, huber" in failed
    assert "E10 in A against dense matrices: tied, identity, dense, huber" in failed
    assert not any(name.startswith(("E9 by neumann", "fixed point")) for name in failed)


def test_a_monotonicity_that_promises_too_much_is_found(monkeypatch):
    right = certified.proved_monotonicity
    monkeypatch.setattr(certified, "proved_monotonicity", lambda step: 1.5 * right(step))
    few(monkeypatch, certified, "problems", "tied, identity, dense, soft_shrinkage")
    failed = failures(certified)
    assert failed == ["E12, μ below the lowest eigenvalue: tied, identity, dense, soft_shrinkage"]


def test_the_frozen_norm_in_place_of_the_exact_one_is_found(monkeypatch):
    right = Normalization.__init__
    monkeypatch.setattr(
        Normalization,
        "__init__",
        lambda self, bank, which="", **norm: right(self, bank, "frozen", **norm),
    )
    monkeypatch.setattr(
        registry, "banks", lambda: [("dense rows", dict(complete_banks)["dense rows"])]
    )
    assert failures(normalized) == [
        "exact norm, difference quotient: dense rows",
        "exact norm, orthogonal to Â: dense rows",
        "frozen norm, off by more than 1 %: dense rows",
    ]


complete_banks = list(registry.banks())


def test_nan_fails():
    assert not Check("x", np.nan, 1.0).passed
