"""The source text of this package's modules as syntax trees, and a tree as plain lists to hash.

The dump is our own, since `ast.dump` and `ast.unparse` differ between versions of Python.
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillery.store.canonical import digest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "distillery"
# Imports modules by names that only a recipe tells; they are roots of their own.
REGISTRY = "distillery.components.registry"
_SILENT = ("kind", "type_ignores", "type_comment", "ctx")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Decorators that do not read the annotations of what they decorate; others may.
_READ_NO_ANNOTATIONS = {
    *("property", "cached_property", "setter", "classmethod", "staticmethod", "cache", "lru_cache"),
    *("contextmanager", "wraps", "overload", "no_grad", "enable_grad", "inference_mode"),
}


@functools.cache
def module_file(name: str) -> Path | None:
    """The source file of a dotted module of this package, or None when there is none."""
    base = ROOT.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((c for c in candidates if c.is_file()), None)


def package_modules(package: str) -> list[str]:
    """All modules of a package, itself included; of a plain module none."""
    found = []
    for file in sorted(ROOT.joinpath(*package.split(".")).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def existing_file(name: str) -> Path:
    """As `module_file`, for a module that is known to exist."""
    file = module_file(name)
    assert file is not None, f"{name} is no module of this package"
    return file


@functools.cache
def texts() -> dict[Path, str]:
    """The text of every module of this package by its file, all read at one time."""
    folder = ROOT / PACKAGE
    files = [Path(base, name) for base, _, names in os.walk(folder) for name in names]
    return {file: file.read_text() for file in sorted(files) if file.suffix == ".py"}


@functools.cache
def text_digest() -> str:
    """A digest of `texts`, of which all trees are read."""
    return digest([[str(file.relative_to(ROOT)), text] for file, text in texts().items()], 32)


@functools.cache
def tree(name: str) -> ast.Module:
    """The syntax tree of a module."""
    file = existing_file(name)
    return ast.parse(texts().get(file) or file.read_text())


def package_of(name: str) -> str:
    """The package against which relative imports of a module are read: itself, if it is one."""
    return name if existing_file(name).name == "__init__.py" else name.rpartition(".")[0]


@functools.cache
def lazy_annotations(name: str) -> bool:
    """Whether the module's annotations are never evaluated (`from __future__ import annotations`).

    They are then kept as strings, which only those of classes are ever read again: they say what
    the fields of a dataclass hold.
    """
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in tree(name).body
    )


def running(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run: not docstrings, nor what is below `if TYPE_CHECKING` or `__main__`.

    Args:
        body: statements of a module.
    """
    for node in body:
        if isinstance(node, ast.If) and _is_never(node.test):
            yield from running(node.orelse)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            yield node


def _is_never(test: ast.expr) -> bool:
    """Whether a condition is false in an imported module at run time."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING" or ast.unparse(test) == "__name__ == '__main__'"


def unread_annotations(node: ast.AST) -> frozenset[int]:
    """The annotations (`id` of their nodes) of functions and their variables within `node`.

    Those of classes are not among them, wherever the class stands, nor those of functions with a
    decorator that is not known to leave them alone.
    """
    found: set[int] = set()

    def visit(node: ast.AST, in_function: bool) -> None:
        if isinstance(node, _FUNCTIONS) and _decorated_plainly(node):
            arguments = [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]
            read_by_none = [node.returns, *(argument.annotation for argument in arguments)]
            found.update(id(annotation) for annotation in read_by_none if annotation)
        if isinstance(node, ast.AnnAssign) and in_function:
            found.add(id(node.annotation))
        inside = isinstance(node, _FUNCTIONS) or (
            in_function and not isinstance(node, ast.ClassDef)
        )
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(node, False)
    return frozenset(found)


def _decorated_plainly(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    called = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    names = {getattr(d, "attr", getattr(d, "id", None)) for d in called}
    return names <= _READ_NO_ANNOTATIONS


def canon(node: Any, unread: frozenset[int] = frozenset()) -> Any:
    """A node as nested lists of strings; constants by `repr`, which tells 1 from True and "1".

    Args:
        node: a syntax tree, a list of them, or a constant.
        unread: annotations that do not count, by the `id` of their nodes.
    """
    if isinstance(node, ast.AST):
        # Fields that are None or empty count as absent: versions of Python differ in which exist.
        fields = [
            (key, value)
            for key, value in ast.iter_fields(node)
            if value not in (None, []) and key not in _SILENT and id(value) not in unread
        ]
        return [
            type(node).__name__,
            [[key, canon(_without_docstring(node, key, value), unread)] for key, value in fields],
        ]
    return [canon(item, unread) for item in node] if isinstance(node, list) else repr(node)


def _without_docstring(owner: ast.AST, key: str, value: Any) -> Any:
    documented = isinstance(owner, (ast.Module, ast.ClassDef, *_FUNCTIONS))
    if key != "body" or not documented or not value or not isinstance(value[0], ast.Expr):
        return value
    text = value[0].value
    return value[1:] if isinstance(text, ast.Constant) and isinstance(text.value, str) else value
