"""The digest of the code that an artefact runs.

It covers the definitions of this package that are reachable by name from given roots, and what runs
when their modules are imported. Comments, docstrings, layout, unused definitions and annotations
that nothing reads do not count. How names are followed: `store.references`; what counts although no
name leads to it: `store.inert`.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator

from distillery.store.canonical import digest
from distillery.store.code_cache import remembered
from distillery.store.definitions import CodeItem, Definition, bindings, items
from distillery.store.inert import inert
from distillery.store.references import (
    Place,
    References,
    references,
    references_by_name,
    references_of_all,
    unread,
)
from distillery.store.source_text import canon, module_file, tree

CONTRACTS = "distillery.components.contracts"
# What of a root is called from outside it. Of a component it is what the contract of its kind
# names; of any other root all counts.
_ENTRIES = {
    "distillery.store.runtime": ("seed", "prepare_torch"),
    "distillery.store.job": ("Job",),
}
_OF_STAGES = ("make", "make_table", "make_picture")


def closure(roots: Iterable[str]) -> list[str]:
    """All modules of this package that running `roots` can import, packages included, sorted."""
    return sorted(set().union(*(_reached(root).modules for root in roots)))


def module_digests(roots: Iterable[str]) -> dict[str, str]:
    """Digest of what counts of each module, of which something counts, by dotted name."""
    return remembered(tuple(sorted(set(roots))), _module_digests)


def _module_digests(roots: tuple[str, ...]) -> dict[str, str]:
    counted: dict[str, list[int]] = {}
    for module, place in sorted(set().union(*(_reached(root).places for root in roots))):
        counted.setdefault(module, []).append(place)
    return {module: _part_digest(module, tuple(places)) for module, places in counted.items()}


def counted_names(roots: Iterable[str]) -> set[str]:
    """The dotted names of the definitions, variables and imported names that count."""
    places = set().union(*(_reached(root).places for root in roots))
    return {f"{module}.{name}" for module, place in places for name in items(module)[place].names}


@functools.cache
def _code_digest(roots: tuple[str, ...]) -> str:
    return digest(module_digests(roots))


def code_digest(roots: Iterable[str]) -> str:
    """The digest of what counts from `roots`: equal means that our own code behaves the same.

    Args:
        roots: modules; dotted names of which there is no module are passed over.

    Returns:
        12 hex digits.
    """
    return _code_digest(tuple(sorted(roots)))


class _Reached:
    """What counts from one root.

    Attributes:
        places: items.
        modules: that are imported.
    """

    def __init__(self) -> None:
        self.places: set[Place] = set()
        self.modules: set[str] = set()
        self._whole: set[str] = set()
        self._todo: list[References] = []

    def add(self, found: References) -> None:
        """Take in what `found` leads to, and all that this leads to in turn."""
        self._todo.append(found)
        while self._todo:
            found = self._todo.pop()
            for module in found.loaded | found.whole | {module for module, _ in found.places}:
                self._load(module)
            for module in found.whole - self._whole:
                self._whole.add(module)
                self._todo.append(references_of_all(module))
            for place in found.places - self.places:
                self.places.add(place)
                self._todo.append(references(*place))

    def _load(self, module: str) -> None:
        """Import a module, after its packages: what is not inert counts, and what it imports."""
        if module in self.modules:
            return
        self.modules.add(module)
        package = module.rpartition(".")[0]
        if module_file(package):
            self._load(package)
        self._todo.append(_on_import(module))


@functools.cache
def _on_import(module: str) -> References:
    """What importing a module leads to."""
    running: set[Place] = set()
    loaded: set[str] = set()
    for place, item in enumerate(items(module)):
        if not inert(module, item):
            running.add((module, place))
        elif item.imported:
            loaded |= references(module, place).loaded
    return References(frozenset(running), frozenset(), frozenset(loaded))


@functools.cache
def _reached(root: str) -> _Reached:
    reached = _Reached()
    if module_file(root):
        found = references_by_name(root, _entries(root))
        whole = frozenset() if found.places else frozenset([root])
        reached.add(References(found.places, found.whole | whole, found.loaded | {root}))
    return reached


def _entries(root: str) -> Iterable[str]:
    """What of a root counts by itself; nothing: all of it."""
    if "NAMES" in bindings(root):
        return _contract_names()
    return _OF_STAGES if root.startswith("distillery.stages.") else _ENTRIES.get(root, ())


@functools.cache
def _contract_names() -> frozenset[str]:
    """What modules of components are asked for by name, whatever their kind."""
    if module_file(CONTRACTS) is None:
        return frozenset()
    classes = [node for node in tree(CONTRACTS).body if isinstance(node, ast.ClassDef)]
    return frozenset(_members(classes)) | {"TRAITS"}


def _members(classes: Iterable[ast.ClassDef]) -> Iterator[str]:
    for node in (part for found in classes for part in found.body):
        if isinstance(node, Definition):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@functools.cache
def _part_digest(module: str, places: tuple[int, ...]) -> str:
    return digest([_item_digest(module, place) for place in places])


@functools.cache
def _item_digest(module: str, place: int) -> str:
    return digest(_content(module, items(module)[place]))


def _content(module: str, item: CodeItem) -> object:
    if item.imported:
        return ["import", item.names, item.imported.module, item.imported.name]
    if item.content is None:
        return ["library", item.library]
    return canon(item.content, unread(module, item.content))
