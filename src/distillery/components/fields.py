"""What recipe types are made of: plain frozen dataclasses whose fields say what they may hold.

Standard library alone, since jobs run where only torch and its data libraries are installed. The
planner reads the same types and lets pydantic check values against them; `Range` speaks pydantic's
own protocol for that.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

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


MOST = 10**9  # of anything: more can only be a mistake
Count = Annotated[int, Range(ge=1, le=MOST)]
Natural = Annotated[int, Range(ge=0, le=MOST)]
Positive = Annotated[float, Range(gt=0, le=MOST)]
NonNegative = Annotated[float, Range(ge=0, le=MOST)]
Fraction = Annotated[float, Range(ge=0, le=1)]
Decay = Annotated[float, Range(ge=0, lt=1)]  # of a running mean: at 1 it would stay 0
Quality = Annotated[int, Range(ge=1, le=100)]  # of a JPEG file
Precision = Literal["fp32", "bf16"]  # what networks compute in


@dataclass(frozen=True)
class Named:
    """Marks a text, or a tuple of texts, as names of components: `Annotated[str, Named("loss")]`.

    The planner checks the names, and an artefact's code holds the modules behind them.

    Attributes:
        kind: one of `registry.KINDS`.
        any_order: of augmentations: the images are normalised before the first of them, so that
            those that work on pixels need not precede those that work on normalised images.
    """

    kind: str
    any_order: bool = False


@dataclass(frozen=True)
class InLibrary:
    """Marks a text as a name that a library gives: `Annotated[str, InLibrary("open_clip models")]`.

    The planner looks it up where the library is installed.

    Attributes:
        catalogue: which names, one of `plan.library_names`.
        unless: a field that, where it is set, makes this one unused.
    """

    catalogue: str
    unless: str | None = None


class NamedField(NamedTuple):
    """A field that names components.

    Attributes:
        path: field names from the outer recipe inwards, with dots.
        mark: what the type says of the field.
        names: the names that stand in it.
    """

    path: str
    mark: Named
    names: tuple[str, ...]


def named_fields(recipe: type, values: Mapping[str, Any]) -> Iterator[NamedField]:
    """The fields of a recipe, nested recipes included, that name components.

    Args:
        recipe: the type; its fields of type `Annotated[..., Named(kind)]` are meant.
        values: a JSON mapping of that type. What is absent or None names nothing.
    """
    for field, hint in typing.get_type_hints(recipe, include_extras=True).items():
        value = values.get(field)
        if value is None:
            continue
        for option in _options(hint):
            for mark in getattr(option, "__metadata__", ()):
                if isinstance(mark, Named):
                    names = (value,) if isinstance(value, str) else tuple(value)
                    yield NamedField(field, mark, names)
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                for inner in named_fields(option, value) if isinstance(value, Mapping) else ():
                    yield inner._replace(path=f"{field}.{inner.path}")


def read(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build the recipe `kind` from a JSON mapping that the planner has validated.

    Nested recipes are built from nested mappings, and lists become tuples.

    Args:
        kind: a frozen dataclass.
        values: its fields; those left out have their defaults.

    Raises:
        TypeError: a field is unknown or missing.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints.get(name), value) for name, value in values.items()})


def _value(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_value(None, v) for v in value)
    for option in _options(hint) if isinstance(value, Mapping) else ():
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return read(option, value)
    return value


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type that `hint` is."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if union else (hint,)
