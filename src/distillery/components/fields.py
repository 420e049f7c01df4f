"""What recipe types are made of: plain frozen dataclasses whose fields say their range.

Standard library alone, since the jobs run where only torch and its data libraries are installed. The planner reads the same
types and lets pydantic check values against them; `Range` speaks pydantic's own protocol for that.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Bounds of a number; None leaves a side open."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        bounds = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        number = {"type": "no-info", "function": _number}
        return {
            "type": "function-before",
            "function": number,
            "schema": {**handler(source), **bounds},
        }


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is yes or no, expected a number")
    return value


Count = Annotated[int, Range(ge=1)]
Natural = Annotated[int, Range(ge=0)]
Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Fraction = Annotated[float, Range(ge=0, le=1)]
Quality = Annotated[int, Range(ge=1, le=100)]  # of a JPEG file


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build the recipe `kind` from the JSON mapping `values` (already validated by the planner).

    Nested recipes are built from nested mappings and lists become tuples. Raises TypeError on unknown or missing fields.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints.get(name), value) for name, value in values.items()})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_value(None, v) for v in value)
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    nested = [o for o in options if dataclasses.is_dataclass(o)]
    return read(nested[0], value) if nested and isinstance(value, Mapping) else value
