"""The files of a table: the five that are written, and whether they are those of a plan."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError
from distillery.table.assemble import AssembledCell
from distillery.table.document import TableDocument
from distillery.table.layout import layout, metrics
from distillery.table.notes import notes
from distillery.table.render import latex, markdown
from distillery.table.seal import is_sealed, write_sealed
from distillery.table.tidy import csv_text

SUFFIXES = (".csv", ".md", ".tex", ".metrics.json")
SIDECAR = ".json"


def is_written(document: TableDocument, out_stem: Path, store: Path) -> bool:
    """Whether the files beside `out_stem` are the table of this plan, over what `store` holds."""
    return is_sealed(out_stem, SUFFIXES, SIDECAR, _identity(document), store)


def check_table(document: TableDocument, out_stem: Path, store: Path) -> None:
    """Check that the table beside `out_stem` is there, untouched, and of this very plan.

    Raises:
        ArtefactError: it is not.
    """
    if is_written(document, out_stem, store):
        return
    table = Path(f"{out_stem}.csv")
    advice = f"`distillery table {document.table}` makes it from finished cells"
    if not table.is_file():
        raise ArtefactError(f"{table}: not made yet; {advice}")
    raise ArtefactError(f"{table}: made from another plan, or edited since; {advice}")


def write(document: TableDocument, cells: Sequence[AssembledCell], out_stem: Path) -> None:
    """Write .csv, .md, .tex, .metrics.json and, last, the sidecar .json: same plan, same bytes.

    Args:
        document: the plan of the table.
        cells: its cells, assembled.
        out_stem: path of the files without their suffixes.

    Raises:
        PlanError: two cells fall into one place of the table.
    """
    panels = layout(document, cells)
    foot = notes(document, cells, f"{out_stem.name}.csv")
    texts = {
        ".csv": csv_text(document, cells),
        ".md": markdown(document.title, panels, foot),
        ".tex": latex(document.title, panels, foot),
        ".metrics.json": _json(metrics(document, cells)),
    }
    contents = {suffix: text.encode() for suffix, text in texts.items()}
    artefacts = {address: said for cell in cells for address, said in cell.artefacts.items()}
    write_sealed(out_stem, contents, SIDECAR, _identity(document), artefacts)


def _identity(document: TableDocument) -> dict[str, Any]:
    return {"table": document.table, "scale": document.scale, "plan": document.digest()}


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
