"""Stage `embed`: an embedding of each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillery.plan.cell import Experiment
from distillery.plan.checks import check_teachers
from distillery.plan.context import Context
from distillery.plan.named_files import names_a_file
from distillery.plan.nodes import Node
from distillery.plan.stage_plans.data import ABSENT, plan_data
from distillery.plan.stage_plans.teacher import plan_teachers
from distillery.plan.types import component
from distillery.store.canonical import file_sha256


def plan_embeddings(name: str, experiment: Experiment, context: Context) -> Node:
    """The embeddings of an experiment's classes by the block `embed.<name>`.

    The path of a file of embeddings is no part of the identity; its SHA-256 is.

    Raises:
        PlanError: there is no such block, a field is wrong, or it needs teachers and names none.
    """
    values = context.recipe("embed", name, experiment)
    source = component("embedding", {"name": name} | values, values.where)
    check_teachers(source, values.where, f"'{name}'")
    inputs = {
        "data": plan_data(experiment.dataset, context),
        **plan_teachers(source, experiment.dataset, context),
    }
    recipe: dict[str, Any] = {
        "source": {key: value for key, value in source.reference.items() if key != "path"}
    }
    local: dict[str, Any] = {}
    if source.get("path"):
        file = context.settings.root / source.get("path")
        recipe["digest"] = context.remember(("file", file), lambda: _content(file))
        local = {
            "source": {
                key: str(context.settings.root / value) if names_a_file(key) else value
                for key, value in source.reference.items()
            }
        }
    return context.node(
        "embed",
        f"{experiment.dataset}-{name}",
        recipe,
        inputs=inputs,
        code=source.modules,
        dataset=experiment.dataset,
        local=local,
    )


def _content(file: Path) -> str:
    """SHA-256 of a file, hex, or `ABSENT`."""
    return file_sha256(file) if file.is_file() else ABSENT
