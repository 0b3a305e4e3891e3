"""Faults in the formula: constants, bias, weights, potentials, sums, signs."""

from faults.fault import fault
from refimpl.potentials import make_potential


class Written:
    """The tied direction written out as the untied one, so that its parts can be replaced."""

    def direction(self, p, theta, u):
        return self.data_gradient(p, u) + self.field(p, self.used(p, theta), u)


class OtherSettings:
    """A backend that reads the settings of the problem wrongly."""

    def _parts(self, problem):
        settings, arrays, theta = super()._parts(problem)
        return settings._replace(**self.misread(settings)), arrays, theta


class OtherParameters:
    """A backend that reads the parameters of the problem wrongly."""

    def _parts(self, problem):
        settings, arrays, theta = super()._parts(problem)
        return settings, arrays, theta | self.misread(theta)


@fault("apply", "lambda_gamma_exchanged")
class LambdaGammaExchanged(OtherSettings):
    def misread(self, s):
        return {"lam": s.gamma, "gamma": s.lam}


@fault("apply", "lambda_ignored")
class LambdaIgnored(OtherSettings):
    def misread(self, s):
        return {"lam": 1.0}


@fault("apply", "gamma_ignored")
class GammaIgnored(OtherSettings):
    def misread(self, s):
        return {"gamma": 1.0}


@fault("apply", "lambda_on_field")
class LambdaOnField(OtherSettings):
    """λ multiplies the regulariser in place of the data term."""

    def misread(self, s):
        return {"lam": 1.0, "gamma": s.lam * s.gamma}


@fault("apply", "lambda_on_field")
class LambdaOnBoth(OtherSettings):
    def misread(self, s):
        return {"gamma": s.lam * s.gamma}


@fault("apply", "gamma_on_data")
class GammaOnBoth(OtherSettings):
    def misread(self, s):
        return {"lam": s.lam * s.gamma}


@fault("apply", "tau_ignored")
class TauIgnored:
    def step(self, p, theta, u):
        return u - self.direction(p, theta, u)


@fault("apply", "tau_factor:half")
class HalfStep:
    def step(self, p, theta, u):
        return u - p.tau / 2 * self.direction(p, theta, u)


@fault("apply", "tau_factor:minus_one")
class Ascent:
    """u + τ G."""

    def step(self, p, theta, u):
        return u + p.tau * self.direction(p, theta, u)


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
        settings = settings._replace(lam=2 * settings.lam)
        return self._program("energies", settings)(arrays, theta, u)


@fault("apply", "field_term_factor:half")
class FieldHalved:
    """γ/2, as for a regulariser written with 1/2."""

    def experts_energy(self, p, theta, u):
        return super().experts_energy(p, theta, u) / 2

    def field(self, p, theta, u):
        return super().field(p, theta, u) / 2


@fault("gradient", "factor_two")
class GradientTwice:
    def gradient(self, problem, u):
        return 2 * super().gradient(problem, u)


@fault("gradient", "factor:tau")
class GradientIsStep:
    """u − T(u) = τ ∇E in place of ∇E."""

    def gradient(self, problem, u):
        return u - self.apply(problem, u)


@fault("gradient", "sign")
class GradientSign:
    """The direction of descent."""

    def gradient(self, problem, u):
        return -super().gradient(problem, u)


@fault("hvp", "factor_half")
class HessianHalved:
    def hvp(self, problem, u, v):
        return super().hvp(problem, u, v) / 2


@fault("jvp", "state_term_factor:zero")
class TangentWithoutIdentity:
    """−τ J v: the derivative of u itself is forgotten."""

    def step_jvp(self, p, theta, u, v):
        return super().step_jvp(p, theta, u, v) - v


@fault("apply", "bias_ignored")
class BiasIgnored(OtherParameters):
    def misread(self, theta):
        return {"b": 0 * theta["b"]}


@fault("apply", "bias_sign")
class BiasSign(OtherParameters):
    def misread(self, theta):
        return {"b": -theta["b"]}


@fault("apply", "bias_after_sigma")
class BiasAfterSigma(Written):
    """σ(A u) + b."""

    def field(self, p, theta, u):
        sigma = self.activation(p, self.analyse(p, theta["A"], u)) + self.per_filter(p, theta["b"])
        weighted = self.per_filter(p, theta["weights"]) * sigma
        return p.gamma * self.synthesise(p, theta.get("C", theta["A"]), weighted)


@fault("apply", "weights_ignored")
class WeightsIgnored(OtherParameters):
    def misread(self, theta):
        return {"weights": 0 * theta["weights"] + 1}


@fault("apply", "weights_squared")
class WeightsSquared(OtherParameters):
    def misread(self, theta):
        return {"weights": theta["weights"] ** 2}


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


@fault("apply", "wrong_potential:huber")
class HuberForSoftShrinkage(OtherSettings):
    def misread(self, s):
        if s.potential != "soft_shrinkage":
            return {}
        pairs = (("delta", dict(s.potential_parameters)["threshold"]),)
        return {"potential": "huber", "potential_parameters": pairs}


@fault("apply", "wrong_potential:quadratic")
class ReluForgotten(OtherSettings):
    """A linear model where the case has ReLU."""

    def misread(self, s):
        return {"potential": "quadratic"} if s.potential == "half_squared_relu" else {}


@fault("apply", "wrong_potential:log_cosh")
class TanhForClip(OtherSettings):
    """tanh(z) where the case has clip(z/δ, −1, 1)."""

    def misread(self, s):
        pairs = (("slope", 1.0),)
        other = {"potential": "log_cosh", "potential_parameters": pairs}
        return other if s.potential == "huber" else {}


@fault("apply", "wrong_potential_parameter")
class DefaultParameters(OtherSettings):
    """Parameters of the potential are not passed on."""

    def misread(self, s):
        default = make_potential(s.potential)
        pairs = tuple((name, getattr(default, name)) for name, _ in s.potential_parameters)
        return {"potential_parameters": pairs}


@fault("apply", "wrong_potential_parameter")
class SlopeIgnored(OtherSettings):
    """tanh(z) in place of tanh(χ z)."""

    def misread(self, s):
        return {"potential_parameters": (("slope", 1.0),)} if s.potential == "log_cosh" else {}


@fault("apply", "wrong_potential_parameter")
class NuNotSquared(OtherSettings):
    """√(z² + ν)."""

    def misread(self, s):
        if s.potential != "smoothed_l1":
            return {}
        return {"potential_parameters": (("nu", dict(s.potential_parameters)["nu"] ** 0.5),)}


@fault("apply", "potential_scaled")
class LogCoshNotDivided(Written):
    """φ = log cosh(χz), whose derivative is χ tanh(χz)."""

    def potential(self, p, z):
        return p.parameters.get("slope", 1.0) * super().potential(p, z)

    def activation(self, p, z):
        return p.parameters.get("slope", 1.0) * super().activation(p, z)


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


@fault("gradient", "divided_by_batch")
class GradientOfMeanEnergy:
    """∇ of the mean over the batch."""

    def gradient(self, problem, u):
        return super().gradient(problem, u) / len(u)


@fault("gradient", "divided_by_pixels")
class GradientPerPixel:
    def gradient(self, problem, u):
        return super().gradient(problem, u) / u[0].reshape(-1).shape[0]


@fault("apply", "data_term_missing")
class DataTermMissing(Written):
    def data_gradient(self, p, u):
        return 0 * u

    def data_energy(self, p, u):
        return super().data_energy(p._replace(lam=0.0), u)
