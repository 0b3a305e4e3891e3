"""A potential held against itself on a scan of numbers.

    σ = φ′, σ′     complex step where the functions take complex numbers, else central differences
    1e±300         no NaN; infinite only where the next derivative, times z, is too
    traits         convex, sup σ′, sup |σ″|, kinks, scalar functions: where they are stated

Functions that take complex numbers need not be analytic (np.abs): where the complex step
disagrees, the differences decide.
"""

from collections.abc import Callable, Iterator

import numpy as np

from refimpl import kernels
from refimpl.arrays import FLOATS, Array
from refimpl.paper.potentials import METHODS, Potential, trait
from refimpl.results import Check
from refimpl.verification.checks import complex_step
from refimpl.verification.checks.dot_tests import ratio
from refimpl.verification.contracts import attempt, attempt_named, kept, raised, separate, stays
from refimpl.verification.rounding import kink_distances

EPS = np.finfo(np.float64).eps
POINTS = 400
ROUNDING = 1 + 64 * EPS
LARGE = {np.dtype(np.float32): (1e-38, 1e-20, 1e12, 1e30), np.dtype(np.float64): (
    1e-300, 1e-30, 1e30, 1e300,
)}  # fmt: skip
LARGEST = 1e3  # where the scan for kinks ends
RESOLUTION = 64 * EPS * LARGEST  # of a kink as found: what formulas round at numbers of that size
HALVINGS = 60  # of the scan's intervals, which leave neighbours, or 1e-23 at 0
JUMP = 1e-6  # share of sup |σ′| by which σ′ jumps at a kink
SCALARS = 1e-12  # what two formulas of one function may differ by, relatively


def points(rng: np.random.Generator) -> Array:
    """± 10^e with e uniform in [−3, 3]: flat and steep parts, both sides of every kink."""
    return rng.choice([-1.0, 1.0], POINTS) * 10.0 ** rng.uniform(-3, 3, POINTS)


def potential_checks(potential: Potential, rng: np.random.Generator) -> Iterator[Check]:
    """All tests of a potential."""
    z = points(rng)
    for name in METHODS:
        function = getattr(potential, name)
        for dtype in FLOATS[::-1]:
            x = z[:24].astype(dtype).reshape(2, 3, 4)
            yield attempt_named(name, kept, function, x, x.shape)
        yield attempt(f"{name}: each number by itself", separate, function, z[:24])
        yield attempt(f"{name}: arguments and results stay", stays, function, z, -z)
        yield attempt(f"{name}: 1e-300 to 1e300", far_out, potential, name)
    try:
        kinks = find_kinks(potential)
    except Exception as error:  # whatever a foreign σ′ raises
        yield raised("kinks: where σ′ jumps", error)
        kinks = np.empty(0)
    for pair in ((METHODS[0], METHODS[1]), (METHODS[1], METHODS[2])):
        label = f"{pair[1]} is the derivative of {pair[0]}"
        yield attempt_named(label, derivative_check, potential, pair, z, kinks)
    yield from trait_checks(potential, kinks)
    scalars = trait(potential, "scalars")
    for k, name in enumerate(METHODS if scalars is not None else ()):
        yield attempt(f"scalars: {name}", scalar_check, potential, scalars, k, z)


def derivative_check(
    potential: Potential, pair: tuple[str, str], z: Array, kinks: Array, *, name: str
) -> Check:
    """σ against φ, or σ′ against σ, where both are finite."""
    function, derivative = (getattr(potential, method) for method in pair)
    z = z[np.isfinite(function(z)) & np.isfinite(derivative(z))]
    if z.size == 0:
        return Check(f"{name}: nowhere finite", np.inf, 0.0)
    # A real function may refuse complex numbers in whatever way it likes: then it has not passed.
    exact = attempt_named(f"{name}, complex step", exact_derivative, function, derivative, z)
    return exact if exact.passed else differences(name, function, derivative, z, kinks)


def exact_derivative(function: Callable, derivative: Callable, z: Array, *, name: str) -> Check:
    """f′ at real numbers z against the complex step of f.

    σ grows at most like |z|: the direction 1/(1 + |z|) lets no point outweigh the others.
    """
    jvp, v = (lambda v: derivative(z) * v), 1 / (1 + np.abs(z))
    return complex_step(function, jvp, z, v, name=name)


def differences(
    label: str, function: Callable, derivative: Callable, z: Array, kinks: Array
) -> Check:
    """f′ against D = (4 D(h/2) − D(h)) / 3, D(h) = (f(z + h) − f(z − h)) / 2h, h = |z| / 1000.

    measured = |f′ − D| over what D leaves open: |D(h) − D(h/2)|, the rounding of f over h, and
    1e-9 |D|. Points closer than 2h to a kink are left out.
    """
    z = z[kink_distances(kinks, z) > 2e-3 * np.abs(z)]
    h = np.abs(z) / 1000
    coarse, fine = ((function(z + s) - function(z - s)) / (2 * s) for s in (h, h / 2))
    D, given = (4 * fine - coarse) / 3, derivative(z)
    # f may round more than its own size tells, as √(1 + z²) − 1 does: second differences show it.
    steps = (1e-5 * k * h for k in range(1, 21))
    jitter = np.max([np.abs(function(z + s) - 2 * function(z) + function(z - s)) for s in steps], 0)
    rounding = 16 * EPS * np.maximum(np.abs(function(z + h)), np.abs(function(z - h))) / h
    rounding += 4 * jitter / h
    errors = np.abs(given - D) / (np.abs(coarse - fine) + rounding + 1e-9 * np.abs(D) + 1e-300)
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    text = f"{label}, differences"
    if not errors[worst] <= 1:
        text += f": at z = {z[worst]:.4g} {given[worst]:.6g}, expected {D[worst]:.6g}"
    return Check(text, float(errors[worst]), 1.0)


