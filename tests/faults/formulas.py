"""Faults in the formula: constants, bias, weights, potentials, sums, signs."""

from dataclasses import replace

from faults.fault import fault, overriding, rounded
from refimpl.paper.potentials import make_potential


class Written:
    """The tied direction written out as the untied one, so that its parts can be replaced."""

    def direction(self, p, theta, u):
        return self.data_gradient(p, u) + self.field(p, self.used(p, theta), u)


def settings(change):
    """A backend that reads the settings of the question wrongly."""

    def parts(self, right, problem):
        settings, arrays, theta = right(problem)
        return replace(settings, **change(settings)), arrays, theta

    return parts


def parameters(change):
    """A backend that reads the parameters of the question wrongly."""

    def parts(self, right, problem):
        settings, arrays, theta = right(problem)
        return settings, arrays, theta | change(theta)

    return parts


def potential(own, other=None, change=dict):
    """Where φ is `own`, `other` with the parameters that `change` makes of its own."""

    def misread(s):
        if s.potential != own:
            return {}
        named = {"potential": other or own}
        return named | {"potential_parameters": change(s.potential_parameters)}

    return misread


def default_parameters(s):
    """Parameters of the potential are not passed on."""
    default = make_potential(s.potential)
    return {"potential_parameters": {x: getattr(default, x) for x in s.potential_parameters}}


def scaled(factor):
    """The right output times a factor of the problem and u."""
    return lambda self, right, p, u, *rest: factor(p, u) * right(p, u, *rest)


def with_step(tau):
    """u − c G with another c."""
    return lambda self, right, p, theta, u: u - tau(p) * self.direction(p, theta, u)


TABLES = (
    overriding(
        "_parts",
        "apply",
        settings,
        (
            "LambdaGammaExchanged",
            "lambda_gamma_exchanged",
            lambda s: {"lam": s.gamma, "gamma": s.lam},
        ),
        ("LambdaIgnored", "lambda_ignored", lambda s: {"lam": 1.0}),
        ("GammaIgnored", "gamma_ignored", lambda s: {"gamma": 1.0}),
        # λ multiplies the regulariser in place of the data term.
        ("LambdaOnField", "lambda_on_field", lambda s: {"lam": 1.0, "gamma": s.lam * s.gamma}),
        ("LambdaOnBoth", "lambda_on_field", lambda s: {"gamma": s.lam * s.gamma}),
        ("GammaOnBoth", "gamma_on_data", lambda s: {"lam": s.lam * s.gamma}),
        (
            "HuberForSoftShrinkage",
            "wrong_potential:huber",
            potential("soft_shrinkage", "huber", lambda x: {"delta": x["threshold"]}),
        ),
        # A linear model where the case has ReLU.
        ("ReluForgotten", "wrong_potential:quadratic", potential("half_squared_relu", "quadratic")),
        # tanh(z) where the case has clip(z/δ, −1, 1).
        (
            "TanhForClip",
            "wrong_potential:log_cosh",
            potential("huber", "log_cosh", lambda x: {"slope": 1.0}),
        ),
        ("DefaultParameters", "wrong_potential_parameter", default_parameters),
        # tanh(z) in place of tanh(χ z), and √(z² + ν).
        (
            "SlopeIgnored",
            "wrong_potential_parameter",
            potential("log_cosh", change=lambda x: {"slope": 1.0}),
        ),
        (
            "NuNotSquared",
            "wrong_potential_parameter",
            potential("smoothed_l1", change=lambda x: {"nu": x["nu"] ** 0.5}),
        ),
    )
    + overriding(
        "_parts",
        "apply",
        parameters,
        ("BiasIgnored", "bias_ignored", lambda t: {"b": 0 * t["b"]}),
        ("BiasSign", "bias_sign", lambda t: {"b": -t["b"]}),
        ("WeightsIgnored", "weights_ignored", lambda t: {"weights": 0 * t["weights"] + 1}),
        ("WeightsSquared", "weights_squared", lambda t: {"weights": t["weights"] ** 2}),
        # Filters are kept in the next lower precision.
        ("FiltersRounded", "hidden_precision", lambda t: {"A": rounded(t["A"])}),
    )
    + overriding(
        "step",
        "apply",
        with_step,
        ("TauIgnored", "tau_ignored", lambda p: 1.0),
        ("HalfStep", "tau_factor:half", lambda p: p.tau / 2),
        ("Ascent", "tau_factor:minus_one", lambda p: -p.tau),
    )
    + overriding(
        "gradient",
        "gradient",
        scaled,
        ("GradientTwice", "factor_two", lambda p, u: 2),
        ("GradientSign", "sign", lambda p, u: -1),  # the direction of descent
        ("GradientOfMeanEnergy", "divided_by_batch", lambda p, u: 1 / len(u)),
        ("GradientPerPixel", "divided_by_pixels", lambda p, u: 1 / u[0].reshape(-1).shape[0]),
    )
    + overriding("hvp", "hvp", scaled, ("HessianHalved", "factor_half", lambda p, u: 0.5))
)


