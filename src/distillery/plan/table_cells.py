"""The cells of a table: its rows at the places of its axes, with what they measure and print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distillery.errors import PlanError, nearest, shown
from distillery.plan.axes import GridPlace, counterpart, grid
from distillery.plan.budgets import budgeted, with_steps_of
from distillery.plan.cell import Experiment, TableCell
from distillery.plan.checks_of_printed import check_published, check_words
from distillery.plan.comparison import PaperScale, other_place
from distillery.plan.context import Context
from distillery.plan.settings import Settings
from distillery.plan.stage_plans.analyse import plan_analyses
from distillery.plan.stage_plans.data import plan_data
from distillery.plan.stage_plans.distill import plan_distilled
from distillery.plan.stage_plans.evaluate import plan_evaluations
from distillery.plan.stage_plans.label import plan_labels
from distillery.plan.stage_plans.scores import plan_scores
from distillery.plan.table_files import paper_file, table_file
from distillery.plan.table_models import Row, Table
from distillery.table.document import Place
from distillery.table.published import PrintedNumber, PublishedNumbers

PUBLISHED = Path("workflow/published")


class PrintedNumbers:
    """The printed numbers of all papers, each paper read once."""

    def __init__(self, settings: Settings) -> None:
        """Read nothing yet; `settings` know the papers."""
        self._settings = settings
        self._papers: dict[str, PublishedNumbers] = {}
        self.scale = PaperScale(settings)

    def of(self, paper: str) -> PublishedNumbers:
        """The printed numbers of a paper, a folder of workflow/tables."""
        if paper not in self._papers:
            words = self._settings.paper(paper).words
            folder = self._settings.root / PUBLISHED
            self._papers[paper] = PublishedNumbers(folder, paper, words.names())
            check_words(words, self._papers[paper], f"{paper_file(paper)}.words")
        return self._papers[paper]


def plan_cells(name: str, context: Context, printed: PrintedNumbers) -> Iterator[TableCell]:
    """Plan the cells of a table, row by row.

    Args:
        name: `paper/table`.
        context: of the plan; it keeps the nodes.
        printed: the papers' numbers.

    Raises:
        PlanError: an axis, a row or a setting is impossible.
    """
    settings = context.settings
    table = settings.table(name)
    axes = dict(settings.scale.tables[name])
    names = [row.row for row in table.rows]
    chosen = axes.pop("rows", names)
    order, where = [table.panel, *table.columns], settings.where / "tables" / name
    _check_axes(name, table, axes, settings)
    _check_rows(chosen, names, str(settings.where / "tables" / name / "rows"))
    _check_unmeasured(table, axes, f"{table_file(name)}.unmeasured")
    if table.published:
        check_published(table, table_file(name), printed.of(name.partition("/")[0]))
    of_paper = f"{table_file(name)}.paper"
    places = [
        (place, counterpart(place, axes, table.paper, order, of_paper))
        for place in grid(axes, order, where)
    ]
    planner = _CellPlanner(name, table, context, printed)
    for row in table.rows:
        for place, paper in places:
            if row.stands_at(place) and row.row in chosen:
                measured = _is_measured(row, place, table)
                yield planner.cell(row, place, paper, measured)


def _check_axes(name: str, table: Table, axes: Mapping[str, Any], settings: Settings) -> None:
    """Each axis of the table has values at this scale, and nothing else has."""
    order, file = [table.panel, *table.columns], table_file(name)
    for axis in [axis for axis in axes if axis not in order]:
        place = settings.axis_place(name, axis, None)
        raise PlanError(f"{place}: is no axis of {file}: {nearest(axis, [*order, 'rows'])}")
    for axis in [axis for axis in order if axis not in axes]:
        where = settings.where / "tables" / name / axis
        raise PlanError(f"{where}: is required, {file} has the axis '{axis}'")

    panels = {*axes[table.panel], *table.unmeasured, *settings.own_axis(name, table.panel)}
    for axis, values in axes.items():
        for panel in values if isinstance(values, Mapping) else ():
            if panel not in panels:
                place = settings.where / "tables" / name / axis / panel
                raise PlanError(f"{place}: no such {table.panel}: {nearest(panel, panels)}")


def _check_rows(chosen: Any, names: list[str], where: str) -> None:
    """The rows to measure are rows of the table, at least one, and each once."""
    if not isinstance(chosen, list):
        raise PlanError(f"{where} = {shown(chosen)}: expected a list of rows, for all panels")
    for row in chosen:
        if row not in names:
            raise PlanError(f"{where}: no row {shown(row)}: {nearest(row, names)}")
    if len(set(chosen)) < max(len(chosen), 1):
        raise PlanError(f"{where} = {shown(chosen)}: needs at least one row, and each only once")


def _check_unmeasured(table: Table, axes: Mapping[str, Any], where: str) -> None:
    """What is printed only stands on the panel, of the paper or of the scale."""
    panels = [*axes[table.panel], *table.paper.get(table.panel, [])]
    for value in table.unmeasured:
        if table.paper and value not in panels:
            raise PlanError(f"{where}: no such {table.panel} '{value}': {nearest(value, panels)}")


def _is_measured(row: Row, place: GridPlace, table: Table) -> bool:
    return row.measured and place[table.panel] not in table.unmeasured


class _CellPlanner:
    """Plans the cells of one table."""

    def __init__(self, name: str, table: Table, context: Context, printed: PrintedNumbers) -> None:
        self.name, self.table, self.context = name, table, context
        self.printed, self.counts = printed, context.settings.counts(name)

    def cell(
        self, row: Row, place: GridPlace, paper: GridPlace | None, measured: bool
    ) -> TableCell:
        """The cell of a row at a place, which stands for the paper's place `paper`."""
        number, same = self._printed_number(row, place, paper)
        file = table_file(self.name)
        experiment = Experiment.at(place, self._at(row, place), self._places(place), file)
        made = self._artefacts(experiment, place) if measured else self._no_artefacts()
        reason = self._reason(row, place, paper, number, same, made) if number else ""
        return TableCell(
            row=row,
            extra={axis: place[axis] for axis in self.table.axes},
            dataset=place["dataset"],
            student=place.get("student"),
            ipc=place["ipc"],
            paper=None if paper is None else Place.on(paper),
            published=number,
            comparable=number is not None and same and not reason,
            reason=reason,
            **made,
        )

    def _reason(
        self,
        row: Row,
        place: GridPlace,
        paper: GridPlace | None,
        number: PrintedNumber,
        same: bool,
        made: Mapping[str, Any],
    ) -> str:
        """Why what is measured cannot be compared with the printed number; "" where it can."""
        if not row.comparable_at(place if same else paper or place):
            return str(row.because)
        if not same:
            return other_place(place, paper or {})
        if not number.network_stated:
            return "the paper does not name the network"
        if not made.get("evaluations") or self.table.analysis:
            return ""
        student = made["evaluations"][0][0]
        return self.printed.scale.reason(self.name, self.table, row, place, student)

    def _at(self, row: Row, place: GridPlace) -> Row:
        """The row with what the table's own axes override at a place."""
        override = self.context.settings.override(self.name, self.table, row, place)
        return row.model_copy(update={"override": override})

    def _places(self, place: GridPlace) -> dict[str, str]:
        """File and key of the value of each axis at a place."""
        panel, settings = place[self.table.panel], self.context.settings
        return {axis: settings.axis_place(self.name, axis, panel) for axis in place}

    def _no_artefacts(self) -> dict[str, Any]:
        return {"scores": {} if self.table.scores else None}

    def _artefacts(self, experiment: Experiment, place: GridPlace) -> dict[str, Any]:
        """The artefacts of a measured cell, by the fields of `TableCell`."""
        context, students = self.context, self.counts.students
        context.settings.dataset(experiment.dataset, experiment.places["dataset"])
        experiment = budgeted(experiment, context)
        if other := experiment.row.steps_as:
            row = next(row for row in self.table.rows if row.row == other)
            same = replace(experiment, ipc=Experiment.at(place, row).ipc, row=self._at(row, place))
            experiment = with_steps_of(budgeted(same, context), experiment, context)
        draws = [replace(experiment, draw=number) for number in range(self.counts.draws)]
        labels = [plan_labels(draw, context) for draw in draws]
        made: dict[str, Any] = {
            "distilled": tuple(plan_distilled(draw, context) for draw in draws),
            "label": tuple(label for label in labels if label),
            "data": plan_data(experiment.dataset, context),
        }
        if self.table.scores:
            scores = [plan_scores(draw, students, context) for draw in draws]
            made["scores"] = {
                name: tuple(dict.fromkeys(node for draw in scores for node in draw[name]))
                for name in scores[0]
            }
        analysis = self.table.analysis
        plan = partial(plan_analyses, analysis) if analysis else plan_evaluations
        return made | {"evaluations": tuple(plan(draw, students, context) for draw in draws)}

    def _printed_number(
        self, row: Row, place: GridPlace, paper: GridPlace | None
    ) -> tuple[PrintedNumber | None, bool]:
        """The printed number of exactly this setting, else of the paper's place in this cell.

        With it whether it is of exactly this setting. A user's own data set has none.
        """
        if not self.table.published or self.printed.scale.is_users_own(place["dataset"]):
            return None, False
        numbers = self.printed.of(self.name.partition("/")[0])
        for setting, same in ((place, True), (paper, False)):
            if setting is None:
                continue
            if found := printed_at(self.name, self.table, row, setting, numbers):
                return found, same
        return None, False


def printed_at(
    name: str, table: Table, row: Row, place: GridPlace, numbers: PublishedNumbers
) -> PrintedNumber | None:
    """The number that a paper prints for a row of the table `name` at a place, if it does."""
    axes = table.axes.items()
    keys = {"method": row.method, "labels": row.labels.kind, "variant": row.variant}
    variants = (meaning.variants.get(place[axis]) for axis, meaning in axes)
    variant = next(({"variant": variant} for variant in variants if variant), {})
    own = {axis: place[axis] for axis, meaning in axes if meaning.published}
    try:
        return numbers.find(
            **keys | row.published | variant | own,
            dataset=place["dataset"],
            ipc=place["ipc"],
            student=place.get("student"),
            prefer_table=name.partition("/")[2],
        )
    except PlanError as error:
        raise PlanError(f"{table_file(name)}: row '{row.row}': {error}") from None
