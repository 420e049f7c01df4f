"""Find a printed number: the cell of a paper's tables that has exactly the asked setting.

The files of workflow/published keep the papers' own words. `PaperNames` says which of them mean the
same, so that a setting is found whichever table printed it. Standard library alone: the planner
asks thousands of times.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillery.errors import PlanError

PrintedCell = Mapping[str, str]  # a row of a file of workflow/published, by column

# Columns in which a blank cell means that the paper does not say.
_OPEN_COLUMNS = ("ipc", "eval_arch", "labels")
_NUMBERS = ("mean", "std", "compression_ratio")
_OF_PLACE = ("paper", "table", "dataset", "ipc", "eval_arch", "metric", "note")
_GAIN = "gain"  # some files have it: over the first row of its kind, as printed
LINE = "line"  # of a printed cell: its file and line
_NAMED = ("table", "dataset", "method", "variant", *_OPEN_COLUMNS)


@dataclass(frozen=True)
class PrintedNumber:
    """What a paper prints for a setting.

    Attributes:
        mean: percent.
        std: percent; None where none is printed.
        compression_ratio: percent; None where none is printed.
        table: the table that prints it, "2" or "figure6".
        network_stated: whether the paper names the network that was trained; otherwise no
            difference from a measured number may be drawn.
        gain: points that the paper prints beside it as the gain over another row, as they are
            printed; None where none is.
        line: file and line that hold it, "gift_table1.csv:12"; "" where it is of no file.
    """

    mean: float
    std: float | None
    compression_ratio: float | None
    table: str
    network_stated: bool
    gain: float | None = None
    line: str = ""


@dataclass(frozen=True)
class PaperNames:
    """What the words in a paper's tables mean.

    Attributes:
        same: by column and name, the columns that say the same in the common words. It holds for
            printed cells and for what is asked.
        hard_labels_where_blank: methods whose labels are hard where the paper does not say.
        variants_of_one_table: beginnings of variants that mean something in their own table only.
    """

    same: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    hard_labels_where_blank: Sequence[str] = ()
    variants_of_one_table: Sequence[str] = ()


class PublishedNumbers:
    """The printed accuracies of one paper."""

    def __init__(self, folder: Path, paper: str, names: PaperNames | None = None):
        """Read the files `<paper>_*.csv` of `folder`; `names`: what their words mean.

        Raises:
            PlanError: one cannot be read, is empty or not UTF-8, or lacks a column or a number.
        """
        self._paper = paper
        self._names = names or PaperNames()
        # by dataset, method and variant, then by table in the paper's order
        self._cells: dict[tuple[str, ...], dict[str, list[PrintedCell]]] = {}
        self._printed: dict[str, set[str]] = {}
        for file in sorted(folder.glob(f"{paper}_*.csv"), key=lambda f: (len(f.stem), f.stem)):
            for cell in self._accuracies(file):
                self._cells.setdefault(_key(cell), {}).setdefault(cell["table"], []).append(cell)

    @property
    def columns(self) -> list[str]:
        """The columns of the paper's printed numbers."""
        return sorted(self._printed)

    @property
    def told_apart(self) -> list[str]:
        """The columns by which `find` may be asked beside a cell's place."""
        return sorted(self._printed.keys() - {*_OF_PLACE, *_NUMBERS, _GAIN})

    def names(self, column: str) -> set[str]:
        """All names in a column, as printed and in the common words."""
        return self._printed.get(column, set())

    def lines(self) -> dict[str, PrintedCell]:
        """Every printed cell by its file and line."""
        tables = (cells for by_table in self._cells.values() for cells in by_table.values())
        return {cell[LINE]: cell for cells in tables for cell in cells}

    def find(
        self,
        *,
        dataset: str,
        ipc: float | None,
        method: str,
        student: str | None = None,
        labels: str | None = None,
        variant: str | None = None,
        prefer_table: str | None = None,
        **columns: str,
    ) -> PrintedNumber | None:
        """The printed number of a setting, or None when no table of the paper has it.

        Args:
            dataset: name of the data set.
            ipc: images per class; None leaves it open.
            method: name of the method.
            student: the network that is trained, `eval_arch` of the files; None leaves it open.
            labels: kind of the labels; None or "" leaves it open.
            variant: "" or None is the plain method.
            prefer_table: "table2" or "figure6", asked before the paper's other tables, which
                follow in their order.
            **columns: further columns (loss, optimizer, distill_arch).

        A blank cell of the paper is open too: it contradicts nothing.

        Raises:
            PlanError: the preferred table prints several different numbers for the setting;
                another table that does is passed over.
        """
        asked = {
            "dataset": dataset,
            "ipc": _number(ipc),
            "method": method,
            "eval_arch": student or "",
            "labels": labels or "",
            "variant": variant or "",
            **columns,
        }
        preferred = _table_name(prefer_table)
        asked = self._bound_to(preferred, self._in_common_words(asked))
        tables = self._cells.get(_key(asked), {})
        for table in sorted(tables, key=lambda name: name != preferred):
            best = _best(tables[table], asked, (*_OPEN_COLUMNS, *columns))
            if len({(cell["mean"], cell["std"]) for cell in best}) == 1:
                return _printed_number(best[0])
            if best and table == preferred:
                raise _ambiguous(self._paper, best)
        return None

    def _accuracies(self, file: Path) -> list[PrintedCell]:
        numbered = enumerate(_rows(file), 2)
        rows = [row | {LINE: f"{file.name}:{n}"} for n, row in numbered if "mean" in row]
        cells = [self._in_common_words(row | {"ipc": _number(row["ipc"])}) for row in rows]
        for row, cell in zip(rows, cells, strict=True):
            for column in row.keys() - {LINE}:
                name = row[column]
                self._printed.setdefault(column, set()).update({name, cell[column]} - {""})
        return [self._bound_to(cell["table"], self._hard_where_blank(cell)) for cell in cells]

    def _in_common_words(self, cell: dict[str, str]) -> dict[str, str]:
        for column, same in self._names.same.items():
            cell = cell | dict(same.get(cell.get(column, ""), {}))
        return cell

    def _hard_where_blank(self, cell: dict[str, str]) -> dict[str, str]:
        hard = cell["method"] in self._names.hard_labels_where_blank and not cell["labels"]
        return cell | {"labels": "hard"} if hard else cell

    def _bound_to(self, table: str, cell: dict[str, str]) -> dict[str, str]:
        bound = cell["variant"].startswith(tuple(self._names.variants_of_one_table))
        return cell | {"variant": f"{cell['variant']} of {table}"} if bound else cell


