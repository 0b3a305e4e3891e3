"""The command `train`: a folder of photographs in, a model out.

While it trains, `M.npz.checkpoint` beside the model holds the last evaluation, for `--resume`; it
is removed when training has ended by itself.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from refimpl.cli.common import FAILED, INTERRUPTED, OK, add_command, input_errors, seed_number
from refimpl.cli.pictures import noise_level, read_psf

# What training takes from the command line as it is, with the type and a word of help.
NUMBERS = {
    "crop": (int, "side of the crops (default: 64, or what fits)"),
    "batch-size": (int, "crops of a step (default: 8)"),
    "learning-rate": (float, "of Adam (default: 0.02)"),
    "warm-up": (int, "steps over which the learning rate rises (default: 20)"),
    "evaluate-every": (int, "steps between evaluations of held-out crops (default: 25)"),
    "window": (int, "evaluations without improvement that count (default: 6)"),
    "drops": (int, "times that the learning rate is then lowered before the end (default: 2)"),
    "tol": (float, "part of the loss that is an improvement (default: 0.001)"),
}
GIVEN = ("start", "schedule", "seed", *(name.replace("-", "_") for name in NUMBERS))


def add_train(commands) -> None:
    """Add the parser of `train`."""
    parser = add_command(commands, "train", run_train, "train a regulariser on photographs")
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="PNG, JPEG or TIFF files; one is enough")
    add("--problem", choices=("denoise", "inpaint", "deconvolve"), default="denoise")
    add("--noise-level", type=noise_level, required=True, metavar="S",
        help="standard deviation where white is 1, such as 0.1 or 25/255")  # fmt: skip
    add("--missing", type=float, default=0.3, metavar="PART",
        help="of the pixels, for inpaint (default: 0.3)")  # fmt: skip
    add("--psf", type=Path, metavar="FILE", help="for deconvolve: a grey picture, odd sides")
    add("--colour", action="store_true", help="a model of three channels, else of luminance")
    add("--untied", action="store_true", help="a deep equilibrium model, else an energy")
    add("--filters", type=int, nargs=3, metavar=("F", "H", "W"), help="default: 8 of 3 × 3")
    add("--potential", metavar="NAME", help="such as lorentzian, or log_cosh:300 (the default)")
    add("--start", metavar="START",
        help="cosine (default), total_variation, random, or a file of a model")  # fmt: skip
    add("--trained", type=names, metavar="A,B", help="of A, C, b, weights, gamma")
    add("--rates", type=factors, metavar="A=X,…", help="factors of the learning rate by parameter")
    add("--schedule", choices=("constant", "cosine", "linear"))
    add("--steps", type=int, default=2000, metavar="N", help="at most (default: 2000)")
    add("--test", type=int, metavar="N",
        help="the last by name are only looked at (default: a fifth, at most 8)")  # fmt: skip
    for name, (kind, help) in NUMBERS.items():
        add(f"--{name}", type=kind, metavar="X", help=help)
    add("--seed", type=seed_number, help="of crops, noise and random filters (default: 0)")
    add("--resume", action="store_true", help="go on where the same training stopped")
    add("-o", "--out", type=Path, required=True, metavar="M.npz", help="the model")


def names(text: str) -> tuple[str, ...]:
    """("A", "gamma") from "A,gamma"."""
    return tuple(name.strip() for name in text.split(","))


def factors(text: str) -> dict[str, float]:
    """{"weights": 2.0} from "weights=2"."""
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"given {text!r}, expected such as weights=2") from error


def run_train(options: argparse.Namespace) -> int:
    """Train, keep checkpoints, write the model."""
    from refimpl.results import BreakdownError, NotConvergedError
    from refimpl.storage import locked, remove_parts

    checkpoint = options.out.with_name(options.out.name + ".checkpoint")
    try:
        with input_errors(), locked(options.out):
            remove_parts(options.out.parent)
            resume = _resumed(checkpoint, options.resume)
            with _display(str(options.out)) as (watch, told):
                model = _model(options, resume, checkpoint, watch, told)
            command = shlex.join(["refimpl", *options.arguments])
            model = replace(model, provenance={"command": command, **model.provenance})
            model.save(options.out)
            interrupted = model.ended.startswith("interrupted")
            if not interrupted:
                checkpoint.unlink(missing_ok=True)
    except (NotConvergedError, BreakdownError) as error:
        print(f"{options.out}: {error}", file=sys.stderr)
        return FAILED
    print(f"{options.out}: {model.ended}")
    if interrupted:
        print(f"{options.out}: holds the best so far; the same with --resume goes on")
    return INTERRUPTED if interrupted else OK


def _resumed(checkpoint: Path, resume: bool):
    """Where a training stopped, or None.

    Raises
    ------
    ValueError
        If one stopped and is not to be resumed, or the checkpoint is damaged.
    """
    from refimpl.training import load_checkpoint

    if not checkpoint.exists():
        return None
    if not resume:
        raise ValueError(
            f"{checkpoint}: a training stopped here; add --resume to go on, remove the file, or "
            "choose another -o"
        )
    return load_checkpoint(checkpoint)


def _model(options: argparse.Namespace, resume, checkpoint: Path, watch, told):
    """The trained model."""
    from refimpl.training import save_checkpoint, train

    images = _images(options.folder, options.colour)
    few = min(len(images) // 5, 8) if options.test is None else options.test
    if not 0 <= few < len(images):
        raise ValueError(f"--test: given {few}, expected less than the {len(images)} images")

    def evaluated(state) -> None:
        save_checkpoint(checkpoint, state)
        told(state.records[-1])

    given = {name: getattr(options, name) for name in (*GIVEN, "trained", "rates")}
    given |= {"filters": options.filters and tuple(options.filters)}
    given |= {"test": images[-few:] if few else None}
    given |= {"start": _start(options.start), "potential": _potential(options.potential)}
    return train(
        images[: len(images) - few], options.noise_level,
        operator=_operator(options), tied=not options.untied, max_steps=options.steps,
        channel_axis=0 if options.colour else None, resume=resume, callback=evaluated,
        watch=watch, **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip


def _images(folder: Path, colour: bool) -> list:
    """The photographs of a folder, grey (H, W) or (3, H, W)."""
    from refimpl.images.folders import photographs

    found = photographs(folder, colour=colour).values()
    return list(found) if colour else [u[0] for u in found]


def _start(name: str | None):
    """A start by name, or the model in a file."""
    from refimpl.training import load_model

    return load_model(name) if name is not None and name.endswith(".npz") else name


def _potential(text: str | None):
    """A potential from its name, with its parameter after a colon."""
    from dataclasses import fields

    from refimpl.paper.potentials import POTENTIALS, make_potential

    if text is None:
        return None
    name, colon, value = text.partition(":")
    own = [field.name for field in fields(POTENTIALS[name])] if name in POTENTIALS else []
    return make_potential(name, **({own[0]: float(value)} if colon and own else {}))


def _operator(options: argparse.Namespace):
    """K of the problem, for images of any size."""
    if options.problem == "denoise":
        return None
    if options.problem == "inpaint":
        return options.missing
    if options.psf is None:
        raise ValueError("--problem deconvolve: needs --psf FILE, a grey picture of the blur")
    from refimpl.paper.operators import Convolution
    from refimpl.training.crops import OfAnySize

    return OfAnySize(partial(Convolution, read_psf(options.psf)))


@contextmanager
def _display(title: str) -> Iterator[tuple[Callable[[dict], None], Callable[[dict], None]]]:
    """What shows a step, and what shows an evaluation: one line that changes on a terminal."""
    begin, terminal, last = time.monotonic(), sys.stderr.isatty(), {"held out": ""}

    def step(entry: dict) -> None:
        first = last.setdefault("first", entry["step"])
        each = (time.monotonic() - begin) / (entry["step"] - first + 1)
        left = each * (entry["of"] - entry["step"])
        line = f"{title}: step {entry['step']}/{entry['of']}, {_quality(entry)}{last['held out']}"
        if terminal:
            print(f"\r{line}, at most {_minutes(left)} left ", end="", file=sys.stderr, flush=True)

    def evaluation(record: dict) -> None:
        ours, tv = record["psnr_held_out"], record["psnr_held_out_total_variation"]
        last["held out"] = f"; held out {ours:.2f} dB (total variation {tv:.2f})"
        if not terminal:
            line = f"{title}: step {record['step']}, {_trained(record)}{last['held out']}"
            print(line, flush=True)

    yield step, evaluation
    if terminal:
        print(file=sys.stderr)


def _quality(entry: dict) -> str:
    if entry.get("loss") is None:
        return "taken back"
    return f"loss {entry['loss']:.3e}, {entry['psnr']:.2f} dB"


def _trained(record: dict) -> str:
    return _quality({"loss": record.get("loss_train"), "psnr": record.get("psnr_train")})


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
