"""refimpl: learned regularisers for imaging inverse problems, with hand-derived gradients.

An image u is recovered from data y = K u + noise as the fixed point of

    T(u) = u − τ ( λ Kᵀ(K u − y) + γ Cᵀ( w ⊙ σ(A u + b) ) )

with C = A (bilevel learning: u minimises an energy) or C free (deep equilibrium model).

    pictures      denoise, inpaint, deconvolve; add_noise, psnr, ssim
    problems      Identity, Mask, Downsample, Convolution, Matrix, FromScipy; FilterBank, DenseBank;
                  make_potential, Parameters, make_parameters, FieldOfExperts, total_variation;
                  Problem
    equations     energy, field, field_jvp, field_vjp, field_params_vjp, direction, step, step_jvp,
                  step_vjp, step_params_vjp, loss, loss_gradient: plain NumPy, as in the paper
    solutions     reconstruct, hypergradient, certify
    learning      train, load_model
    errors        NotConvergedError, BreakdownError
    verification  crosscheck, compare, check

Images are arrays (H, W), or with colour where `channel_axis` says, for the functions on pictures;
batches (N, C, H, W) for problems, equations and solutions. Names are imported when they are first
used; what is not listed here stands in the rooms, such as `refimpl.images`, and may move.

References
----------
Riccio, Ehrhardt and Benning, Regularization of Inverse Problems: Deep Equilibrium Models versus
Bilevel Learning, arXiv:2206.13193v2.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EQUATIONS = (
    "energy", "field", "field_jvp", "field_vjp", "field_params_vjp", "direction", "step",
    "step_jvp", "step_vjp", "step_params_vjp", "loss", "loss_gradient",
)  # fmt: skip
_HOMES = {
    "restoration": ("denoise", "inpaint", "deconvolve"),
    "images": ("add_noise", "psnr", "ssim"),
    "paper.operators": (
        "Identity", "Mask", "Downsample", "Convolution", "Matrix", "FromScipy", "FilterBank",
        "DenseBank",
    ),
    "paper.potentials": ("make_potential",),
    "paper.parameters": ("Parameters", "make_parameters"),
    "paper.problem": ("FieldOfExperts", "Problem"),
    "paper.filters": ("total_variation",),
    "paper.equations": _EQUATIONS,
    "training": ("train", "load_model"),
    "results": ("BreakdownError", "NotConvergedError"),
    "equilibrium": ("reconstruct", "hypergradient", "certify"),
    "verification.crosscheck": ("crosscheck", "compare"),
    "verification.check": ("check",),
}  # fmt: skip
_HOME = {name: room for room, names in _HOMES.items() for name in names}
_ROOMS = (
    "arrays", "results", "storage", "paper", "kernels", "solvers", "images", "engine",
    "equilibrium", "training", "restoration", "experiments", "verification", "cli",
)  # fmt: skip

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    """A name of the face, or a room, imported when it is first used."""
    if name in _HOME:
        return getattr(import_module(f"refimpl.{_HOME[name]}"), name)
    if name in _ROOMS:
        return import_module(f"refimpl.{name}")
    raise AttributeError(f"module 'refimpl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOME, *_ROOMS, "__version__"])
