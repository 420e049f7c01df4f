"""What a paper derives from the numbers of its table: drops along an axis, averages of panels."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from distillery.table.assemble import AssembledCell
from distillery.table.document import TableDocument

Value = Callable[[AssembledCell], float | None]  # measured or printed, never both
Key = tuple[Hashable, ...]


def measured(cell: AssembledCell) -> float | None:
    """The measured mean."""
    return cell.measured.mean if cell.measured else None


def printed(cell: AssembledCell) -> float | None:
    """The published mean."""
    return cell.planned.published.mean if cell.planned.published else None


def _key(document: TableDocument, cell: AssembledCell, moved: Mapping[str, Hashable]) -> Key:
    """Row and place of a cell, with other values of some axes."""
    axes = (document.shape.panel, *document.shape.columns)
    place = (moved.get(axis, cell.planned.place.at(axis)) for axis in axes)
    return cell.planned.row, *place


@dataclass(frozen=True)
class Drops:
    """How much less a row has than itself at another place.

    Attributes:
        document: its `drop_from` says at which.
        value: measured or printed.
        base: the row's value at that place, by `_key`.
    """

    document: TableDocument
    value: Value
    base: Mapping[Key, float | None]

    @classmethod
    def of(cls, document: TableDocument, cells: Sequence[AssembledCell], value: Value) -> Drops:
        """Those of all cells of a table."""
        return cls(document, value, {_key(document, cell, {}): value(cell) for cell in cells})

    def at(self, cell: AssembledCell) -> float | None:
        """100 (1 - value / value there), percent; None where either is missing."""
        base = self.base.get(_key(self.document, cell, self.document.drop_from))
        value = self.value(cell)
        return 100 * (1 - value / base) if base and value is not None else None


@dataclass(frozen=True)
class Averages:
    """A row's mean over the panels in which anything was measured, average panels left out.

    Attributes:
        document: the plan of a table.
        panels: their names.
        values: measured means by `_key`.
    """

    document: TableDocument
    panels: tuple[str, ...]
    values: Mapping[Key, float]

    @classmethod
    def of(cls, document: TableDocument, cells: Sequence[AssembledCell]) -> Averages:
        """Those of a table."""
        panel = document.shape.panel
        found = {
            _key(document, cell, {}): value
            for cell in cells
            if (value := measured(cell)) is not None
        }
        names = dict.fromkeys(
            str(cell.planned.place.at(panel)) for cell in cells if measured(cell) is not None
        )
        return cls(document, tuple(names), found)

    def at(self, cell: AssembledCell) -> float | None:
        """The mean of the cell's row and column; None where it lacks one of the panels."""
        panel = self.document.shape.panel
        values = [self.values.get(_key(self.document, cell, {panel: name})) for name in self.panels]
        known = [value for value in values if value is not None]
        return fmean(known) if known and len(known) == len(values) else None
