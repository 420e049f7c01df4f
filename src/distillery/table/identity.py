"""What a picture was drawn from, so that neither a stale nor a needless picture is drawn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from distillery.components.registry import module_name
from distillery.errors import PlanError
from distillery.store.canonical import file_sha256
from distillery.store.fingerprint import code_digest
from distillery.table.document import TableDocument
from distillery.table.seal import is_sealed

SUFFIXES = (".png", ".pdf", ".values.csv")
SIDECAR = ".picture.json"


def picture_identity(document: TableDocument, out_stem: Path) -> dict[str, str]:
    """The digests that the sidecar of a picture holds.

    Args:
        document: the plan of the table.
        out_stem: path of the table's files without their suffixes.

    Returns:
        plan: of what is drawn. code: of the code that draws it. table: of the table's CSV. How the
        table is assembled (the document's `code`) does not count.

    Raises:
        PlanError: the table has no figure, or its component does not exist.
        OSError: there is no such CSV.
    """
    if document.figure is None:
        raise PlanError(f"table '{document.table}' has no figure: nothing to draw")
    drawn = dataclasses.replace(document, code="")
    code = code_digest(["distillery.stages.picture", module_name("figure", document.figure)])
    table = file_sha256(Path(f"{out_stem}.csv"))
    return {"plan": drawn.digest(), "code": code, "table": table}


def is_drawn(document: TableDocument, out_stem: Path, store: Path) -> bool:
    """Whether the picture beside `out_stem` is that of this plan and of the table beside it."""
    try:
        identity = picture_identity(document, out_stem)
    except OSError:
        return False
    return is_sealed(out_stem, SUFFIXES, SIDECAR, identity, store)
