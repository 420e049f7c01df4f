"""What recipe types are made of: numbers within bounds, nested recipes, lists as tuples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from distillery.components.fields import (
    MOST,
    Count,
    Decay,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Quality,
    read,
)
from distillery.errors import PlanError
from distillery.plan.types import validated


@dataclass(frozen=True)
class Numbers:
    count: Count = 1
    natural: Natural = 0
    positive: Positive = 1.0
    non_negative: NonNegative = 0.0
    fraction: Fraction = 0.5
    decay: Decay = 0.5
    quality: Quality = 90
    maybe: Positive | None = None
    many: tuple[Positive, ...] = ()


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("count", [1, MOST], [0, -1, MOST + 1, 1.5]),
        ("natural", [0, MOST], [-1, MOST + 1]),
        ("positive", [1e-300, MOST], [0, 0.0, -1e-300, MOST * 1.01]),
        ("non_negative", [0, MOST], [-1e-300, MOST * 1.01]),
        ("fraction", [0, 1], [-0.01, 1.01]),
        ("decay", [0, 0.999], [-0.01, 1, 1.01]),
        ("quality", [1, 100], [0, 101]),
        ("maybe", [0.1], [0]),
        ("many", [[0.1, 2]], [[0.1, 0]]),
    ],
)
def test_numbers_keep_within_their_bounds(name: str, inside: list[Any], outside: list[Any]) -> None:
    for value in inside:
        assert validated(Numbers, {name: value}, "here")[name] == value
    nan_and_yes = [float("nan"), float("inf"), True, False]
    for value in [*outside, *([[v] for v in nan_and_yes] if name == "many" else nan_and_yes)]:
        with pytest.raises(PlanError, match=f"here.{name}"):
            validated(Numbers, {name: value}, "here")


@dataclass(frozen=True)
class Inner:
    names: tuple[str, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    words: dict[str, str] = field(default_factory=dict)


def test_a_recipe_is_read_from_json() -> None:
    inner = {"names": ["a", "b"], "pairs": [[1, 2], [3, 4]]}
    expected = Inner(("a", "b"), ((1, 2), (3, 4)))
    values = {"inner": inner, "maybe": inner, "words": {"names": "a"}}
    assert read(Outer, values) == Outer(expected, expected, {"names": "a"})
    assert read(Outer, {"maybe": None}) == Outer()
    for wrong in ({"outer": 1}, {"inner": {"name": []}}):
        with pytest.raises(TypeError, match="unexpected keyword"):
            read(Outer, wrong)
