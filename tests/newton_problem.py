"""Energies with steep, flat and concave parts for the tests of Newton's methods."""

from types import SimpleNamespace

import numpy as np

SHAPE, PARTS = (2, 5, 6), 90


def lorentzian(scale=10.0):
    """φ(z) = log(1 + (s z)²), concave for |s z| > 1."""
    return SimpleNamespace(
        value=lambda z: np.log1p((scale * z) ** 2),
        derivative=lambda z: 2 * scale**2 * z / (1 + (scale * z) ** 2),
        second_derivative=lambda z: (
            2 * scale**2 * (1 - (scale * z) ** 2) / (1 + (scale * z) ** 2) ** 2
        ),
        sup_second=2 * scale**2,
    )


class Model:
    """E(u) = λ/2 Σ m (u − y)² + γ Σ φ(A u); G(u) = λ m (u − y) + γ Cᵀ φ′(A u), = ∇E for C = A."""

    def __init__(
        self, phi, *, images=2, lam=18.0, gamma=1.0, observed=1.0, asymmetry=0.0, dtype=np.float64
    ):
        rng = np.random.default_rng(0)
        n = int(np.prod(SHAPE[1:])) * SHAPE[0]
        A = rng.standard_normal((PARTS, n)) / np.sqrt(n)
        C = A + asymmetry * rng.standard_normal((PARTS, n)) / np.sqrt(n)
        self.A, self.C, self.phi = A.astype(dtype), C.astype(dtype), phi
        self.lam, self.gamma = dtype(lam), dtype(gamma)
        self.m = (rng.random(SHAPE) < observed).astype(dtype)
        self.y = (
            rng.standard_normal((images, *SHAPE)) * np.geomspace(1, 5, images)[:, None, None, None]
        ).astype(dtype)
        L = lam + gamma * phi.sup_second * np.linalg.norm(A, 2) * np.linalg.norm(C, 2)
        self.step = float(1 / L)

    def image(self, n):
        alone = object.__new__(Model)
        alone.__dict__.update(self.__dict__, y=self.y[n : n + 1])
        return alone

    def _analysis(self, u):
        return np.stack([self.A @ x.ravel() for x in u])

    def _synthesis(self, z):
        return np.stack([(self.C.T @ row).reshape(SHAPE) for row in z])

    def energy(self, u):
        data = (self.m * (u - self.y) ** 2).reshape(len(u), -1)
        prior = self.phi.value(self._analysis(u))
        return np.array(
            [
                self.lam / 2 * d.sum() + self.gamma * p.sum()
                for d, p in zip(data, prior, strict=True)
            ]
        )

    def direction(self, u):
        return self.lam * self.m * (u - self.y) + self.gamma * self._synthesis(
            self.phi.derivative(self._analysis(u))
        )

    gradient = direction

    def linearize(self, u):
        d = self.phi.second_derivative(self._analysis(u))

        def product(v):
            return self.lam * self.m * v + self.gamma * self._synthesis(d * self._analysis(v))

        return SimpleNamespace(
            energy=self.energy(u),
            gradient=self.direction(u),
            direction=self.direction(u),
            hvp=product,
            direction_jvp=product,
        )

    def hessian(self, u):
        columns = [
            self.linearize(u).hvp(e.reshape(1, *SHAPE)).ravel() for e in np.eye(self.A.shape[1])
        ]
        return np.array(columns)
