"""The commands `denoise`, `inpaint` and `deconvolve`: a photograph in, another one out."""

import argparse
import sys
import time
from pathlib import Path

from refimpl.cli.common import FAILED, OK, add_command, input_errors, log_shown


def add_pictures(commands) -> None:
    """Add the parsers of the three commands."""
    _add(commands, "denoise", "remove the noise of a photograph")
    inpaint = _add(commands, "inpaint", "fill in what is missing in a photograph")
    inpaint.add_argument(
        "--mask", type=Path, required=True, metavar="FILE",
        help="a picture of the same size, white where pixels are missing, else black",
    )  # fmt: skip
    deconvolve = _add(commands, "deconvolve", "remove a known blur from a photograph")
    deconvolve.add_argument(
        "--psf", type=Path, required=True, metavar="FILE",
        help="a grey picture of what a point becomes, with odd sides; divided by its sum",
    )  # fmt: skip


def _add(commands, name: str, help: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run_picture, help)
    parser.set_defaults(task=name)
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="PNG, JPEG or TIFF")
    add_model(parser, "default: tied, or tv where no models ship")
    add_noise_level(parser, "default: estimated")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT",
        help="written in the depth of PHOTO, with its opacity: .png, .tif, .jpg",
    )  # fmt: skip
    return parser


def add_model(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --model."""
    parser.add_argument(
        "--model", metavar="M",
        help=f"a name that `refimpl models` lists, a file of `refimpl train`, or tv; {default}",
    )  # fmt: skip


def add_noise_level(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --noise-level."""
    parser.add_argument(
        "--noise-level", type=noise_level, metavar="S",
        help="standard deviation of the noise where white is 1, such as 0.1, or of 8-bit pixels, "
        f"such as 25/255; {default}",
    )  # fmt: skip


def noise_level(text: str) -> float:
    """A noise level where white is 1, from 0.1 or 25/255.

    Raises
    ------
    argparse.ArgumentTypeError
        For what is no such number, or above 1.
    """
    number, slash, white = text.partition("/")
    try:
        level = float(number) / (float(white) if slash else 1)
    except (ValueError, ZeroDivisionError):
        level = float("nan")
    if not 0 <= level <= 1:
        raise argparse.ArgumentTypeError(
            f"given {text}, expected 0 to 1, where white is 1; for 8-bit pixels write it as 25/255"
        )
    return level


def run_picture(options: argparse.Namespace) -> int:
    """Read, restore, write, and say what was done."""
    from refimpl import restoration
    from refimpl.images import file_format, read_image, write_image
    from refimpl.results import BreakdownError, NotConvergedError

    begin, task = time.perf_counter(), getattr(restoration, options.task)
    axis = {2: None, 3: -1}
    try:
        with input_errors(), log_shown():
            file_format(options.out)
            photo = read_image(options.photo)
            pixels, more = as_floats(photo.pixels), _beside(options)
            result = task(
                pixels, *more, options.noise_level, model=options.model,
                channel_axis=axis[pixels.ndim],
            )  # fmt: skip
            write_image(options.out, result, like=photo)
    except (NotConvergedError, BreakdownError) as error:
        print(f"{options.photo}: {error}", file=sys.stderr)
        return FAILED
    print(f"{options.out}: written after {time.perf_counter() - begin:.1f} s")
    return OK


def as_floats(pixels):
    """Pixels with white at 1, in float32 unless they are float64."""
    import numpy as np

    if pixels.dtype.kind == "f":
        return pixels
    white = 1 if pixels.dtype == bool else np.iinfo(pixels.dtype).max
    return np.divide(pixels, white, dtype=np.float32)


def _beside(options: argparse.Namespace) -> tuple:
    """What the task takes beside the photograph: nothing, the mask, or the psf."""
    if options.task == "inpaint":
        return (read_mask(options.mask),)
    return (read_psf(options.psf),) if options.task == "deconvolve" else ()


def read_mask(path: Path):
    """True where a picture is white."""
    return _grey(path) > 0.5


def read_psf(path: Path):
    """The grey values of a picture over their sum."""
    values = _grey(path)
    if not values.any():
        raise ValueError(f"{path}: psf: all its values are 0, expected what a point becomes")
    return values / values.sum(dtype=float)


def _grey(path: Path):
    """The values (H, W) of a picture without colours."""
    from refimpl.images import read_image

    values = as_floats(read_image(path).pixels)
    if values.ndim == 3 and (values != values[..., :1]).any():
        raise ValueError(f"{path}: is in colour, expected grey values; save it as grey")
    return values[..., 0] if values.ndim == 3 else values
