"""Overrides of a data set, an ipc or a student: which apply, and those that match no table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from distillery.errors import PlanError, nearest, shown
from distillery.plan.origins import Leaf, Tree, Where, as_tree, combine, plain

SPECIAL = {"per_dataset": "dataset", "per_ipc": "ipc", "per_student": "student"}


class Point(Protocol):
    """What the overrides of a layer depend on."""

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        ...

    @property
    def ipc(self) -> float:
        """Images per class."""
        ...

    @property
    def student(self) -> str | None:
        """Name of the student's network, or None without one."""
        ...


def sublayers(layer: Any, point: Point | None) -> list[Tree]:
    """What a layer says in general, then for data set, ipc and student of `point`; later ones win.

    Args:
        layer: a tree, or None for one that says nothing.
        point: None for what is said in general.

    Raises:
        PlanError: the layer is no mapping, or its `per_dataset`, `per_ipc` or `per_student` not
            one of mappings.
    """
    if isinstance(layer, Leaf) and layer.value is not None:
        raise PlanError(f"{layer.place} = {shown(layer.value)}: expected keys and values")
    found = [as_tree(layer).copy()]
    for axis, kinds in (("dataset", (str,)), ("ipc", (int, float)), ("student", (str,))):
        key = f"per_{axis}"
        special = [part.pop(key) for part in found if key in part]
        for block in special:
            _check_special(block, axis, kinds)
        found.append(as_tree(combine(*special).get(getattr(point, axis, None))).copy())
    return found


def _check_special(block: Any, axis: str, kinds: tuple[type, ...]) -> None:
    if not isinstance(block, Tree) or not all(
        isinstance(key, kinds) and isinstance(value, Tree) for key, value in block.items()
    ):
        raise PlanError(
            f"{Where(block, '')} = {shown(plain(block))}: expected keys and values below each "
            f"{axis}"
        )


def check_kinds(layers: Iterable[Tree]) -> None:
    """Refuse a value that a later layer covers with keys and values, in silence else.

    A component may be written as its name in one layer, and as keys with a `name` in another.

    Args:
        layers: of one recipe, the lowest first.

    Raises:
        PlanError: it is so; the message names the earlier place.
    """
    kinds: dict[tuple[Any, ...], Leaf] = {}

    def visit(tree: Tree, path: tuple[Any, ...]) -> None:
        for key, item in tree.items():
            below = (*path, key)
            if isinstance(item, Leaf):
                kinds[below] = item
                continue
            value = kinds.pop(below, None)
            if value is not None and value.value is not None and "name" not in item:
                raise PlanError(
                    f"{value.place} = {shown(value.value)}: expected keys and values, as in "
                    f"{Where(item, '')}"
                )
            visit(item, below)

    for layer in layers:
        visit(layer, ())


def check_overrides(
    block: Tree,
    tables: Mapping[str, Any],
    advice: str = "",
    further: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Refuse a `per_dataset`, `per_ipc` or `per_student` whose key means no cell of any table.

    Args:
        block: settings; overrides are looked for at any depth.
        tables: axes by table, values or values by panel.
        advice: the end of the message about a key that matches nothing.
        further: more axes by table, asked for a key that `tables` lack.

    Raises:
        PlanError: a key matches nothing; it names its place, and the values that there are.
    """
    for axis, key, place in _special(block):
        if axis == "ipc" and isinstance(key, str):
            above = place.removesuffix(f".{key}")
            raise PlanError(
                f"{above} = {{'{key}': ...}}: expected keys and values below each ipc, which is a "
                "number without quotes"
            )
        valid = set(_values(tables, axis))
        if valid and key not in valid and key not in _values(further(), axis):
            hint = nearest(_text(key), map(_text, valid))
            raise PlanError(
                f"{place}: matches nothing, no table of the scale has it: {hint}{advice}"
            )


def _special(block: Tree) -> Iterator[tuple[str, Any, str]]:
    """Axis, key and place of each override below `block`."""
    for name, value in block.items():
        if name in SPECIAL:
            for key, inside in as_tree(value).items():
                place = as_tree(inside).places or as_tree(value).places
                yield SPECIAL[name], key, place[-1] if place else f"{name}.{key}"
        yield from _special(as_tree(value))


def _values(tables: Mapping[str, Any], axis: str) -> Iterator[Any]:
    for axes in tables.values():
        values = axes.get(axis, [])
        yield from (
            (v for part in values.values() for v in part) if isinstance(values, Mapping) else values
        )


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
