"""The plan: tables to cells, cells to artefacts, and what of them is missing or stale."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distillery.errors import PlanError, nearest
from distillery.plan.cell import TableCell
from distillery.plan.context import Context
from distillery.plan.document import table_document
from distillery.plan.nodes import Node
from distillery.plan.settings import Settings
from distillery.plan.table_cells import PrintedNumbers, plan_cells
from distillery.store.artefact import META
from distillery.store.atomic import write_text
from distillery.store.canonical import digest, file_sha256
from distillery.store.spec import folder
from distillery.table.document import TableDocument
from distillery.table.identity import picture_identity

STAMPS = "results/scratch/plan"
SUFFIXES = {"csv": ".csv", "md": ".md", "tex": ".tex", "metrics": ".metrics.json", "json": ".json"}
PICTURE_SUFFIXES = (".png", ".pdf", ".values.csv")


class Plan:
    """What the settings ask for, and what of it the store lacks.

    Attributes:
        settings: params.yaml and the scale that it names.
        root: the project's folder.
        store: the folder of the artefacts.
        context: all nodes planned so far.
    """

    def __init__(self, root: Path, params: Mapping[str, Any] | None = None) -> None:
        """Read the settings.

        Args:
            root: the project's folder.
            params: values in place of params.yaml.

        Raises:
            PlanError: a setting is impossible.
        """
        self.settings = Settings(root, params)
        self.root, self.store = root, root / "results/store"
        self.context = Context(self.settings)
        self._printed = PrintedNumbers(self.settings)
        self._cells: dict[str, list[TableCell]] = {}

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
        """Whether the store holds the artefact: meta.json, written last, says that it is whole."""
        return (folder(self.store, node.address) / META).is_file()

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
        found = (node for cell in self.cells(table) for node in cell.evaluations)
        return list(dict.fromkeys(found))

    def missing(self, tables: Iterable[str]) -> list[Node]:
        """Artefacts that must be made for these tables, inputs before what reads them."""
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
            if self.has_figure(table) and not self.drawn(table):
                for needed in self.figure_inputs(table):
                    visit(needed)
        return list(ordered)

    def has_figure(self, table: str) -> bool:
        """Whether a picture is drawn of the table."""
        return self.settings.table(self.settings.full_name(table)).figure is not None

    def table_inputs(self, table: str) -> list[Node]:
        """Everything whose meta.json a table reads, each artefact once.

        These are its evaluations, the sets, labels and data whose bytes it states, and what its
        scores compare with.
        """
        found = (node for cell in self.cells(table) for node in cell.artefacts())
        return list(dict.fromkeys(found))

    def document(self, table: str) -> TableDocument:
        """The plan of one table: what `distillery table` assembles from, and what DVC compares."""
        name = self.settings.full_name(table)
        paper = self.settings.paper(name.partition("/")[0])
        cells = self.cells(table)
        return table_document(name, self.settings.table(name), paper, cells, self.settings)

    def outputs(self, table: str) -> dict[str, Path]:
        """The files of a table: csv, md, tex, metrics and the sidecar json."""
        return {kind: self._result(table, suffix) for kind, suffix in SUFFIXES.items()}

    def _result(self, table: str, suffix: str) -> Path:
        return self.root / "results" / f"{table}{suffix}"

    def fresh(self, table: str) -> bool:
        """Whether the table on disk is the one this plan asks for.

        It is when all files are there, its sidecar names the plan, and nobody changed the CSV.
        """
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
        """Whether the picture on disk is the one this plan asks for.

        It is when all files are there and its sidecar names the plan and the code that draws it.
        """
        try:
            found = json.loads(self._result(table, ".picture.json").read_text())
        except (OSError, ValueError):
            return False
        complete = all(self._result(table, suffix).is_file() for suffix in PICTURE_SUFFIXES)
        return complete and found == picture_identity(self.document(table))

    def write_plan_stamp(self, table: str) -> Path:
        """Write the plan of a stale table under a name that holds its digest.

        The file is newer than the table, which makes Snakemake rebuild it. It never is DVC's output
        results/plan, which a dry run must not touch.
        """
        document = self.document(table)
        stamp = self.root / STAMPS / f"{table}-{document.digest()[:12]}.json"
        return write_plan(stamp, document.json())

    def write_picture_stamp(self, table: str) -> Path:
        """Write the identity of a stale picture under a name that holds its digest.

        Snakemake passes over a newer input whose content it has seen, so the code counts too.
        """
        identity = picture_identity(self.document(table))
        stamp = self.root / STAMPS / f"{table}-{digest(identity)}.picture.json"
        return write_plan(stamp, identity)


def write_plan(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a table's plan to `path`, under another name first so that it is never half there."""
    write_text(path, json.dumps(document, indent=1, sort_keys=True) + "\n")
    return path
