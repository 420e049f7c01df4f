"""The cells that a claim of a paper rests on: as the paper prints them, and as tables measure them.

A reference names the paper's place. In a measured table a cell of another scale stands for it, as
its published_ columns say.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError, PlanError, nearest
from distillery.plan.axes import GridPlace, grid
from distillery.plan.table_cells import PUBLISHED, printed_at
from distillery.plan.table_files import read_paper, read_table, table_file
from distillery.plan.table_models import Row, Table
from distillery.table.expression import ACCURACY, ALL, Number, Place, Reference, Value
from distillery.table.published import PrintedNumber, PublishedNumbers

RESULTS = "results"
MeasuredRow = Mapping[str, str]  # a line of a tidy table, by column

# By axis: the column of the paper's words that has its names.
_WORDS = {"dataset": "dataset", "student": "eval_arch"}
# By quantity: the column of a tidy table, and that of its spread.
_COLUMNS = {ACCURACY: ("measured", "std"), "compression_ratio": ("cr_paper", None)}
_NEEDED = (
    *("paper", "row", "scale", "dataset", "ipc", "measured", "std", "draws", "students"),
    *("published_dataset", "published_ipc", "comparable", "cr_paper"),
)


@dataclass(frozen=True)
class CellOfClaim:
    """One cell that a reference means.

    Attributes:
        reference: that means it.
        place: its values on all axes of the table, as text.
        open: those of them that the reference leaves open.
        printed: the paper's number.
    """

    reference: Reference
    place: Place
    open: Place
    printed: PrintedNumber


class PrintedCells:
    """The printed cells of references."""

    def __init__(self, root: Path) -> None:
        """Read nothing yet; `root`: the project's folder."""
        self.root = root
        self.table = cache(self._table)
        self.numbers = cache(self._numbers)
        self.cells = cache(self._cells)

    def _table(self, name: str) -> Table:
        return read_table(self.root, name)

    def _numbers(self, paper: str) -> PublishedNumbers:
        words = read_paper(self.root, paper).words.names()
        return PublishedNumbers(self.root / PUBLISHED, paper, words)

    def axes(self, name: str) -> list[str]:
        """The axes of a table, in the order in which a reference has their values."""
        table = self.table(name)
        return [table.panel, *table.columns]

    def _cells(self, reference: Reference) -> list[CellOfClaim]:
        """The cells that a reference means, in the table's order.

        Raises:
            PlanError: the table, the row, or a value of an axis does not exist, or the paper
                prints no such cell.
        """
        name = reference.table
        table, axes = self.table(name), self.axes(name)
        rows = {row.row: row for row in table.rows}
        where = f"{name}[{'; '.join((reference.row, *reference.place))}]"
        if reference.row not in rows:
            raise PlanError(f"{where}: {table_file(name)} has no row {nearest_of(reference, rows)}")
        if len(reference.place) > len(axes):
            raise PlanError(f"{where}: has more values than the axes {', '.join(axes)}")
        asked = [*reference.place, *[ALL] * (len(axes) - len(reference.place))]
        places = grid(table.paper, axes, f"{table_file(name)}.paper")
        for number, axis in enumerate(axes):
            known = {_text(place[axis]) for place in places}
            if asked[number] not in {ALL, *known}:
                raise PlanError(
                    f"{where}: no {axis} '{asked[number]}': {nearest(asked[number], known)}"
                )
        found = list(self._at(reference, rows[reference.row], asked, places))
        if not found:
            raise PlanError(f"{where}: the paper prints no such cell")
        return found

    def _at(
        self, reference: Reference, row: Row, asked: list[str], places: list[GridPlace]
    ) -> Iterator[CellOfClaim]:
        name = reference.table
        table, numbers = self.table(name), self.numbers(name.partition("/")[0])
        for place in places:
            values = tuple(_text(place[axis]) for axis in self.axes(name))
            fits = all(one in (ALL, value) for one, value in zip(asked, values, strict=True))
            if not fits or not row.stands_at(place):
                continue
            number = printed_at(name, table, row, place, numbers)
            if number and _printed_value(number, reference.quantity) is not None:
                left = (v for one, v in zip(asked, values, strict=True) if one == ALL)
                yield CellOfClaim(reference, values, tuple(left), number)

    def lookup(self, reference: Reference) -> Value:
        """What the paper prints for a reference: a number, or a series."""
        return gather(reference, {cell: self._number(cell) for cell in self.cells(reference)})

    def _number(self, cell: CellOfClaim) -> Number:
        value = _printed_value(cell.printed, cell.reference.quantity)
        assert value is not None  # `_at` leaves out the others
        if cell.reference.quantity != ACCURACY:
            return Number(value)
        std = cell.printed.std
        return Number(value, None if std is None else std**2)


def nearest_of(reference: Reference, rows: Mapping[str, Row]) -> str:
    """The row that a reference names, with a hint for the right one."""
    return f"'{reference.row}': {nearest(reference.row, rows)}"


