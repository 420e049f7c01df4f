"""What a module of this package binds at its top level, statement by statement, and to what."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distillery.store.source_text import module_file, package_of, running, tree

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Imported:
    """What an import binds a name to.

    Attributes:
        module: the dotted module that the statement names; for `import a.b` without `as`: `a`.
        name: what is taken from it; None: the module itself.
        loaded: the modules that the statement runs or may run.
    """

    module: str
    name: str | None
    loaded: tuple[str, ...]

    @property
    def own(self) -> bool:
        """Whether it is of this package."""
        return module_file(self.module) is not None


@dataclass(frozen=True, eq=False)
class CodeItem:
    """A part of a module's top level that counts as a whole or not at all.

    Attributes:
        names: that it binds.
        content: the syntax tree; None for a name that is imported.
        imported: what an import binds its one name to.
        library: a module outside this package that an import runs; such an item binds no name.
    """

    names: tuple[str, ...]
    content: ast.stmt | None = None
    imported: Imported | None = None
    library: str | None = None


@functools.cache
def items(module: str) -> tuple[CodeItem, ...]:
    """The items of a module in the order of its source."""
    found: list[CodeItem] = []
    libraries: dict[str, None] = {}
    for node in running(tree(module).body):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            found.append(CodeItem(_bound(node), node))
            continue
        for name, imported in imports(node, module):
            found.append(CodeItem((name,), imported=imported))
            libraries |= dict.fromkeys(() if imported.own else imported.loaded)
    # The standard library has no effects that a job could see; of others nothing is known.
    outside = [name for name in libraries if name.partition(".")[0] not in sys.stdlib_module_names]
    return (*(CodeItem((), library=name) for name in outside), *found)


def _bound(node: ast.stmt) -> tuple[str, ...]:
    """The names that a statement binds, at whatever depth outside functions and classes."""
    if isinstance(node, Definition):
        return (node.name,)
    found: dict[str, None] = {}
    for part in walk_scope(node):
        if isinstance(part, Definition):
            found[part.name] = None
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store | ast.Del):
            found[part.id] = None
        elif isinstance(part, ast.alias):
            found[part.asname or part.name.partition(".")[0]] = None
        elif isinstance(part, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and part.name:
            found[part.name] = None
        elif isinstance(part, ast.MatchMapping) and part.rest:
            found[part.rest] = None
    return tuple(found)


def walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all below it that is not inside a function, a class or a loop of an expression."""
    yield node
    if not isinstance(node, Definition | ast.Lambda | ast.comprehension):
        for child in ast.iter_child_nodes(node):
            yield from walk_scope(child)


def imports(node: ast.AST, module: str) -> Iterator[tuple[str, Imported]]:
    """The names that an import statement in `module` binds, each with what it is bound to.

    Other nodes bind nothing by import. A star is bound to the name `*`.
    """
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.partition(".")[0]
            bound = alias.name if alias.asname else first
            yield alias.asname or first, Imported(bound, None, _with_packages(alias.name))
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, package_of(module))
        for alias in node.names:
            loaded = (*_with_packages(base), f"{base}.{alias.name}")
            yield alias.asname or alias.name, Imported(base, alias.name, loaded)


def _base(node: ast.ImportFrom, package: str) -> str:
    packages = package.split(".")
    # `from . import x` has level 1 and starts at the package itself, each further dot one up.
    parents = packages[: len(packages) - node.level + 1] if node.level else []
    return ".".join([*parents, *([node.module] if node.module else [])])


def _with_packages(name: str) -> tuple[str, ...]:
    parts = name.split(".")
    return tuple(".".join(parts[: end + 1]) for end in range(len(parts)))


@functools.cache
def bindings(module: str) -> dict[str, tuple[int, ...]]:
    """The names that a module binds, each with the places in `items` that bind it."""
    found: dict[str, tuple[int, ...]] = {}
    for place, item in enumerate(items(module)):
        for name in item.names:
            found[name] = (*found.get(name, ()), place)
    return found


def chain(node: ast.AST) -> tuple[str, ...] | None:
    """`("a", "b", "c")` for the expression `a.b.c`, None for what does not begin with a name."""
    parts: list[Any] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else None


def full_name(module: str, expression: ast.AST) -> str | None:
    """The dotted name of what `a.b.c` in `module` is: of an import, a definition or a builtin.

    None for other expressions, and where the name is bound more than once or not by an import or a
    definition.
    """
    parts = chain(expression)
    if parts is None:
        return None
    places = bindings(module).get(parts[0], ())
    if not places:
        return ".".join(("builtins", *parts))
    item = items(module)[places[0]]
    computed = item.content is not None and not isinstance(item.content, Definition)
    if len(places) > 1 or computed:
        return None
    if item.imported is None:
        return ".".join((module, *parts))
    source = (item.imported.module, *filter(None, [item.imported.name]))
    return ".".join((*source, *parts[1:]))
