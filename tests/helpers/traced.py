"""Which definitions of the package ran while a stage made an artefact."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

import pytest

from helpers.project import ROOT

SOURCE = str(ROOT / "src/distillery")


@functools.cache
def spans(file: str) -> list[tuple[int, int, str]]:
    """First line, last line and dotted name of each function and class at a module's top."""
    module = ".".join(Path(file).relative_to(ROOT / "src").with_suffix("").parts)
    nodes = ast.parse(Path(file).read_text()).body
    return [
        (min([n.lineno, *(d.lineno for d in n.decorator_list)]), n.end_lineno, f"{module}.{n.name}")
        for n in nodes
        if isinstance(n, ast.FunctionDef | ast.ClassDef)
    ]


def definition(code: CodeType) -> str | None:
    """The definition at a module's top whose function this is; None for other code.

    The body of a module or a class runs when it is imported, whether or not it is used.
    """
    if not code.co_flags & inspect.CO_OPTIMIZED:
        return None
    found = (
        name for start, end, name in spans(code.co_filename) if start <= code.co_firstlineno <= end
    )
    return next(found, None)


@contextmanager
def traced(stages: list[str]) -> Iterator[set[str]]:
    """The definitions that run in the `make` of `stages` meanwhile, added as they run."""
    found: set[CodeType] = set()
    names: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            found.add(frame.f_code)

    def tracing(make):
        def run(job):
            forget_answers()
            threading.setprofile(note)
            sys.setprofile(note)
            try:
                return make(job)
            finally:
                sys.setprofile(None)
                threading.setprofile(None)
                names.update(filter(None, map(definition, found)))
                found.clear()

        return run

    with pytest.MonkeyPatch.context() as patch:
        for stage in stages:
            module = importlib.import_module(f"distillery.stages.{stage}")
            patch.setattr(module, "make", tracing(module.make))
        yield names


def forget_answers() -> None:
    """Let every function of the package that remembers its answers run again."""
    for name, module in list(sys.modules.items()):
        if name.startswith("distillery.") and not name.startswith("distillery.store."):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
