"""What all commands share: exit codes, errors that are the user's, JSON files."""

import argparse
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class BadInputError(Exception):
    """What the user gave cannot be used; the message says what and how to fix it."""


@contextmanager
def input_errors() -> Iterator[None]:
    """Errors raised inside are the user's: reading, looking up, writing where told to."""
    from refimpl.storage import said

    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise BadInputError(said(error)) from error


@contextmanager
def log_shown() -> Iterator[None]:
    """What the logger "refimpl" tells goes to standard error."""
    logger, handler = logging.getLogger("refimpl"), logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def add_command(
    commands, name: str, command: Callable[[argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    """The parser of one command."""
    parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.set_defaults(command=command)
    return parser


def seed_number(text: str) -> int:
    """A seed from the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"given {text!r}, expected an integer of at least 0")
    return int(text)


def write_json(path: Path, value) -> None:
    """Write JSON, whole or not at all, with null in place of NaN and infinity."""
    from refimpl.storage import write_file

    write_file(path, (json.dumps(_finite(value), indent=2, allow_nan=False) + "\n").encode())


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
