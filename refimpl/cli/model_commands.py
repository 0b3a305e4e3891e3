"""The commands `models`, `show` and `evaluate`: which models there are, and what they are worth."""

import argparse
import json
import sys
from pathlib import Path

from refimpl.cli.common import FAILED, OK, add_command, input_errors, log_shown, seed_number
from refimpl.cli.pictures import add_model, add_noise_level, read_psf


def add_model_commands(commands) -> None:
    """Add the parsers of the three commands."""
    add_command(commands, "models", run_models, "list the trained models that ship")
    show = add_command(
        commands, "show", run_show, "draw a model: filters, training curve, before and after"
    )
    show.add_argument("model", metavar="MODEL", help="a name that `models` lists, or a file")
    show.add_argument(
        "-o", "--out", type=Path, metavar="PNG", help="default: the model's name with .png"
    )
    evaluate = add_command(
        commands, "evaluate", run_evaluate,
        "measure a model on the photographs of a folder, beside total variation",
    )  # fmt: skip
    evaluate.add_argument("folder", type=Path, metavar="DIR", help="png, jpg and tif files")
    add_model(evaluate, "default: tied")
    add_noise_level(evaluate, "default: that of the model")
    evaluate.add_argument(
        "--missing", type=float, metavar="PART", help="of the pixels, at random: inpainting"
    )
    evaluate.add_argument("--psf", type=Path, metavar="FILE", help="deconvolution, with this blur")
    evaluate.add_argument("--seed", type=seed_number, default=0, help="of the noise (default: 0)")


def run_models(options: argparse.Namespace) -> int:
    """One line for each model that ships."""
    from refimpl.training import load_model, shipped

    with input_errors():
        for name in shipped():
            print(f"{name:<16} {load_model(name)!r}")
    print(f"{'tv':<16} total variation, with a weight that follows from the noise")
    return OK


def run_show(options: argparse.Namespace) -> int:
    """Draw a model into a file, and print where it comes from."""
    from refimpl.training import load_model

    with input_errors():
        model = load_model(options.model)
        out = options.out or Path(Path(options.model).stem).with_suffix(".png")
        model.plot().savefig(out)
    print(repr(model))
    for name, value in model.provenance.items():
        print(f"{name}: {value if isinstance(value, str) else json_line(value)}")
    print(f"drawn in {out}")
    return OK


def json_line(value) -> str:
    """A value on one line, cut off where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:199]}…"


def run_evaluate(options: argparse.Namespace) -> int:
    """Means and standard errors of PSNR and SSIM: data, total variation, the model."""
    from refimpl.images import photographs
    from refimpl.restoration import evaluate
    from refimpl.results import BreakdownError, NotConvergedError

    try:
        with input_errors(), log_shown():
            colour = is_of_colour(options.model)
            images = list(photographs(options.folder, colour=colour).values())
            scores = evaluate(
                images, options.model, options.noise_level, options.seed,
                missing=options.missing, psf=options.psf and read_psf(options.psf),
            )  # fmt: skip
    except (NotConvergedError, BreakdownError) as error:
        print(f"{options.folder}: {error}", file=sys.stderr)
        return FAILED
    for line in scores.lines():
        print(line)
    return OK


def is_of_colour(model: str | None) -> bool:
    """Whether a model by its own name or file is for images in colour; those by family are not."""
    from refimpl.training import families, load_model

    if model in (None, "tv", *families()):
        return False
    return load_model(model).channels == 3
