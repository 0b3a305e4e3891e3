"""Noise, gaps and blur removed from one image, as `skimage.restoration` takes it.

    denoise       K = I                inpaint       K = mask                deconvolve    K = blur

Each computes u* of λ/2 ‖K u − y‖² + R(u) (E2), or, untied, of the field in place of ∇R (E3). R is a
trained model, which is scaled to the noise, or total variation Σ φ(D u): D are the differences down
and across in each channel under symmetric boundary, φ(z) = log cosh(χz) / χ, which for steep χ is
|z|. An image is in [0, 1]; one of another scale must be divided by the value of its white first.

    tasks      the three functions
    degraded   what is known of an image, and its restoration
    priors     R by name, file or object, and what of it depends on the noise
    weights    λ of total variation
    accepted   noise levels and psfs
    mosaic     large images in tiles
    scores     how good a model is on photographs

Not here: data and models of one's own (`refimpl.equilibrium`), training (`refimpl.training`).

References
----------
L. Rudin, S. Osher and E. Fatemi, "Nonlinear total variation based noise removal algorithms",
Physica D 60:259-268, 1992.
"""

from refimpl.restoration.scores import Scores, evaluate
from refimpl.restoration.tasks import deconvolve, denoise, inpaint
from refimpl.restoration.weights import RULES

__all__ = ["RULES", "Scores", "deconvolve", "denoise", "evaluate", "inpaint"]
