"""Problems whose results must not depend on threads, batch, order or memory layout; and a program.

Run as a program, with the number of threads in the environment, it prints a digest of each result.
"""

import hashlib

import numpy as np
import scipy.sparse

import refimpl as ri
from refimpl.engine import make_step
from refimpl.equilibrium.adjoint import solve_adjoint
from refimpl.paper.operators.banks import Analysis

SHAPE, IMAGES = (2, 17, 14), 4


def operator(name):
    """K of this name on images SHAPE; "sparse" has rows of a few entries."""
    rng = np.random.default_rng(1)
    C, H, W = SHAPE
    sparse = scipy.sparse.random_array((50, C * H * W), density=0.02, rng=rng, format="csr")
    return {
        "identity": lambda: ri.Identity(SHAPE),
        "mask": lambda: ri.Mask(rng.random((H, W)) < 0.8, SHAPE),
        "blur": lambda: ri.Convolution(np.ones((3, 5)) / 15, SHAPE),
        "periodic blur": lambda: ri.Convolution(np.ones((3, 5)) / 15, SHAPE, "periodic"),
        "sparse": lambda: ri.FromScipy(sparse, SHAPE),
        "sum": lambda: ri.Identity(SHAPE) + 0.5 * ri.Convolution(np.eye(3) / 3, SHAPE),
        "bank": lambda: Analysis(ri.FilterBank(SHAPE, (3, 3, 3)), rng.normal(size=(3, 2, 3, 3))),
    }[name]()


def problem(name, *, tied=True, boundary="symmetric", dtype=np.float64, bank=None):
    """A problem with a filter bank, or the bank given."""
    rng, K = np.random.default_rng(0), operator(name)
    bank = ri.FilterBank(SHAPE, (4, 3, 3), boundary) if bank is None else bank
    A = rng.normal(size=bank.coefficients_shape)
    A /= np.linalg.norm(A.reshape(len(A), -1), axis=1).reshape(-1, *[1] * (A.ndim - 1))
    C = None if tied else A + 0.01 * rng.normal(size=A.shape)
    theta = ri.make_parameters(A, C, b=0.1 * rng.normal(size=len(A))).astype(dtype)
    y = rng.normal(size=(IMAGES, *K.range_shape)).astype(dtype)
    if dtype == np.float32 and hasattr(K, "astype"):
        K = K.astype(dtype)
    return ri.Problem(K, y, ri.FieldOfExperts(bank, ri.make_potential("log_cosh"), theta), 2.0)


def tolerance(p):
    return 1e-8 if p.dtype == np.float64 else 1e-4


def answers(p, method="auto"):
    """u*, q of E9 for ∇ℓ = u*, T(u*) and, tied, E(u*): what belongs to each image."""
    step = make_step(p)
    star = ri.reconstruct(step, method=method, residual_tol=tolerance(p))
    q = solve_adjoint(step.linearize(star.x), star.x, residual_tol=tolerance(p))
    found = [star.x, star.iterations, q.x, step.apply(star.x)]
    return found + ([step.energy(star.x)] if p.tied else [])


def pictures():
    """The three functions on pictures, in colour; large enough that work is shared."""
    waves = np.sin(np.arange(240)[:, None, None] / 9 + np.arange(220)[:, None] / [5, 7, 11])
    y = ri.add_noise((1 + waves) / 2, 0.1, 0)
    missing = np.random.default_rng(3).random(y.shape[:2]) < 0.2
    psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    return [
        ri.denoise(y, 0.1, channel_axis=-1),
        ri.inpaint(y[:80, :70], missing[:80, :70], 0.1, channel_axis=-1),
        ri.deconvolve(y[:90, :80], psf, 0.1, channel_axis=-1),
    ]


CASES = (
    ("identity", {}), ("identity", {"tied": False}), ("mask", {"boundary": "periodic"}),
    ("blur", {}), ("periodic blur", {"boundary": "periodic"}), ("sparse", {}), ("sum", {}),
    ("bank", {}), ("blur", {"dtype": np.float32}), ("mask", {"dtype": np.float32}),
)  # fmt: skip


def digests():
    """A digest of the answers of every case, of the gradient of θ, and of the pictures."""
    for name, options in CASES:
        p = problem(name, **options)
        star = ri.reconstruct(p, residual_tol=tolerance(p))
        gradient = ri.hypergradient(p, star, star.x, residual_tol=tolerance(p)).gradient
        arrays = [*answers(p), *(x for _, x in gradient.items())]
        yield name, hashlib.sha256(b"".join(np.ascontiguousarray(x) for x in arrays)).hexdigest()
    yield "pictures", hashlib.sha256(b"".join(map(np.ascontiguousarray, pictures()))).hexdigest()


if __name__ == "__main__":
    for row in digests():
        print(*row, sep="\t")
