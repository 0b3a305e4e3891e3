"""Verification: whoever computes these things, refimpl included, is held against them here.

    check         an object of one's own against its own claims    `refimpl.verification.check`
    crosscheck    a backend against the reference, on drawn cases `refimpl.verification.crosscheck`
    compare       outputs in a file against the reference         `refimpl.verification.crosscheck`

The names are those of rooms below, so that they are functions only where `refimpl` hands them on.
"""

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    """A module of this room, imported when it is first used."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
