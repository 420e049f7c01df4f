"""The digest of the code that an artefact runs.

Comments, docstrings and layout do not count, and every import does.

It covers the modules of this package that are reachable from given roots by any import statement,
wherever it stands. Imports below `if TYPE_CHECKING` do not run and do not count. The dump is our
own, since `ast.dump` and `ast.unparse` differ between versions of Python.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distillery.store.canonical import digest

ROOT = Path(__file__).parent.parent.parent
_SILENT = ("kind", "type_ignores", "type_comment", "ctx")


def module_file(name: str) -> Path | None:
    """The source file of a dotted module of this package, or None when there is none."""
    base = ROOT.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((c for c in candidates if c.is_file()), None)


def closure(roots: Iterable[str]) -> list[str]:
    """All modules of this package that importing `roots` can run, packages included, sorted."""
    todo: list[str] = list(roots)
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen or module_file(name) is None:
            continue
        seen.add(name)
        todo.extend(_imports(name))
        todo.extend([name.rpartition(".")[0]] if "." in name else [])
    return sorted(seen)


def module_digests(roots: Iterable[str]) -> dict[str, str]:
    """Digest of each module in the closure of `roots`."""
    return {name: _module_digest(name) for name in closure(roots)}


@functools.cache
def _code_digest(roots: tuple[str, ...]) -> str:
    return digest(module_digests(roots))


def code_digest(roots: Iterable[str]) -> str:
    """The digest of the closure of `roots`: equal means that our own code behaves the same.

    Returns:
        12 hex digits.
    """
    return _code_digest(tuple(sorted(roots)))


def _existing_file(name: str) -> Path:
    file = module_file(name)
    assert file is not None, f"{name} is no module of this package"
    return file


@functools.cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_existing_file(name).read_text())


@functools.cache
def _module_digest(name: str) -> str:
    return digest(_canon(_tree(name)))


@functools.cache
def _imports(name: str) -> tuple[str, ...]:
    is_package = _existing_file(name).name == "__init__.py"
    package = name if is_package else name.rpartition(".")[0]
    return tuple(found for node in _running(_tree(name)) for found in _imported(node, package))


def _running(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            continue
        yield child
        yield from _running(child)


def _imported(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        packages = package.split(".")
        # `from . import x` has level 1 and starts at the package itself, each further dot one up.
        parents = packages[: len(packages) - node.level + 1] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return []


def _canon(node: Any) -> Any:
    """A node as nested lists of strings; constants by `repr`, which tells 1 from True and "1"."""
    if isinstance(node, ast.AST):
        # Fields that are None or empty count as absent: versions of Python differ in which exist.
        fields = [
            (key, value)
            for key, value in ast.iter_fields(node)
            if value not in (None, []) and key not in _SILENT
        ]
        return [
            type(node).__name__,
            [[key, _canon(_without_docstring(node, key, value))] for key, value in fields],
        ]
    return [_canon(item) for item in node] if isinstance(node, list) else repr(node)


def _without_docstring(owner: ast.AST, key: str, value: Any) -> Any:
    documented = isinstance(
        owner, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    )
    if key != "body" or not documented or not value or not isinstance(value[0], ast.Expr):
        return value
    text = value[0].value
    return value[1:] if isinstance(text, ast.Constant) and isinstance(text.value, str) else value
