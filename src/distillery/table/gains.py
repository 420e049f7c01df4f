"""The gain of a row over another one of its table, place by place, with Welch's test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distillery.table.document import DocumentCell, TableDocument
from distillery.table.stats import welch


@dataclass(frozen=True)
class Gain:
    """A difference of means at one place.

    Attributes:
        against: the row that is compared with.
        difference: mean of the row - mean of the other one.
        p: two-sided, of Welch's test; None where a side has one repeat or neither side varies.
    """

    against: str
    difference: float
    p: float | None


def gains(
    document: TableDocument, values: Callable[[DocumentCell], Sequence[float]]
) -> list[Gain | None]:
    """The gain of each cell, in the order of the document.

    Args:
        document: the plan of a table.
        values: the repeats of a cell; none where nothing was measured.

    Returns:
        None for a cell without `against`, and where either side was not measured.

    Raises:
        PlanError: a cell lacks an axis of the table.
    """
    axes = [document.shape.panel, *document.shape.columns]
    keyed = [(tuple(cell.place.at(axis) for axis in axes), cell) for cell in document.cells]
    measured = {(cell.row, *place): values(cell) for place, cell in keyed}
    return [
        _gain(cell.against, measured[cell.row, *place], measured.get((cell.against, *place), ()))
        if cell.against
        else None
        for place, cell in keyed
    ]


def _gain(against: str, ours: Sequence[float], theirs: Sequence[float]) -> Gain | None:
    if not ours or not theirs:
        return None
    repeated = min(len(ours), len(theirs)) > 1
    varies = len(set(ours)) > 1 or len(set(theirs)) > 1
    p = welch(ours, theirs).p if repeated and varies else None
    return Gain(against, sum(ours) / len(ours) - sum(theirs) / len(theirs), p)
