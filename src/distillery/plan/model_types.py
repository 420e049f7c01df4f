"""What the values of settings files are made of: texts, lists of names, shares, axes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from distillery.errors import shown

Block = dict[str, Any]
Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]  # of one line
Share = Annotated[float, Field(ge=0, le=1)]  # of pixels in [0, 1], not of 0 to 255
Side = Annotated[int, Field(gt=0, le=8192)]  # of an image in pixels
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Counted = Annotated[int, Field(ge=1, le=1000)]  # how often a number is measured


def _key(name: str) -> str:
    """Refuse what cannot be part of the name of a folder."""
    if not re.fullmatch(r"\w[\w.+-]{0,59}", name):
        raise ValueError("write up to 60 letters, digits, '.', '_', '+' and '-', no other signs")
    return name


Key = Annotated[str, AfterValidator(_key)]  # a name that becomes part of the names of folders


def _value(item: Any) -> Any:
    """Refuse what is no value of an axis; infinite numbers cannot stand in a plan."""
    if isinstance(item, Mapping | list) or (isinstance(item, float) and not math.isfinite(item)):
        raise ValueError(f"{shown(item)} is no value: write a name or a number")
    return item


Value = Annotated[Any, BeforeValidator(_value)]  # of an axis: a name or a number


def _axis(value: Any) -> Any:
    """Refuse what is no list of values, or no such list for each value of the panel."""
    by_panel = value if isinstance(value, Mapping) else {"": value}
    for panel, values in by_panel.items():
        place = f" for {panel!r}" if panel else ""
        if not isinstance(values, list):
            raise ValueError(f"expected a list of values{place}, not {shown(values)}")
        for item in values:
            _value(item)
    return value


def _each_once(values: list[Any]) -> list[Any]:
    """Refuse a list that says something twice, which counts or weighs twice what is meant once."""
    if len(set(values)) < len(values):
        raise ValueError(f"has {max(values, key=values.count)!r} twice; keep one of them")
    return values


Names = Annotated[list[Text], AfterValidator(_each_once)]

# The values of an axis, or its values on each panel; names or numbers.
Axis = Annotated[list[Any] | dict[str, list[Any]], BeforeValidator(_axis)]
