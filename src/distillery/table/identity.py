"""What a picture was drawn from: the plan and the code, so that neither a stale nor a needless picture is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillery.components.registry import module_name
from distillery.store.canonical import digest
from distillery.store.fingerprint import code_digest


def picture_identity(plan: Mapping[str, Any]) -> dict[str, str]:
    """The digests that the sidecar of a picture holds: of what is drawn, and of the code that draws it. How the table is laid
    out (the plan's `code`) does not count. Raises PlanError when the figure's component does not exist."""
    drawn = {key: value for key, value in plan.items() if key != "code"}
    code = code_digest(["distillery.stages.picture", module_name("figure", plan["figure"])])
    return {"plan": digest(drawn, 64), "code": code}
