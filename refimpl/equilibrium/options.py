"""Settings of a method, checked where they enter against the signature of its function.

A table of methods maps names to functions whose keyword-only parameters are what the method takes.
The public functions have arguments for `tol`, `max_iterations` and the like; what only some methods
take travels in the mapping `options`.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import signature
from typing import Any

from refimpl.arrays import shown

Methods = Mapping[str, Callable]

# Never options.
NAMED = ("tol", "residual_tol", "error_tol", "max_iterations", "preconditioner")


def settings(options: Mapping[str, Any] | None, **named: Any) -> dict[str, Any]:
    """`options` and those of `named` that are given, as one dict.

    Raises
    ------
    TypeError
        If `options` is no mapping, or holds what has an argument of its own.
    """
    if not isinstance(options, Mapping | None):
        raise TypeError(
            f"options: given a {type(options).__name__}, expected a mapping from names to values, "
            'for example {"memory": 10}'
        )
    given = {name: value for name, value in named.items() if value is not None}
    if not isinstance(given.get("preconditioner", ""), str):
        name = shown(given["preconditioner"])
        raise TypeError(f"preconditioner: given {name}, expected a name or None")
    for name in options or {}:
        if name in (*NAMED, *named):
            raise TypeError(f"options: {name} is an argument of its own; pass {name}=... beside it")
    return given | dict(options or {})


def check_known(method: str, methods: Methods) -> None:
    """Raise ValueError unless there is a method of this name."""
    if not isinstance(method, str) or method not in methods:
        known = ", ".join(("auto", *methods))
        raise ValueError(f"method {shown(method)} is unknown; choose one of {known}")


def check_settings(method: str, given: Mapping[str, Any], methods: Methods) -> None:
    """Raise unless the function of `method` takes all that is given.

    Raises
    ------
    ValueError
        For an argument, such as `preconditioner`, that the method has no use for.
    TypeError
        For an option that it does not have: the error names the methods that have it, or the most
        similar name.
    """
    own = _parameters(methods[method])
    for name in given:
        if name in own:
            continue
        takers = _takers(name, methods)
        if name in NAMED:
            raise ValueError(f"method {method!r} takes no {name}; {takers} do")
        unknown = f"is unknown{_nearest(name, own, methods)}"
        wrong = f"is an option of {takers}" if takers else unknown
        has = ", ".join(p for p in own if p not in NAMED) or "no options"
        raise TypeError(f"{method}: option {name!r} {wrong}; {method} takes {has}")


def _parameters(function: Callable) -> list[str]:
    """The keyword-only parameters."""
    found = signature(function).parameters.values()
    return [p.name for p in found if p.kind is p.KEYWORD_ONLY]


def _takers(name: str, methods: Methods) -> str:
    return ", ".join(method for method in methods if name in _parameters(methods[method]))


def _nearest(name: str, own: list[str], methods: Methods) -> str:
    """The most similar parameter of the method, or else of any."""
    if near := get_close_matches(str(name), own, n=1):
        return f"; did you mean {near[0]!r}?"
    every = [p for function in methods.values() for p in _parameters(function)]
    if near := get_close_matches(str(name), every, n=1):
        return f"; did you mean {near[0]!r} of {_takers(near[0], methods)}?"
    return ""
