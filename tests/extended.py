"""Problems in extended precision: the equations of the paper with arrays of `numpy.longdouble`."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from refimpl.paper import equations
from refimpl.paper.operators import Convolution, DenseBank, FilterBank, Identity, Mask, Matrix
from refimpl.paper.operators.base import Composition, Multiple, Sum
from refimpl.paper.parameters import make_parameters
from refimpl.paper.potentials import make_potential
from refimpl.paper.problem import FieldOfExperts, Problem
from strategies import normal

STEEP = {"log_cosh": {"slope": 100.0}, "smoothed_l1": {"nu": 1e-3}, "huber": {"delta": 0.01}}
LONG = np.longdouble


def random_operator(name, shape, boundary, rng, dtype):
    """One of seven kinds; those of "mask" alone have no inverse."""
    pixels = int(np.prod(shape))
    blur = Convolution(normal(rng, (3, 5), dtype) / 4, shape, boundary)
    matrix = np.eye(pixels + 3, pixels, dtype=dtype) + normal(rng, (pixels + 3, pixels), dtype) / 9
    mask, matrix = Mask((np.arange(pixels) % 3 != 1).reshape(shape), shape), Matrix(matrix, shape)
    return {
        "identity": Identity(shape), "mask": mask, "convolution": blur, "matrix": matrix,
        "product": matrix @ blur, "sum": mask + 0.3 * blur,
    }[name]


def random_problem(
    rng, shape, filters, *, boundary, potential="log_cosh", tied=True, operator="identity",
    dtype=np.float64, dense=False, steep=False, scale=1.0, gamma=0.7,
):
    """Filters of size `scale`; untied, C − A is a third of it."""
    bank = FilterBank(shape[1:], (filters[0], *filters[2:]), boundary)
    bank = DenseBank(shape[1:], 5) if dense else bank
    A = (scale * normal(rng, bank.coefficients_shape)).astype(dtype)
    C = None if tied else (A + scale / 3 * normal(rng, A.shape)).astype(dtype)
    b, weights = normal(rng, len(A), dtype) / 3, rng.uniform(0.5, 1.5, len(A)).astype(dtype)
    theta = make_parameters(A, C, b=b, weights=weights, gamma=gamma)
    parameters = STEEP.get(potential, {}) if steep else {}
    experts = FieldOfExperts(bank, make_potential(potential, **parameters), theta)
    K = random_operator(operator, shape[1:], boundary, rng, dtype)
    return Problem(K, normal(rng, (shape[0], *K.range_shape), dtype), experts, 1.3)


def extended(problem):
    """The same numbers as longdouble, for the functions of `refimpl.paper.equations`."""
    theta = problem.theta.astype(LONG)
    return SimpleNamespace(
        operator=wide(problem.operator), y=problem.y.astype(LONG), lam=LONG(problem.lam),
        bank=problem.bank, potential=problem.potential, theta=theta, tied=problem.tied,
    )


def wide(K):
    """An operator with coefficients of longdouble."""
    K = copy.copy(K)
    if isinstance(K, Matrix):
        K.matrix = K.matrix.astype(LONG)
    elif isinstance(K, Convolution):
        K.kernel, K._filters = K.kernel.astype(LONG), K._filters.astype(LONG)
    elif isinstance(K, Composition):
        K.outer, K.inner = wide(K.outer), wide(K.inner)
    elif isinstance(K, Sum):
        K.left, K.right = wide(K.left), wide(K.right)
    elif isinstance(K, Multiple):
        K.factor, K.operator = LONG(K.factor), wide(K.operator)
    else:
        assert isinstance(K, (Identity, Mask))
    return K


def direction(problem, u):
    """G(u) of the numbers given, in longdouble."""
    return equations.direction(extended(problem), u.astype(LONG))


def jacobian(p, u):
    """J(u) of the first image as a matrix, column by column, in the precision of u."""
    size = u[0].size
    units = np.eye(size, dtype=u.dtype).reshape(size, *u.shape[1:])
    p = SimpleNamespace(**{**vars(p), "y": p.y[:1]})
    J = [equations.field_jvp(p, u[:1], e[None]) + p.lam * p.operator.adjoint(
        p.operator.matvec(e[None])) for e in units]
    return np.stack([column.ravel() for column in J], axis=1)


def images(problem):
    """The problem of each image."""
    return [replace(problem, y=problem.y[n : n + 1]) for n in range(len(problem.y))]


def direction_vjp(problem, u, q):
    """Jᵀ q at u, in longdouble."""
    p, u, q = extended(problem), u.astype(LONG), q.astype(LONG)
    return equations.field_vjp(p, u, q) + p.lam * p.operator.adjoint(p.operator.matvec(q))


def params_vjp(problem, u, q):
    """(∂_θ F)ᵀ q at u, E6 and E7, in longdouble."""
    return equations.field_params_vjp(extended(problem), u.astype(LONG), q.astype(LONG))


def fixed_point(problem, u, steps=60):
    """u* near u, by Newton's method: Jacobians are inverted in float64, G is longdouble.

    Image by image; ends where a step no longer moves u by more than 1e-17 of itself.
    """
    return np.concatenate([_newton(p, u[n : n + 1], steps) for n, p in enumerate(images(problem))])


def _newton(problem, u, steps):
    p, u = extended(problem), u.astype(LONG)
    for _ in range(steps):
        G = equations.direction(p, u)
        d = np.linalg.solve(jacobian(p, u).astype(float), G.ravel().astype(float)).reshape(u.shape)
        u = u - damped(p, u, d, G)
        if np.linalg.norm(d) <= 1e-17 * np.linalg.norm(u.astype(float)):
            return u
    raise AssertionError(f"Newton's method in longdouble still moves by {np.linalg.norm(d)}")


def damped(p, u, d, G):
    """The first of d, d/2, …, whose step makes ‖G‖ smaller; d at the level of rounding."""
    size = np.linalg.norm(G.astype(float))
    for t in 0.5 ** np.arange(12):
        if np.linalg.norm(equations.direction(p, u - t * d).astype(float)) < size:
            return t * d
    return d


def adjoint(problem, u, gradient):
    """p of Jᵀ p = ∇ℓ at u, image by image, with one step of refinement in longdouble."""
    found = []
    for n, one in enumerate(images(problem)):
        J = jacobian(extended(one), u[n : n + 1].astype(LONG))
        b, inverse, x = gradient[n].ravel().astype(LONG), np.linalg.inv(J.T.astype(float)), 0
        for _ in range(4):
            x = x + inverse @ (b - J.T @ (x + np.zeros(len(b), LONG))).astype(float)
        found.append(x.reshape(u.shape[1:]))
    return np.stack(found)
