"""The plan: tables to positions, positions to artefacts, and what of them is missing or stale."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.artefact import META
from distillery.canonical import digest, file_sha256
from distillery.code import code_digest
from distillery.errors import PlanError, nearest
from distillery.spec import folder
from distillery.table.published import lookup

from .nodes import Builder, Cell, Node
from .settings import Row, Settings, Table


@dataclass(frozen=True)
class Position:
    """One position of a table: its place, the measured cell (None when the row shows published numbers only), its artefacts."""

    row: Row
    dataset: str
    student: str
    ipc: float
    paper: dict[str, Any] | None
    published: dict[str, Any] | None
    evaluations: tuple[Node, ...]
    distilled: Node | None
    label: Node | None
    data: Node | None


class Plan:
    """What the settings ask for, and what of it the store lacks."""

    def __init__(self, root: Path, params: Mapping[str, Any] | None = None):
        """root: the project's folder. params: values in place of params.yaml. Raises PlanError on any impossible setting."""
        self.settings = Settings(root, params)
        self.root, self.store = root, root / "results/store"
        self.builder = Builder(self.settings)
        self._positions: dict[str, list[Position]] = {}

    def positions(self, table: str) -> list[Position]:
        """All positions of a table, row by row."""
        name = self.settings.full_name(table)
        if name not in self._positions:
            self._positions[name] = list(self._expand(name, self.settings.table(name)))
        return self._positions[name]

    def _expand(self, name: str, table: Table) -> Iterable[Position]:
        axes = dict(self.settings.scale.tables[name])
        chosen = axes.pop("rows", [row.row for row in table.rows])
        order = [table.panel, *table.columns]
        unknown = set(axes) ^ set(order)
        if unknown:
            raise PlanError(f"{self.settings.scale_file}.tables.{name}: axes must be {', '.join(order)}, not {', '.join(axes)}")
        for row in set(chosen) - {row.row for row in table.rows}:
            raise PlanError(f"params.yaml.grid.{name}.rows: no row '{row}': {nearest(row, (r.row for r in table.rows))}")
        for axis in order:
            check_axis(axes[axis], axis, f"{self.settings.scale_file}.tables.{name}")
        aligned = all(len(axes[axis]) == len(table.paper[axis]) for axis in order)
        for row in table.rows:
            for index in itertools.product(*(range(len(axes[axis])) for axis in order)):
                place = {axis: axes[axis][i] for axis, i in zip(order, index, strict=True)}
                paper = {axis: table.paper[axis][i] for axis, i in zip(order, index, strict=True)} if aligned else None
                yield self._position(name, table, row, place, paper, row.measured and row.row in chosen)

    def _position(self, name: str, table: Table, row: Row, place: dict, paper: dict | None, measured: bool) -> Position:
        cell = Cell.at(place, row)
        published = self._published(name, table, row, place, paper)
        shown = {"row": row, **place, "paper": paper, "published": published}
        if not measured:
            return Position(**shown, evaluations=(), distilled=None, label=None, data=None)
        made = {
            "distilled": self.builder.distill(cell),
            "label": self.builder.label(cell),
            "data": self.builder.data(cell.dataset),
        }
        return Position(**shown, evaluations=self.builder.evaluations(cell, self.settings.params.repeats), **made)

    def _published(self, name: str, table: Table, row: Row, place: dict, paper: dict | None) -> dict[str, Any] | None:
        """The printed number of exactly this setting, else of the paper's setting in this position (then not comparable)."""
        source, _, short = name.partition("/")
        keys = {"method": row.method, "labels": row.labels, "variant": row.variant} | row.published
        for setting, comparable in ((place, True), (paper, False)):
            found = setting and lookup(
                source,
                **keys,
                dataset=setting["dataset"],
                ipc=setting["ipc"],
                student=setting["student"],
                folder=self.root / "workflow/published",
                prefer_table=short,
            )
            if found:
                return {**found, "comparable": comparable}
        return None

    def have(self, node: Node) -> bool:
        """Whether the store holds the artefact; its meta.json came last, so existence means complete."""
        return (folder(self.store, node.address) / META).is_file()

    def node(self, address: str) -> Node:
        """The node of `room/id`. Raises PlanError when no table of this scale plans it."""
        if address not in self.builder.nodes:
            for table in self.settings.table_names():
                self.positions(table)
        if address not in self.builder.nodes:
            raise PlanError(
                f"{address}: no table at scale '{self.settings.params.scale}' plans it: {nearest(address, self.builder.nodes)}"
            )
        return self.builder.nodes[address]

    def cells(self, table: str) -> list[Node]:
        """The evaluations a table is read off."""
        return list(dict.fromkeys(n for position in self.positions(table) for n in position.evaluations))

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
        """Everything whose meta.json a table reads: its evaluations, and the sets, labels and data whose bytes it states."""
        found: dict[Node, None] = {}
        for p in self.positions(table):
            found |= dict.fromkeys(n for n in (*p.evaluations, p.distilled, p.label, p.data) if n is not None)
        return list(found)

    def document(self, table: str) -> dict[str, Any]:
        """The plan of one table as plain JSON: what `distillery table` assembles from, and what DVC compares."""
        name = self.settings.full_name(table)
        spec = self.settings.table(name)
        return {
            "table": name,
            "title": spec.title,
            "paper": name.partition("/")[0],
            "scale": self.settings.params.scale,
            "repeats": self.settings.params.repeats,
            "shape": {"rows": [row.row for row in spec.rows], "columns": spec.columns, "panel": spec.panel},
            "published": spec.published,
            "code": code_digest(["distillery.table.room"]),
            "positions": [self._position_document(p) for p in self.positions(table)],
        }

    def _position_document(self, p: Position) -> dict[str, Any]:
        address = {part: node.address if (node := getattr(p, part)) else None for part in ("distilled", "label", "data")}
        return {
            "row": p.row.row,
            "method": p.row.method,
            "labels": p.row.labels,
            "variant": p.row.variant,
            "protocol": p.row.protocol or p.row.labels,
            "dataset": p.dataset,
            "student": p.student,
            "ipc": p.ipc,
            "paper": p.paper,
            "published": p.published,
            "label_epochs": self._label_epochs(p),
            "original_bytes": facts.original_bytes if (facts := self.settings.dataset(p.dataset).facts) else None,
            "evaluations": [n.address for n in p.evaluations],
            **address,
        }

    def _label_epochs(self, p: Position) -> int:
        """Epochs of the full-length (static) protocol: the paper charges INFER+Dyn the dynamic labels it charges SRe2L."""
        if "static" not in self.settings.scale.evaluate:
            return 0
        block = self.settings.recipe("evaluate", "static", self.settings.dataset(p.dataset), {})
        return int(block.get("training", {}).get("epochs", 0))

    def outputs(self, table: str) -> dict[str, Path]:
        """The files of a table: csv, md, tex, metrics and the sidecar json."""
        stem = self.root / "results" / table
        kinds = {"csv": ".csv", "md": ".md", "tex": ".tex", "metrics": ".metrics.json", "json": ".json"}
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
        same_plan = sidecar.get("plan") == digest(self.document(table), 64)
        return same_plan and sidecar.get("csv_sha256") == file_sha256(files["csv"])

    def mark(self, table: str) -> Path:
        """Write the plan of a stale table anew, under a name that holds its digest: a file newer than the table, which makes
        Snakemake rebuild it. Never DVC's output results/plan, which a dry run must not touch."""
        document = self.document(table)
        return write_plan(self.root / "results/scratch/plan" / f"{table}-{digest(document)}.json", document)


def check_axis(values: list[Any], axis: str, where: str) -> None:
    """Raise PlanError unless an axis has values, each a name or a number, and each once."""
    for value in values:
        if not isinstance(value, int | float if axis == "ipc" else str):
            raise PlanError(f"{where}.{axis}: {value!r} is no {'number' if axis == 'ipc' else 'name'}")
    if len(set(values)) < max(len(values), 1):
        raise PlanError(f"{where}.{axis} = {values!r}: needs at least one value, and each only once")


def write_plan(path: Path, document: dict[str, Any]) -> Path:
    """Write a table's plan to `path`, aside first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    os.replace(aside, path)
    return path
