"""The files of a table: the five that are written, and whether they are those of a plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from distillery.errors import ArtefactError
from distillery.store.atomic import text_writer, write_together
from distillery.table.assemble import AssembledCell
from distillery.table.document import TableDocument
from distillery.table.layout import layout, metrics
from distillery.table.notes import notes
from distillery.table.render import latex, markdown
from distillery.table.tidy import csv_text


def check_table(document: TableDocument, out_stem: Path) -> None:
    """Check that the table beside `out_stem` is there, untouched, and of this very plan.

    Raises:
        ArtefactError: it is not.
    """
    table = Path(f"{out_stem}.csv")
    advice = f"`distillery table {document.table}` makes it from finished cells"
    try:
        sidecar = json.loads(Path(f"{out_stem}.json").read_text(encoding="utf-8"))
        checksum = hashlib.sha256(table.read_bytes()).hexdigest()
    except (OSError, ValueError):
        raise ArtefactError(f"{table}: not made yet; {advice}") from None
    if sidecar.get("plan") != document.digest() or sidecar.get("csv_sha256") != checksum:
        raise ArtefactError(f"{table}: made from another plan, or edited since; {advice}")


def write(document: TableDocument, cells: Sequence[AssembledCell], out_stem: Path) -> None:
    """Write .csv, .md, .tex, .metrics.json and, last, .json: same plan, same bytes.

    The last one names the plan (SHA-256 of its canonical JSON), the CSV's SHA-256 and the cells,
    all evaluations in the plan's order: a table is stale when these are not the present ones.
    All are written aside before the first is renamed.

    Args:
        document: the plan of the table.
        cells: its cells, assembled.
        out_stem: path of the files without their suffixes.

    Raises:
        PlanError: two cells fall into one place of the table.
    """
    panels = layout(document, cells)
    foot = notes(document, cells, f"{out_stem.name}.csv")
    table = csv_text(document, cells)
    evaluations = [address for cell in document.cells for address in cell.evaluations]
    sidecar = {
        "table": document.table,
        "scale": document.scale,
        "plan": document.digest(),
        "csv_sha256": hashlib.sha256(table.encode()).hexdigest(),
        "cells": list(dict.fromkeys(evaluations)),
    }
    texts = {
        ".csv": table,
        ".md": markdown(document.title, panels, foot),
        ".tex": latex(document.title, panels, foot),
        ".metrics.json": _json(metrics(document, cells)),
        ".json": _json(sidecar),
    }
    write_together({Path(f"{out_stem}{suffix}"): text_writer(t) for suffix, t in texts.items()})


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
