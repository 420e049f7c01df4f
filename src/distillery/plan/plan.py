"""The plan: tables to cells, cells to artefacts, and what of them is missing or stale."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distillery.errors import PlanError, nearest
from distillery.plan.cell import TableCell
from distillery.plan.context import Context
from distillery.plan.document import table_document
from distillery.plan.nodes import Node
from distillery.plan.settings import Settings
from distillery.plan.table_cells import PrintedNumbers, plan_cells
from distillery.store.artefact import META, is_whole
from distillery.store.atomic import write_text
from distillery.store.spec import folder
from distillery.table import files, identity
from distillery.table.document import TableDocument

STAMPS = "results/scratch/plan"
TABLE_FILES = (*files.SUFFIXES, files.SIDECAR)
PICTURE_FILES = (*identity.SUFFIXES, identity.SIDECAR)


class Plan:
    """What the settings ask for, and what of it the store lacks.

    Attributes:
        settings: params.yaml and the scale that it names.
        root: the project's folder.
        store: the folder of the artefacts.
        context: all nodes planned so far.
    """

    def __init__(
        self,
        root: Path,
        params: Mapping[str, Any] | None = None,
        command_line: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the settings.

        Args:
            root: the project's folder.
            params: values in place of params.yaml.
            command_line: what of them the command line said.

        Raises:
            PlanError: a setting is impossible.
        """
        self.settings = Settings(root, params, command_line)
        self.root, self.store = root, root / "results/store"
        self.context = Context(self.settings)
        self._printed = PrintedNumbers(self.settings)
        self._cells: dict[str, list[TableCell]] = {}
        self._documents: dict[str, TableDocument] = {}

    @property
    def nodes(self) -> dict[str, Node]:
        """The artefacts planned so far, by address; asking for more tables adds to them."""
        return self.context.nodes

    def cells(self, table: str) -> list[TableCell]:
        """All cells of a table, row by row.

        Raises:
            PlanError: an axis, a row or a setting is impossible.
        """
        name = self.settings.full_name(table)
        if name not in self._cells:
            self._cells[name] = list(plan_cells(name, self.context, self._printed))
        return self._cells[name]

    def have(self, node: Node) -> bool:
        """Whether the store holds the artefact's meta.json, which is all that a table reads."""
        return (folder(self.store, node.address) / META).is_file()

    def whole(self, node: Node) -> bool:
        """Whether the store holds the artefact with all its files, as jobs and pictures need it."""
        return is_whole(folder(self.store, node.address))

    def node(self, address: str) -> Node:
        """The node of `stage/id`.

        Raises:
            PlanError: no table of this scale plans it.
        """
        for nodes in self.growing():
            if address in nodes:
                return nodes[address]
        raise PlanError(
            f"{address}: no table at scale '{self.settings.params.scale}' plans it: "
            f"{nearest(address, self.nodes)}"
        )

    def growing(self) -> Iterator[dict[str, Node]]:
        """All nodes known so far, by address, again after each further table of the scale.

        A table that cannot be planned is passed over, since it must not stop the jobs of others.
        """
        yield self.nodes
        for table in self.settings.table_names():
            with contextlib.suppress(PlanError):
                self.cells(table)
            yield self.nodes

    def figure_inputs(self, table: str) -> list[Node]:
        """The artefacts that a picture reads beside its table: its analyses, else none."""
        shows_analysis = self.settings.table(self.settings.full_name(table)).analysis
        return self.evaluations(table) if shows_analysis else []

    def evaluations(self, table: str) -> list[Node]:
        """The evaluations or analyses that the numbers of a table are read off, each once."""
        found = (node for cell in self.cells(table) for node in cell.students)
        return list(dict.fromkeys(found))

    def missing(self, tables: Iterable[str]) -> list[Node]:
        """Artefacts that must be made for these tables, inputs before what reads them."""
        ordered: dict[Node, None] = {}

        def visit(node: Node, there: Callable[[Node], bool]) -> None:
            if node in ordered or there(node):
                return
            for upstream in node.upstream():
                visit(upstream, self.whole)
            ordered[node] = None

        for table in tables:
            if not self.fresh(table):
                for needed in self.table_inputs(table):
                    visit(needed, self.have)
            if self.has_figure(table) and not self.drawn(table):
                for needed in self.figure_inputs(table):
                    visit(needed, self.whole)
        return list(ordered)

    def has_figure(self, table: str) -> bool:
        """Whether a picture is drawn of the table."""
        return self.settings.table(self.settings.full_name(table)).figure is not None

    def table_inputs(self, table: str) -> list[Node]:
        """Everything whose meta.json a table reads, each artefact once.

        These are its evaluations, and those that its scores compare with.
        """
        found = (node for cell in self.cells(table) for node in cell.artefacts())
        return list(dict.fromkeys(found))

    def document(self, table: str) -> TableDocument:
        """The plan of one table: what `distillery table` assembles from, and what DVC compares."""
        name = self.settings.full_name(table)
        if name not in self._documents:
            paper, cells = self.settings.paper(name.partition("/")[0]), self.cells(table)
            self._documents[name] = table_document(
                name,
                self.settings.table(name),
                paper,
                cells,
                self.settings,
                self._printed.of(name.partition("/")[0]),
            )
        return self._documents[name]

    def stem(self, table: str) -> Path:
        """Path of the files of a table and of its picture, without their suffixes."""
        return self.root / "results" / table

    def fresh(self, table: str) -> bool:
        """Whether the table on disk is the one this plan asks for.

        It is when all its files are as they were written, from this plan, and the artefacts that
        the store holds say what they said then.
        """
        return files.is_written(self.document(table), self.stem(table), self.store)

    def drawn(self, table: str) -> bool:
        """Whether the picture on disk is the one this plan asks for, as `fresh` says of a table."""
        return identity.is_drawn(self.document(table), self.stem(table), self.store)

    def write_plan_stamp(self, table: str) -> Path:
        """Write the plan of a table, for the job that assembles it or draws its picture.

        It never is DVC's output results/plan, which a dry run must not touch.
        """
        document = self.document(table)
        stamp = self.root / STAMPS / f"{table}-{document.digest()[:12]}.json"
        return write_plan(stamp, document.json())

    def mark_table(self, table: str) -> Path:
        """A mark, as of `_mark`, that the files of a table are not those of this plan."""
        return self._mark(table, [Path(f"{self.stem(table)}{end}") for end in TABLE_FILES])

    def mark_picture(self, table: str) -> Path:
        """A mark, as of `_mark`, that the files of a picture are not those of this plan."""
        picture = [Path(f"{self.stem(table)}{end}") for end in PICTURE_FILES]
        return self._mark(f"{table}.picture", picture)

    def mark_claims(self) -> Path:
        """A mark, as of `_mark`, that the claims are not those of the tables that exist."""
        return self._mark(
            "claims", [self.stem("claims").with_suffix(end) for end in (".csv", ".md")]
        )

    def mark_artefact(self, node: Node) -> Path:
        """A mark, as of `_mark`, that of an artefact not more than meta.json is there."""
        return self._mark(node.address, [folder(self.store, node.address) / META])

    def _mark(self, name: str, outputs: Iterable[Path]) -> Path:
        """A file that is newer than all of `outputs`, and whose content was never there before.

        That is what makes Snakemake run a rule whose outputs exist: it passes over a newer input
        whose checksum it has seen at an earlier run, and over one that is not newer.
        """
        mark = self.root / STAMPS / f"{name}.mark"
        write_text(mark, f"{time.time_ns()}-{os.getpid()}\n")
        made = mark.stat().st_mtime_ns
        for output in outputs:
            with contextlib.suppress(OSError):  # not there, or not ours to touch
                if output.stat().st_mtime_ns >= made:  # by a clock ahead, or within its resolution
                    os.utime(output, ns=(made - 1_000_000_000,) * 2)
        return mark


def write_plan(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a table's plan to `path`, under another name first so that it is never half there."""
    write_text(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
    return path
