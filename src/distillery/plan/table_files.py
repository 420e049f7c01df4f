"""The files below workflow/tables: read, and checked against what the project has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillery.components.registry import index, module_name
from distillery.errors import PlanError, nearest, shown
from distillery.plan.axes import grid
from distillery.plan.models import checked
from distillery.plan.table_models import AxisMeaning, Paper, Row, Table
from distillery.plan.yaml_files import read_yaml
from distillery.store.spec import STAGES

FOLDER = "workflow/tables"
PAPER_FILE = "paper.yaml"  # of a folder of tables: no table
BUILT_IN = ("dataset", "student", "ipc")  # axes that need no meaning
RECIPES = tuple(stage for stage in STAGES if stage != "data")  # what a scale holds blocks for


def table_file(name: str) -> str:
    """The file of `paper/table`, below the project's folder."""
    return f"{FOLDER}/{name}.yaml"


def paper_file(paper: str) -> str:
    """The file of what belongs to a paper as a whole, below the project's folder."""
    return f"{FOLDER}/{paper}/{PAPER_FILE}"


def table_files(root: Path, paper: str = "*") -> list[str]:
    """The names `paper/table` of all table files of a project, or of those of one paper."""
    files = (file for file in (root / FOLDER).glob(f"{paper}/*.yaml") if file.name != PAPER_FILE)
    return sorted(str(file.relative_to(root / FOLDER).with_suffix("")) for file in files)


def read_paper(root: Path, name: str) -> Paper:
    """What workflow/tables/<name>/paper.yaml says of a paper.

    A folder without one holds tables of no paper, which are called by the folder's name.

    Raises:
        PlanError: the file has a wrong key or value, or facts of a table that does not exist.
    """
    path = root / FOLDER / name / PAPER_FILE
    if not path.is_file():
        return Paper(name=name, title=name)
    where = paper_file(name)
    paper: Paper = checked(Paper, read_yaml(path), where)
    tables = [table.rpartition("/")[2] for table in table_files(root, name)]
    for table in set(paper.printed) - set(tables):
        raise PlanError(f"{where}.printed.{table}: no such table: {nearest(table, tables)}")
    return paper


def read_table(root: Path, name: str) -> Table:
    """The table file of `paper/table`, with the keys and values of its type.

    Raises:
        PlanError: it does not exist, or has a wrong key or value.
    """
    path = root / table_file(name)
    if not path.is_file() or path.name == PAPER_FILE:
        raise PlanError(f"table {shown(name)} does not exist: {nearest(name, table_files(root))}")
    table: Table = checked(Table, read_yaml(path), table_file(name))
    return table


def check_table(table: Table, root: Path, where: str) -> None:
    """Check that what a table file names exists, and that its parts fit together.

    Args:
        table: what the file holds.
        root: the project's folder.
        where: the file, for errors.

    Raises:
        PlanError: a double row, a wrong name, or an analysis with scores or a figure of another.
    """
    names = [row.row for row in table.rows]
    if len(set(names)) < len(names):
        double = max(names, key=names.count)
        raise PlanError(f"{where}.rows: two rows are called '{double}'; give each its own name")
    if table.scores and table.analysis:
        raise PlanError(
            f"{where}.scores: are of accuracies, analysis '{table.analysis}' measures none; "
            "leave one of them out"
        )
    folder = root / "workflow/published"
    paper = Path(where).parent.name
    files = [file.name for file in folder.glob(f"{paper}_*.csv")]
    if table.published and table.published not in files:
        hint = nearest(table.published, files)
        place = f"{where}.published = '{table.published}'"
        raise PlanError(f"{place}: no such file of '{paper}': {hint}")
    _check_figure(table, where)
    for axis in sorted({"dataset", "ipc"} - {table.panel, *table.columns}):
        raise PlanError(f"{where}.columns: lack the axis '{axis}', on which every cell stands")
    order = [table.panel, *table.columns]
    for axis in sorted({*order} - {*BUILT_IN, *table.axes}):
        raise PlanError(f"{where}.axes.{axis}: is required: say what its values change")
    if len(set(order)) < len(order):
        double = max(order, key=order.count)
        raise PlanError(f"{where}.columns: have the axis '{double}' twice; keep one of them")
    for axis in sorted(table.axes.keys() - {*order}):
        raise PlanError(f"{where}.axes.{axis}: is no axis of the table: {nearest(axis, order)}")
    for axis, meaning in table.axes.items():
        _check_meaning(meaning, f"{where}.axes.{axis}")
    _check_derived(table, order, where)
    _check_paper(table, order, f"{where}.paper")
    for row in table.rows:
        _check_row(row, table, names, f"{where}: row '{row.row}'")


