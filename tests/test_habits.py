"""Habits of published code, planted in the torch backend: found, and named so that they are mended.

Unlike the faults of `make faults`, these come in pairs, and one hides behind another.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from faults.behaviours import Picard
from faults.fault import constant, flipped, image_norms

from refimpl.verification.backends.torch_backend import TorchBackend
from refimpl.verification.crosscheck import crosscheck, smallest

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
CONVOLUTION = "analysis=convolution"
WIDE = CONVOLUTION + ",normalized=false,filter_size=5,size=5..8"


@pytest.fixture(autouse=True)
def unshrunk(monkeypatch):
    """Failing cases stay as large as they are."""
    for name in ("SECONDS", "LEAST"):
        monkeypatch.setattr(smallest, name, 0.0)


def held(overrides, *stages, only=None, cases=8, precision="float64"):
    """The report on a backend with these overrides, in the order of their inheritance."""
    backend = type("Planted", (*overrides, TorchBackend), {})()
    options = {"only": only, "cases": cases, "precision": precision, "stages": stages}
    return crosscheck(backend, time_limit=300.0, budget=600.0, **options)


def stage_of(report, name):
    return next(stage for stage in report.stages if stage.stage == name)


class StopsAt(Picard):
    """Plain iteration until the change is 1e-8, whatever is asked for."""

    def done(self, change, u, tol, k):
        return float((image_norms(change) / image_norms(u)).detach().max()) <= 1e-8


class LossOfRows:
    """The loss is a mean over columns and a sum over rows: its gradient by hand forgets that."""

    def pull_back(self, settings, arrays, theta, u, b, tol):
        return super().pull_back(settings, arrays, theta, u, b / u.shape[2], tol)


def test_stop_at_1e_8_is_a_stopping_rule_and_the_gradient_inherits_it():
    report = held([StopsAt], "apply", "fixed_point", "hypergradient")
    star, gradient = stage_of(report, "fixed_point"), stage_of(report, "hypergradient")
    assert report.first_wrong == star and star.causes[0] == "too_few_forward_iterations"
    assert "hidden_precision" not in star.causes[:1], str(report)
    assert gradient.inherits == "fixed_point" or gradient.verdict == "agrees", str(report)


@pytest.mark.parametrize("others", [(), (StopsAt,)])
def test_gradient_divided_by_the_height_is_named_alone_and_behind_an_early_stop(others):
    report = held([LossOfRows, *others], "fixed_point", "hypergradient", cases=12)
    gradient = stage_of(report, "hypergradient")
    assert gradient.causes[0] == "divided_by_height", str(report)
    assert gradient.inherits is None and not gradient.ambiguous, str(report)
    assert stage_of(report, "fixed_point").verdict == ("DISAGREES" if others else "agrees")


class BlurByConv2d:
    """K by Conv2d: correlation, padded by zeros."""

    def forward(self, p, u):
        if p.operator != "convolution":
            return super().forward(p, u)
        p = replace(p, kernel=flipped(p.kernel, 0, 1), operator_boundary="zero")
        return super().forward(p, u)


def test_correlation_padded_by_zeros_is_named_as_both():
    report = held([BlurByConv2d], "apply", only="operator=convolution")
    assert report.first_wrong.causes[0] == "kernel_flipped+operator_boundary:zero", str(report)
    assert "and the blur acts under the boundary zero" in report.first_wrong.explanation


class NotCentred:
    """An FFT of a kernel that was not rolled to the origin."""

    def forward(self, p, u):
        z = super().forward(p, u)
        if p.operator != "convolution":
            return z
        return torch.roll(z, tuple(n // 2 for n in p.kernel.shape), (2, 3))


def test_kernel_that_is_not_centred_is_named():
    only = "operator=convolution,operator_boundary=periodic,kernel_size=3"
    report = held([NotCentred], "apply", only=only)
    assert report.first_wrong.causes[0] == "kernel_not_centred:1, 1", str(report)


class PatchNorm:
    """The norm on a patch a little larger than the filter."""

    freeze = staticmethod(lambda x: x)

    def norm(self, p, A):
        h, w = A.shape[2:]
        patch = torch.zeros((1, A.shape[1], h + 2, w + 3), dtype=A.dtype)
        return self.freeze(super().norm(replace(p, target=patch), A))


class Frozen:
    freeze = staticmethod(constant)


class GridNorm:
    """The largest value of the symbol on a grid of 64 × 64."""

    freeze = staticmethod(lambda x: x)

    def norm(self, p, A):
        symbols = torch.fft.fft2(A, (64, 64)).permute(2, 3, 0, 1)
        return self.freeze(torch.linalg.svdvals(symbols).max())


@pytest.mark.parametrize(
    ("overrides", "stage", "cause"),
    [
        ([PatchNorm], "apply", "norm_of_patch"),
        ([Frozen, PatchNorm], "params_vjp", "norm_frozen+norm_of_patch"),
        ([GridNorm], "apply", "norm_under_boundary:periodic"),
        ([Frozen, GridNorm], "params_vjp", "norm_frozen+norm_under_boundary:periodic"),
    ],
)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_another_norm_is_named(overrides, stage, cause, precision):
    only = CONVOLUTION + ",normalized=true,size=6..9,channels=1"
    report = held(overrides, stage, only=only, cases=5, precision=precision)
    assert report.first_wrong.causes[0] == cause, str(report)


class Shortened:
    """Padding that is short by one on each side: the outermost responses are zeros."""

    def analyse(self, p, A, u):
        z = super().analyse(p, A, u)
        kept = torch.zeros_like(z)
        kept[..., 1:-1, 1:-1] = 1
        return kept * z


def test_padding_that_is_one_ring_short_is_named():
    report = held([Shortened], "apply", only=WIDE, cases=12)
    assert report.first_wrong.causes[0] == "padding_short:1", str(report)


class ThresholdIsTau:
    def activation(self, p, z):
        if p.potential != "soft_shrinkage":
            return super().activation(p, z)
        p = replace(p, potential_parameters={"threshold": float(p.tau)})
        return super().activation(p, z)


def test_threshold_equal_to_the_step_is_named():
    report = held([ThresholdIsTau], "apply", only="potential=soft_shrinkage,tied=false")
    assert report.first_wrong.causes[0] == "parameter_is:tau", str(report)


class ClipsState:
    """Projected on [0, 1] after every step."""

    def apply(self, problem, u):
        return super().apply(problem, u).clip(0, 1)


def test_values_clipped_to_the_unit_interval_are_named():
    report = held([ClipsState], "apply")
    assert report.first_wrong.causes[0] == "clipped", str(report)


class JacobianFree:
    """q = s ∇ℓ, with a step size of its own."""

    def solve_adjoint(self, settings, arrays, theta, u, b, tol):
        return 0.37 * b


def test_jacobian_free_gradient_with_a_step_of_its_own_is_named():
    report = held([JacobianFree], "hypergradient", cases=5)
    assert report.first_wrong.causes[0] == "jacobian_free", str(report)


class DropsHiddenPixels:
    """Energies without ½ λ y² of what a mask hides."""

    def data_energy(self, p, u):
        residual = (self.forward(p, u) - p.y) * (1 if p.operator != "mask" else p.mask)
        return p.lam / 2 * (residual**2).reshape(len(u), -1).sum(1)


def test_energy_without_a_constant_is_said_to_be_that():
    report = held([DropsHiddenPixels], "energy", only="operator=mask")
    assert report.first_wrong.causes[0] == "energy_constant", str(report)
    assert "no gradient sees" in report.first_wrong.explanation


def user_code(u, window):
    if any(n < m for n, m in zip(u.shape[2:], window)):
        return torch.nn.functional.pad(u, (9, 9, 9, 9), mode="reflect")  # to be named
    return u


class NeedsLargeImages:
    def apply(self, problem, u):
        user_code(u, problem.A.shape[2:])
        return super().apply(problem, u)


def test_code_that_needs_images_as_large_as_its_window_is_told_so():
    report = held([NeedsLargeImages], "apply", only=CONVOLUTION, cases=12)
    first = report.first_wrong
    assert first.causes[0] == "raises_below_window" and "size=window" in first.explanation
    line = 1 + user_code.__code__.co_firstlineno + 1
    assert f"(test_habits.py, line {line})" in " ".join(first.details), str(report)
    assert held([NeedsLargeImages], "apply", only=CONVOLUTION + ",size=window").agrees


class CallsWhatTorchLacks:
    def apply(self, problem, u):
        return torch.nn.functional.pad(u, (1, 1), mode="reflect")  # for images, it wants four


def test_what_torch_does_not_implement_is_not_taken_for_a_problem_that_is_not_offered():
    assert held([CallsWhatTorchLacks], "apply", cases=2).first_wrong.causes[0] == "raised"


class WrongAtOneSeed:
    """Wrong where the image is tall."""

    def apply(self, problem, u):
        return super().apply(problem, u) * (1 + (u.shape[2] == 7))


def test_worst_seed_is_one_that_fails():
    from refimpl.verification.crosscheck import random_case

    report = held([WrongAtOneSeed], "apply", cases=12)
    assert random_case(report.first_wrong.worst_seed).arrays["u"].shape[2] == 7
    assert np.isfinite(report.first_wrong.digits)
