"""params.yaml in layers: what stands there for every scale, and in `scales` for the present one.

The command line wins over both. What stands in `scales` for another scale is held against the type
of its keys, since a misspelt key is a mistake whatever the scale, and is read no further.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.errors import PlanError, nearest
from distillery.plan.models import Params, ScaleChanges, checked
from distillery.plan.origins import Tree, Where, as_tree, combine, located, plain
from distillery.plan.table_files import RECIPES
from distillery.plan.yaml_files import read_yaml

PARAMS = "params.yaml"
FOR_ALL_SCALES, FOR_SCALE, COMMAND_LINE = PARAMS, f"{PARAMS} for this scale", "command line"
SCALES = "workflow/scales"
KEY = "scales"
ELSEWHERE = f"; what is meant for another scale belongs in `{KEY}`"
NOT_WITHIN = ("scale", KEY)  # keys that a block of `scales` cannot have
CHANGES = (
    "grid",
    "counts",
    "datasets",
    "networks",
    "ensemble",
    *RECIPES,
)  # keys that change the scale's


def scale_names(root: Path) -> list[str]:
    """The scales of the project at `root`."""
    return sorted(file.stem for file in (root / SCALES).glob("*.yaml"))


@dataclass(frozen=True)
class LayeredParams:
    """What params.yaml says for one scale.

    Attributes:
        values: of all layers together.
        layers: each with the places of its values, the lowest first.
    """

    values: Params
    layers: dict[str, Tree]

    @property
    def tree(self) -> Tree:
        """All layers together, each value with its place."""
        return combine(*self.layers.values())

    @property
    def where(self) -> Where:
        """The place of params.yaml: `where / "tables"` is that of a value."""
        return Where(self.tree, PARAMS)

    def by_table(self, key: str, full_name: Callable[[str], str]) -> dict[str, Tree]:
        """What each layer says below `key`, "grid" or "counts", its tables by their full names."""
        found = {layer: as_tree(values.get(key)) for layer, values in self.layers.items()}
        return {
            layer: Tree({full_name(name): said for name, said in tables.items()}, tables.places)
            for layer, tables in found.items()
        }

    def blocks(self, stage: str) -> Iterator[tuple[str, str]]:
        """Name and place of each block of a stage, layer by layer."""
        for tree in self.layers.values():
            for name in as_tree(tree.get(stage)):
                yield name, str(Where(tree, PARAMS) / stage / name)


def layered(values: Any, command_line: Mapping[str, Any], root: Path) -> LayeredParams:
    """Check params.yaml and lay the block of its scale over it.

    Args:
        values: what params.yaml holds, and over it what the command line said.
        command_line: that alone; it wins over the block of the scale too.
        root: the project's folder, whose scales `scales` may name.

    Raises:
        PlanError: a key or value is wrong, or `scales` names no scale.
    """
    general: Params = checked(Params, values, PARAMS)
    for name, block in general.scales.items():
        _check_block(name, block, root)
    tree = as_tree(located(values, PARAMS))
    layers = {FOR_ALL_SCALES: Tree({k: v for k, v in tree.items() if k != KEY}, tree.places)}
    if own := as_tree(as_tree(tree.get(KEY)).get(general.scale)):
        layers[FOR_SCALE] = own
    if own and command_line:
        layers[COMMAND_LINE] = as_tree(located(command_line, COMMAND_LINE))
    together = combine(*layers.values())
    params: Params = checked(Params, plain(together), Where(together, PARAMS))
    return LayeredParams(params, layers)


def _check_block(name: str, block: Any, root: Path) -> None:
    place = f"{PARAMS}.{KEY}.{name}"
    names = scale_names(root)
    if name not in names:
        raise PlanError(f"{place}: no such scale: {nearest(name, names)}")
    for key in NOT_WITHIN:
        if key in block:
            raise PlanError(f"{place}.{key}: stands beside `{KEY}`, not in it; move it there")
    checked(ScaleChanges, block, place)


def at_other_scales(root: Path, present: str, holds: Callable[[Tree], bool], keys: str) -> str:
    """The end of a message about a change that fits another scale only; nothing where none has it.

    Args:
        root: the project's folder.
        present: the scale that the change does not fit.
        holds: whether a scale, as it was read, has what the change is about.
        keys: of the change, joined by dots.
    """
    for name in scale_names(root):
        if name == present:
            continue
        try:
            found = holds(as_tree(located(read_yaml(root / SCALES / f"{name}.yaml"), name)))
        except PlanError:  # of a scale that nobody asked for
            continue
        if found:
            return f"; scale '{name}' has it: move it to `{KEY}.{name}.{keys}`"
    return ""


def axes_of_scales(root: Path) -> dict[str, Any]:
    """The axes of the tables of all scales; those of a scale that cannot be read are left out."""
    found = {}
    for name in scale_names(root):
        with contextlib.suppress(PlanError):
            tables = as_tree(located(read_yaml(root / SCALES / f"{name}.yaml"), name)).get("tables")
            for table, axes in as_tree(tables).items():
                found[f"{table} at {name}"] = plain(axes)
    return found


def has_block(stage: str, name: str) -> Callable[[Tree], bool]:
    """Whether a scale, or a data set of it, has a block or a network of this name."""

    def holds(scale: Tree) -> bool:
        layers = [scale, *map(as_tree, as_tree(scale.get("datasets")).values())]
        return any(
            name in as_tree(layer.get(key)) for layer in layers for key in (stage, "networks")
        )

    return holds


def has_table(name: str) -> Callable[[Tree], bool]:
    """Whether a scale has axes for the table `paper/table`."""
    return lambda scale: name in as_tree(scale.get("tables"))


def has_dataset(name: str) -> Callable[[Tree], bool]:
    """Whether a scale has a data set of this name."""
    return lambda scale: name in as_tree(scale.get("datasets"))


def without(values: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """params.yaml without these keys, also in its blocks of `scales`."""
    kept = {key: value for key, value in values.items() if key not in keys}
    if isinstance(blocks := kept.get(KEY), Mapping):
        kept[KEY] = {
            name: {key: value for key, value in block.items() if key not in keys}
            for name, block in blocks.items()
        }
    return kept
