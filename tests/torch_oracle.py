"""Every output of a portable case by automatic differentiation and dense solves, in float64 torch.

Nothing here imports the package. Energies and fields are written down once, everything else is
`torch.func`: ∇E and F's derivatives by autodiff, Jacobians as matrices, u* by Newton's method
with `linalg.solve`, the adjoint state by one more solve.
"""

import numpy as np
import torch
from torch.func import grad, jacrev, jvp, vjp
from torch.nn import functional

TORCH_MODES = {
    "zero": "constant",
    "periodic": "circular",
    "reflect": "reflect",
    "replicate": "replicate",
}
PADDING_LIMIT = {"zero": 10**9, "periodic": 0, "reflect": -1, "replicate": 10**9}
PLAIN_ITERATIONS, MAX_NEWTON, MAX_HALVINGS = 30, 60, 30

# Newton steps shorter than this (relative) are the last; where none can be taken because ‖G‖ is
# at its rounding, the step refused must be at most the second number.
LAST_STEP, ROUNDED_STEP = 1e-12, 1e-10


def quadratic():
    return lambda z: z**2 / 2, lambda z: z


def half_squared_relu():
    return lambda z: torch.relu(z) ** 2 / 2, torch.relu


def soft_shrinkage(threshold=0.1):
    return (
        lambda z: functional.softshrink(z, threshold) ** 2 / 2,
        lambda z: functional.softshrink(z, threshold),
    )


def log_cosh(slope=1.0):
    def phi(z):
        x = slope * z.abs()
        return (x + torch.log1p(torch.exp(-2 * x)) - float(np.log(2.0))) / slope

    return phi, lambda z: torch.tanh(slope * z)


def lorentzian():
    return lambda z: torch.log1p(z**2), lambda z: 2 * z / (1 + z**2)


def smoothed_l1(nu=0.1):
    return lambda z: torch.sqrt(z**2 + nu**2), lambda z: z / torch.sqrt(z**2 + nu**2)


def huber(delta=1.0):
    def phi(z):
        return torch.where(z.abs() <= delta, z**2 / (2 * delta), z.abs() - delta / 2)

    return phi, lambda z: torch.clamp(z / delta, -1, 1)


POTENTIALS = {
    "quadratic": quadratic,
    "half_squared_relu": half_squared_relu,
    "soft_shrinkage": soft_shrinkage,
    "log_cosh": log_cosh,
    "lorentzian": lorentzian,
    "smoothed_l1": smoothed_l1,
    "huber": huber,
}


def source(i: int, n: int, boundary: str) -> int:
    """The pixel of a row of n that position i stands for; −1 for zero."""
    if boundary == "periodic":
        return i % n
    if boundary == "replicate":
        return min(max(i, 0), n - 1)
    if boundary == "symmetric":
        return min(i % (2 * n), 2 * n - 1 - i % (2 * n))
    if boundary == "reflect":
        period = max(2 * n - 2, 1)
        return min(i % period, period - i % period) if n > 1 else 0
    return i if 0 <= i < n else -1


def pad_by_index(u, widths, boundary):
    """Padding by indexing, for `symmetric` and for images that torch refuses to pad."""
    for axis, width in zip((-2, -1), widths, strict=True):
        n = u.shape[axis]
        index = torch.tensor([source(i, n, boundary) for i in range(-width, n + width)])
        inside = (index >= 0).to(u.dtype).reshape(-1, *[1] * (-axis - 1))
        u = u.index_select(axis, index.clamp(min=0)) * inside
    return u


def pad(u, widths, boundary):
    """Padding of (N, C, H, W), by torch where torch can."""
    if boundary in TORCH_MODES:
        allowed = PADDING_LIMIT[boundary]
        if all(w <= n + allowed for w, n in zip(widths, u.shape[-2:], strict=True)):
            sides = (widths[1], widths[1], widths[0], widths[0])
            return functional.pad(u, sides, mode=TORCH_MODES[boundary])
    return pad_by_index(u, widths, boundary)


