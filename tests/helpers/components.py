"""A copy of the package to write component files into, and to plan with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distillery.components import parameters, registry
from distillery.plan import types
from distillery.store import code_cache, definitions, fingerprint, inert, references, source_text
from helpers.project import ROOT

# Their functions remember what they read from files.
SOURCES = (source_text, code_cache, definitions, inert, references, fingerprint)
MODULES = (registry, parameters, types, *SOURCES)


@contextmanager
def package_copy(folder: Path) -> Iterator[Path]:
    """The planner reads the files of a copy of the package, `folder/distillery`, meanwhile."""
    package = folder / "distillery"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src/distillery", package, ignore=ignored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "PACKAGE", package)
        patch.setattr(source_text, "ROOT", folder)
        forget()
        yield package
    forget()


def forget() -> None:
    """Let the planner and the code digests read their files again."""
    for module in MODULES:
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
