"""Backends made of code as it is: a layer, a map, an energy, an operator.

    torch_module(module, {"conv.weight": "A"})       a torch.nn.Module and what its parameters are
    torch_functions(step=…, energy=…, layer=…)       functions of a question p, and of u
    jax_functions(step=…, energy=…, layer=…)         likewise
    linear_operator(make)                            K of PyLops, SciPy, deepinv or one's own

A step is u ↦ T(u), an energy u ↦ E(u) of each image, a layer p ↦ u*. Derivatives are those that
the framework takes of them, backward hooks and custom rules included:

    step      apply, jvp, vjp, params_vjp; left out where there is an energy: u − τ ∇E(u)
    energy    energy, gradient, hvp
    layer     fixed_point, hypergradient of the mean squared difference from p.target
    operator  operator, operator_adjoint

`p` is a `Question` with arrays of the framework. `only` says which problems the code is made for,
`tol` the relative residual that its solver is meant to reach; `crosscheck` keeps to both.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from refimpl.verification.backends import make_backend
from refimpl.verification.crosscheck.calls import as_numpy
from refimpl.verification.crosscheck.fixed import Only, as_only
from refimpl.verification.question import PARAMETERS, Question

Array = Any  # of the framework
Function = Callable[..., Array]
Scalar = Callable[[dict[str, Function]], Array]

KNOWN = tuple(f.name for f in fields(Question))
STAGES_OF = {
    "step": ("apply", "jvp", "vjp", "params_vjp"),
    "energy": ("energy", "gradient", "hvp"),
    "layer": ("fixed_point", "hypergradient"),
}
PADDING_MODES = {
    "zeros": "zero", "circular": "periodic", "reflect": "reflect", "replicate": "replicate",
}  # fmt: skip


class Adapter:
    """The protocol of a backend, from functions of a question.

    Parameters
    ----------
    framework : "torch" or "jax"
    functions : dict
        Some of step(p, u), energy(p, u) and layer(p).
    only : mapping or str, optional
        Settings that every problem has.
    tol : float, optional
        Relative residual that the layer is meant to reach.
    """

    def __init__(
        self,
        framework: str,
        functions: Mapping[str, Function | None],
        only: Only | str | None,
        tol: float | None,
    ):
        self.framework = make_backend(framework, compiled=False)
        self.asarray, self.only, self.tol = self.framework.asarray, as_only(only), tol
        self.functions = {name: f for name, f in functions.items() if f is not None}
        if not self.functions:
            raise TypeError("given no function, expected step=…, energy=… or layer=…")
        offered = {*self.functions, *(["step"] if "energy" in self.functions else [])}
        for name in STAGES_OF.keys() - offered:
            vars(self).update(dict.fromkeys(STAGES_OF[name]))  # None is not offered

    @abstractmethod
    def pull(self, p: Question, scalar: Scalar) -> tuple[Array, dict[str, Array]]:
        """The value of a scalar of the functions, and its gradient in the parameters."""

    def bound(self, p: Question, *first: Any) -> dict[str, Function]:
        """The functions at a question, with what comes before it; T = u − τ ∇E if there is none."""
        found = {name: partial(f, *first, p) for name, f in self.functions.items()}
        if "step" not in found and "energy" in found:
            slope = self.framework.derivatives.grad(total(found["energy"]))
            found["step"] = lambda u: u - p.tau * slope(u)
        return found

    def names(self, p: Question) -> list[str]:
        """The parameters that the code has."""
        given = (name for name in PARAMETERS if getattr(p, name) is not None)
        return [name for name in given if self.only.get(name) != "none"]

    def _run(self, compute: Function, *arguments: Array) -> Array:
        with self.framework.precision():
            return self.framework.detached(compute(*arguments))

    def _forward(self, function: Function, u: Array, v: Array) -> Array:
        """∂f v; NotImplementedError where the framework's forward mode cannot have it."""
        try:
            return self._run(lambda: self.framework.derivatives.jvp(function, (u,), (v,))[1])
        except (RuntimeError, TypeError) as error:
            raise NotImplementedError(f"no forward mode: {error}") from error

    def apply(self, p: Question, u: Array) -> Array:
        """T(u)."""
        return self._run(self.bound(p)["step"], u)

    def jvp(self, p: Question, u: Array, v: Array) -> Array:
        """∂T v."""
        return self._forward(self.bound(p)["step"], u, v)

    def vjp(self, p: Question, u: Array, w: Array) -> Array:
        """(∂T)ᵀ w."""
        step = self.bound(p)["step"]
        return self._run(lambda: self.framework.derivatives.vjp(step, u)[1](w)[0])

    def params_vjp(self, p: Question, u: Array, w: Array) -> dict[str, Array]:
        """(∂_θ T)ᵀ w."""
        return self.pull(p, lambda functions: (functions["step"](u) * w).sum())[1]

    def energy(self, p: Question, u: Array) -> Array:
        """E(u) of each image."""
        return self._run(self.bound(p)["energy"], u)

    def gradient(self, p: Question, u: Array) -> Array:
        """∇E(u)."""
        return self._run(self.framework.derivatives.grad(total(self.bound(p)["energy"])), u)

    def hvp(self, p: Question, u: Array, v: Array) -> Array:
        """∇²E(u) v."""
        slope = self.framework.derivatives.grad(total(self.bound(p)["energy"]))
        return self._forward(slope, u, v)

    def fixed_point(self, p: Question, *, tol: float) -> Array:
        """u*, by the layer's own solver to its own tolerance."""
        return self._run(self.bound(p)["layer"])

    def hypergradient(self, p: Question, *, tol: float) -> dict[str, Array]:
        """The loss and its gradient, by one backward pass."""
        loss, gradient = self.pull(p, lambda f: ((f["layer"]() - p.target) ** 2).mean())
        return gradient | {"loss": loss}


