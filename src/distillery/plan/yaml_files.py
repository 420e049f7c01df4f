"""Reading YAML files: each is parsed once, and again when it changed."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from distillery.errors import PlanError, nearest

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is installed


class _Loader(_Base):
    """YAML's safe types; a key that stands twice in one mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """Look at the keys as they are written: what `<<` merges in may be written over."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = key.value, key.start_mark.line + 1
            if name in lines:
                raise yaml.constructor.ConstructorError(
                    problem=f"key '{name}' stands on line {lines[name]} and again on line {line}; "
                    f"keep one of them"
                )
            lines[name] = line


@functools.cache
def _parsed(path: Path, stamp: int) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except RecursionError:
        raise PlanError(f"{path}: is nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError) as error:
        raise PlanError(f"{path}: not YAML: {error}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        PlanError: it is missing or malformed, or a key stands twice in one of its mappings.
    """
    if not path.is_file():
        others = (file.stem for file in path.parent.glob("*.yaml"))
        raise PlanError(f"{path}: no such file: {nearest(path.stem, others)}")
    return _parsed(path, path.stat().st_mtime_ns)


def read_value(text: str, where: str) -> Any:
    """One value as YAML writes it, such as a number or a list.

    Raises:
        PlanError: it is malformed; the message begins with `where`.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise PlanError(f"{where}: not YAML: {error}") from None
