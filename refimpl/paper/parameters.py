"""The parameters θ = (A, C, b, w, γ) of a field of experts, and the maps between their forms.

    tie (E7)         tie(A) = (A, A); its adjoint adds: g_A + g_C. Bilevel learning is the case
                     C = A of the deep equilibrium model, and its gradient is this sum.
    packing          θ ↔ one vector, for optimisers

A gradient with respect to θ has the same class and shapes as θ.

Not here: what the parameters do (`refimpl.paper.equations`), and what training moves in their
place (`refimpl.training.parametrisations`).
"""

from dataclasses import dataclass, replace

import numpy as np

from refimpl.arrays import Array, as_finite, positive, same_dtype

NAMES = ("A", "C", "b", "weights", "gamma")


@dataclass(frozen=True, eq=False)
class Parameters:
    """θ = (A, C, b, w, γ); tied (C = A) if and only if `C` is None.

    Attributes
    ----------
    A : array (F, C, h, w) or (F, C·H·W)
        Analysis operator.
    b : array (F,)
        Bias of each filter.
    weights : array (F,)
        Weight w of each filter.
    gamma : array ()
        Strength γ of the regulariser.
    C : array like A, or None
        Synthesis operator of the untied model.
    """

    A: Array
    b: Array
    weights: Array
    gamma: Array
    C: Array | None = None

    def __repr__(self) -> str:
        tie = "tied" if self.tied else "untied"
        return f"Parameters(A of shape {np.shape(self.A)}, {tie}, gamma {float(self.gamma):g})"

    @property
    def tied(self) -> bool:
        """Whether C = A, so that the field is the gradient of an energy."""
        return self.C is None

    @property
    def synthesis(self) -> Array:
        """C, which is A when tied."""
        return self.A if self.C is None else self.C

    def untie(self) -> "Parameters":
        """tie(A) = (A, A), E7: the same field with C as a parameter of its own."""
        return replace(self, C=self.synthesis.copy())

    def symmetrised(self) -> "Parameters":
        """The tied θ with (A + C)/2: Aᵀ D A of it is nearest to the symmetric part of Cᵀ D A."""
        return self if self.tied else replace(self, A=(self.A + self.C) / 2, C=None)

    def adjoint_tie(self) -> "Parameters":
        """Adjoint of `untie` on gradients, E7: (g_A, g_C) ↦ g_A + g_C."""
        return self if self.C is None else replace(self, A=self.A + self.C, C=None)

    def astype(self, dtype: np.dtype) -> "Parameters":
        """The same in another precision."""
        return replace(self, **{name: array.astype(dtype) for name, array in self.items()})

    def copy(self) -> "Parameters":
        """The same numbers in arrays of their own."""
        return replace(self, **{name: np.array(array) for name, array in self.items()})

    def items(self):
        """The pairs (name, array) of the parameters present, in the order of `NAMES`."""
        return [(name, getattr(self, name)) for name in NAMES if getattr(self, name) is not None]


def make_parameters(
    A: Array,
    C: Array | None = None,
    *,
    b: Array | None = None,
    weights: Array | None = None,
    gamma: float = 1.0,
) -> Parameters:
    """Parameters from arrays, checked.

    Parameters
    ----------
    A : array (F, C, h, w) or (F, C·H·W), float32 or float64
    C : array like A, optional
        Left out: tied, C = A.
    b, weights : arrays (F,), optional
        Left out: 0 and 1.
    gamma : float
        γ > 0.

    Raises
    ------
    TypeError
        If dtypes are mixed or not float32 or float64.
    ValueError
        If shapes disagree, values are not finite, or γ is not positive.
    """
    A = as_finite(A, "A")
    if A.ndim not in (2, 4) or 0 in A.shape:
        raise ValueError(
            f"A: shape is {A.shape}, expected filters (F, C, h, w) or dense rows (F, C·H·W)"
        )
    F = A.shape[0]
    b = np.zeros(F, A.dtype) if b is None else as_finite(b, "b")
    weights = np.ones(F, A.dtype) if weights is None else as_finite(weights, "weights")
    C = None if C is None else as_finite(C, "C")
    same_dtype(A=A, C=C, b=b, weights=weights)
    for name, array, shape in (("C", C, A.shape), ("b", b, (F,)), ("weights", weights, (F,))):
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{name}: shape is {array.shape}, expected {shape} beside A of shape {A.shape}"
            )
    return Parameters(A, b, weights, np.asarray(positive(gamma, "gamma"), A.dtype), C)


def pack(parameters: Parameters, names: tuple[str, ...] = NAMES) -> Array:
    """The chosen parameters one after the other, as one vector, in the order of `NAMES`.

    Names of parameters that are not present (C when tied) are passed over.

    Raises
    ------
    ValueError
        If a name is unknown, or no parameter is chosen.
    """
    return np.concatenate([array.ravel() for _, array in _chosen(parameters, names)])


def unpack(vector: Array, like: Parameters, names: tuple[str, ...] = NAMES) -> Parameters:
    """Inverse of `pack`: the chosen parameters from `vector`, the others from `like`.

    Raises
    ------
    ValueError
        If the length of the vector is not that of the chosen parameters, or as for `pack`.
    """
    chosen = _chosen(like, names)
    sizes = [array.size for _, array in chosen]
    if vector.shape != (sum(sizes),):
        raise ValueError(
            f"unpack: vector has shape {vector.shape}, parameters {names} need ({sum(sizes)},)"
        )
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return replace(
        like,
        **{
            name: part.reshape(array.shape)
            for (name, array), part in zip(chosen, parts, strict=True)
        },
    )


def _chosen(theta: Parameters, names: tuple[str, ...]) -> list[tuple[str, Array]]:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"parameters: given {unknown}, expected names among {', '.join(NAMES)}")
    chosen = [(name, array) for name, array in theta.items() if name in names]
    if not chosen:
        raise ValueError(f"parameters: none of {names} is present; choose A, b, weights or gamma")
    return chosen


def add(left: Parameters, right: Parameters) -> Parameters:
    """The sum of two gradients, both tied or both untied."""
    return replace(left, **{name: x + getattr(right, name) for name, x in left.items()})
