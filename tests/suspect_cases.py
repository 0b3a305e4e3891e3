"""The series of random cases over which causes are intersected."""

import numpy as np

SHAPES = (
    {"size": (5, 6), "batch": 2, "channels": 1},
    {"size": (6, 5), "batch": 3, "channels": 2},
    {"size": (5, 5), "batch": 1, "channels": 1},
    {"size": (4, 7), "batch": 3, "channels": 1},
)


def settings_of(k, seed):
    """Case k of a series: numbers differ from case to case, and from the names of factors."""
    rng = np.random.default_rng(1000 * seed + k)
    numbers = {"tau": rng.uniform(0.05, 0.15), "lam": rng.uniform(1.2, 1.8)}
    numbers |= {"gamma": rng.uniform(0.3, 0.7)}
    return SHAPES[k] | {name: float(x) for name, x in numbers.items()} | {"seed": 17 * seed + k}