def _printed_value(number: PrintedNumber, quantity: str) -> float | None:
    return number.mean if quantity == ACCURACY else number.compression_ratio


def gather(reference: Reference, numbers: Mapping[CellOfClaim, Number]) -> Value:
    """The number of the one cell that a reference means, or the series of its cells."""
    if any(cell.open for cell in numbers):
        return {cell.open: number for cell, number in numbers.items()}
    return next(iter(numbers.values()), None)


class MeasuredCells:
    """The cells of references in the tables that exist."""

    def __init__(self, printed: PrintedCells) -> None:
        """Read nothing yet; `printed` knows which cells there are."""
        self._printed = printed
        self.rows = cache(self._rows)
        self._by_place = cache(self._places)
        self._names = cache(self._all_names)

    def row(self, cell: CellOfClaim) -> MeasuredRow | None:
        """The line that measures a cell; None where none does."""
        line = self._by_place(cell.reference.table).get((cell.reference.row, cell.place))
        return line if line and line[_COLUMNS[cell.reference.quantity][0]] else None

    def lookup(self, reference: Reference) -> Value:
        """What was measured for a reference: a number, a series, or None."""
        column, spread = _COLUMNS[reference.quantity]
        numbers = {}
        for cell in self._printed.cells(reference):
            line = self.row(cell)
            if line is not None:
                variance = 0.0 if spread is None else _squared(line[spread])
                numbers[cell] = Number(float(line[column]), variance)
        return gather(reference, numbers) if numbers else None

    def _rows(self, table: str) -> list[MeasuredRow]:
        """The measured lines of a table; none where it does not exist.

        Raises:
            ArtefactError: it cannot be read, or lacks a column.
        """
        paper, _, short = table.partition("/")
        for file in (f"{RESULTS}/{table}.csv", f"{RESULTS}/{short}.csv"):
            path = self._printed.root / file
            if not path.is_file():
                continue
            lines = _read(path, file, self._needed(table))
            if all(line["paper"] == paper for line in lines):
                return [line for line in lines if line["measured"]]
        return []

    def _needed(self, table: str) -> list[str]:
        student = ["student", "published_student"]
        axes = self._printed.axes(table)
        return [*_NEEDED, *axes, *(student if "student" in axes else [])]

    def _places(self, table: str) -> dict[tuple[str, Place], MeasuredRow]:
        """The measured lines by row and by the paper's place that they stand for.

        Of two that stand for one place, the one that has more of its values itself.
        """
        found: dict[tuple[str, Place], MeasuredRow] = {}
        for line in self.rows(table):
            paper = self._paper_place(table, line)
            key = (line["row"], paper)
            own = self._own(table, line, paper)
            if key not in found or own > self._own(table, found[key], paper):
                found[key] = line
        return found

    def _own(self, table: str, line: MeasuredRow, paper: Place) -> int:
        axes = self._printed.axes(table)
        return sum(line[axis] == value for axis, value in zip(axes, paper, strict=True))

    def _paper_place(self, table: str, line: MeasuredRow) -> Place:
        """The values in the words of the table file; a network or data set may have several."""
        return tuple(
            self._names(table, axis).get(value, value)
            for axis in self._printed.axes(table)
            for value in [line.get(f"published_{axis}", line[axis])]
        )

    def _all_names(self, table: str, axis: str) -> dict[str, str]:
        """The table file's name of a value, by each name that means the same."""
        paper = read_paper(self._printed.root, table.partition("/")[0])
        words = paper.words.same.get(_WORDS.get(axis, ""), {})
        same = {name: word for name, word in words.items() if isinstance(word, str)}
        axes, of_paper = self._printed.axes(table), self._printed.table(table).paper
        ours = {_text(place[axis]) for place in grid(of_paper, axes, f"{table_file(table)}.paper")}
        common = {same.get(name, name): name for name in ours}
        others = {name: common[word] for name, word in same.items() if word in common}
        return {**common, **others, **{name: name for name in ours}}


def _read(path: Path, file: str, needed: list[str]) -> list[MeasuredRow]:
    try:
        with path.open(newline="", encoding="utf-8") as text:
            reader = csv.DictReader(text, strict=True)
            lines: list[MeasuredRow] = list(reader)
            columns = reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise ArtefactError(f"{file}: unreadable ({error}); make the table again") from None
    for column in needed:
        if column not in columns:
            raise ArtefactError(f"{file}: has no column '{column}'; make the table again")
    for number, line in enumerate(lines, 2):
        for column in ("measured", "std", "cr_paper"):
            _checked(line[column], f"{file} line {number}: {column}")
    return lines


def _checked(text: str | None, where: str) -> None:
    try:
        float(text or 0)
    except ValueError:
        raise ArtefactError(f"{where} = '{text}': is no number; make the table again") from None


def _squared(text: str) -> float | None:
    return float(text) ** 2 if text else None


def _text(value: Any) -> str:
    """A value of an axis as tables write it."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)
