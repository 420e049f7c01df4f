"""Names with a parameter behind a colon, such as `crop:4`, read without importing anything."""

from __future__ import annotations

import functools
import math
import re
from typing import Any, NamedTuple

from distillery.components import registry
from distillery.errors import PlanError, nearest, shown


class Parameter(NamedTuple):
    """A kind of parameter.

    Attributes:
        number: int or float.
        least: the smallest value.
        most: the largest value; must be finite all the same.
        words: the same in words, for messages.
    """

    number: type[int] | type[float]
    least: float
    most: float
    words: str


# What the trait `parameter` may say, beside a tuple of words to choose from.
PARAMETERS = {
    "natural": Parameter(int, 0, math.inf, "a whole number from 0"),
    "count": Parameter(int, 1, math.inf, "a whole number from 1"),
    "fraction": Parameter(float, 0, 1, "a number from 0 to 1"),
    "non-negative": Parameter(float, 0, math.inf, "a number from 0"),
}


# How numbers are written behind a colon: one spelling, since the text is part of an identity.
_WRITTEN = {
    int: re.compile(r"[0-9]+"),
    float: re.compile(r"[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?"),
}


class Parsed(NamedTuple):
    """A name, its parameter (None when it takes none), and the literal traits of its file."""

    name: str
    parameter: Any
    traits: dict[str, Any]


@functools.cache
def component_name(kind: str, text: str) -> str:
    """The name in `text`: all of it where a component is called so, what precedes the colon else.

    Raises:
        PlanError: nothing has that name.
    """
    name = text.partition(":")[0]
    try:
        registry.module_name(kind, text)
    except PlanError:
        registry.module_name(kind, name)
        return name
    return text


@functools.cache
def parse(kind: str, text: str) -> Parsed:
    """The component and the parameter that `text` names, by the traits `parameter` and `default`.

    Args:
        kind: one of `registry.KINDS`.
        text: such as `crop:4`, `flip` or `dsa:idc`.

    Raises:
        PlanError: nothing has that name, or the parameter is missing, superfluous or wrong.
    """
    name = component_name(kind, text)
    file = registry.module_path(registry.module_name(kind, name))
    traits = registry.literal(file, "TRAITS") or {}
    accepted, value = traits.get("parameter"), text.removeprefix(name).removeprefix(":")
    if accepted is None:
        if text != name:
            raise PlanError(f"{kind} '{text}' takes no parameter: write '{name}'")
        return Parsed(name, None, traits)
    if text == name and traits.get("default") is not None:
        return Parsed(name, traits["default"], traits)
    if isinstance(accepted, tuple):
        if value not in accepted:
            raise PlanError(f"{kind} {shown(text)} does not exist: {nearest(value, accepted)}")
        return Parsed(name, value, traits)
    return Parsed(name, _number(PARAMETERS[accepted], kind, text, name, value), traits)


def _number(parameter: Parameter, kind: str, text: str, name: str, value: str) -> int | float:
    try:
        if not _WRITTEN[parameter.number].fullmatch(value):  # int() takes " 1", "1_0" and "٣" too
            raise ValueError
        number = parameter.number(value)
        if not (math.isfinite(number) and parameter.least <= number <= parameter.most):
            raise ValueError
    except (ValueError, OverflowError):
        raise PlanError(
            f"{kind} '{text}' cannot be read: write {parameter.words} behind it, as in '{name}:1'"
        ) from None
    return number
