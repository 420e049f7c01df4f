"""Every change of params.yaml must change something: its name is one that the scale knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from distillery.components.registry import index
from distillery.errors import PlanError, nearest
from distillery.plan.origins import Tree, as_tree
from distillery.plan.params import (
    SCALES,
    LayeredParams,
    at_other_scales,
    has_block,
    has_dataset,
    has_table,
)
from distillery.plan.references import full_name
from distillery.plan.table_files import RECIPES

# Stages whose blocks may have the names of components of this kind.
COMPONENTS = {"distill": "method", "embed": "embedding"}
BY_TABLE = {"grid": "tables", "counts": "counts"}  # keys by table, and those of the scale
# What a new entry must say, which a change of a known one need not.
_NEW = {"datasets": ("data set", "source"), "networks": ("network", "name")}


def check_changes(root: Path, params: LayeredParams, scale: Tree, own: Tree) -> None:
    """Refuse blocks of params.yaml that change nothing.

    Args:
        root: of the project.
        params: what params.yaml says.
        scale: with the data sets, networks and ensemble of params.yaml.
        own: the scale alone.

    Raises:
        PlanError: one does; it names the nearest, and other scales that have use for it.
    """

    def elsewhere(holds: Callable[[Tree], bool], keys: str) -> str:
        return at_other_scales(root, params.values.scale, holds, keys)

    for stage in RECIPES:
        known = _blocks(scale, stage)
        for name, place in params.blocks(stage):
            if name not in known:
                other = elsewhere(has_block(stage, name), f"{stage}.{name}")
                raise PlanError(f"{place}: no such block: {nearest(name, known)}{other}")
    for key, (kind, field) in _NEW.items():
        for name, place in params.blocks(key):
            if field not in as_tree(as_tree(scale.get(key))[name]):
                holds = has_dataset(name) if key == "datasets" else has_block(key, name)
                others = nearest(name, as_tree(own.get(key)))
                raise PlanError(
                    f"{place}: no such {kind} at this scale, and a new one needs a `{field}`: "
                    f"{others}{elsewhere(holds, f'{key}.{name}')}"
                )
    tables = as_tree(scale.get("tables"))
    for key in BY_TABLE:
        for table, place in params.blocks(key):
            if (full := full_name(table, params.values.paper)) not in tables:
                other = elsewhere(has_table(full), f"{key}.{table}")
                raise PlanError(f"{place}: {_no_table(table, tables)}{other}")
    for table in as_tree(own.get("counts")):
        if table not in tables:
            file = f"{SCALES}/{params.values.scale}.yaml"
            raise PlanError(f"{file}.counts.{table}: {_no_table(table, tables)}")


def _blocks(scale: Tree, stage: str) -> set[str]:
    """Names of blocks of a stage: of the scale, of a data set, of networks and components."""
    layers = [scale, *(as_tree(block) for block in as_tree(scale.get("datasets")).values())]
    known = {name for layer in layers for name in as_tree(layer.get(stage))}
    known |= set(as_tree(scale.get("networks")))
    return known | (set(index(COMPONENTS[stage])) if stage in COMPONENTS else set())


def _no_table(table: str, tables: Tree) -> str:
    return f"no such table at this scale: {nearest(table, tables)}"
