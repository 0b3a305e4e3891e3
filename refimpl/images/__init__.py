"""Images: where they come from, the noise put on them, and how their quality is measured.

Images are float64 arrays u of shape (N, C, H, W) with values in [0, 1] (`UNIT_RANGE`) or, as in
the paper, in [-1, 1] (`PAPER_RANGE`). An `ImageSet` states which; `ImageSet.rescaled` changes it.

    faces, photograph_crops     shipped with scikit-image, no download
    mnist, folder, photographs  read from files
    read_image, write_image     one photograph from a file and back, in the depth it came in
    add_noise                   y = K u† + ε n                                               E1
    estimate_noise              ε from an image alone
    psnr, ssim                  quality of each image against the truth

scikit-image, Pillow and tifffile are imported inside functions, because importing them takes longer
than the rest of this package together.

Not here: forward operators (`refimpl.paper.operators`); plots (`figures/`).
"""

from refimpl.images.files import FileImage, file_format, read_image, write_image
from refimpl.images.folders import folder, mnist, photographs
from refimpl.images.quality import add_noise, estimate_noise, psnr, ssim
from refimpl.images.sets import PAPER_RANGE, UNIT_RANGE, ImageSet, rescale
from refimpl.images.shipped import faces, photograph_crops
from refimpl.images.survey import describe

__all__ = [
    "FileImage",
    "PAPER_RANGE",
    "UNIT_RANGE",
    "ImageSet",
    "add_noise",
    "describe",
    "estimate_noise",
    "faces",
    "file_format",
    "folder",
    "mnist",
    "photograph_crops",
    "photographs",
    "psnr",
    "read_image",
    "rescale",
    "ssim",
    "write_image",
]