@fault("apply", "data_sign")
class DataSign(Written):
    """λ Kᵀ(Ku + y)."""

    def data_gradient(self, p, u):
        return p.lam * self.transpose(p, self.forward(p, u) + p.y)


@fault("apply", "data_term_factor:two")
class HalfOfDataTermMissing:
    """λ ‖Ku − y‖². Tied."""

    def data_energy(self, p, u):
        return 2 * super().data_energy(p, u)


@fault("energy", "data_term_factor:two")
class HalfMissingInEnergyOnly:
    """The energy returned lacks the 1/2 that its gradient has."""

    def energy(self, problem, u):
        settings, arrays, theta = self._parts(problem)
        settings = replace(settings, lam=2 * settings.lam)
        return self._program("energies", settings)(arrays, theta, u)


@fault("apply", "field_term_factor:half")
class FieldHalved:
    """γ/2, as for a regulariser written with 1/2."""

    def experts_energy(self, p, theta, u):
        return super().experts_energy(p, theta, u) / 2

    def field(self, p, theta, u):
        return super().field(p, theta, u) / 2


@fault("gradient", "factor:tau")
class GradientIsStep:
    """u − T(u) = τ ∇E in place of ∇E."""

    def gradient(self, problem, u):
        return u - self.apply(problem, u)


@fault("jvp", "state_term_factor:zero")
class TangentWithoutIdentity:
    """−τ J v: the derivative of u itself is forgotten."""

    def step_jvp(self, p, theta, u, v):
        return super().step_jvp(p, theta, u, v) - v


@fault("apply", "bias_after_sigma")
class BiasAfterSigma(Written):
    """σ(A u) + b."""

    def field(self, p, theta, u):
        sigma = self.activation(p, self.analyse(p, theta["A"], u)) + self.per_filter(p, theta["b"])
        weighted = self.per_filter(p, theta["weights"]) * sigma
        return p.gamma * self.synthesise(p, theta.get("C", theta["A"]), weighted)


@fault("apply", "weights_inside_sigma")
class WeightsInsideSigma(Written):
    """σ(w (A u + b))."""

    def field(self, p, theta, u):
        z = self.per_filter(p, theta["weights"]) * self.responses(p, theta, u)
        return p.gamma * self.synthesise(p, theta.get("C", theta["A"]), self.activation(p, z))


@fault("apply", "c_ignored")
class CIgnored:
    """A in the place of C. Untied."""

    def field(self, p, theta, u):
        return super().field(p, theta | {"C": theta["A"]}, u)


@fault("apply", "a_c_exchanged")
class AAndCExchanged:
    """Untied."""

    def field(self, p, theta, u):
        exchanged = {"A": theta.get("C", theta["A"]), "C": theta["A"]}
        return super().field(p, theta | exchanged, u)


@fault("apply", "potential_scaled")
class LogCoshNotDivided(Written):
    """φ = log cosh(χz), whose derivative is χ tanh(χz)."""

    def potential(self, p, z):
        return p.potential_parameters.get("slope", 1.0) * super().potential(p, z)

    def activation(self, p, z):
        return p.potential_parameters.get("slope", 1.0) * super().activation(p, z)


@fault("energy", "sigma_for_phi")
class SigmaForPhi(Written):
    """The energy sums σ."""

    def potential(self, p, z):
        return self.activation(p, z)

    def energy_gradient(self, p, theta, u):
        return self.direction(p, theta, u)


@fault("energy", "images_added", "leaks_between_images")
class EnergySummedOverBatch:
    """The sum over all images, for each."""

    def energies(self, p, theta, u):
        value = super().energies(p, theta, u)
        return 0 * value + value.sum()

    def energy_gradient(self, p, theta, u):
        return super().energy_gradient(p, theta, u) / len(u)


@fault("energy", "images_averaged", "leaks_between_images")
class EnergyAveragedOverBatch:
    def energies(self, p, theta, u):
        value = super().energies(p, theta, u)
        return 0 * value + value.mean()


@fault("apply", "data_term_factor:one_over_measurements")
class DataTermAveraged:
    """λ/2 mean (Ku − y)². Tied."""

    def data_energy(self, p, u):
        return super().data_energy(p, u) / p.y[0].reshape(-1).shape[0]


@fault("apply", "field_term_factor:one_over_responses")
class FieldAveraged:
    """γ mean w φ over filters and pixels. Tied."""

    def experts_energy(self, p, theta, u):
        z = self.responses(p, theta, u)
        return super().experts_energy(p, theta, u) / z[0].reshape(-1).shape[0]


@fault("apply", "data_term_missing")
class DataTermMissing(Written):
    def data_gradient(self, p, u):
        return 0 * u

    def data_energy(self, p, u):
        return super().data_energy(replace(p, lam=0.0), u)
