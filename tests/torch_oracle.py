"""Every output of a portable case by automatic differentiation and dense solves, in torch.

The maps are those of `TorchBackend`, which share nothing with the package's own. What is asked of
them differs: Jacobians are matrices, u* comes from Newton's method with `linalg.solve`, the adjoint
state from one more solve.
"""

from dataclasses import replace

import torch
from torch.autograd.functional import jacobian

from refimpl.verification.backends.torch_backend import TorchBackend
from refimpl.verification.question import Question

PLAIN_ITERATIONS, MAX_NEWTON, MAX_HALVINGS = 30, 60, 30

# Newton steps shorter than this (relative) are the last; where none can be taken because ‖G‖ is
# at its rounding, the step refused must be at most the second number.
LAST_STEP, ROUNDED_STEP = 1e-12, 1e-10


class Oracle(TorchBackend):
    """The maps of one case, whose images are `arrays`, parameters `theta` and all together `p`."""

    def __init__(self, case, dtype=torch.float64):
        super().__init__()
        asarray = lambda x: torch.from_numpy(x).to(dtype)  # noqa: E731
        self.case, question = case, Question.from_case(case, asarray)
        self.settings, arrays, self.theta = self._parts(question)
        self.p = replace(self.settings, **arrays)
        self.arrays = arrays | {name: asarray(case.arrays[name]) for name in "uvw"}

    def image(self, n):
        """The settings and arrays of one image."""
        return replace(self.p, y=self.p.y[n : n + 1])

    def jacobian(self, u, n):
        """∂G of image n at u (1, C, H, W), as a matrix."""
        G = lambda x: self.direction(self.image(n), self.theta, x)  # noqa: E731
        return jacobian(G, u, vectorize=True).reshape(u.numel(), u.numel())

    def G(self, u, n):
        """The direction of image n."""
        return self.direction(self.image(n), self.theta, u).detach()

    def T(self, u):
        """The step at a batch of states."""
        return self.step(self.p, self.theta, u).detach()

    def near_fixed_point(self):
        """Plain iterations on all images from Kᵀy: Newton's method then follows the same zero."""
        u = self.start(self.p, self.theta).detach()
        tau = 0.5 / torch.linalg.matrix_norm(self.jacobian(u[:1], 0), 2)
        for _ in range(PLAIN_ITERATIONS):
            u = u - tau * self.direction(self.p, self.theta, u).detach()
        return u

    def solve_image(self, u, n):
        """G(u) = 0 for image n, by Newton steps, halved until ‖G‖ falls."""
        for _ in range(MAX_NEWTON):
            g = self.G(u, n)
            d = torch.linalg.solve(self.jacobian(u, n), -g.reshape(-1)).reshape(u.shape)
            if d.norm() <= LAST_STEP * u.norm():
                return u + d
            trials = (u + 0.5**k * d for k in range(MAX_HALVINGS))
            new = next((t for t in trials if self.G(t, n).norm() < g.norm()), None)
            if new is None:
                break
            u = new
        assert d.norm() <= ROUNDED_STEP * u.norm(), "the oracle's own iteration did not converge"
        return u

    def adjoint_states(self, u, gradient):
        """q of (I − ∂T)ᵀ q = ∇ℓ for every image, E9."""
        rows = []
        for n, g in enumerate(gradient):
            matrix = self.p.tau * self.jacobian(u[n : n + 1], n)
            rows.append(torch.linalg.solve(matrix.T, g.reshape(-1)).reshape(g.shape))
        return torch.stack(rows)

    def loss_gradient(self, u):
        """∇ℓ(u)."""
        return self.derivatives.grad(lambda x: self.loss(self.p, x))(u).detach()

    def local(self):
        """Outputs at the given state."""
        p, theta, (u, v, w) = self.p, self.theta, (self.arrays[name] for name in "uvw")
        outputs = {"map": self.T(u), "jvp": self.step_jvp(p, theta, u, v)}
        outputs["vjp"] = self.step_vjp(p, theta, u, w)
        outputs |= {f"vjp_{k}": g for k, g in self.step_params_vjp(p, theta, u, w).items()}
        if p.tied:
            outputs |= {"energy": self.energies(p, theta, u)}
            outputs |= {"gradient": self.direction(p, theta, u)}
            outputs["hvp"] = self.direction_jvp(p, theta, u, v)
        return self.detached(outputs)

    def solved(self):
        """Fixed point, loss and hypergradient."""
        near = self.near_fixed_point()
        star = torch.cat([self.solve_image(near[n : n + 1], n) for n in range(len(near))])
        q = self.adjoint_states(star, self.loss_gradient(star))
        hyper = self.detached(self.step_params_vjp(self.p, self.theta, star, q))
        named = {f"hypergradient_{name}": g for name, g in hyper.items()}
        return {"fixed_point": star, "loss": self.loss(self.p, star)} | named

    def outputs(self):
        """All outputs as NumPy arrays."""
        return {k: x.numpy() for k, x in (self.local() | self.solved()).items()}


def oracle_outputs(case):
    """All outputs of a case on one thread."""
    torch.set_num_threads(1)
    return Oracle(case).outputs()
