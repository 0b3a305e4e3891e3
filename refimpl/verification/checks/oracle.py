"""The dense oracle: every output of a portable case by another route.

For images of at most a few hundred pixels, in float64, with K, A, C as dense matrices:

    G(u) = λ Kᵀ(K u − y) + γ Cᵀ(w ⊙ σ(A u + b)),    T(u) = u − τ G(u)                (E8)
    H(u) = λ KᵀK + γ Cᵀ diag(w ⊙ σ′(A u + b)) A,    ∂ᵤT = I − τ H

The fixed point solves G(u) = 0 by damped Newton steps, the adjoint state (E9) is one
`np.linalg.solve`, and the derivative of T in each parameter is the tangent of the formula in
the direction of each unit vector of the parameters: no adjoint of a bank, no B*, no E6.

Shared with what it checks: nothing but the potential, which is passed in as φ, σ, σ′. Not
covered: potentials themselves; float32; images too large for dense matrices; a G with several
zeros, of which Newton finds one, so that the caller passes the `start` that selects it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from refimpl.results import NotConvergedError
from refimpl.verification.checks.dense_matrices import analysis_matrix, operator_matrix

Array = np.ndarray

WARM_UP = 100  # Picard steps before Newton, so that both follow the same zero of G
MAX_NEWTON = 100
MAX_HALVINGS = 40


class ScalarFunctions(Protocol):
    """φ, σ = φ′ and σ′, element by element."""

    def value(self, z: Array) -> Array:
        """φ(z)."""

    def derivative(self, z: Array) -> Array:
        """σ(z)."""

    def second_derivative(self, z: Array) -> Array:
        """σ′(z)."""


class DenseModel(NamedTuple):
    """A portable case as matrices; images are flat, (C·H·W,) or (N, C·H·W).

    Attributes
    ----------
    K : array (M, n)
    A, C : array (R, n)
        Analysis operators; the same array if tied.
    bias, weights : array (R,)
        b and w of the filter that each response belongs to.
    tau, lam, gamma : float
    potential : ScalarFunctions
    """

    K: Array
    A: Array
    C: Array
    bias: Array
    weights: Array
    tau: float
    lam: float
    gamma: float
    potential: ScalarFunctions


class DenseParameters(NamedTuple):
    """The parameters of a case, and how they enter the model.

    Attributes
    ----------
    values : dict of arrays
        A, b, weights and, if untied, C.
    bank : callable
        Filters ↦ matrix (R, n), linear.
    spread : array (R, F)
        Takes one number per filter to one per response.
    """

    values: dict[str, Array]
    bank: Callable[[Array], Array]
    spread: Array


def dense_outputs(
    description: Mapping[str, Any],
    inputs: Mapping[str, Array],
    potential: ScalarFunctions,
    *,
    start: Array | None = None,
) -> dict[str, Array]:
    """Every output of a portable case.

    Parameters
    ----------
    description : mapping
        The keys of `case.json`; `potential` and `potential_parameters` are not read.
    inputs : mapping of arrays
        The arrays of `inputs.npz`, float64. Missing `b` means 0, missing `weights` means 1.
    potential : ScalarFunctions
        φ, σ, σ′.
    start : array (N, C, H, W), optional
        Where the search for the fixed point starts; left out: zero.

    Returns
    -------
    dict of arrays
        `map`, `jvp`, `vjp`, `vjp_*`, `fixed_point`, `loss`, `hypergradient_*` and, if tied,
        `energy`, `gradient`, `hvp`; names and shapes of `outputs.npz`.

    Raises
    ------
    NotConvergedError
        If Newton does not reach rounding level.
    numpy.linalg.LinAlgError
        If the fixed point is not isolated.
    """
    if description.get("norm") is not None:
        raise ValueError(
            "dense_outputs: the case has a norm, whose derivative is not here; normalise A and C "
            "before, and leave it out"
        )
    shape = inputs["u"].shape
    parameters = dense_parameters(description, inputs)
    model = dense_model(description, inputs, parameters, potential)
    start = np.zeros(shape) if start is None else start
    flat = {k: _flat(inputs[k]) for k in ("y", "target", "u", "v", "w")} | {"start": _flat(start)}
    outputs = local_outputs(model, parameters, flat) | solved_outputs(model, parameters, flat)
    if description["tied"]:
        outputs |= tied_outputs(model, flat)
    images = ("map", "jvp", "vjp", "fixed_point", "gradient", "hvp")
    return {k: x.reshape(shape) if k in images else x for k, x in outputs.items()}


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], -1)


def dense_parameters(
    description: Mapping[str, Any], inputs: Mapping[str, Array]
) -> DenseParameters:
    """Parameters of a case with the defaults b = 0 and w = 1."""
    image_shape = inputs["u"].shape[1:]
    count = inputs["A"].shape[0]
    values = {"A": inputs["A"]} if description["tied"] else {k: inputs[k] for k in ("A", "C")}
    values |= {"b": inputs.get("b", np.zeros(count))}
    values |= {"weights": inputs.get("weights", np.ones(count))}
    pixels = 1 if description["analysis"] == "dense" else image_shape[1] * image_shape[2]
    spread = np.repeat(np.eye(count), pixels, axis=0)
    return DenseParameters(values, lambda a: analysis_matrix(description, a, image_shape), spread)


def dense_model(
    description: Mapping[str, Any],
    inputs: Mapping[str, Array],
    parameters: DenseParameters,
    potential: ScalarFunctions,
) -> DenseModel:
    """The matrices of a case."""
    values, bank, spread = parameters
    A = bank(values["A"])
    return DenseModel(
        K=operator_matrix(description, inputs, inputs["u"].shape[1:]),
        A=A,
        C=bank(values["C"]) if "C" in values else A,
        bias=spread @ values["b"],
        weights=spread @ values["weights"],
        tau=description["tau"],
        lam=description["lam"],
        gamma=description["gamma"],
        potential=potential,
    )


def displacement(model: DenseModel, u: Array, y: Array) -> Array:
    """G(u) = λ Kᵀ(K u − y) + γ Cᵀ(w ⊙ σ(A u + b)), for one flat image or a batch of rows."""
    K, A, C = model.K, model.A, model.C
    s = model.weights * model.potential.derivative(u @ A.T + model.bias)
    return model.lam * (u @ K.T - y) @ K + model.gamma * s @ C


def displacement_jacobian(model: DenseModel, u: Array) -> Array:
    """H(u) = λ KᵀK + γ Cᵀ diag(w ⊙ σ′(A u + b)) A, (n, n), for one flat image."""
    K, A, C = model.K, model.A, model.C
    d = model.weights * model.potential.second_derivative(A @ u + model.bias)
    return model.lam * K.T @ K + model.gamma * C.T @ (d[:, None] * A)


def step(model: DenseModel, u: Array, y: Array) -> Array:
    """T(u) = u − τ G(u)  (E8)."""
    return u - model.tau * displacement(model, u, y)


def energy(model: DenseModel, u: Array, y: Array) -> Array:
    """E(u) = λ/2 ‖Ku − y‖² + γ Σ w φ(A u + b)  (E2), shape (N,)."""
    data = ((u @ model.K.T - y) ** 2).sum(axis=-1)
    experts = model.potential.value(u @ model.A.T + model.bias) @ model.weights
    return model.lam / 2 * data + model.gamma * experts


class Change(NamedTuple):
    """A direction in the space of parameters, as dense matrices; zero where not given."""

    A: Array | float = 0.0
    C: Array | float = 0.0
    bias: Array | float = 0.0
    weights: Array | float = 0.0


def parameter_tangent(model: DenseModel, u: Array, change: Change) -> Array:
    """∂_θT(u) dθ = −τγ ( dCᵀ(w ⊙ σ) + Cᵀ(dw ⊙ σ + w ⊙ σ′ ⊙ (dA u + db)) ), shaped like u."""
    z = u @ model.A.T + model.bias
    s, d = model.potential.derivative(z), model.potential.second_derivative(z)
    dA, dC = (np.broadcast_to(x, model.A.shape) for x in (change.A, change.C))
    inner = change.weights * s + model.weights * d * (u @ dA.T + change.bias)
    return -model.tau * model.gamma * ((model.weights * s) @ dC + inner @ model.C)


def unit_changes(parameters: DenseParameters, name: str) -> Iterator[Change]:
    """The direction of each entry of the parameter `name`; if tied, A and C move together."""
    value = parameters.values[name]
    for unit in np.eye(value.size).reshape(-1, *value.shape):
        if name == "A":
            matrix = parameters.bank(unit)
            yield Change(A=matrix) if "C" in parameters.values else Change(A=matrix, C=matrix)
        elif name == "C":
            yield Change(C=parameters.bank(unit))
        elif name == "b":
            yield Change(bias=parameters.spread @ unit)
        else:
            yield Change(weights=parameters.spread @ unit)


def parameter_vjp(
    model: DenseModel, parameters: DenseParameters, u: Array, q: Array
) -> dict[str, Array]:
    """(∂_θT)ᵀ q, one entry for each unit vector e of each parameter: Σ_n ⟨q_n, ∂_θT(u_n) e⟩."""
    gradients = {}
    for name, value in parameters.values.items():
        changes = unit_changes(parameters, name)
        entries = [np.vdot(q, parameter_tangent(model, u, change)) for change in changes]
        gradients[name] = np.reshape(entries, value.shape)
    return gradients


def local_outputs(
    model: DenseModel, parameters: DenseParameters, flat: Mapping[str, Array]
) -> dict[str, Array]:
    """Outputs at the state u: the step and its derivatives."""
    u, v, w = flat["u"], flat["v"], flat["w"]
    steps = [np.eye(u.shape[1]) - model.tau * displacement_jacobian(model, x) for x in u]
    vjp = parameter_vjp(model, parameters, u, w)
    return {
        "map": step(model, u, flat["y"]),
        "jvp": np.stack([J @ x for J, x in zip(steps, v)]),
        "vjp": np.stack([J.T @ x for J, x in zip(steps, w)]),
    } | {f"vjp_{name}": g for name, g in vjp.items()}


def tied_outputs(model: DenseModel, flat: Mapping[str, Array]) -> dict[str, Array]:
    """Energy, gradient and Hessian product at the state u."""
    u, v, y = flat["u"], flat["v"], flat["y"]
    products = [displacement_jacobian(model, x) @ t for x, t in zip(u, v)]
    return {
        "energy": energy(model, u, y),
        "gradient": displacement(model, u, y),
        "hvp": np.stack(products),
    }


def solved_outputs(
    model: DenseModel, parameters: DenseParameters, flat: Mapping[str, Array]
) -> dict[str, Array]:
    """Fixed point, loss (E11) and hypergradient (E9, E10)."""
    star = np.stack([fixed_point(model, y, u0) for y, u0 in zip(flat["y"], flat["start"])])
    error = star - flat["target"]
    gradient = 2 * error / error.size
    q = np.stack([adjoint_state(model, u, g) for u, g in zip(star, gradient)])
    hypergradient = parameter_vjp(model, parameters, star, q)
    return {"fixed_point": star, "loss": np.mean(error**2)} | {
        f"hypergradient_{name}": g for name, g in hypergradient.items()
    }


def adjoint_state(model: DenseModel, u: Array, gradient: Array) -> Array:
    """q of (I − ∂ᵤT)ᵀ q = ∇ℓ (E9), with I − ∂ᵤT = τ H."""
    matrix = model.tau * displacement_jacobian(model, u).T
    condition = np.linalg.cond(matrix)
    if not condition < 0.1 / np.finfo(float).eps:
        raise np.linalg.LinAlgError(
            f"I - dT/du has condition number {condition:.1e}: the fixed point is not isolated; "
            "take an operator K or filters without a common kernel"
        )
    return np.linalg.solve(matrix, gradient)


def fixed_point(model: DenseModel, y: Array, start: Array) -> Array:
    """u = T(u) to rounding, for one flat image: Picard steps, then damped Newton on G(u) = 0.

    Newton stops where no step along its direction makes ‖G‖ smaller, and the result is accepted
    if ‖G(u)‖ is at rounding level (`rounding_level`).
    """
    u = _warm_up(model, y, start)
    for _ in range(MAX_NEWTON):
        g = displacement(model, u, y)
        direction = np.linalg.lstsq(displacement_jacobian(model, u), -g, rcond=None)[0]
        smaller = _smaller(model, y, u, direction)
        if smaller is None:
            break
        u = smaller
    reached, level = np.linalg.norm(displacement(model, u, y)), rounding_level(model, u, y)
    if not reached <= level:
        raise NotConvergedError(
            f"dense fixed point: ‖G(u)‖ is {reached:.1e}, expected at most {level:.1e}; "
            "pass a start closer to the fixed point"
        )
    return u


def _warm_up(model: DenseModel, y: Array, start: Array) -> Array:
    """100 Picard steps, or the start if T expands and they lead away."""
    u = start
    for _ in range(WARM_UP):
        u = step(model, u, y)
        if not np.isfinite(u).all():
            return start
    closer = np.linalg.norm(displacement(model, u, y)) <= np.linalg.norm(
        displacement(model, start, y)
    )
    return u if closer else start


def _smaller(model: DenseModel, y: Array, u: Array, direction: Array) -> Array | None:
    """u + 2⁻ʲ direction for the first j that makes ‖G‖ smaller, or None."""
    now = np.linalg.norm(displacement(model, u, y))
    for halvings in range(MAX_HALVINGS):
        t = 0.5**halvings
        trial = u + t * direction
        if np.linalg.norm(displacement(model, trial, y)) < (1 - 1e-4 * t) * now:
            return trial
    return None


def rounding_level(model: DenseModel, u: Array, y: Array) -> float:
    """Rounding error of G(u): 64 eps √n times bounds on the terms that G sums."""
    norm = np.linalg.norm
    K, A, C = (norm(matrix, 2) for matrix in (model.K, model.A, model.C))
    z = model.A @ u + model.bias
    s = model.weights * model.potential.derivative(z)
    slope = np.abs(model.weights * model.potential.second_derivative(z)).max()
    data = K * (K * norm(u) + norm(y))
    experts = C * (norm(s) + slope * (A * norm(u) + norm(model.bias)))
    scale = model.lam * data + model.gamma * experts
    return float(64 * np.finfo(float).eps * np.sqrt(u.size) * scale)
