"""Functions of one number, given from outside, as compiled functions of arrays."""

from functools import cache

from numba import vectorize


class Elementwise:
    """A potential by its three scalar functions φ, σ, σ′, each compiled for arrays.

    Parameters
    ----------
    value, derivative, second_derivative : functions of one number
        Numba's, or plain ones that Numba compiles.
    """

    def __init__(self, value, derivative, second_derivative):
        self.value, self.derivative = over_arrays(value), over_arrays(derivative)
        self.second_derivative = over_arrays(second_derivative)


@cache
def over_arrays(function):
    """A function of one number as one of arrays, which keep their precision."""
    each = vectorize(nopython=True)(getattr(function, "py_func", function))
    return lambda z: each(z).astype(z.dtype, copy=False)
