"""Overrides of an ipc or a student that no table of the scale has: they would change nothing."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from distillery.components.registry import index
from distillery.errors import PlanError, nearest
from distillery.plan.origins import Tree, as_tree

SPECIAL = {"per_ipc": "ipc", "per_student": "student"}


def check_overrides(block: Tree, tables: Mapping[str, Any], networks: set[str] | None) -> None:
    """Refuse a `per_ipc` or `per_student` whose key means no cell of any table.

    Args:
        block: settings; overrides are looked for at any depth.
        tables: axes by table, values or values by panel.
        networks: names of the scale's and the data sets' networks; a student may be one of them,
            or a network component. None: students are not checked.

    Raises:
        PlanError: a key matches nothing; it names its place, and the values that there are.
    """
    for axis, key, place in _special(block):
        if axis == "student" and (networks is None or key in networks or _is_network(str(key))):
            continue
        if axis == "ipc" and isinstance(key, str):
            above = place.removesuffix(f".{key}")
            raise PlanError(
                f"{above} = {{'{key}': ...}}: expected keys and values below each ipc, which is a "
                "number without quotes"
            )
        valid = set(_values(tables, axis))
        if valid and key not in valid:
            hint = nearest(_text(key), map(_text, valid))
            raise PlanError(f"{place}: matches nothing, no table of the scale has it: {hint}")


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


def _is_network(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in index("network"))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
