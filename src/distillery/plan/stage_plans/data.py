"""Stage `data`: the canonical form of a data set."""

from __future__ import annotations

import dataclasses
from typing import Any

from distillery.data.digest import source_digest
from distillery.data.recipe import Recipe
from distillery.data.source import ON_DISK, parse
from distillery.errors import DataError, PlanError
from distillery.plan.context import Context
from distillery.plan.models import Dataset
from distillery.plan.nodes import Node
from distillery.plan.types import validated

ABSENT = "absent"  # the digest of what is not there, so that planning goes on without it
_FIELDS = [field.name for field in dataclasses.fields(Recipe)]


def plan_data(name: str, context: Context) -> Node:
    """The canonical data set `name`.

    Raises:
        PlanError: the scale has no such data set, or its source or a field is wrong.
    """
    return context.remember(("data", name), lambda: _data(name, context))


def _data(name: str, context: Context) -> Node:
    settings = context.settings
    dataset, root = settings.dataset(name), settings.root
    where = f"{settings.scale_file}.datasets.{name}"
    try:
        kind, place = parse(dataset.source)
        digest = dataset.digest or source_digest(
            dataset.source, root, root / "results/.digests.json"
        )
    except DataError as error:
        raise PlanError(f"{where}.source: {error}") from None
    on_disk = kind in ON_DISK
    source = kind if on_disk else dataset.source
    values = _stated(dataset) | {"source": source, "digest": digest or ABSENT}
    recipe = dict.fromkeys(_FIELDS) | validated(Recipe, values, where)
    return context.node(
        "data",
        name,
        recipe,
        inputs={},
        code=[f"distillery.data.source_{kind}"],
        dataset=name,
        local={"source": f"{kind}:{root / place}"} if on_disk else {},
    )


def _stated(dataset: Dataset) -> dict[str, Any]:
    """The fields of the recipe, source and digest aside, that a data set says something of."""
    shared = set(_FIELDS) & Dataset.model_fields.keys() - {"source", "digest"}
    values = {field: getattr(dataset, field) for field in shared}
    return {field: value for field, value in values.items() if value not in (None, {})}
