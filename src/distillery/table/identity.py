"""What a picture was drawn from, so that neither a stale nor a needless picture is drawn."""

from __future__ import annotations

import dataclasses

from distillery.components.registry import module_name
from distillery.errors import PlanError
from distillery.store.fingerprint import code_digest
from distillery.table.document import TableDocument


def picture_identity(document: TableDocument) -> dict[str, str]:
    """The digests that the sidecar of a picture holds.

    Returns:
        plan: of what is drawn. code: of the code that draws it. How the table is assembled (the
        document's `code`) does not count.

    Raises:
        PlanError: the table has no figure, or its component does not exist.
    """
    if document.figure is None:
        raise PlanError(f"table '{document.table}' has no figure: nothing to draw")
    drawn = dataclasses.replace(document, code="")
    code = code_digest(["distillery.stages.picture", module_name("figure", document.figure)])
    return {"plan": drawn.digest(), "code": code}
