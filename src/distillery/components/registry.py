"""Find methods, losses, networks, analyses and the like by name, without a list of them.

A component is a module of one of the `KINDS` folders that assigns a literal tuple `NAMES`; a name
`prefix:*` stands for a family. The index is read from the source text, so that looking a name up
imports nothing, and a job imports only the modules that its recipe names.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.components.fields import read
from distillery.errors import PlanError, nearest, shown

Reference = Mapping[str, Any]  # `name`, and the fields of the component's Recipe
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
    "augmentation": "training/augmentations",
    "optimizer": "training/optimizers",
    "schedule": "training/schedules",
    "mixing": "training/mixings",
}


@functools.cache
def constants(file: Path) -> dict[str, ast.expr]:
    """The names that a module assigns at its top level, each with the expression it assigns."""
    assigned: dict[str, ast.expr] = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign):
            assigned |= {t.id: node.value for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            assigned[node.target.id] = node.value
    return assigned


def literal(file: Path, name: str) -> Any:
    """The literal value that a module assigns to `name`, or None when it assigns none.

    Raises:
        PlanError: the value is no literal.
    """
    value = constants(file).get(name)
    try:
        return None if value is None else ast.literal_eval(value)
    except ValueError:
        place = f"{file.parent.name}/{file.name}:{value.lineno if value else 0}"
        raise PlanError(
            f"{place}: {name} is read without running the file; write a literal"
        ) from None


@functools.cache
def index(kind: str) -> dict[str, str]:
    """All names of a kind, one of `KINDS`, and the module that declares each."""
    folder, modules = KINDS[kind], {}
    for file in sorted((PACKAGE / folder).glob("*.py")):
        for name in literal(file, "NAMES") or ():
            modules[name] = f"distillery.{folder.replace('/', '.')}.{file.stem}"
    return modules


def module_name(kind: str, name: str) -> str:
    """The dotted module that provides `name`.

    Raises:
        PlanError: nothing does; the message has the nearest valid name.
    """
    names = index(kind)
    for pattern, module in names.items():
        if name == pattern or ("*" in pattern and fnmatch.fnmatchcase(name, pattern)):
            return module
    raise PlanError(f"{kind} {shown(name)} does not exist: {nearest(name, names)}")


def module_path(module: str) -> Path:
    """The file of a dotted module that `module_name` gave."""
    return PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")


def load(kind: str, name: str) -> Any:
    """Import the module that provides `name`.

    Args:
        kind: one of `KINDS`.
        name: of a component.

    Returns:
        The module; `components.contracts` has the Protocol of its kind, with which the caller
        annotates it. This file names no Protocol, since their types stand above it.

    Raises:
        PlanError: nothing does.
    """
    return importlib.import_module(module_name(kind, name))


def trait(module: Any, name: str, default: Any) -> Any:
    """What a loaded module says of itself in its literal `TRAITS`, or `default`."""
    return getattr(module, "TRAITS", {}).get(name, default)


def build(kind: str, reference: Reference) -> tuple[Any, Any]:
    """The module and the recipe object of a component reference.

    Args:
        kind: one of `KINDS`.
        reference: `name`, and the fields of the component's Recipe.
    """
    module = importlib.import_module(module_name(kind, reference["name"]))
    return module, read(module.Recipe, {k: v for k, v in reference.items() if k != "name"})
