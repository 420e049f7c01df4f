"""The gain of a row over another one of its table, place by place, with the test of the difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distillery.table.stats import welch

COLUMNS = ("against", "gain", "gain_p")

Position = Mapping[str, Any]


def gains(
    plan: Mapping[str, Any], values: Callable[[Position], Sequence[float]]
) -> list[dict[str, Any]]:
    """For each position of a plan: the row it is compared with, the difference of the means, and Welch's two-sided p.

    values: the repeats of a position, empty where nothing was measured. Nothing for rows without `against` and where either
    side was not measured; no p where a side has one repeat or neither varies.
    """
    axes = [plan["shape"]["panel"], *plan["shape"]["columns"]]
    measured = {(p["row"], *(p[axis] for axis in axes)): values(p) for p in plan["positions"]}
    return [
        _gain(
            p,
            [
                measured[(row, *(p[axis] for axis in axes))]
                for row in (p["row"], p["against"] or p["row"])
            ],
        )
        for p in plan["positions"]
    ]


def _gain(position: Position, sides: list[Sequence[float]]) -> dict[str, Any]:
    if not position["against"] or not all(sides):
        return {}
    means = [sum(side) / len(side) for side in sides]
    testable = min(map(len, sides)) > 1 and any(len(set(side)) > 1 for side in sides)
    p = welch(*sides).p if testable else None
    return {"against": position["against"], "gain": means[0] - means[1], "gain_p": p}
