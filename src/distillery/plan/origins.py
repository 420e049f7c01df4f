"""Where a value comes from: trees of settings whose leaves know the file and the key that set them.

Blocks of settings lie in layers: the scale, the data set's block in it, params.yaml, and the row
and the axes of a table. `combine` lays one over the other and keeps, for each value, the place at
which it stands, so that an error names the file that a user must edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Beginning of the places of table files: what their rows and axes say are changes.
_OF_TABLES = "workflow/tables/"


@dataclass(frozen=True)
class Leaf:
    """A value that is no mapping. Two leaves are equal when their values are.

    Attributes:
        value: as it was read.
        place: file and key path, such as `params.yaml.evaluate.static.training.epochs`.
    """

    value: Any
    place: str = field(compare=False)


class Tree(dict[Any, Any]):
    """A mapping whose values are trees or leaves.

    Attributes:
        places: files and key paths of all mappings that were combined to it, the lowest first.
    """

    def __init__(self, values: Mapping[Any, Any], places: Iterable[str]) -> None:
        """Take the values as they are."""
        super().__init__(values)
        self.places = tuple(places)

    def copy(self) -> Tree:
        """Another tree of the same values."""
        return Tree(self, self.places)

    def leaves(self, path: str = "") -> Iterator[tuple[str, Leaf]]:
        """All leaves below, each with its keys, joined by dots and preceded by `path`."""
        for key, value in self.items():
            below = f"{path}.{key}" if path else str(key)
            if isinstance(value, Tree):
                yield from value.leaves(below)
            else:
                yield below, value


def located(values: Any, place: str) -> Any:
    """`values`, which a file holds at the key path `place`, as a tree; as a leaf if no mapping."""
    if not isinstance(values, Mapping):
        return Leaf(values, place)
    inside = {key: located(value, f"{place}.{key}") for key, value in values.items()}
    return Tree(inside, [place])


def as_tree(node: Any) -> Tree:
    """`node` itself when it is a tree, else an empty one."""
    return node if isinstance(node, Tree) else Tree({}, [])


def combine(*layers: Tree) -> Tree:
    """Lay trees over each other; a later one wins.

    A leaf is replaced whole, a mapping key by key. A mapping that names another component (its
    `name` differs) replaces the earlier one whole, since its fields belong to that component.
    """
    merged = Tree({}, [place for layer in layers for place in layer.places])
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            if isinstance(old, Tree) and isinstance(value, Tree):
                same = value.get("name", old.get("name")) == old.get("name")
                value = combine(old, value) if same else value
            merged[key] = value
    return merged


def plain(node: Any) -> Any:
    """The values of a tree, or of a leaf, alone."""
    if isinstance(node, Tree):
        return {key: plain(value) for key, value in node.items()}
    return node.value


def merge(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """`combine` of plain mappings, where the places do not matter; None is an empty one."""
    merged: dict[str, Any] = plain(combine(*(located(layer or {}, "") for layer in layers)))
    return merged


class Where:
    """The place of a block or a value, for errors: `str()` gives the file and the key that set it.

    `where / "training" / "epochs"` is the place of a value below. What no layer says has the place
    of the mapping that lacks it, in the lowest layer that has that mapping, tables aside.
    """

    def __init__(self, node: Any, nominal: str, keys: tuple[str, ...] = ()) -> None:
        """Take a tree, and the place to name where nothing in it has one.

        Args:
            node: the tree that `keys` lead through.
            nominal: file and key path of the tree in the file that should hold it.
            keys: from the tree inwards.
        """
        self.node, self.nominal, self.keys = node, nominal, keys

    def __truediv__(self, key: str) -> Where:
        """The place of `key` below this one."""
        return Where(self.node, self.nominal, (*self.keys, str(key)))

    def __str__(self) -> str:
        """File and key path."""
        node, place = self.node, self.nominal
        rest, missing = list(self.keys), list(self.keys)
        while True:
            if isinstance(node, Leaf):
                return ".".join([node.place, *rest])
            # What is missing is missing from a file with recipes, not from a change of them.
            if whole := [found for found in node.places if not found.startswith(_OF_TABLES)]:
                place, missing = whole[0], list(rest)
            inside = {str(key): item for key, item in node.items()}
            if not rest or rest[0] not in inside:
                break
            node = inside[rest.pop(0)]
        if not rest and node.places:
            return node.places[0]
        return ".".join([place, *missing])


def below(where: Where | str, *keys: object) -> str:
    """File and key path of what stands below `where`, one key after the other."""
    if isinstance(where, str):
        return ".".join([where, *map(str, keys)])
    for key in keys:
        where = where / str(key)
    return str(where)


class ResolvedBlock(dict[str, Any]):
    """The values of a block, from all layers, and where each stands.

    Attributes:
        where: the place of the block; `where / key` is that of a value.
        tree: the same values as leaves.
    """

    def __init__(self, tree: Tree, nominal: str) -> None:
        """Take the values of `tree`; `nominal` is the place to name where it has none."""
        super().__init__(plain(tree))
        self.tree, self.where = tree, Where(tree, nominal)


class Override(dict[str, Any]):
    """Changes of recipes by stage, of a row and of the axes of its table, and where each stands.

    Attributes:
        layers: the changes of the row and of each axis, by what they are of; later ones win.
        tree: all of them as leaves, by stage.
    """

    def __init__(self, layers: Mapping[str, Tree]) -> None:
        """Lay the trees over each other."""
        self.layers, self.tree = dict(layers), combine(*layers.values())
        super().__init__(plain(self.tree))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Override:
        """`values` themselves when they know where they stand, else an unnamed row's."""
        return values if isinstance(values, cls) else cls({"row": located(values, "override")})

    def restricted(self, stages: Iterable[str]) -> Override:
        """The changes of these stages alone."""
        kept = set(stages)
        return Override(
            {
                name: Tree({key: item for key, item in layer.items() if key in kept}, layer.places)
                for name, layer in self.layers.items()
            }
        )


def with_place(node: Any, place: str) -> Any:
    """The same tree, but its leaves stand at `place`."""
    if isinstance(node, Leaf):
        return Leaf(node.value, place)
    return Tree({key: with_place(value, place) for key, value in node.items()}, node.places)
