"""Random edits of a tree of plain values, and of a text: what a slip of the hand can do to them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy], Any]
Path = tuple[Any, ...]
# Values at the borders of what anything may be, and what settings have at other places.
BORDERS = (None, True, False, 0, -1, 1, 2, 7, 0.5, 1e9, 10**7, 2**63, 10**400, -(10**400))
FLOATS = (1e308, 5e-324, math.inf, -math.inf, math.nan, -0.0)
TEXTS = ("", " ", "0", "1e5", "none", "null", "é", "\u2028x", "a\nb", "\x00", "../x", "/dev/zero")
NAMES = ("*", "%s", "{}", "x" * 300, "ensemble", "ensemble:2", "student", "convnet-w16", "cuda:0")
PARTS = ("crop:1", "infer", "digits", "folder:x", "sklearn:digits", "step", "hard", "static")
LISTS = ([], [[]], [None], [1, 1], ["a", "a"], [{}], ["crop:99"], ["nothing"], [True], [math.inf])
BLOCKS = ({}, {"": None}, {"name": None}, {"name": "infer"}, {1: 2}, {1.5: {}}, {"digits": [1]})
SPECIAL = ({"per_ipc": {}}, {"per_ipc": {5: 1}}, {"per_student": {"convnet-w16": []}})
POOL = st.sampled_from([*BORDERS, *TEXTS, *NAMES, *PARTS, *LISTS, *BLOCKS, *SPECIAL])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
VALUES = POOL | st.sampled_from(FLOATS) | st.recursive(SCALARS, st.lists, max_leaves=4)
KEYS = (
    "new",
    "name",
    "per_ipc",
    "per_student",
    "training",
    "loss",
    "network",
    "path",
    "",
    "a.b",
    5,
)
# What a slip puts into a text, JSON and YAML alike.
SIGNS = "{}[]:,\"'#&*!|>%@`\t\n\x00\ufeff-"
WORDS = ("null", "NaN", "1e999", " : ", "\n\n", "---\n", "<<: ", "? ", "&a ", "*a", "&a [*a]")
TAGS = ("!!python/name:os.system ", "yes: 1\n", "1:30", "0x1f", "2020-01-01", "\\ud800")
SNIPPETS = st.sampled_from([*SIGNS, *WORDS, *TAGS, "[" * 2000, "9" * 5000])


def paths(tree: Any, path: Path = ()) -> Iterator[Path]:
    """The keys that lead to each value of a tree, its root aside."""
    if not isinstance(tree, dict | list):
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        yield from paths(value, (*path, key))


def at(tree: Any, path: Path) -> Any:
    """What stands at the end of a path."""
    for key in path:
        tree = tree[key]
    return tree


def _replaced(draw: Draw, tree: Any, parent: Any, key: Any) -> None:
    parent[key] = copy.deepcopy(draw(VALUES))


def _removed(draw: Draw, tree: Any, parent: Any, key: Any) -> None:
    del parent[key]


def _renamed(draw: Draw, tree: Any, parent: Any, key: Any) -> None:
    new = draw(st.sampled_from([f"{key}x", str(key)[:-1], *KEYS]))
    if isinstance(parent, dict):
        items = [(new if k == key else k, v) for k, v in parent.items()]
        parent.clear()
        parent.update(items)


def _added(draw: Draw, tree: Any, parent: Any, key: Any) -> None:
    value = copy.deepcopy(draw(VALUES))
    if isinstance(parent, dict):
        parent[draw(st.sampled_from(KEYS))] = value
    else:
        parent.insert(key, value)


def _wrapped(draw: Draw, tree: Any, parent: Any, key: Any) -> None:
    value = parent[key]
    parent[key] = draw(st.sampled_from([[value], {"a": value}, [value, value], str(value)]))


def _swapped(draw: Draw, tree: Any, parent: Any, key: Any) -> None:
    other = draw(st.sampled_from(list(paths(tree))))
    above = at(tree, other[:-1])
    first, second = copy.deepcopy(parent[key]), copy.deepcopy(above[other[-1]])
    above[other[-1]] = first
    if key in parent if isinstance(parent, dict) else key < len(parent):
        parent[key] = second


EDITS = (_replaced, _replaced, _removed, _renamed, _added, _wrapped, _swapped)


def edited(draw: Draw, tree: Any) -> tuple[Any, str]:
    """A copy of `tree` with one random edit, and what it was, for a failing example's note."""
    tree = copy.deepcopy(tree)
    path = draw(st.sampled_from(list(paths(tree))))
    edit = draw(st.sampled_from(EDITS))
    edit(draw, tree, at(tree, path[:-1]), path[-1])
    return tree, f"{edit.__name__} at {'.'.join(map(str, path))}"


def edited_text(draw: Draw, text: str) -> str:
    """`text` with up to three parts of it replaced, removed, repeated, or with something put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 2, 9, 40, 400])))
        put = draw(st.just("") | SNIPPETS | st.just(text[start:end] * 2) | st.text(max_size=3))
        text = text[:start] + put + text[end:]
    return text
