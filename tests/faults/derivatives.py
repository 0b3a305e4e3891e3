"""Faults in derivatives by hand, in parameter gradients, and in implicit differentiation."""

from dataclasses import replace
from functools import partial

from faults.fault import fault, image_norms, overriding, transforms


def slope(backend, p, z):
    """σ′(z)."""
    return transforms(z).jvp(partial(backend.activation, p), (z,), (0 * z + 1,))[1]


def written_jvp(backend, p, theta, u, v, slope=slope):
    """v − τ ( λ KᵀK v + γ Cᵀ( w σ′ ⊙ A v ) )."""
    theta = backend.used(p, theta)
    d = backend.per_filter(p, theta["weights"]) * slope(backend, p, backend.responses(p, theta, u))
    C = theta.get("C", theta["A"])
    data = p.lam * backend.transpose(p, backend.forward(p, v))
    field = p.gamma * backend.synthesise(p, C, d * backend.analyse(p, theta["A"], v))
    return v - p.tau * (data + field)


def written_vjp(backend, p, theta, u, q, slope=slope):
    """q − τ ( λ KᵀK q + γ Aᵀ( w σ′ ⊙ C q ) )."""
    theta = backend.used(p, theta)
    d = backend.per_filter(p, theta["weights"]) * slope(backend, p, backend.responses(p, theta, u))
    C = theta.get("C", theta["A"])
    data = p.lam * backend.transpose(p, backend.forward(p, q))
    field = p.gamma * backend.synthesise(p, theta["A"], d * backend.analyse(p, C, q))
    return q - p.tau * (data + field)


def written_params_vjp(backend, p, theta, u, q, slope=slope, terms=lambda A, C: A + C):
    """E6, with the chain rule through the norm by autodiff; `terms` ties."""
    vjp = transforms(u).vjp
    used, pull = vjp(lambda t: backend.used(p, t), theta)
    z, weights = backend.responses(p, used, u), backend.per_filter(p, used["weights"])
    Cq = backend.analyse(p, used.get("C", used["A"]), q)
    r = weights * slope(backend, p, z) * Cq
    sigma = backend.activation(p, z)

    def bank(x, cotangent):
        return vjp(lambda A: backend.analyse(p, A, x), used["A"])[1](cotangent)[0]

    def per_filter(x):
        return vjp(lambda b: backend.per_filter(p, b) + 0 * x, used["b"])[1](x)[0]

    gA, gC = bank(u, r), bank(q, weights * sigma)
    gradient = {"b": per_filter(r), "weights": per_filter(sigma * Cq)}
    gradient |= {"A": terms(gA, gC)} if p.tied else {"A": gA, "C": gC}
    scale = -p.tau * p.gamma
    return pull({name: scale * gradient[name] for name in used})[0]


def sigma_itself(backend, p, z):
    """σ where σ′ belongs."""
    return backend.activation(p, z)


def one(backend, p, z):
    """σ′ forgotten."""
    return 0 * z + 1


def written(function):
    """A derivative by hand with another σ′."""
    return lambda slope: lambda self, right, *at: function(self, *at, slope)


def tied_by(terms):
    """The gradient by hand, its two terms tied in another way."""
    return lambda self, right, *at: written_params_vjp(self, *at, terms=terms)


def scaled(factor):
    """Every gradient times a factor of the problem; the loss is right."""

    def stage(self, right, problem, *images, **options):
        found = right(problem, *images, **options)
        return {k: x if k == "loss" else factor(problem) * x for k, x in found.items()}

    return stage


def adjoint_as(change):
    """q made of what it should be, b and τ."""

    def solve_adjoint(self, right, settings, arrays, theta, u, b, tol):
        return change(right(settings, arrays, theta, u, b, tol), b, settings.tau)

    return solve_adjoint


