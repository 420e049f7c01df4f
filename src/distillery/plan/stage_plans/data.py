"""Stage `data`: the canonical form of a data set."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from distillery.components.registry import module_name
from distillery.data.digest import place_digest
from distillery.data.expected import contradiction
from distillery.data.source import parse
from distillery.errors import ArtefactError, DataError, PlanError, nearest
from distillery.plan.checks import check_form
from distillery.plan.context import Context
from distillery.plan.library_names import check_library_name
from distillery.plan.models import Dataset
from distillery.plan.nodes import Node
from distillery.plan.origins import Where
from distillery.plan.types import torch_free_part, traits, validated
from distillery.store.artefact import META, read_meta

ABSENT = "absent"  # the digest of what is not there, so that planning goes on without it
# Fields that an identity holds even where they are None; a later one is left out then.
ALWAYS = ("source", "digest", "size", "fit", "channels", "mean", "std")
STORE = "results/store"
EXPECTED = ("classes", "train", "test", "shape")  # of a scale's `expected`, held against the data
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
        check_library_name("source", dataset.source)
        known = traits("source", kind)
        if known.places and place not in known.places:
            raise PlanError(f"'{dataset.source}': no such data set: {nearest(place, known.places)}")
        on_disk = known.on_disk
        folder = settings.root / place if on_disk else None
        if folder and settings.root.resolve().is_relative_to(folder.resolve()):
            raise PlanError(f"'{dataset.source}': holds this project; name a folder of images")
        digest = dataset.digest or _source_digest(dataset.source, folder, settings.root)
    except (DataError, PlanError) as error:
        raise PlanError(f"{where / 'source'}: {error}") from None
    recipe_type = torch_free_part("distillery.stages.data").DataRecipe
    fields = [field.name for field in dataclasses.fields(recipe_type)]
    values = _stated(dataset, fields)
    values |= {"source": kind if on_disk else dataset.source, "digest": digest}
    check_form(dataset, where)
    expected = _expected(dataset, where)
    node = context.node(
        "data",
        name,
        dict.fromkeys(ALWAYS) | validated(recipe_type, values, where),
        inputs={},
        code=[module_name("source", kind)],
        dataset=name,
        local=({"source": f"{kind}:{folder}"} if folder else {}) | expected,
    )
    _check_finished(settings.root / STORE / node.address, expected)
    return node


def _expected(dataset: Dataset, where: Where) -> dict[str, Any]:
    """What the scale says of the data, each value with the place where it stands, for the job."""
    if dataset.expected is None:
        return {}
    stated = {name: getattr(dataset.expected, name) for name in EXPECTED}
    return {
        "expected": {
            name: [value, str(where / "expected" / name)] for name, value in stated.items()
        }
    }


def _check_finished(path: Path, expected: dict[str, Any]) -> None:
    """Hold what the scale says against data that are there already."""
    if not expected or not (path / META).is_file():
        return
    # What the artefact lacks is said by whoever opens it.
    with contextlib.suppress(ArtefactError, KeyError, TypeError):
        metadata = read_meta(path)["metadata"]
        found = {"classes": len(metadata["classes"]), **metadata["counts"]}
        problem = contradiction(expected["expected"], found | {"shape": metadata["shape"]})
        if problem:
            raise PlanError(problem)


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