def _check_stage(stage: str, where: str) -> None:
    if stage not in RECIPES:
        raise PlanError(f"{where}: no such stage: {nearest(stage, RECIPES)}")


def _check_meaning(meaning: AxisMeaning, where: str) -> None:
    """What an axis changes are recipes, by its values or by one setting, not both."""
    if meaning.sets is not None:
        keys = meaning.sets.split(".")
        _check_stage(keys[0], f"{where}.sets = '{meaning.sets}'")
        if len(keys) < 2 or not all(keys):
            raise PlanError(f"{where}.sets = '{meaning.sets}': write stage.key, or stage.key.key")
        if meaning.values:
            raise PlanError(f"{where}.values: the axis has `sets` too; leave one of them out")
    for value, changes in meaning.values.items():
        for stage in changes:
            _check_stage(stage, f"{where}.values.{value}.{stage}")


def _check_derived(table: Table, order: list[str], where: str) -> None:
    """Drops are along axes of the table; averages are not measured."""
    for axis in sorted(table.drop_from.keys() - {*order}):
        raise PlanError(f"{where}.drop_from.{axis}: is no axis: {nearest(axis, order)}")
    for name in sorted({*table.averages} - {*table.unmeasured}):
        raise PlanError(f"{where}.averages: '{name}' is not unmeasured; name it there too")


def _check_paper(table: Table, order: list[str], where: str) -> None:
    """The paper's own axes are those of the table, or the table has none of a paper."""
    if not table.paper:
        return
    for axis in sorted(table.paper.keys() - {*order}):
        raise PlanError(f"{where}.{axis}: is no axis of the table: {nearest(axis, order)}")
    for axis in sorted({*order} - table.paper.keys()):
        raise PlanError(f"{where}.{axis}: is required, the table has this axis")
    grid(table.paper, order, where)


def _check_figure(table: Table, where: str) -> None:
    """A figure draws the analysis of its own name; one that is named like none draws accuracies."""
    for kind in ("analysis", "figure"):
        if (name := getattr(table, kind)) and name not in index(kind):
            hint = nearest(name, index(kind))
            raise PlanError(f"{where}.{kind} = '{name}': does not exist: {hint}")
    drawn = table.figure if table.figure in index("analysis") else None
    if table.figure and drawn != table.analysis:
        raise PlanError(
            f"{where}.figure = '{table.figure}': does not draw the table's analysis, "
            f"'{table.analysis}'"
        )


def _check_against(row: Row, other: Row, where: str) -> None:
    """A row must be able to have a gain: the other one is measured, and stands beside it."""
    start = f"{where}: against '{other.row}'"
    if other.row == row.row:
        raise PlanError(f"{start}: is the row itself; name another one")
    if not other.measured:
        raise PlanError(f"{start}: that row is not measured; compare with one that is")
    for axis in (row.only.keys() & other.only.keys()) - row.against_at.keys():
        if not any(value in other.only[axis] for value in row.only[axis]):
            raise PlanError(
                f"{start}: that row stands at {axis} {other.only[axis]}, this one at "
                f"{row.only[axis]}; compare with one that stands beside it"
            )


def _check_row(row: Row, table: Table, names: list[str], where: str) -> None:
    if row.against and row.against not in names:
        hint = nearest(row.against, names)
        raise PlanError(f"{where}: against '{row.against}': no such row: {hint}")
    if row.steps_as and row.steps_as not in names:
        hint = nearest(row.steps_as, names)
        raise PlanError(f"{where}: steps_as '{row.steps_as}': no such row: {hint}")
    if row.against and row.measured:
        _check_against(row, next(one for one in table.rows if one.row == row.against), where)
    comparable = {} if isinstance(row.comparable, bool) else row.comparable
    places = {"only": row.only, "comparable": comparable, "against_at": row.against_at}
    for key, values in places.items():
        for axis in set(values) - {table.panel, *table.columns}:
            raise PlanError(f"{where}: {key}.{axis}: no such axis: {nearest(axis, table.columns)}")
    if row.against_at and not row.against:
        raise PlanError(f"{where}: against_at: needs against, the row that is looked up there")
    for stage in row.override:
        _check_stage(stage, f"{where}: override.{stage}")
    try:
        module_name("label", row.labels.kind)
        if row.measured:
            module_name("method", row.method)
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from None


def printed_axes(root: Path) -> dict[str, Any]:
    """Data sets that the papers print, as an axis: rows speak of them at every scale."""
    files = table_files(root)
    printed = [read_table(root, name).paper.get("dataset", []) for name in files]
    papers = {name.partition("/")[0] for name in files}
    words = [list(read_paper(root, paper).words.same.get("dataset", {})) for paper in papers]
    datasets = [name for names in (*printed, *words) for name in names]
    return {"of the papers": {"dataset": datasets}}