TABLES = (
    overriding(
        "step_jvp",
        "jvp",
        written(written_jvp),
        ("SigmaForSlopeInTangent", "sigma_for_sigma_prime", sigma_itself),
        ("SlopeForgotten", "sigma_prime_ignored", one),
    )
    + overriding(
        "step_vjp",
        "vjp",
        written(written_vjp),
        ("SigmaForSlopeInCotangent", "sigma_for_sigma_prime", sigma_itself),
    )
    + overriding(
        "step_params_vjp",
        "params_vjp",
        written(written_params_vjp),
        ("SigmaForSlopeInParameters", "sigma_for_sigma_prime", sigma_itself),
    )
    + overriding(
        "step_params_vjp",
        "params_vjp",
        tied_by,
        # The tied gradient without one of its terms, or both taken to be equal.
        ("AnalysisTermOnly", "one_of_two_terms", lambda A, C: A),
        ("SynthesisTermOnly", "one_of_two_terms", lambda A, C: C),
        ("OneTermTwice", "one_of_two_terms", lambda A, C: 2 * A),
        ("TermsSubtracted", "term_sign", lambda A, C: A - C),
    )
    + overriding(
        "params_vjp",
        "params_vjp",
        scaled,
        # (∂_θ G)ᵀ w up to τ: the minus of T = u − τ G is lost, or τ is left out.
        ("ParameterSign", "sign", lambda p: -1),
        ("ParameterWithoutTau", "factor:one_over_tau", lambda p: 1 / p.tau),
        ("ParametersAveragedOverBatch", "divided_by_batch", lambda p: 1 / len(p.y)),
    )
    + overriding(
        "hypergradient",
        "hypergradient",
        scaled,
        # Averaged over the batch once more.
        ("HypergradientDividedByImages", "divided_by_batch", lambda p: 1 / len(p.y)),
        ("HypergradientTwice", "factor_two", lambda p: 2),
    )
    + overriding(
        "solve_adjoint",
        "hypergradient",
        adjoint_as,
        # A failed solve of Jᵀp = b is returned as b; p stands where q = p/τ belongs.
        ("AdjointIsRightHandSide", "adjoint_is_right_hand_side", lambda q, b, t: b / t),
        ("AdjointTimesTau", "adjoint_scaled_by_tau", lambda q, b, t: t * q),
        ("AdjointSign", "sign", lambda q, b, t: -q),
    )
)


@fault("hvp", "sigma_for_sigma_prime")
class SigmaForSlopeInHessian:
    def energy_hvp(self, p, theta, u, v):
        return (v - written_jvp(self, p, theta, u, v, sigma_itself)) / p.tau


@fault("hvp", "not_linear")
class CoarseDifferences:
    """A one-sided difference with a step of 1/10."""

    def hvp(self, problem, u, v):
        ahead, here = self.gradient(problem, u + 0.1 * v), self.gradient(problem, u)
        return (ahead - here) / 0.1


@fault("params_vjp", "a_c_exchanged")
class ACGradientsExchanged:
    """Untied."""

    def params_vjp(self, problem, u, w):
        found = super().params_vjp(problem, u, w)
        return found | ({"A": found["C"], "C": found["A"]} if "C" in found else {})


@fault("params_vjp", "terms_added")
class ACGradientsAdded:
    """The total derivative of a tied model, given for an untied one."""

    def params_vjp(self, problem, u, w):
        found = super().params_vjp(problem, u, w)
        both = found["A"] + found.get("C", 0)
        return found | ({"A": both, "C": both} if "C" in found else {})


@fault("params_vjp", "divided_by_pixels")
class BiasAveragedOverPixels:
    """The gradient of b is a mean over pixels. Convolutions."""

    def params_vjp(self, problem, u, w):
        found = super().params_vjp(problem, u, w)
        count = 1 if problem.analysis == "dense" else u.shape[2] * u.shape[3]
        return found | {"b": found["b"] / count}


@fault("params_vjp", "zero", "bias_ignored")
class BiasGradientZero:
    """b is a buffer, not a parameter."""

    def params_vjp(self, problem, u, w):
        found = super().params_vjp(problem, u, w)
        return found | {"b": 0 * found["b"]}


@fault("params_vjp", "zero", "weights_ignored")
class WeightGradientZero:
    def params_vjp(self, problem, u, w):
        found = super().params_vjp(problem, u, w)
        return found | {"weights": 0 * found["weights"]}


@fault("hypergradient", "sum_not_mean")
class LossSummed:
    def loss(self, p, u):
        return ((u - p.target) ** 2).sum()