def total(energy: Function) -> Function:
    """The sum of the energies of all images, which are independent."""
    return lambda u: energy(u).sum()


class JaxFunctions(Adapter):
    """Functions of a question in JAX."""

    def pull(self, p: Question, scalar: Scalar) -> tuple[Array, dict[str, Array]]:
        """By jax.value_and_grad."""
        theta = {name: getattr(p, name) for name in self.names(p)}
        with self.framework.precision():
            return self.framework.value_and_grad(
                lambda theta: scalar(self.bound(replace(p, **theta))), theta
            )


class TorchFunctions(Adapter):
    """Functions of a question in torch."""

    def leaves(self, p: Question) -> tuple[dict[str, Function], list[tuple[str, Array]]]:
        """The functions, and the tensors that gradients are taken of, by their parameter."""
        theta = {name: getattr(p, name).clone().requires_grad_() for name in self.names(p)}
        return self.bound(replace(p, **theta)), list(theta.items())

    def pull(self, p: Question, scalar: Scalar) -> tuple[Array, dict[str, Array]]:
        """By an ordinary backward pass; tensors that stand for one parameter add up."""
        functions, leaves = self.leaves(p)
        value = scalar(functions)
        value.backward()
        gradient: dict[str, Array] = {}
        for name, leaf in leaves:
            own = getattr(p, name)
            found = 0 * own if leaf.grad is None else leaf.grad.reshape(own.shape)
            gradient[name] = gradient.get(name, 0) + found
        return value.detach(), gradient


class TorchModule(TorchFunctions):
    """A torch.nn.Module; see `torch_module`."""

    def __init__(
        self,
        module: Any,
        parameters: Mapping[str, str],
        functions: Mapping[str, Function | None],
        only: Only | str | None,
        tol: float | None,
    ):
        self.module, self.parameters = module, dict(parameters)
        unknown = [x for x in self.parameters.values() if x not in KNOWN]
        if unknown:
            known = ", ".join(KNOWN)
            raise ValueError(f"parameters: given {', '.join(unknown)}, expected some of {known}")
        super().__init__("torch", functions, self.declared() | as_only(only), tol)

    @property
    def made(self) -> bool:
        """Whether a module was given, not a function that makes one."""
        return hasattr(self.module, "state_dict") and not isinstance(self.module, type)

    def declared(self) -> dict[str, Any]:
        """What the names and shapes of the parameters say of the problems."""
        mapped = set(self.parameters.values())
        found: dict[str, Any] = {name: "none" for name in ("b", "weights") if name not in mapped}
        found |= {} if "norm" in mapped else {"normalized": False}
        found |= {} if "C" in mapped else {"tied": True}
        if not self.made:
            return found
        found |= {} if mapped & {"kernel", "mask", "matrix"} else {"operator": "identity"}
        path = next((path for path, name in self.parameters.items() if name == "A"), None)
        return found if path is None else found | of_filters(self.module, path)

    def names(self, p: Question) -> list[str]:
        """The parameters that the module has."""
        return [name for name in super().names(p) if name in self.parameters.values()]

    def bound(self, p: Question, *first: Any) -> dict[str, Function]:
        """The functions of a copy of the module with the question's parameters."""
        return super().bound(p, *first) if first else self.leaves(p)[0]

    def leaves(self, p: Question) -> tuple[dict[str, Function], list[tuple[str, Array]]]:
        """The functions of a copy, and its parameters."""
        module = copy.deepcopy(self.module) if self.made else self.module(p)
        module = module.to(p.y.dtype)
        loaded = [
            (name, load(module, path, name, getattr(p, name)))
            for path, name in self.parameters.items()
        ]
        wanted = self.names(p)
        leaves = [(name, x) for name, x in loaded if name in wanted and x is not None]
        return self.bound(p, module), leaves


def of_filters(module: Any, path: str) -> dict[str, Any]:
    """The settings of problems that the filters of a module fit, padding included."""
    owner, _, last = path.rpartition(".")
    layer = module.get_submodule(owner)
    shape = tuple(getattr(layer, last).shape)
    if len(shape) != 4:
        return {}
    filters, channels, *size = shape
    found = {"analysis": "convolution", "filters": filters, "channels": channels}
    found |= {"filter_size": tuple(size)}
    mode = getattr(layer, "padding_mode", None)
    padded = getattr(layer, "padding", 0) not in (0, (0, 0), "valid")
    return found | ({"boundary": PADDING_MODES[mode]} if padded else {})


