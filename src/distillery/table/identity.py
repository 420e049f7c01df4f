"""What a picture was drawn from: the plan and the code, so that neither a stale nor a needless picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillery.canonical import digest
from distillery.code import code_digest
from distillery.components import module_name


def picture_identity(plan: Mapping[str, Any]) -> dict[str, str]:
    """The digests that the sidecar of a picture holds. Raises PlanError when the figure's component does not exist."""
    code = code_digest(["distillery.table.picture", module_name("figure", plan["figure"])])
    return {"plan": digest(plan, 64), "code": code}