def _rows(file: Path) -> list[dict[str, str]]:
    """The rows of a file, each with a text for every column; those with means are checked."""
    try:
        if not file.is_file():  # a named pipe would be waited for
            raise ValueError("no file")
        with file.open(newline="", encoding="utf-8") as lines:
            table = csv.DictReader(lines, strict=True)
            columns, rows = table.fieldnames or [], list(table)
    except UnicodeDecodeError as error:
        raise PlanError(f"{file}: is not UTF-8 ({error}); store it again as UTF-8") from None
    except (OSError, ValueError, csv.Error) as error:
        raise PlanError(f"{file}: unreadable ({error}); restore or remove it") from None
    if not rows:
        raise PlanError(f"{file}: holds no rows; fill in the printed numbers, or remove it")
    if len(set(columns)) < len(columns) or "table" not in columns:
        raise PlanError(
            f"{file}: columns {', '.join(columns)}: expected different names, `table` among them"
        )
    for number, row in enumerate(rows, 2):
        _check_row(row, columns, f"{file} line {number}")
    return rows


def _check_row(row: Mapping[str | None, Any], columns: Sequence[str], where: str) -> None:
    if None in row or None in row.values():
        raise PlanError(f"{where}: has not {len(columns)} values, one for each column; correct it")
    if "mean" not in row:
        return
    for column in (*_NAMED, *_NUMBERS):
        if column not in row:
            raise PlanError(
                f"{where}: has no column '{column}'; add it, empty where nothing is said"
            )
    for column in ("ipc", *_NUMBERS, *[name for name in [_GAIN] if name in row]):
        text = row[column]
        if (text or column == "mean") and not _is_number(text):
            raise PlanError(
                f"{where}: {column} = '{text}': expected a number, with a decimal point"
            )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _best(
    cells: list[PrintedCell], asked: PrintedCell, columns: tuple[str, ...]
) -> list[PrintedCell]:
    """The cells that contradict no asked value, and of those the ones that confirm most."""
    fitting = [
        c for c in cells if all(not asked[a] or not c[a] or asked[a] == c[a] for a in columns)
    ]
    confirmed = [sum(bool(c[a]) and asked[a] == c[a] for a in columns) for c in fitting]
    return [c for c, count in zip(fitting, confirmed, strict=True) if count == max(confirmed)]


def _printed_number(cell: PrintedCell) -> PrintedNumber:
    std, ratio, gain = (
        float(cell[name]) if cell.get(name) else None for name in (*_NUMBERS[1:], _GAIN)
    )
    stated = bool(cell["eval_arch"])
    mean = float(cell["mean"])
    return PrintedNumber(mean, std, ratio, cell["table"], stated, gain, cell[LINE])


def _ambiguous(paper: str, cells: list[PrintedCell]) -> PlanError:
    differ = {
        column: sorted({cell[column] for cell in cells})
        for column in cells[0]
        if column not in (*_NUMBERS, _GAIN, "note", LINE)
        and len({cell[column] for cell in cells}) > 1
    }
    choices = "; ".join(f"{column}: {', '.join(values)}" for column, values in differ.items())
    first = cells[0]
    setting = f"{first['method']}, {first['dataset']}, ipc {first['ipc']}"
    return PlanError(
        f"{paper} table {first['table']} prints {len(cells)} numbers for {setting}: "
        f"name one in the row's `published` ({choices})"
    )


def _key(cell: PrintedCell) -> tuple[str, ...]:
    return cell["dataset"], cell["method"], cell["variant"]


def _number(ipc: float | str | None) -> str:
    return "" if ipc in (None, "") else f"{float(ipc):g}"


def _table_name(name: str | None) -> str:
    return str(name or "").rpartition("/")[2].removeprefix("table")
