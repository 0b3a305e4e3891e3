"""Random portable cases whose fixed point is isolated and well conditioned."""

import numpy as np

from refimpl.verification.cases import Case

POTENTIALS = {
    "quadratic": {},
    "half_squared_relu": {},
    "soft_shrinkage": {"threshold": 0.2},
    "log_cosh": {"slope": 2.0},
    "lorentzian": {},
    "smoothed_l1": {"nu": 0.3},
    "huber": {"delta": 0.7},
}


def make_case(
    potential,
    *,
    boundary="symmetric",
    analysis="convolution",
    tied=True,
    operator="identity",
    channels=1,
    batch=2,
    size=(5, 6),
    filter_size=(3, 3),
    optional=True,
    seed=0,
    **settings,
):
    """A case; `settings` replace those of case.json, `optional` says whether b and w are there."""
    rng = np.random.default_rng(seed)
    shape = (batch, channels, *size)
    arrays = {name: rng.standard_normal(shape) for name in ("y", "target", "u", "v", "w")}
    filters = (12, int(np.prod(shape[1:])))
    if analysis == "convolution":
        filters = (4, channels, *filter_size)
    arrays |= filter_arrays(filters, tied, optional, rng)
    arrays |= operator_array(operator, shape, rng)
    if operator == "matrix":
        arrays["y"] = rng.standard_normal((batch, len(arrays["matrix"])))
    description = {
        "operator": operator,
        "operator_boundary": boundary if operator == "convolution" else None,
        "analysis": analysis,
        "boundary": boundary if analysis == "convolution" else None,
        "potential": potential,
        "potential_parameters": POTENTIALS[potential],
        "tied": tied,
        "tau": 0.1,
        # The Lorentzian is not convex: a strong data term makes the fixed point unique.
        "lam": 4.0 if potential == "lorentzian" else 1.5,
        "gamma": 0.4,
    }
    return Case(**(description | settings), arrays=arrays)


def filter_arrays(shape, tied, optional, rng):
    """A, C near A, b and weights."""
    scale = 1 / np.sqrt(np.prod(shape[1:]))
    arrays = {"A": scale * rng.standard_normal(shape)}
    if not tied:
        arrays["C"] = arrays["A"] + scale / 5 * rng.standard_normal(shape)
    if optional:
        arrays["b"] = rng.standard_normal(shape[0]) / 2
        arrays["weights"] = rng.uniform(0.5, 1.5, shape[0])
    return arrays


def operator_array(operator, shape, rng):
    """The array of the forward operator, well conditioned or hiding two values."""
    pixels = int(np.prod(shape[1:]))
    if operator == "mask":
        mask = np.ones(shape[1:], dtype=bool)
        mask.flat[rng.choice(pixels, 2, replace=False)] = False
        return {"mask": mask}
    if operator == "convolution":
        return {"kernel": np.pad([[1.0]], 1) + rng.uniform(-0.1, 0.1, (3, 3))}
    if operator == "matrix":
        noise = rng.standard_normal((pixels + 2, pixels)) / 30
        return {"matrix": np.eye(pixels + 2, pixels) + noise}
    return {}
