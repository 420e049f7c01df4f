"""The shape of the source tree: who imports whom, what stands where, and what has one name."""

import ast
import functools
import graphlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from distillery.components.registry import KINDS, index
from distillery.store.spec import STAGES
from helpers.project import ROOT

TESTS = ROOT / "tests"
PACKAGE = ROOT / "src/distillery"

# Folders of the package and modules at its root, lowest first: each imports from the lines above
# its own and, a folder, from itself. Folders of one line do not import each other.
ORDER = (
    ("errors",),
    ("components",),
    ("store",),
    ("warm",),
    ("data",),
    ("sets", "nets"),
    ("teacher", "losses"),
    ("training",),
    ("poster", "unroll", "matching", "embeddings"),
    ("methods", "labels", "refinements"),
    ("analyses",),
    ("table",),
    ("figures",),
    ("stages",),
    ("plan",),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def module(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def statements(nodes: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports in `nodes` that can run: those below `if TYPE_CHECKING` cannot."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(node.orelse)
        else:
            yield from statements(ast.iter_child_nodes(node))


def imported(file: Path) -> set[str]:
    """The dotted names that a file imports, at its top or inside a function."""
    names = set()
    for statement in statements([ast.parse(file.read_text())]):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{file}: a relative import"
            names |= {statement.module}
            names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
    return names


@functools.cache
def graph() -> dict[str, set[str]]:
    """Each module of the package and the modules of the package that it imports."""
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py"}
    return {
        name: (imported(file) & MODULES.keys()) - packages - {name}
        for name, file in MODULES.items()
    }


def place(name: str) -> str:
    """The folder of the package that a module is in; its own name at the root."""
    return name.split(".")[1] if "." in name else ""


# --- imports -------------------------------------------------------------------------------------


def test_the_graph_sees_the_imports_that_run(tmp_path):
    file = tmp_path / "a.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "import distillery.errors\n"
        "if TYPE_CHECKING:\n    import torch\nelse:\n    import json\n"
        "def f():\n    from distillery.store import spec\n"
    )
    expected = {"typing", "distillery.errors", "json", "distillery.store", "distillery.store.spec"}
    assert imported(file) == expected | {"typing.TYPE_CHECKING"}
    assert "distillery.store.canonical" in graph()["distillery.store.spec"]


def test_no_circle_of_imports():
    order = list(graphlib.TopologicalSorter(graph()).static_order())  # CycleError names the circle
    assert len(order) == len(MODULES)


def test_imports_run_downwards():
    upward = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in sorted(others)
        if place(name) != place(other) and LEVEL[place(name)] <= LEVEL[place(other)]
    ]
    assert upward == []


def test_every_folder_has_a_level_and_every_level_a_folder():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    root = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    assert folders | root == LEVEL.keys()


@pytest.mark.parametrize("stage", [*STAGES, "table", "picture"])
def test_a_stage_imports_no_component_no_job_and_no_planner(stage):
    components = {module for kind in KINDS for module in index(kind).values()}
    found = graph()[f"distillery.stages.{stage}"]
    assert found & (components | {"distillery.store.job", "distillery.store.runtime"}) == set()
    assert [name for name in found if place(name) == "plan"] == []


def test_no_test_file_is_imported():
    files = {file.stem for file in TESTS.glob("test_*.py")} | {"conftest"}
    found = {file.name: imported(file) & files for file in TESTS.rglob("*.py")}
    assert {name: names for name, names in found.items() if names} == {}


# --- names and places ----------------------------------------------------------------------------


def test_the_root_holds_two_modules():
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"cli.py", "errors.py", "__init__.py", "__main__.py"}


def test_stages_are_the_modules_of_their_folder():
    found = {file.stem for file in (PACKAGE / "stages").glob("*.py")} - {"__init__"}
    assert found == {*STAGES, "table", "picture"}


def word(name: str) -> str:
    """A name without the ending of a plural or of a verb: analys for analyses and analyse."""
    doubled = re.sub(r"(.)\1ings?$", r"\1", name)  # embeddings, embed
    return re.sub(r"(ings?|es|e|(?<!s)s)$", "", doubled)


def test_twins_are_recognised():
    for one, other in (
        *(("analyse", "analyses"), ("embed", "embeddings"), ("label", "labels")),
        *(("whiten", "whitening"), ("loss", "losses"), ("set", "sets")),
    ):
        assert word(one) == word(other)
    assert word("labels") != word("losses")


def test_no_folder_has_a_twin():
    for folder in {file.parent for file in MODULES.values()}:
        folders = {path.name for path in folder.iterdir() if (path / "__init__.py").is_file()}
        modules = {file.stem for file in folder.glob("*.py")}
        words = Counter(word(name) for name in folders)
        assert [name for name in folders if words[word(name)] > 1] == []
        assert [name for name in modules if word(name) in words] == []


def test_one_public_class_has_one_name():
    homes = defaultdict(set)
    for name, file in MODULES.items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(name.removeprefix("distillery."))
    del homes["Recipe"]  # each component has one, found by this name
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_no_file_name_serves_four_folders():
    names = Counter(file.name for file in MODULES.values() if file.name != "__init__.py")
    assert [name for name, count in names.items() if count > 3] == []


def test_the_tree_in_the_readme_is_the_packages():
    block = (ROOT / "README.md").read_text().partition("## The house")[2].split("```")[1]
    root, *lines = block.strip("\n").splitlines()[1:]
    assert root.split()[:2] == ["cli.py", "errors.py"]
    drawn = {re.match(r" +(\w+)/ +\S", line)[1]: line for line in lines}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert drawn.keys() == folders
    for file in PACKAGE.glob("*/*/__init__.py"):
        assert f"{file.parent.name}/" in drawn[file.parent.parent.name]