def load(module: Any, path: str, name: str, value: Any) -> Array | None:
    """Give what stands at `path` of a module a value; the parameter, if gradients are taken of it.

    Raises
    ------
    ValueError
        If there is nothing, or of another size.
    """
    owner, _, last = path.rpartition(".")
    holder = module.get_submodule(owner)
    if not hasattr(holder, last):
        raise ValueError(f"parameters: the module has no {path!r}, which is to be {name}")
    old = getattr(holder, last)
    if not hasattr(old, "requires_grad"):
        setattr(holder, last, value)
        return None
    value = old.new_tensor(value) if isinstance(value, float) else value
    if old.numel() != value.numel():
        raise ValueError(
            f"parameters: {path!r} has shape {tuple(old.shape)}, and {name} of this case "
            f"{tuple(value.shape)}; make the module for each problem, or fix the sizes by only=…"
        )
    old.data = value.reshape(old.shape).clone()
    return old if old.requires_grad else None


def torch_module(
    module: Any,
    parameters: Mapping[str, str],
    *,
    layer: Function | None = None,
    step: Function | None = None,
    energy: Function | None = None,
    only: Only | str | None = None,
    tol: float | None = None,
) -> TorchModule:
    """The backend of a torch.nn.Module.

    Parameters
    ----------
    module : torch.nn.Module, or function from a question to one
    parameters : dict
        {"conv.weight": "A", "conv.bias": "b", "lam": "lam"}: parameters, buffers and attributes of
        the module, and what they are in E2: A, C, b, weights, lam, gamma, tau, kernel, mask, ….
        Parameters of another shape and the same size are reshaped; several of one name share it.
    layer : function, optional
        (module, p) ↦ u*; where nothing is given, module(p.y).
    step, energy : function, optional
        (module, p, u) ↦ T(u), and (module, p, u) ↦ E(u) of each image.
    only : mapping or str, optional
        Added to what the parameters say by themselves: b=none where nothing is called b, tied
        where nothing is C; of a module, the sizes and the padding of the layer whose weight is A.
    tol : float, optional
        Relative residual that the layer is meant to reach.
    """
    if layer is step is energy is None:
        layer = forward
    functions = {"layer": layer, "step": step, "energy": energy}
    return TorchModule(module, parameters, functions, only, tol)


def forward(module: Any, p: Question) -> Array:
    """The module at the data."""
    return module(p.y)


def torch_functions(
    *,
    layer: Function | None = None,
    step: Function | None = None,
    energy: Function | None = None,
    only: Only | str | None = None,
    tol: float | None = None,
) -> TorchFunctions:
    """The backend of functions in torch: layer(p), step(p, u), energy(p, u)."""
    return TorchFunctions("torch", {"layer": layer, "step": step, "energy": energy}, only, tol)


def jax_functions(
    *,
    layer: Function | None = None,
    step: Function | None = None,
    energy: Function | None = None,
    only: Only | str | None = None,
    tol: float | None = None,
) -> JaxFunctions:
    """The backend of functions in JAX: layer(p), step(p, u), energy(p, u)."""
    return JaxFunctions("jax", {"layer": layer, "step": step, "energy": energy}, only, tol)


class LinearMap:
    """K and Kᵀ of a foreign operator; see `linear_operator`."""

    def __init__(self, make: Function, only: Only | str | None):
        self.make, self.only = make, as_only(only)

    def operator(self, p: Question, u: np.ndarray) -> np.ndarray:
        """K u."""
        return applied(self.make(p), ("A", "matvec"), u, p.y.shape)

    def operator_adjoint(self, p: Question, z: np.ndarray) -> np.ndarray:
        """Kᵀ z."""
        return applied(self.make(p), ("A_adjoint", "rmatvec", "adjoint"), z, p.target.shape)


def applied(K: Any, names: tuple[str, ...], x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The first method that K has, on batches, or on each image as a vector if it has rmatvec."""
    method = next((getattr(K, name) for name in names if hasattr(K, name)), None)
    if method is None:
        raise TypeError(f"the operator has none of {', '.join(names)}")
    if hasattr(K, "A_adjoint"):
        x = make_backend("torch").asarray(x)
    if hasattr(K, "rmatvec"):
        return np.stack([method(image.ravel()) for image in x]).reshape(shape)
    return np.array(as_numpy(method(x)))  # K = I may return its argument


def linear_operator(make: Function, *, only: Only | str | None = None) -> LinearMap:
    """The backend of a forward operator: K u and Kᵀ z, nothing else.

    Parameters
    ----------
    make : function
        From a question, with `kernel`, `mask` or `matrix` in NumPy, to an object with A and
        A_adjoint of torch tensors (deepinv), matvec and rmatvec of vectors (PyLops, SciPy), or
        matvec and adjoint of batches (refimpl).
    only : mapping or str, optional
        Such as "operator=convolution,operator_boundary=periodic,channels=1".
    """
    return LinearMap(make, only)
