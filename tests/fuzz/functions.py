"""Calls of public functions: arguments that fit, but for one, two or three."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

import refimpl as ri
from fuzz.values import LENGTHS, changed, choose, fitting, misfit, world

# How much more rarely than others, because a call takes long, or almost all are refused alike.
RARELY = {"train": 0.3, "check": 0.1, "crosscheck": 0.1, "compare": 0.3, "Parameters": 0.3}
CALLBACKS = ("callback", "watch", "on_verdict")
# Errors are raised, not called.
LEFT_OUT = ("NotConvergedError", "BreakdownError")


class Call(NamedTuple):
    """A function with its arguments by name, and how to say it."""

    name: str
    function: Callable
    arguments: dict[str, Any]

    def __call__(self) -> Any:
        by_position, keywords = [], dict(self.arguments)
        for parameter in parameters(self.function):
            if parameter.kind is parameter.VAR_KEYWORD:
                extra = keywords.pop(parameter.name, {})
                keywords |= extra if isinstance(extra, dict) else {}
            elif parameter.kind is not parameter.KEYWORD_ONLY and parameter.name in keywords:
                if len(by_position) < 1:
                    by_position.append(keywords.pop(parameter.name))
        return self.function(*by_position, **{str(k): x for k, x in keywords.items()})

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={brief(x)}' for k, x in self.arguments.items())})"


@cache
def public() -> dict[str, Callable]:
    """Every function and class of the face, and what a trained model does."""
    names = [name for name in dir(ri) if callable(getattr(ri, name)) and name not in LEFT_OUT]
    model = world().model
    methods = {f"model.{m}": getattr(model, m) for m in ("at", "reconstruct", "problem")}
    return {name: getattr(ri, name) for name in names} | methods


@cache
def weights() -> np.ndarray:
    """How often each is called."""
    found = np.array([RARELY.get(name, 1.0) for name in public()])
    return found / found.sum()


def draw(rng: np.random.Generator) -> Call:
    """A function, and arguments of which a few are no good."""
    name = list(public())[int(rng.choice(len(public()), p=weights()))]
    function, arguments = public()[name], {}
    known = parameters(function)
    optional = [p.name for p in known if p.default is not p.empty]
    spoilt = rng.choice([p.name for p in known], min(int(rng.integers(1, 4)), len(known)), False)
    always = LENGTHS if name in ("train", "crosscheck") else ()
    for parameter in (p.name for p in known):
        value = choose(fit(name, parameter), rng)
        if parameter in spoilt:
            arguments[parameter] = spoil(parameter, value, rng)
        elif parameter not in optional or parameter in always or rng.random() < 0.3:
            arguments[parameter] = value
    return Call(name, function, arguments)


def spoil(parameter: str, value: Any, rng: np.random.Generator) -> Any:
    """Another value; not one that asks for hours, nor a callback that fails by itself."""
    value = changed(value, rng) if rng.random() < 0.5 else misfit(rng)
    if parameter in CALLBACKS and callable(value):
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return min(value, 2) if parameter in LENGTHS and number else value


def parameters(function: Callable) -> list[inspect.Parameter]:
    """The parameters, as they are now."""
    return list(inspect.signature(function).parameters.values())


def fit(function: str, parameter: str) -> list:
    """Values that fit a parameter; KeyError for a new one, which `fitting` must learn."""
    table = fitting()
    return table.get(f"{function}.{parameter}") or table[parameter]


def brief(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, np.ndarray):
        return f"array{value.shape}{value.dtype.str}"
    try:
        text = f"[{', '.join(map(brief, value))}]" if isinstance(value, list) else repr(value)
    except (ValueError, TypeError):  # of an object with something wrong inside
        text = type(value).__name__
    return " ".join(text.split())[:80]
