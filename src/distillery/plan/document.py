"""The plan document of a table (`table.document`), from its planned cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.plan.cell import Experiment
from distillery.plan.checks import instances
from distillery.plan.types import traits, validated
from distillery.store.fingerprint import code_digest
from distillery.table.document import DocumentCell, Place, PrintedTeacher, TableDocument, TableShape
from distillery.training.recipe import Training

if TYPE_CHECKING:
    from distillery.plan.cell import TableCell
    from distillery.plan.models import Expected
    from distillery.plan.nodes import Node
    from distillery.plan.settings import Settings
    from distillery.plan.table_models import Paper, Table
    from distillery.table.published import PublishedNumbers


def table_document(
    name: str,
    table: Table,
    paper: Paper,
    cells: list[TableCell],
    settings: Settings,
    numbers: PublishedNumbers,
) -> TableDocument:
    """The plan document of the table `name` (`paper/table`), whose planned cells are `cells`.

    `numbers` are those that the paper prints.
    """
    folder, _, short = name.partition("/")
    return TableDocument(
        table=name,
        title=table.title,
        paper=folder,
        paper_name=paper.name,
        scale=settings.params.scale,
        quantity=table.quantity,
        digits=table.digits,
        analysis=table.analysis,
        figure=table.figure,
        printed=paper.printed.get(short, {}),
        scores=table.scores,
        compression_ratio=paper.compression_ratio,
        shape=TableShape(_rows(table, cells), tuple(table.columns), table.panel),
        drop_from=table.drop_from,
        averages=tuple(table.averages),
        axes=tuple(table.axes),
        code=code_digest(["distillery.stages.table"]),
        cells=tuple(_cell(cell, settings, numbers) for cell in cells),
    )


def _rows(table: Table, cells: list[TableCell]) -> tuple[str, ...]:
    """The rows that have cells, in the order of the table's file."""
    chosen = {cell.row.row for cell in cells}
    return tuple(row.row for row in table.rows if row.row in chosen)


def _cell(cell: TableCell, settings: Settings, numbers: PublishedNumbers) -> DocumentCell:
    row, expected = cell.row, _expected(cell, settings)
    return DocumentCell(
        row=row.row,
        method=row.method,
        variant=row.variant,
        labels=row.labels.kind,
        counted_as=traits("label", row.labels.kind).counted_as or row.labels.kind,
        protocol=row.evaluation,
        place=Place(cell.dataset, cell.student, cell.ipc, cell.extra),
        against=row.against,
        against_at=row.against_at,
        paper=cell.paper,
        published=cell.published,
        comparable=cell.comparable,
        reason=cell.reason,
        label_epochs=_label_epochs(cell, settings),
        original_bytes=expected.original_bytes if expected else None,
        evaluations=tuple(map(_addresses, cell.evaluations)),
        distilled=_addresses(cell.distilled),
        label=_addresses(cell.label),
        data=cell.data.address if cell.data else None,
        teachers=_teachers(cell, numbers, settings),
        scores={name: _addresses(nodes) for name, nodes in (cell.scores or {}).items()},
    )


def _teachers(
    cell: TableCell, numbers: PublishedNumbers, settings: Settings
) -> tuple[PrintedTeacher, ...]:
    """The teachers behind a cell whose accuracy the paper prints, by the name of their network."""
    found: dict[str, PrintedTeacher] = {}
    for node in _upstream(cell.students[:1]):
        if node.spec.stage == "teacher" and node.dataset == cell.dataset:
            name = node.spec.label.removeprefix(f"{cell.dataset}-")  # convnet64 is no convnet
            printed = numbers.find(
                dataset=cell.dataset, ipc=None, method="full", student=name, variant="teacher"
            )
            if printed:
                title = f"{name} on {cell.dataset}"
                found[node.spec.label] = PrintedTeacher(title, node.spec.label, printed.mean)
    return tuple(found.values())


def _upstream(nodes: list[Node]) -> list[Node]:
    """Nodes and all that they are made from, each once."""
    found = dict.fromkeys(nodes)
    waiting = list(nodes)
    while waiting:
        new = [node for node in waiting.pop().upstream() if node not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return list(found)


def _addresses(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    return tuple(node.address for node in nodes)


def _expected(cell: TableCell, settings: Settings) -> Expected | None:
    """What the scale expects of a cell's data set; None where the panel's value is no data set."""
    known = cell.dataset in settings.scale.datasets or cell.evaluations
    return settings.dataset(cell.dataset).expected if known else None


def _label_epochs(cell: TableCell, settings: Settings) -> int:
    """Epochs of dynamic labels that the papers' compression ratio counts; 0: unknown.

    - The epochs of the row's protocol.
    - For a set with more instances than images in its budget (INFER+Dyn) those of the protocol
      `static`, since the paper counts the same labels for it as for SRe2L.
    """
    expected, protocol = _expected(cell, settings), cell.row.evaluation
    if cell.distilled and expected:
        count = instances(cell.distilled[0].spec.recipe["method"], cell.ipc, expected.classes)
        protocol = "static" if count > cell.ipc * expected.classes else protocol
    if protocol not in settings.scale.evaluate or cell.dataset not in settings.scale.datasets:
        return 0
    experiment = Experiment(cell.dataset, cell.ipc, cell.student, cell.row)
    block = settings.recipe("evaluate", protocol, cell.dataset, {}, experiment)
    stated = block.get("training")
    if isinstance(stated, dict) and type(stated.get("epochs")) is int:
        return int(stated["epochs"])
    training = validated(Training, stated or {}, block.where / "training")  # as text, or wrong
    return int(training["epochs"])
