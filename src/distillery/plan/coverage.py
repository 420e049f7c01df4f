"""Every printed cell of the papers: measurable and comparable, measurable only, or printed only.

It is read off the plan of the scale `paper`, so it says what can be measured there, not what was.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from distillery.plan.cell import TableCell
from distillery.plan.comparison import PAPER
from distillery.plan.plan import Plan
from distillery.plan.table_cells import PUBLISHED
from distillery.plan.table_files import table_files
from distillery.table.published import PrintedCell, PublishedNumbers

COMPARABLE = "comparable and measurable"
MEASURABLE = "measurable, not comparable"
PRINTED = "printed only"
CLASSES = (COMPARABLE, MEASURABLE, PRINTED)


@dataclass(frozen=True)
class Covered:
    """A printed cell.

    Attributes:
        line: its file below workflow/published, and the line in it.
        table: the table of the project that measures or shows it, `paper/table`; "" for none.
        row: the row of that table; where there is none, the method as printed.
        place: data set, network and images per class, as printed.
        kind: one of `CLASSES`.
        reason: why it is not comparable, or not measured.
    """

    line: str
    table: str
    row: str
    place: str
    kind: str
    reason: str


def coverage(root: Path) -> list[Covered]:
    """All printed cells of workflow/published, in the order of its files.

    Args:
        root: the project's folder; its params.yaml counts for nothing.

    Raises:
        PlanError: a table of the scale `paper` cannot be planned.
    """
    plan = Plan(root, {"scale": PAPER, "tables": table_files(root)})
    best: dict[str, Covered] = {}
    for table in plan.settings.table_names():
        for cell in plan.cells(table):
            if cell.published:
                found = _covered(table, cell)
                old = best.get(found.line)
                if old is None or CLASSES.index(found.kind) < CLASSES.index(old.kind):
                    best[found.line] = found
    # Without the papers' words: a cell is told as it is printed.
    papers = sorted({file.name.partition("_")[0] for file in (root / PUBLISHED).glob("*_*.csv")})
    printed: dict[str, PrintedCell] = {}
    for paper in papers:
        printed |= PublishedNumbers(root / PUBLISHED, paper).lines()
    return [_placed(best.get(line), line, printed[line]) for line in sorted(printed, key=_order)]


def _order(line: str) -> tuple[str, int]:
    file, _, number = line.rpartition(":")
    return file, int(number)


def _covered(table: str, cell: TableCell) -> Covered:
    assert cell.published is not None
    if not cell.evaluations:
        kind = PRINTED
        measured = cell.row.measured
        reason = "the panel is no data set" if measured else f"{cell.row.method} is not measured"
    else:
        kind, reason = (COMPARABLE, "") if cell.comparable else (MEASURABLE, cell.reason)
    return Covered(cell.published.line, table, cell.row.row, "", kind, reason)


def _placed(found: Covered | None, line: str, cell: PrintedCell) -> Covered:
    """The cell at the place that is printed; of a class of its own where no table asks for it."""
    place = " / ".join(
        filter(None, (cell["dataset"], cell["eval_arch"], cell["ipc"] and f"ipc {cell['ipc']}"))
    )
    if found is None:
        row = " ".join(filter(None, (cell["method"], cell["variant"])))
        return Covered(line, "", row, place, PRINTED, "no table has a cell for it")
    return Covered(line, found.table, found.row, place, found.kind, found.reason)


def coverage_csv(cells: Iterable[Covered]) -> str:
    """The cells as CSV, one line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Covered)])
    writer.writerows(astuple(cell) for cell in cells)
    return text.getvalue()


def summary(cells: Iterable[Covered]) -> str:
    """How many cells each class has, by paper, and each reason, as Markdown."""
    cells = list(cells)
    papers = list(dict.fromkeys(cell.line.partition("_")[0] for cell in cells))
    counts = Counter((cell.line.partition("_")[0], cell.kind) for cell in cells)
    lines = [f"| class | {' | '.join(papers)} | all |", "| --- |" + " ---: |" * (len(papers) + 1)]
    for kind in CLASSES:
        row = [counts[paper, kind] for paper in papers]
        lines.append(f"| {kind} | {' | '.join(map(str, row))} | {sum(row)} |")
    reasons = Counter((cell.kind, cell.reason) for cell in cells if cell.kind != COMPARABLE)
    lines += ["", "| class | why | cells |", "| --- | --- | ---: |"]
    lines += [f"| {kind} | {why} | {n} |" for (kind, why), n in reasons.most_common()]
    return "\n".join(lines) + "\n"
