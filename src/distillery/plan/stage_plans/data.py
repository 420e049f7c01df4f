"""Stage `data`: the canonical form of a data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from distillery.components.registry import module_name
from distillery.data.digest import place_digest
from distillery.data.source import parse
from distillery.errors import DataError, PlanError
from distillery.plan.context import Context
from distillery.plan.models import Dataset
from distillery.plan.nodes import Node
from distillery.plan.types import torch_free_part, traits, validated

ABSENT = "absent"  # the digest of what is not there, so that planning goes on without it
DIGESTS = "results/scratch/digests.json"  # remembers the digests of files that did not change


def plan_data(name: str, context: Context) -> Node:
    """The canonical data set `name`.

    Raises:
        PlanError: the scale has no such data set, or its source or a field is wrong.
    """
    return context.remember(("data", name), lambda: _data(name, context))


def _data(name: str, context: Context) -> Node:
    settings = context.settings
    dataset, where = settings.dataset(name), settings.where / "datasets" / name
    try:
        kind, place = parse(dataset.source)
        on_disk = traits("source", kind).on_disk
        folder = settings.root / place if on_disk else None
        digest = dataset.digest or _source_digest(dataset.source, folder, settings.root)
    except DataError as error:
        raise PlanError(f"{where / 'source'}: {error}") from None
    recipe_type = torch_free_part("distillery.stages.data").DataRecipe
    fields = [field.name for field in dataclasses.fields(recipe_type)]
    values = _stated(dataset, fields)
    values |= {"source": kind if on_disk else dataset.source, "digest": digest}
    return context.node(
        "data",
        name,
        dict.fromkeys(fields) | validated(recipe_type, values, where),
        inputs={},
        code=[module_name("source", kind)],
        dataset=name,
        local={"source": f"{kind}:{folder}"} if folder else {},
    )


def _source_digest(source: str, folder: Path | None, root: Path) -> str:
    """What identifies the content of a source; `ABSENT` while its folder is not there."""
    if folder is None:
        return source  # it names a fixed release
    return place_digest(folder, root / DIGESTS) or ABSENT


def _stated(dataset: Dataset, fields: list[str]) -> dict[str, Any]:
    """The fields of the recipe, source and digest aside, that a data set says something of."""
    shared = set(fields) & Dataset.model_fields.keys() - {"source", "digest"}
    values = {field: getattr(dataset, field) for field in shared}
    return {field: value for field, value in values.items() if value not in (None, {})}
