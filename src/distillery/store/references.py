"""What an item of a module leads to: other items by name, whole modules, modules that it imports.

Names are followed whatever their scope, so that a local variable leads to a definition that happens
to be called so: too much at times, never too little.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from distillery.store.definitions import (
    CodeItem,
    Imported,
    bindings,
    chain,
    imports,
    items,
    walk_scope,
)
from distillery.store.source_text import (
    REGISTRY,
    lazy_annotations,
    module_file,
    package_modules,
    tree,
    unread_annotations,
)

Chain = tuple[str, ...]  # `a.b.c` as its names
Place = tuple[str, int]  # a module, and an index of its `items`
_OWN_NAMES = {"globals", "locals", "eval", "exec"}  # reach the names of the module they stand in
_ANY_MODULE = {"import_module", "__import__", "run_module", "run_path", "reload", "__subclasses__"}
_IDENTIFIER = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True)
class References:
    """What an item leads to.

    Attributes:
        places: items.
        whole: modules of which every item counts, since how they are used cannot be told.
        loaded: modules of this package that it imports.
    """

    places: frozenset[Place]
    whole: frozenset[str]
    loaded: frozenset[str]


@functools.cache
def references(module: str, place: int) -> References:
    """What the item at `place` of `module` leads to.

    An import leads to the modules that it runs; what it binds, the uses of its name lead to.
    """
    item, search = items(module)[place], _Search(module)
    if item.imported:
        search.load(item.imported)
        if item.names == ("*",):
            search.follow(item.imported, ())
    elif item.content is not None:
        search.read(item.content)
    return search.found()


def references_by_name(module: str, names: Iterable[str]) -> References:
    """What asking a module for `names` leads to; those that it does not bind lead nowhere."""
    search = _Search(module)
    for name in names:
        search.member(module, (name,))
    return search.found()


@functools.cache
def references_of_all(module: str) -> References:
    """What a module of which every item counts leads to.

    That are also the things that it imports and, for a package, the modules in it.
    """
    found = references_by_name(module, bindings(module))
    places = found.places | {(module, place) for place in range(len(items(module)))}
    return References(places, found.whole | set(package_modules(module)), found.loaded)


def unread(module: str, node: ast.AST) -> frozenset[int]:
    """The annotations within `node`, by `id`, that nothing can read."""
    return unread_annotations(node) if lazy_annotations(module) else frozenset()


class _Search:
    """Collects what one item leads to."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.places: set[Place] = set()
        self.whole: set[str] = set()
        self.loaded: set[str] = set()
        self._visited: set[tuple[str, Chain]] = set()

    def found(self) -> References:
        return References(frozenset(self.places), frozenset(self.whole), frozenset(self.loaded))

    def load(self, imported: Imported) -> None:
        self.loaded.update(name for name in imported.loaded if module_file(name))

    def read(self, content: ast.stmt) -> None:
        """Collect what running `content` can lead to."""
        nodes = list(_walk(content, unread(self.module, content)))
        local: dict[str, list[Imported]] = {}
        for node in nodes:
            for name, imported in imports(node, self.module):
                self.load(imported)
                local.setdefault(name, []).append(imported)
        for imported in local.get("*", ()):
            self.follow(imported, ())
        inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            self._dynamic(node)
            parts = chain(node) if id(node) not in inner else None
            if parts:
                self._name(parts, local)
        for name in _in_strings(content):
            self._name((name,), local)

    def _name(self, parts: Chain, local: dict[str, list[Imported]]) -> None:
        for imported in local.get(parts[0], ()):
            self.follow(imported, parts[1:])
        self.member(self.module, parts)

    def follow(self, imported: Imported, rest: Chain) -> None:
        """Reach what `rest`, a chain of attributes, is of what an import binds."""
        if not imported.own:
            return
        if imported.name in (None, "*"):
            self._attributes(imported.module, rest)
        else:
            self._attributes(imported.module, (str(imported.name), *rest))

    def _attributes(self, module: str, names: Chain) -> None:
        """Reach what a chain of attributes of a module is; all of the module where that is open."""
        if not names:
            self.whole.add(module)
            return
        known, inner = self.member(module, names), f"{module}.{names[0]}"
        if module_file(inner):
            self.loaded.add(inner)
            self._attributes(inner, names[1:])
        elif not known:
            self.whole.add(module)

    def member(self, module: str, parts: Chain) -> bool:
        """Reach what binds `parts[0]` in `module`, and what `parts` is where an import binds it."""
        places = bindings(module).get(parts[0], ())
        if (module, parts) not in self._visited:
            self._visited.add((module, parts))
            self.places.update((module, place) for place in places)
            for place in places:
                for imported in _imported(module, items(module)[place], parts[0]):
                    self.follow(imported, parts[1:])
        return bool(places)

    def _dynamic(self, node: ast.AST) -> None:
        """Count all that could be meant where only running the code would tell."""
        if self.module == REGISTRY:
            return
        package = self.module.partition(".")[0]
        name = getattr(node, "attr", getattr(node, "id", None))
        if (isinstance(node, ast.Name) and name in _OWN_NAMES) or _lists_own_names(node):
            self.whole.add(self.module)
        if isinstance(node, ast.alias):
            name = node.name
        if name in _ANY_MODULE or chain(node) == ("sys", "modules"):
            self.whole.update(package_modules(package))
        text = node.value if isinstance(node, ast.Constant) else None
        named = isinstance(text, str) and text.startswith(f"{package}.")
        if named and _starts_programs(self.module) and module_file(str(text)):
            self.whole.add(str(text))


@functools.cache
def _starts_programs(module: str) -> bool:
    """Whether a module may start others by name, as in `python -m distillery.nets.costs`."""
    return any(isinstance(n, ast.Constant) and n.value == "-m" for n in ast.walk(tree(module)))


def _lists_own_names(node: ast.AST) -> bool:
    """Whether this is `vars()` or `dir()`; with an argument they are another object's."""
    called = isinstance(node, ast.Call) and not node.args and not node.keywords
    return called and getattr(getattr(node, "func", None), "id", None) in ("vars", "dir")


def _walk(node: ast.AST, passed_over: frozenset[int]) -> Iterator[ast.AST]:
    if id(node) not in passed_over:
        yield node
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, passed_over)


def _imported(module: str, item: CodeItem, name: str) -> Iterator[Imported]:
    """What an item binds `name` to by import, whether it is one or, such as `try`, holds one."""
    if item.imported:
        yield item.imported
    elif item.content is not None:
        for node in walk_scope(item.content):
            yield from (imported for bound, imported in imports(node, module) if bound == name)


def _in_strings(node: ast.AST) -> Iterator[str]:
    """The identifiers in strings that may be types: annotations and subscripts outside functions.

    `typing.get_type_hints` evaluates those.
    """
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    typed = [getattr(node, part, None) for part in ("annotation", "slice")]
    for text in (part for kind in typed if kind for part in ast.walk(kind)):
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            yield from _IDENTIFIER.findall(text.value)
    for child in ast.iter_child_nodes(node):
        yield from _in_strings(child)
