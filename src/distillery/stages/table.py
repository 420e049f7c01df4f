"""The table stage: from a plan document and the store to the five files of a table."""

from __future__ import annotations

from pathlib import Path

from distillery.table.assemble import assemble
from distillery.table.document import read_document
from distillery.table.files import write


def make_table(plan_file: Path, store: Path, out_stem: Path) -> None:
    """Write the table of a plan document beside `out_stem`.

    Args:
        plan_file: JSON, written by the planner (`table.document`).
        store: folder of the artefacts that it names.
        out_stem: path of the table's files without their suffixes.

    Raises:
        PlanError: the plan cannot be read, or its cells make no table.
        ArtefactError: an artefact that it names is missing.
    """
    document = read_document(plan_file)
    write(document, assemble(document, Path(store)), Path(out_stem))
