"""A table in the paper's own shape: per panel a grid of measured numbers, then of pairs.

Measured and printed numbers have columns of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from distillery.errors import PlanError
from distillery.table.assemble import AssembledCell, StoredSize
from distillery.table.derived import Averages, Drops, measured, printed
from distillery.table.document import AxisValue, Place, TableDocument
from distillery.table.findings import RISING
from distillery.table.scores import SCORES
from distillery.table.stats import Summary
from distillery.table.tidy import by_part
from distillery.table.verdict import OTHER, reasons, verdict

T = TypeVar("T")
Metrics = dict[str, dict[str, dict[str, float]]]

EMPTY = "–"
ROBUSTNESS = "Robustness (DD-Ranking's definitions, fractions; not comparable with its leaderboard)"


@dataclass(frozen=True)
class TextGrid:
    """One grid, as texts.

    Attributes:
        title: stands above it.
        columns: group and name of each column.
        rows: label and texts of each row.
    """

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class GridContent:
    """What a grid shows of a cell.

    Attributes:
        place: where the cell stands.
        ratio: the compression ratio beside it, percent; None: nothing.
        text: its number with so many decimals.
    """

    place: Callable[[AssembledCell], Place]
    ratio: Callable[[AssembledCell], float | None]
    text: Callable[[AssembledCell, int], str]


def layout(document: TableDocument, cells: Sequence[AssembledCell]) -> dict[str, list[TextGrid]]:
    """The grids of each panel.

    They are: measured; measured beside printed, with difference and verdict; gain, where a row is
    compared with another; printed gains; relative drops and averages, where the table has them; the
    scores of a table that has them; what is stored.

    Raises:
        PlanError: two cells fall into one place of a grid, or a cell lacks an axis.
    """
    _check_places(document)
    panel = document.shape.panel
    names, numbered = _unique(cell.place.at(panel) for cell in document.cells), reasons(cells)
    averages = Averages.of(document, cells)

    def grids(name: AxisValue) -> list[TextGrid]:
        own = [cell for cell in cells if cell.planned.place.at(panel) == name]
        added = _averages(document, cells, averages, name) if name in document.averages else []
        return _grids(document, own, numbered) + added

    return {str(name): grids(name) for name in names}


def _averages(
    document: TableDocument, cells: Sequence[AssembledCell], averages: Averages, name: AxisValue
) -> list[TextGrid]:
    """The averages of the measured cells, in a panel whose printed numbers are averages."""
    panel = document.shape.panel
    mine = [cell for cell in cells if cell.planned.place.at(panel) == name]
    content = _content(averages.at, _own_place)
    if not any(averages.at(cell) is not None for cell in mine):
        return []
    return [_grid(f"Measured, mean of {', '.join(averages.panels)}", document, mine, content)]


def _content(
    value: Callable[[AssembledCell], float | None], place: Callable[[AssembledCell], Place]
) -> GridContent:
    """What a grid of derived numbers shows, with so many decimals as the table has."""

    def text(cell: AssembledCell, digits: int) -> str:
        number = value(cell)
        return EMPTY if number is None else f"{number:.{digits}f}"

    return GridContent(place, _no_ratio, text)


def _drops(document: TableDocument, cells: list[AssembledCell]) -> list[TextGrid]:
    """By how many percent each row is below itself at `drop_from`: as measured, as printed."""
    if not document.drop_from:
        return []
    at = ", ".join(f"{axis} {_plain(value)}" for axis, value in document.drop_from.items())
    grids = []
    kinds = (("measured", measured, _own_place), ("published", printed, _published_place))
    for kind, value, place in kinds:
        drops = Drops.of(document, cells, value)
        shown = [cell for cell in cells if drops.at(cell) is not None]
        if shown:
            title = f"Drop from {at}, percent of the row's own number there ({kind})"
            grids.append(_grid(title, document, shown, _content(drops.at, place)))
    return grids


def _grids(
    document: TableDocument, cells: list[AssembledCell], numbered: Mapping[str, str]
) -> list[TextGrid]:
    printed = [cell for cell in cells if cell.planned.published]
    gained = [cell for cell in cells if cell.gain]
    claimed = [cell for cell in printed if _printed_gain(cell) is not None]
    shown = [
        (_measured_title(document, cells), cells, MEASURED),
        ("Gain (row − the row it is compared with; * q < 0.05)", gained, GAIN),
        (f"Published gain ({document.paper_name}, as printed)", claimed, PUBLISHED_GAIN),
    ]
    grids = [_grid(title, document, some, what) for title, some, what in shown if some]
    if printed:
        grids.insert(1, _beside_printed(document, printed, numbered))
    grids += _drops(document, cells)
    scores, stored = _robustness(document, cells), _stored(document, cells)
    return grids + [grid for grid in (scores, stored) if grid]


def _measured_title(document: TableDocument, cells: list[AssembledCell]) -> str:
    datasets = _joined(cell.planned.place.dataset for cell in cells)
    counts = "/".join(_unique(_counted(cell.measured) for cell in cells if cell.measured))
    last = "" if document.analysis else ", last epoch"
    return f"Measured (scale {document.scale}, dataset {datasets}, {counts or 'nothing'}{last})"


def _counted(measured: Summary) -> str:
    """Draws and students as text: "3 draws of 2 students", "5 students of one set"."""
    students = f"{measured.students} student{'s' if measured.students > 1 else ''}"
    return (
        f"{students} of one set" if measured.draws == 1 else f"{measured.draws} draws of {students}"
    )


def _beside_printed(
    document: TableDocument, cells: list[AssembledCell], numbered: Mapping[str, str]
) -> TextGrid:
    """Each cell that has a printed number: place, measured, printed, difference and verdict."""
    ratios = any(_published_ratio(cell) is not None for cell in cells)
    rows = []
    for cell in cells:
        place, digits = cell.planned.place, document.digits
        texts = [_plain(place.at(axis)) for axis in document.shape.columns]
        texts += [_measured_text(cell, digits), _published_text(cell)]
        texts += [_difference_text(cell, digits), _verdict_text(verdict(cell), numbered)]
        texts += [_percent(_published_ratio(cell))] if ratios else []
        rows.append((cell.planned.row, texts))
    names = [*document.shape.columns, "measured", "printed", "difference", "verdict"]
    names += ["CR printed (%)"] if ratios else []
    return TextGrid(_published_title(document, cells), [("", name) for name in names], rows)


def _verdict_text(found: str | None, numbered: Mapping[str, str]) -> str:
    """The verdict; a reason by its number, since it would be wider than a page."""
    if found is None:
        return "not measured"
    return f"{OTHER} ({numbered[found]})" if found in numbered else found


def _published_title(document: TableDocument, cells: list[AssembledCell]) -> str:
    tables = _joined(_table_title(c.planned.published.table) for c in cells if c.planned.published)
    datasets = _joined(str(_published_place(cell).dataset) for cell in cells)
    return f"Measured beside printed ({document.paper_name} {tables}, {datasets})"


def _table_title(table: str) -> str:
    number = table.removeprefix("figure")
    return f"Figure {number}" if table.startswith("figure") else f"Table {table}"


def _grid(
    title: str, document: TableDocument, cells: list[AssembledCell], content: GridContent
) -> TextGrid:
    axes = document.shape.columns
    placed = [(cell, content.place(cell)) for cell in cells]
    keyed = [(cell, tuple(place.at(axis) for axis in axes)) for cell, place in placed]
    keys = _in_axis_order([key for _, key in keyed])
    ratios = [
        (cell.planned.row, place.ipc, f"{ratio:.2f}")
        for cell, place in placed
        if (ratio := content.ratio(cell)) is not None
    ]
    ipcs = _unique(ipc for _, ipc, _ in ratios)
    rows = []
    for label in document.shape.rows:
        beside = [
            _joined(text for row, at, text in ratios if (row, at) == (label, i)) for i in ipcs
        ]
        texts = {
            key: content.text(cell, document.digits)
            for cell, key in keyed
            if cell.planned.row == label
        }
        rows.append((label, beside + [texts.get(key, EMPTY) for key in keys]))
    headings = [("CR (%)", f"ipc {ipc:g}") for ipc in ipcs] + [_heading(axes, key) for key in keys]
    return TextGrid(title, headings, rows)


def _check_places(document: TableDocument) -> None:
    axes = document.shape.columns
    places = Counter(
        (cell.place.at(document.shape.panel), cell.row, *(cell.place.at(axis) for axis in axes))
        for cell in document.cells
    )
    twice = next((place for place, count in places.items() if count > 1), None)
    if twice:
        raise PlanError(
            f"{document.table}: two cells at {' / '.join(map(str, twice))}; "
            "give them rows or columns of their own"
        )


def _robustness(document: TableDocument, cells: list[AssembledCell]) -> TextGrid | None:
    axes = document.shape.columns
    rows = [
        (
            cell.planned.row,
            [
                *(_plain(cell.planned.place.at(axis)) for axis in axes),
                *(f"{cell.scores[score]:.3f}" for score in SCORES),
            ],
        )
        for cell in cells
        if cell.scores
    ]
    columns = [("", name) for name in (*axes, *map(str.upper, SCORES))]
    return TextGrid(ROBUSTNESS, columns, rows) if rows else None


def _stored(document: TableDocument, cells: list[AssembledCell]) -> TextGrid | None:
    """What is stored, each different line of a row once."""
    sizes = [(cell, cell.stored) for cell in cells if cell.stored]
    counted = any(size.pixels is not None for _, size in sizes)
    ratio = document.compression_ratio
    lines = _unique((cell.planned.row, *_sizes(cell, size, ratio, counted)) for cell, size in sizes)
    numbers = [("numbers", "of images"), ("numbers", "of labels")] if counted else []
    ratios = [("CR (%)", "paper"), ("CR (%)", "stored")] if ratio else []
    columns = [("", "ipc"), *ratios, ("", "bytes"), *numbers, ("", "by part")]
    return TextGrid("Stored", columns, [(row, texts) for row, *texts in lines]) if lines else None


def _sizes(cell: AssembledCell, size: StoredSize, ratio: bool, counted: bool) -> tuple[str, ...]:
    numbers = (size.pixels, size.label_floats) if counted else ()
    return (
        _plain(cell.planned.place.ipc),
        *((_percent(size.cr_paper), _percent(size.cr_stored)) if ratio else ()),
        *(EMPTY if number is None else str(number) for number in (size.bytes, *numbers)),
        by_part(size.bytes_by_part),
    )


def metrics(document: TableDocument, cells: Sequence[AssembledCell]) -> Metrics:
    """Measured means, numbers only: {row: {panel: {"student/ipc": percent}}}.

    The inner key is made of the table's columns.
    """
    shape = document.shape
    means: Metrics = {}
    for assembled in cells:
        cell, measured = assembled.planned, assembled.measured
        if measured is not None:
            panels = means.setdefault(cell.row, {})
            panel = panels.setdefault(str(cell.place.at(shape.panel)), {})
            key = "/".join(_plain(cell.place.at(axis)) for axis in shape.columns)
            panel[key] = round(measured.mean, document.digits + 1)
    return means


def _measured_text(cell: AssembledCell, digits: int) -> str:
    measured = cell.measured
    if measured is None:
        return EMPTY
    spread = "" if measured.std is None else f" ± {measured.std:.{digits}f}"
    return f"{measured.mean:.{digits}f}{spread}{RISING if cell.levelled_off is False else ''}"


def _published_text(cell: AssembledCell) -> str:
    """The printed digits, however many decimals the table has."""
    published = cell.planned.published
    if published is None:
        return EMPTY
    return f"{published.mean!r}" + ("" if published.std is None else f" ± {published.std!r}")


def _difference_text(cell: AssembledCell, digits: int) -> str:
    return EMPTY if cell.difference is None else f"{cell.difference:+.{digits}f}"


def _gain_text(cell: AssembledCell, digits: int) -> str:
    gain = cell.gain
    if gain is None:
        return EMPTY
    return f"{gain.difference:+.{digits}f}{'*' if gain.starred else ''}"


def _printed_gain(cell: AssembledCell) -> float | None:
    return cell.planned.published.gain if cell.planned.published else None


def _printed_gain_text(cell: AssembledCell, digits: int) -> str:
    gain = _printed_gain(cell)
    return EMPTY if gain is None else f"{gain:+}"


def _own_place(cell: AssembledCell) -> Place:
    return cell.planned.place


def _published_place(cell: AssembledCell) -> Place:
    return cell.planned.printed_place or cell.planned.place


def _measured_ratio(cell: AssembledCell) -> float | None:
    return cell.stored.cr_paper if cell.stored else None


def _published_ratio(cell: AssembledCell) -> float | None:
    return cell.planned.published.compression_ratio if cell.planned.published else None


def _no_ratio(cell: AssembledCell) -> None:
    return None


MEASURED = GridContent(_own_place, _measured_ratio, _measured_text)
GAIN = GridContent(_own_place, _no_ratio, _gain_text)
PUBLISHED_GAIN = GridContent(_published_place, _no_ratio, _printed_gain_text)


def _percent(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.2f}"


def _plain(value: AxisValue) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _heading(axes: Sequence[str], key: tuple[AxisValue, ...]) -> tuple[str, str]:
    names = [
        f"{axis} {_plain(value)}" if isinstance(value, int | float) else _plain(value)
        for axis, value in zip(axes, key, strict=True)
    ]
    return " ".join(names[:-1]), names[-1]


def _in_axis_order(keys: list[tuple[AxisValue, ...]]) -> list[tuple[AxisValue, ...]]:
    """The distinct keys, sorted along each axis by first appearance.

    A row that lacks a column does not reorder the columns.
    """
    ranks = [
        {value: i for i, value in enumerate(_unique(axis))} for axis in zip(*keys, strict=True)
    ]
    return sorted(
        set(keys), key=lambda key: [rank[value] for rank, value in zip(ranks, key, strict=True)]
    )


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(_unique(texts)) or EMPTY


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
