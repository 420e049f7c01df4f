"""The shape of the source tree: who imports whom, and what may stand where."""

import ast
from pathlib import Path

from helpers.project import ROOT

TESTS = ROOT / "tests"


def imported(file: Path) -> set[str]:
    """The names of the modules that a file imports, at its top level or below it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_no_test_file_is_imported():
    files = {file.stem for file in TESTS.glob("test_*.py")} | {"conftest"}
    found = {file.name: imported(file) & files for file in TESTS.rglob("*.py")}
    assert {name: names for name, names in found.items() if names} == {}
