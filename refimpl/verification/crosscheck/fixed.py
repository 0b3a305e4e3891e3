"""What `only` fixes of every drawn case, for code that is made for one kind of problem.

    operator, operator_boundary, analysis, boundary, potential       one of their values
    tied, normalized, kernel_symmetric                               true or false
    b, weights                                                       none or given
    images, channels, filters                                        how many
    filter_size, kernel_size                                         3, 3x5: odd
    size                                                             8, 8x9, 6..10, window
    lam, gamma, tau, slope, nu, delta, threshold                     a number > 0

Sizes are rows and columns. `6..10` draws both, `window` leaves out images that are smaller than a
filter or the kernel. A kernel is symmetric if turning it by 180° leaves it as it is.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from refimpl.arrays import positive, shown
from refimpl.paper.operators import BOUNDARIES
from refimpl.paper.potentials import POTENTIALS
from refimpl.verification.builders import OPERATORS
from refimpl.verification.cases import Case
from refimpl.verification.cases.case import all_parameters

Only = Mapping[str, Any]

YES_NO = (True, False)
CHOICES = {
    "operator": tuple(OPERATORS),
    "operator_boundary": tuple(BOUNDARIES),
    "analysis": ("convolution", "dense"),
    "boundary": tuple(BOUNDARIES),
    "potential": tuple(POTENTIALS),
    "tied": YES_NO,
    "normalized": YES_NO,
    "kernel_symmetric": YES_NO,
    "b": ("none", "given"),
    "weights": ("none", "given"),
    "images": (1, 2, 3),
    "channels": (1, 2, 3),
    "filters": tuple(range(1, 33)),
}
WINDOWS = ("filter_size", "kernel_size")
CONSTANTS = ("lam", "gamma", "tau")
PARAMETERS = tuple(f.name for potential in POTENTIALS.values() for f in fields(potential))
FIXABLE = (*CHOICES, *WINDOWS, "size", *CONSTANTS, *PARAMETERS)

# Cases are made well posed by dense linear algebra, so that images are small.
LARGEST_SIDE = 32


def as_only(only: Only | str | None) -> dict[str, Any]:
    """The settings that every case has, from a mapping or a text "name=value,name=value".

    Raises
    ------
    ValueError
        If a setting or its value is unknown, or no case can have all of them.
    """
    given = read(only) if isinstance(only, str) else dict(only or {})
    checked = {name: checked_value(name, value) for name, value in given.items()}
    for name, value in (("potential", "lorentzian"), ("normalized", True)):
        if checked.get("operator") == "mask" and checked.get(name) == value:
            raise ValueError(
                f"only: given operator mask and {name} {value}, which no well-posed cases have; "
                "leave one of them open"
            )
    return checked


def read(text: str) -> dict[str, str]:
    """The mapping of name=value,name=value."""
    found: dict[str, str] = {}
    for entry in filter(None, text.split(",")):
        name, equals, value = (part.strip() for part in entry.partition("="))
        if not equals:
            raise ValueError(
                f"only: {entry!r} has no =; expected for example operator=identity,tied=true"
            )
        if name in found:
            raise ValueError(f"only: {name} is given twice, expected once")
        found[name] = value
    return found


def written(only: Only) -> str:
    """The text that `as_only` reads."""

    def word(value: Any) -> str:
        if isinstance(value, tuple):
            return "x".join(map(str, value))
        if isinstance(value, range):
            return f"{min(value)}..{max(value)}"
        return f"{value:g}" if isinstance(value, float) else str(value).lower()

    return ",".join(f"{name}={word(value)}" for name, value in only.items())


def checked_value(name: str, value: Any) -> Any:
    """The value of a setting in the form that cases are drawn by."""
    if name not in FIXABLE:
        raise ValueError(f"only: given {name!r}, expected some of {', '.join(FIXABLE)}")
    try:
        if name == "size":
            return image_size(value)
        if name in WINDOWS:
            return window(value)
        if name in CHOICES:
            return choice(value, CHOICES[name])
        return positive(float(value), name)
    except (TypeError, ValueError) as error:
        known = {"size": "8, 8x9, 6..10 or window, of at most 32", **dict.fromkeys(WINDOWS, "3x5")}
        if name in CHOICES:
            known[name] = ", ".join(map(str, CHOICES[name]))
        raise ValueError(
            f"only: {name} is {shown(value)}, expected one of {known[name]}"
            if name in known
            else f"only: {name} is {shown(value)}, expected a number > 0"
        ) from error


def choice(value: Any, known: tuple) -> Any:
    """One of the known values, by itself or by its name in lower case."""
    for x in known:
        if (value == x and type(value) is type(x)) or value == str(x).lower():
            return x
    raise ValueError


def pair(value: Any) -> tuple[int, int]:
    """Rows and columns from 3, "3", "3x5" or (3, 5)."""
    if isinstance(value, (str, int)):
        value = str(value).split("x")
    rows, columns = value if len(value) == 2 else (*value, *value)
    if not all(isinstance(n, int) or str(n).isdecimal() for n in (rows, columns)):
        raise ValueError
    if min(int(rows), int(columns)) < 1 or max(int(rows), int(columns)) > LARGEST_SIDE:
        raise ValueError
    return int(rows), int(columns)


def window(value: Any) -> tuple[int, int]:
    """An odd number of rows and of columns."""
    rows, columns = pair(value)
    if rows % 2 == 0 or columns % 2 == 0:
        raise ValueError
    return rows, columns


def image_size(value: Any) -> tuple[int, int] | range | str:
    """A size, a range of both sides, or the word "window"."""
    if value == "window":
        return value
    if isinstance(value, str) and ".." in value:
        least, most = value.split("..")
        value = range(int(least), int(most) + 1)
    if isinstance(value, range):
        if not (value and 1 <= min(value) and max(value) <= LARGEST_SIDE):
            raise ValueError
        return value
    return pair(value)


def keeps(case: Case, only: Only) -> bool:
    """Whether a case has these settings; what a case has nothing of does not count."""
    has = settings_fixed(case)
    return all(
        fits_window(case) if value == "window" and name == "size"
        else all(n in value for n in has[name]) if isinstance(value, range)
        else has[name] in (value, None)
        for name, value in only.items()
    )  # fmt: skip


def settings_fixed(case: Case) -> dict[str, Any]:
    """All that `only` can fix, as this case has it; None where it has nothing of the kind."""
    arrays, kernel = case.arrays, case.arrays.get("kernel")
    images, channels, *size = arrays["u"].shape
    dense = case.analysis == "dense"
    own = {name: getattr(case, name) for name in ("operator", "operator_boundary", "analysis")}
    own |= {name: getattr(case, name) for name in ("boundary", "potential", "tied", *CONSTANTS)}
    own |= {name: "given" if name in arrays else "none" for name in ("b", "weights")}
    own |= dict.fromkeys(PARAMETERS) | all_parameters(case)
    return own | {
        "normalized": case.norm is not None,
        "images": images,
        "channels": channels,
        "filters": None if dense else len(arrays["A"]),
        "size": tuple(size),
        "filter_size": None if dense else arrays["A"].shape[2:],
        "kernel_size": None if kernel is None else kernel.shape,
        "kernel_symmetric": None if kernel is None else np.array_equal(kernel, kernel[::-1, ::-1]),
    }


def fits_window(case: Case) -> bool:
    """Whether no image is smaller than a filter or the kernel."""
    has = settings_fixed(case)
    windows = [has[name] or (1, 1) for name in WINDOWS]
    return all(n >= m for w in windows for n, m in zip(has["size"], w, strict=True))
