"""Find methods, losses, networks, analyses and the like by name: a file that declares the name is all there is.

A component is a module of one of the `KINDS` folders that assigns a literal tuple `NAMES`; `prefix:*` names a family. The index
is read from the source text, so that looking a name up imports nothing, and a job imports only the module its recipe names.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from distillery.components.fields import read
from distillery.errors import PlanError, nearest

PACKAGE = Path(__file__).parent.parent
KINDS = {
    "method": "methods",
    "loss": "losses",
    "refinement": "refinements",
    "network": "nets",
    "label": "labels",
    "embedding": "embeddings",
    "analysis": "analyses",
    "figure": "figures",
    "source": "data",
}


def literal(tree: ast.Module, name: str) -> Any:
    """The literal value assigned to `name` at the top level of a module, or None when there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return ast.literal_eval(node.value)
    return None


@functools.cache
def index(kind: str) -> dict[str, str]:
    """All names of a kind, one of `KINDS`, and the module that declares each."""
    found: dict[str, str] = {}
    for file in sorted((PACKAGE / KINDS[kind]).glob("*.py")):
        for name in literal(ast.parse(file.read_text()), "NAMES") or ():
            found[name] = f"distillery.{KINDS[kind]}.{file.stem}"
    return found


def module_name(kind: str, name: str) -> str:
    """The dotted module that provides `name`. Raises PlanError with the nearest valid name when nothing does."""
    names = index(kind)
    for pattern, module in names.items():
        if name == pattern or ("*" in pattern and fnmatch.fnmatchcase(name, pattern)):
            return module
    raise PlanError(f"{kind} '{name}' does not exist: {nearest(name, names)}")


def load(kind: str, name: str) -> ModuleType:
    """Import the module that provides `name`. Raises PlanError when nothing does."""
    return importlib.import_module(module_name(kind, name))


def trait(module: ModuleType, name: str, default: Any) -> Any:
    """What an imported component says of itself in its literal `TRAITS` (`components.contracts`), or `default`."""
    return getattr(module, "TRAITS", {}).get(name, default)


def build(kind: str, spec: Mapping[str, Any]) -> tuple[ModuleType, Any]:
    """The module and the recipe object of a component reference: a mapping with `name` and the fields of its Recipe."""
    module = load(kind, spec["name"])
    return module, read(module.Recipe, {k: v for k, v in spec.items() if k != "name"})