def half_widths(filters):
    return filters.shape[-2] // 2, filters.shape[-1] // 2


class Oracle:
    """The functions of one case: `settings` is the content of case.json, `arrays` of inputs.npz."""

    def __init__(self, settings, arrays, dtype=torch.float64):
        self.settings = settings
        self.arrays = {k: torch.from_numpy(np.array(x, float)).to(dtype) for k, x in arrays.items()}
        parameters = settings.get("potential_parameters", {})
        self.phi, self.sigma = POTENTIALS[settings["potential"]](**parameters)
        self.shape = self.arrays["u"].shape
        count = self.arrays["A"].shape[0]
        self.theta = {"A": self.arrays["A"]}
        if not settings["tied"]:
            self.theta["C"] = self.arrays["C"]
        self.theta["b"] = self.arrays.get("b", torch.zeros(count, dtype=dtype))
        self.theta["weights"] = self.arrays.get("weights", torch.ones(count, dtype=dtype))

    def forward(self, u):
        """K u."""
        kind, arrays = self.settings["operator"], self.arrays
        if kind == "mask":
            return arrays["mask"] * u
        if kind == "matrix":
            return u.reshape(len(u), -1) @ arrays["matrix"].T
        if kind == "convolution":
            flipped = arrays["kernel"].flip(0, 1)[None, None].repeat(u.shape[1], 1, 1, 1)
            padded = pad(u, half_widths(flipped), self.settings["operator_boundary"])
            return functional.conv2d(padded, flipped, groups=u.shape[1])
        return u

    def analyse(self, A, u):
        """A u."""
        if self.settings["analysis"] == "dense":
            return u.reshape(len(u), -1) @ A.T
        return functional.conv2d(pad(u, half_widths(A), self.settings["boundary"]), A)

    def normalised(self, theta):
        """A and C with the norm of the case, if it has one, of the operators as matrices."""
        if "norm" not in self.settings:
            return theta
        names = [name for name in ("A", "C") if name in theta]
        return theta | {k: self.settings["norm"] / self.norm(theta[k]) * theta[k] for k in names}

    def norm(self, A):
        """‖A‖ from its matrix, whose rows are the responses to the unit images."""
        units = torch.eye(self.shape[1:].numel(), dtype=torch.float64).reshape(-1, *self.shape[1:])
        return torch.linalg.matrix_norm(self.analyse(A, units).flatten(1), 2)

    def per_filter(self, b):
        return b if self.settings["analysis"] == "dense" else b[:, None, None]

    def data_energy(self, u, y):
        return self.settings["lam"] / 2 * ((self.forward(u) - y) ** 2).sum()

    def energy(self, u, y, theta):
        """E, E2, summed over the batch; for θ as the case gives it."""
        theta = self.normalised(theta)
        z = self.analyse(theta["A"], u) + self.per_filter(theta["b"])
        experts = (self.per_filter(theta["weights"]) * self.phi(z)).sum()
        return self.data_energy(u, y) + self.settings["gamma"] * experts

    def direction(self, u, y, theta):
        """G: ∇E by autodiff if tied, else λ Kᵀ(K u − y) + γ Cᵀ(w ⊙ σ(A u + b))."""
        if self.settings["tied"]:
            return grad(self.energy)(u, y, theta)
        theta = self.normalised(theta)
        z = self.analyse(theta["A"], u) + self.per_filter(theta["b"])
        _, synthesise = vjp(lambda x: self.analyse(theta["C"], x), u)
        (experts,) = synthesise(self.per_filter(theta["weights"]) * self.sigma(z))
        return grad(self.data_energy)(u, y) + self.settings["gamma"] * experts

    def step(self, u, y, theta):
        """T(u), E8."""
        return u - self.settings["tau"] * self.direction(u, y, theta)

    def jacobian(self, u, y):
        """∂G of one image (1, C, H, W), as a matrix."""
        matrix = jacrev(self.direction)(u, y, self.theta)
        return matrix.reshape(u.numel(), u.numel())

    def near_fixed_point(self):
        """Plain iterations on all images from Kᵀy: Newton's method then follows the same zero."""
        y = self.arrays["y"]
        _, transpose = vjp(self.forward, torch.zeros_like(self.arrays["u"]))
        (u,) = transpose(y)
        tau = 0.5 / torch.linalg.matrix_norm(self.jacobian(u[:1], y[:1]), 2)
        for _ in range(PLAIN_ITERATIONS):
            u = u - tau * self.direction(u, y, self.theta)
        return u

    def fixed_point(self, u, y):
        """G(u) = 0 for one image, by Newton steps, halved until ‖G‖ falls."""
        for _ in range(MAX_NEWTON):
            g = self.direction(u, y, self.theta)
            d = torch.linalg.solve(self.jacobian(u, y), -g.reshape(-1)).reshape(u.shape)
            if d.norm() <= LAST_STEP * u.norm():
                return u + d
            trials = (u + 0.5**k * d for k in range(MAX_HALVINGS))
            better = (t for t in trials if self.direction(t, y, self.theta).norm() < g.norm())
            new = next(better, None)
            if new is None:
                break
            u = new
        assert d.norm() <= ROUNDED_STEP * u.norm(), "the oracle's own iteration did not converge"
        return u

    def adjoint_state(self, u, y, loss_gradient):
        """q of (I − ∂T)ᵀ q = ∇ℓ for one image, E9."""
        matrix = self.settings["tau"] * self.jacobian(u, y)
        return torch.linalg.solve(matrix.T, loss_gradient.reshape(-1)).reshape(u.shape)

    def parameter_vjp(self, u, q):
        """(∂_θ T)ᵀ q."""
        _, pull_back = vjp(lambda theta: self.step(u, self.arrays["y"], theta), self.theta)
        return pull_back(q)[0]

    def local(self):
        """Outputs at the given state."""
        u, v, w, y = (self.arrays[name] for name in ("u", "v", "w", "y"))
        at_u = lambda x: self.step(x, y, self.theta)  # noqa: E731
        outputs = {"map": at_u(u), "jvp": jvp(at_u, (u,), (v,))[1], "vjp": vjp(at_u, u)[1](w)[0]}
        outputs |= {f"vjp_{k}": g for k, g in self.parameter_vjp(u, w).items()}
        if self.settings["tied"]:
            gradient = lambda x: self.direction(x, y, self.theta)  # noqa: E731
            images = range(len(u))
            energies = [self.energy(u[n : n + 1], y[n : n + 1], self.theta) for n in images]
            outputs |= {"energy": torch.stack(energies), "gradient": gradient(u)}
            outputs["hvp"] = jvp(gradient, (u,), (v,))[1]
        return outputs

    def solved(self):
        """Fixed point, loss and hypergradient."""
        y, target = self.arrays["y"], self.arrays["target"]
        rows = [y[n : n + 1] for n in range(len(y))]
        near = self.near_fixed_point()
        star = torch.cat([self.fixed_point(near[n : n + 1], row) for n, row in enumerate(rows)])
        loss = lambda u: ((u - target) ** 2).mean()  # noqa: E731
        gradient = grad(loss)(star)
        q = [self.adjoint_state(star[n : n + 1], row, gradient[n]) for n, row in enumerate(rows)]
        hyper = self.parameter_vjp(star, torch.cat(q))
        named = {f"hypergradient_{name}": g for name, g in hyper.items()}
        return {"fixed_point": star, "loss": loss(star)} | named

    def outputs(self):
        """All outputs as NumPy arrays."""
        return {k: x.detach().numpy() for k, x in (self.local() | self.solved()).items()}
