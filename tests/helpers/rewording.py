"""Changes of source files that change code, but nothing that it computes."""

from __future__ import annotations

import ast
from pathlib import Path

UNUSED = "\n\n_UNUSED = 1\n\n\ndef unused():\n    return _UNUSED\n"


def reword(file: Path, only: str | None = None) -> None:
    """Put a statement without effect at the start of every function at the top of a file.

    Args:
        file: of Python.
        only: the name of one function.
    """
    lines = file.read_text().splitlines()
    for node in reversed(functions(file)):
        if only in (None, node.name):
            first = next(part for part in node.body if not is_text(part))
            lines.insert(first.lineno - 1, " " * first.col_offset + "_ = 0")
    file.write_text("\n".join(lines) + "\n")


def functions(file: Path) -> list[ast.FunctionDef]:
    """Those at the top of a file that do anything; a signature of an overload does nothing."""
    found = [n for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef)]
    return [node for node in found if not all(map(is_text, node.body))]


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def add_unused(file: Path) -> None:
    """Put a function and a constant that nothing uses at the end of a file."""
    file.write_text(file.read_text() + UNUSED)