@fault("hypergradient", "times_pixels")
class LossSummedOverPixels:
    """The mean over images of the sum over pixels."""

    def loss(self, p, u):
        return ((u - p.target) ** 2).sum() / len(u)


@fault("hypergradient", "times_batch")
class LossSummedOverBatch:
    """The sum over images of the mean over pixels."""

    def loss(self, p, u):
        return super().loss(p, u) * len(u)


@fault("hypergradient", "factor_half")
class LossHalved:
    def loss(self, p, u):
        return super().loss(p, u) / 2


class OtherAdjoint:
    """Another adjoint state, from (∂T)ᵀ at u*."""

    def solve_adjoint(self, settings, arrays, theta, u, b, tol):
        return self.adjoint(partial(self._program("step_vjp", settings), arrays, theta, u), b)


@fault("hypergradient", "jacobian_free", "adjoint_is_right_hand_side")
class JacobianFree(OtherAdjoint):
    def adjoint(self, transposed, b):
        return b


def neumann(product, b, terms, tol=0.0):
    """Σ_{k < terms} Mᵏ b, or fewer terms once they are small."""
    q = term = b
    for _ in range(terms - 1):
        term = product(term)
        q = q + term
        if tol and float((image_norms(term) / image_norms(q)).max()) <= tol:
            break
    return q


@fault("hypergradient", "truncated_neumann:3")
class NeumannThree(OtherAdjoint):
    def adjoint(self, transposed, b):
        return neumann(transposed, b, 3)


@fault("hypergradient", "truncated_neumann:10")
class NeumannTen(OtherAdjoint):
    def adjoint(self, transposed, b):
        return neumann(transposed, b, 10)


@fault("hypergradient", "adjoint_zero")
class AdjointZero(OtherAdjoint):
    """A failed solve is returned as zeros."""

    def adjoint(self, transposed, b):
        return 0 * b


@fault("hypergradient", "too_few_adjoint_iterations")
class AdjointTooLoose:
    def solve_adjoint(self, settings, arrays, theta, u, b, tol):
        loose = max(3e4 * tol, 1e-3)
        q = b
        transposed = partial(self._program("step_vjp", settings), arrays, theta, u)
        for _ in range(500):
            left = b + transposed(q) - q
            q = q + left
            if float((image_norms(left) / image_norms(b)).max()) <= loose:
                break
        return q


@fault("hypergradient", "adjoint_not_transposed")
class AdjointNotTransposed:
    """(I − ∂T) q = b. Untied."""

    def solve_adjoint(self, settings, arrays, theta, u, b, tol):
        theta = self.used(replace(settings, **arrays), theta)
        settings = replace(settings, norm=None)
        tangent = partial(self._program("step_jvp", settings), arrays, theta, u)
        return neumann(tangent, b, 1000, tol / 10)


@fault("hypergradient", "at_start_not_fixed_point")
class GradientAtStart:
    """The backward pass is taken at Kᵀy; the loss is that of u*."""

    def hypergradient(self, problem, *, tol):
        settings, arrays, theta = self._parts(problem)
        p = replace(settings, **arrays)
        u, star = self.transpose(p, p.y), self.solve(settings, arrays, theta, tol)
        b = 2 / u.reshape(-1).shape[0] * (u - p.target)
        q = self.solve_adjoint(settings, arrays, theta, u, b, tol)
        found = self._program("step_params_vjp", settings)(arrays, theta, u, q)
        return dict(found) | {"loss": self.loss(p, star)}


class Unrolled:
    """Autodiff through a few steps from Kᵀy; the loss is theirs."""

    steps = 5

    def implicit(self, settings, arrays, theta, tol):
        p = replace(settings, **arrays)
        u = self.start_of(p)
        for _ in range(self.steps):
            u = self.step(p, theta, u)
        return u

    def start_of(self, p):
        return self.transpose(p, p.y)


@fault("hypergradient", "truncated_unrolled:5")
class UnrolledFive(Unrolled):
    pass


@fault("hypergradient", "truncated_unrolled:20")
class UnrolledTwenty(Unrolled):
    steps = 20