def far_out(potential: Potential, name: str) -> Check | tuple[float, float]:
    """How many values of a function are NaN, or infinite without need, first of all numbers."""
    wrong = []
    for dtype, sizes in LARGE.items():
        z = np.array([*sizes, *(-s for s in sizes), 0], dtype)
        f = getattr(potential, name)(z)
        following = METHODS[METHODS.index(name) + 1 :]
        # Where even z f′ is too large, so may f be.
        grows = z * getattr(potential, following[0])(z) if following else np.full_like(z, np.inf)
        bad = np.isnan(f) | (np.isinf(f) & np.isfinite(grows))
        wrong += [f"{f[k]} at {z[k]:g} ({dtype})" for k in np.flatnonzero(bad)]
    if not wrong:
        return 0, 0
    return Check(f"{name}: 1e-300 to 1e300: {wrong[0]}", float(len(wrong)), 0.0)


def scan() -> Array:
    """Numbers of both signs from 1e-5 to 1e3, and zero, in order."""
    half = np.logspace(-5, np.log10(LARGEST), 4001)
    return np.concatenate([-half[::-1], [0.0], half])


def find_kinks(potential: Potential) -> Array:
    """Where σ′ jumps: every interval of the scan halved to rounding, towards the larger change."""
    z = scan()
    slopes = potential.second_derivative(z)
    a, b, fa, fb = z[:-1], z[1:], slopes[:-1], slopes[1:]
    for _ in range(HALVINGS):
        middle = (a + b) / 2
        f = potential.second_derivative(middle)
        left = np.abs(f - fa) > np.abs(fb - f)
        a, fa = np.where(left, a, middle), np.where(left, fa, f)
        b, fb = np.where(left, middle, b), np.where(left, f, fb)
    found = np.sort(b[np.abs(fb - fa) > JUMP * np.abs(slopes).max()])
    return found[np.diff(found, prepend=-np.inf) > RESOLUTION]


def trait_checks(potential: Potential, kinks: Array) -> Iterator[Check]:
    """What the potential states of itself, against the scan."""
    stated = {name: trait(potential, name) for name in ("convex", "smooth", "kinks")}
    z = scan()

    def slopes() -> Array:
        return potential.second_derivative(z)

    def falls() -> tuple[float, float]:
        sigma = potential.derivative(z)
        drop, size = -np.diff(sigma), np.abs(sigma[1:]) + np.abs(sigma[:-1])
        shares = np.divide(np.maximum(drop, 0), size, out=np.zeros_like(size), where=size != 0)
        return shares.max(), 64 * EPS

    if stated["convex"]:
        yield attempt("convex: σ′ ≥ 0", lambda: (-slopes().min(), 0))
        yield attempt("convex: σ does not fall", falls)
    for name, largest in (
        ("sup_second", lambda: max(np.abs(slopes()).max(), steepness(potential.derivative(z), z))),
        ("sup_third", lambda: steepness(slopes(), z)),
    ):
        bound = trait(potential, name)
        if bound < np.inf:
            yield attempt(f"{name}: largest on a scan over {bound:g}", share, largest, bound)
    if stated["smooth"] or stated["kinks"]:
        news = kinks[kink_distances(stated["kinks"], kinks) > RESOLUTION]
        name = f"kinks: unstated ones at {', '.join(f'{k:.10g}' for k in news[:3])}"
        yield Check(name if len(news) else "kinks: no unstated ones", float(len(news)), 0.0)


def share(largest: Callable[[], float], bound: float) -> tuple[float, float]:
    """What was found, as a share of the bound that was stated."""
    return ratio(largest(), bound), ROUNDING


def steepness(slopes: Array, z: Array) -> float:
    """The largest |Δσ′ / Δz| between neighbours, less what rounding of σ′ makes of it."""
    change = np.abs(np.diff(slopes)) - 8 * EPS * np.abs(slopes).max()
    return float(max(0.0, (change / np.diff(z)).max()))


def scalar_check(potential: Potential, scalars: tuple, k: int, z: Array) -> tuple[float, float]:
    """A compiled scalar function against the array function, relatively, number by number."""
    compiled = getattr(kernels.Elementwise(*scalars), METHODS[k])(z)
    expected = getattr(potential, METHODS[k])(z)
    size = np.maximum(np.abs(expected), np.finfo(np.float64).tiny)
    return (np.abs(compiled - expected) / size).max(), SCALARS
