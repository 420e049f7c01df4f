"""The plan: tables to positions, positions to artefacts, and what of them is missing or stale."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.errors import PlanError, nearest
from distillery.plan.document import table_document
from distillery.plan.models import Row, Table
from distillery.plan.nodes import Builder, Cell, Node
from distillery.plan.settings import Settings, merge
from distillery.store.artefact import META
from distillery.store.canonical import digest, file_sha256
from distillery.store.spec import folder
from distillery.table.document import Place, TableDocument
from distillery.table.identity import picture_identity
from distillery.table.published import PrintedNumber, PublishedNumbers

NAMED = ("dataset", "student")
PUBLISHED = "workflow/published"


@dataclass(frozen=True)
class Position:
    """One position of a table: its place (`extra` by the table's own axes), the printed number and the paper's place, and the
    artefacts of the measured cell, none when the row shows published numbers only."""

    row: Row
    extra: dict[str, Any]
    dataset: str
    student: str | None
    ipc: float
    paper: Place | None
    published: PrintedNumber | None
    comparable: bool  # whether the printed number is of this very setting
    evaluations: tuple[Node, ...]
    distilled: Node | None
    label: Node | None
    data: Node | None
    scores: dict[str, tuple[Node, ...]] | None = (
        None  # by the name of the accuracy; None in a table without scores
    )


class Plan:
    """What the settings ask for, and what of it the store lacks."""

    def __init__(self, root: Path, params: Mapping[str, Any] | None = None):
        """root: the project's folder. params: values in place of params.yaml. Raises PlanError on any impossible setting."""
        self.settings = Settings(root, params)
        self.root, self.store = root, root / "results/store"
        self.builder = Builder(self.settings)
        self._positions: dict[str, list[Position]] = {}
        self._printed: dict[str, PublishedNumbers] = {}

    def positions(self, table: str) -> list[Position]:
        """All positions of a table, row by row."""
        name = self.settings.full_name(table)
        if name not in self._positions:
            self._positions[name] = list(self._expand(name, self.settings.table(name)))
        return self._positions[name]

    def _expand(self, name: str, table: Table) -> Iterable[Position]:
        axes = dict(self.settings.scale.tables[name])
        chosen = axes.pop("rows", [row.row for row in table.rows])
        order, where = [table.panel, *table.columns], f"{self.settings.scale_file}.tables.{name}"
        unknown = set(axes) ^ set(order)
        if unknown:
            raise PlanError(f"{where}: axes must be {', '.join(order)}, not {', '.join(axes)}")
        for row in set(chosen) - {row.row for row in table.rows}:
            raise PlanError(
                f"params.yaml.grid.{name}.rows: no row '{row}': {nearest(row, (r.row for r in table.rows))}"
            )
        places = [
            (place, counterpart(place, axes, table.paper, order))
            for place in grid(axes, order, where)
        ]
        for row in table.rows:
            for place, paper in places:
                measured = (
                    row.measured
                    and row.row in chosen
                    and place[table.panel] not in table.unmeasured
                )
                if all(place[axis] in values for axis, values in row.only.items()):
                    yield self._position(name, table, row, place, paper, measured)

    def _position(
        self, name: str, table: Table, row: Row, place: dict, paper: dict | None, measured: bool
    ) -> Position:
        published, comparable = self._published(name, table, row, place, paper)
        extra = {axis: place[axis] for axis in table.axes}
        shown = {key: place.get(key) for key in ("dataset", "student", "ipc")}
        shown |= {"row": row, "extra": extra, "paper": paper and Place.on(paper)}
        shown |= {"published": published, "comparable": comparable}
        for axis, value in extra.items():
            override = table.axes[axis].override(value, f"workflow/tables/{name}.yaml.axes.{axis}")
            row = row.model_copy(update={"override": merge(row.override, override)})
        cell = Cell.at(place, row)
        shown |= {"scores": {}} if table.scores else {}
        if not measured:
            return Position(**shown, evaluations=(), distilled=None, label=None, data=None)
        made = {
            "distilled": self.builder.distill(cell),
            "label": self.builder.label(cell),
            "data": self.builder.data(cell.dataset),
        }
        repeats = self.settings.params.repeats
        if table.analysis:
            return Position(
                **shown, evaluations=self.builder.analyses(cell, table.analysis, repeats), **made
            )
        shown |= {"scores": self.builder.scores(cell, repeats)} if table.scores else {}
        return Position(**shown, evaluations=self.builder.evaluations(cell, repeats), **made)

    def _published(
        self, name: str, table: Table, row: Row, place: dict, paper: dict | None
    ) -> tuple[PrintedNumber | None, bool]:
        """The printed number of exactly this setting, else of the paper's setting in this cell.

        With it whether it is comparable: of exactly this setting, and the row says nothing else.
        """
        if not table.published:
            return None, False
        source, _, short = name.partition("/")
        numbers = self._published_numbers(source)
        keys = {
            "method": row.method,
            "labels": row.labels.kind,
            "variant": row.variant,
        } | row.published
        printed = [axis for axis, meaning in table.axes.items() if meaning.published]
        for setting, comparable in ((place, True), (paper, False)):
            found = setting and numbers.find(
                **keys | _variant(table, setting) | {axis: setting[axis] for axis in printed},
                dataset=setting["dataset"],
                ipc=setting["ipc"],
                student=setting.get("student"),
                prefer_table=short,
            )
            if found:
                return found, comparable and row.comparable
        return None, False

    def _published_numbers(self, paper: str) -> PublishedNumbers:
        if paper not in self._printed:
            names, folder = self.settings.paper(paper).words.names(), self.root / PUBLISHED
            self._printed[paper] = PublishedNumbers(folder, paper, names)
        return self._printed[paper]

    def have(self, node: Node) -> bool:
        """Whether the store holds the artefact; its meta.json came last, so existence means complete."""
        return (folder(self.store, node.address) / META).is_file()

    def node(self, address: str) -> Node:
        """The node of `stage/id`. Raises PlanError when no table of this scale plans it."""
        for nodes in self.growing():
            if address in nodes:
                return nodes[address]
        raise PlanError(
            f"{address}: no table at scale '{self.settings.params.scale}' plans it: {nearest(address, self.builder.nodes)}"
        )

    def growing(self) -> Iterator[dict[str, Node]]:
        """All nodes known so far, by address, again after each further table of the scale; a table that cannot be planned is
        passed over, since it must not stop the jobs of others."""
        yield self.builder.nodes
        for table in self.settings.table_names():
            with contextlib.suppress(PlanError):
                self.positions(table)
            yield self.builder.nodes

    def figure_inputs(self, table: str) -> list[Node]:
        """The artefacts that a picture reads beside its table: its analyses, none when it shows accuracies."""
        return (
            self.cells(table)
            if self.settings.table(self.settings.full_name(table)).analysis
            else []
        )

    def cells(self, table: str) -> list[Node]:
        """The evaluations a table is read off."""
        return list(
            dict.fromkeys(n for position in self.positions(table) for n in position.evaluations)
        )

    def missing(self, tables: Iterable[str]) -> list[Node]:
        """Artefacts that must be made for these tables, upstream first: missing cells and their missing ancestors."""
        ordered: dict[Node, None] = {}

        def visit(node: Node) -> None:
            if node in ordered or self.have(node):
                return
            for upstream in node.upstream():
                visit(upstream)
            ordered[node] = None

        for table in tables:
            if not self.fresh(table):
                for needed in self.table_inputs(table):
                    visit(needed)
        return list(ordered)

    def table_inputs(self, table: str) -> list[Node]:
        """Everything whose meta.json a table reads: its evaluations, the sets, labels and data whose bytes it states, and what
        its scores compare with."""
        found: dict[Node, None] = {}
        for p in self.positions(table):
            compared = itertools.chain(*(p.scores or {}).values())
            found |= dict.fromkeys(
                n
                for n in (*p.evaluations, p.distilled, p.label, p.data, *compared)
                if n is not None
            )
        return list(found)

    def document(self, table: str) -> TableDocument:
        """The plan of one table: what `distillery table` assembles from, and what DVC compares."""
        name = self.settings.full_name(table)
        paper = self.settings.paper(name.partition("/")[0])
        cells = self.positions(table)
        return table_document(name, self.settings.table(name), paper, cells, self.settings)

    def outputs(self, table: str) -> dict[str, Path]:
        """The files of a table: csv, md, tex, metrics and the sidecar json."""
        stem = self.root / "results" / table
        kinds = {
            "csv": ".csv",
            "md": ".md",
            "tex": ".tex",
            "metrics": ".metrics.json",
            "json": ".json",
        }
        return {kind: stem.with_name(stem.name + suffix) for kind, suffix in kinds.items()}

    def fresh(self, table: str) -> bool:
        """Whether the table on disk is the one this plan asks for: its sidecar names the plan and the CSV is untouched."""
        files = self.outputs(table)
        if not all(path.is_file() for path in files.values()):
            return False
        try:
            sidecar = json.loads(files["json"].read_text())
        except ValueError:
            return False
        same_plan = sidecar.get("plan") == self.document(table).digest()
        return same_plan and sidecar.get("csv_sha256") == file_sha256(files["csv"])

    def drawn(self, table: str) -> bool:
        """Whether the picture on disk is the one this plan asks for: its sidecar names the plan and the code that draws it."""
        stem = self.root / "results" / table
        sidecar = stem.with_name(f"{stem.name}.picture.json")
        try:
            found = json.loads(sidecar.read_text())
        except (OSError, ValueError):
            return False
        files = all(
            stem.with_name(f"{stem.name}.{suffix}").is_file()
            for suffix in ("png", "pdf", "values.csv")
        )
        return files and found == picture_identity(self.document(table))

    def mark(self, table: str) -> Path:
        """Write the plan of a stale table anew, under a name that holds its digest: a file newer than the table, which makes
        Snakemake rebuild it. Never DVC's output results/plan, which a dry run must not touch."""
        document = self.document(table)
        return write_plan(
            self.root / "results/scratch/plan" / f"{table}-{document.digest()[:12]}.json",
            document.json(),
        )

    def mark_picture(self, table: str) -> Path:
        """The same for a picture: Snakemake passes over a newer input whose content it has seen, so the code counts too."""
        identity = picture_identity(self.document(table))
        return write_plan(
            self.root / "results/scratch/plan" / f"{table}-{digest(identity)}.picture.json",
            identity,
        )


def _variant(table: Table, setting: Mapping[str, Any]) -> dict[str, str]:
    """The variant that is printed for the values of the table's own axes in a setting, if one of them says so."""
    found = (meaning.variants.get(setting[axis]) for axis, meaning in table.axes.items())
    return next(({"variant": variant} for variant in found if variant), {})


def grid(axes: Mapping[str, Any], order: list[str], where: str) -> list[dict[str, Any]]:
    """All places of a table, panel by panel; an axis may have values of its own for each value of the panel `order[0]`.

    Raises PlanError for an axis without values, or with a wrong or a double one.
    """
    check_axis(axes[order[0]], order[0], where)
    places = []
    for panel in axes[order[0]]:
        values = [[panel], *(on_panel(axes[axis], panel, f"{where}.{axis}") for axis in order[1:])]
        for axis, found in zip(order, values, strict=True):
            check_axis(found, axis, where)
        places += [dict(zip(order, place, strict=True)) for place in itertools.product(*values)]
    return places


def on_panel(axis: Any, panel: Any, where: str) -> list[Any]:
    """The values of an axis on a panel."""
    if not isinstance(axis, Mapping):
        return axis
    if panel not in axis:
        raise PlanError(f"{where}: has no values for '{panel}': {nearest(str(panel), axis)}")
    return axis[panel]


def counterpart(
    place: Mapping[str, Any], axes: Mapping[str, Any], paper: Mapping[str, Any], order: list[str]
) -> dict | None:
    """The paper's place that a place of a scale stands for: a value the paper has too stands for itself, another one for the
    paper's value in the same position of the axis. None where the paper's axis is shorter, or the table has no paper axes."""
    found: dict[str, Any] = {}
    for axis in order:
        if axis not in paper:
            return None
        ours = on_panel(axes[axis], place[order[0]], axis)
        theirs = on_panel(paper[axis], found.get(order[0]), axis)
        position = theirs.index(place[axis]) if place[axis] in theirs else ours.index(place[axis])
        if position >= len(theirs):
            return None
        found[axis] = theirs[position]
    return found


def check_axis(values: list[Any], axis: str, where: str) -> None:
    """Raise PlanError unless an axis has values, each a name or a number, and each once."""
    for value in values:
        if axis in NAMED and not isinstance(value, str):
            raise PlanError(f"{where}.{axis}: {value!r} is no name")
        if axis == "ipc" and not isinstance(value, int | float):
            raise PlanError(f"{where}.{axis}: {value!r} is no number")
    if len(set(values)) < max(len(values), 1):
        raise PlanError(
            f"{where}.{axis} = {values!r}: needs at least one value, and each only once"
        )


def write_plan(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a table's plan to `path`, aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    os.replace(aside, path)
    return path
