"""Reading YAML files: each is parsed once, and again when it changed."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from distillery.errors import PlanError, nearest, shown

_NUMBERS = ("int", "float")
_KEYS = ("str", "merge", *_NUMBERS)  # what the keys of a mapping may be to YAML
MOST_VALUES = 100_000  # of a file: more can only be aliases of aliases
# What yaml raises: the last two of tags whose text is none of their kind, and of keys in braces.
_MALFORMED = (yaml.YAMLError, ValueError, TypeError, AttributeError)
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it is installed


class _Loader(_Base):
    """YAML's safe types; a key that stands twice in one mapping is an error.

    So is one that is neither a name nor a number: YAML takes `yes` for True and `null` for None.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise _wrong(f"merges (<<) of merges make more than {MOST_VALUES} keys")

    def _check_keys(self, node: yaml.MappingNode) -> None:
        """Look at the keys as they are written: what `<<` merges in may be written over."""
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            line, kind = key.start_mark.line + 1, key.tag.rpartition(":")[2]
            if not isinstance(key, yaml.ScalarNode) or kind not in _KEYS:
                text = shown(key.value) if isinstance(key, yaml.ScalarNode) else "that"
                raise _wrong(f"key {text} on line {line} is read as a {kind}; put it in quotes")
            # 5, "5" and 5.0 are the same key to a reader, if not to YAML
            names = {key.value} | ({self.construct_object(key)} if kind in _NUMBERS else set())
            for name in names & lines.keys():
                raise _wrong(
                    f"key '{key.value}' stands on line {lines[name]} and again on line {line}; "
                    f"keep one of them"
                )
            lines |= dict.fromkeys(names, line)


def _wrong(problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(problem=problem)


def _load(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        ValueError: of this type or another of `_MALFORMED`; it is not YAML, or not plain values.
    """
    value = yaml.load(text, Loader=_Loader)
    if _size(value, {}) > MOST_VALUES:
        raise ValueError(f"holds more than {MOST_VALUES} values, repeated ones (*) each time")
    return value


def _size(value: Any, sizes: dict[int, int | None]) -> int:
    """How many values there are, those behind an alias wherever it stands.

    Raises:
        ValueError: one contains itself, or is of a type that settings do not have.
    """
    if not isinstance(value, list | dict):
        if value is not None and not isinstance(value, str | int | float):
            kind = type(value).__name__
            raise ValueError(f"{shown(value)} is read as a {kind}; put it in quotes")
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = None  # until it is known: met again before that, it contains itself
        inside = value if isinstance(value, list) else value.values()
        sizes[id(value)] = 1 + sum(_size(part, sizes) for part in inside)
    size = sizes[id(value)]
    if size is None:
        raise ValueError("an alias (*) stands within what it repeats")
    return size


@functools.cache
def _parsed(path: Path, *stamp: int) -> Any:
    try:
        return _load(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise PlanError(f"{path}: is nested too deeply") from None
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror or error}") from None
    except _MALFORMED as error:
        raise PlanError(f"{path}: not YAML: {error}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        PlanError: it is missing or malformed, or a key stands twice in one of its mappings.
    """
    if path.exists() and not path.is_file():
        raise PlanError(f"{path}: is no regular file; put the settings' file there")
    if not path.is_file():
        others = (file.stem for file in path.parent.glob("*.yaml"))
        raise PlanError(f"{path}: no such file: {nearest(path.stem, others)}")
    found = path.stat()
    return _parsed(path, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


def read_value(text: str, where: str) -> Any:
    """One value as YAML writes it, such as a number or a list.

    Raises:
        PlanError: it is malformed; the message begins with `where`.
    """
    try:
        return _load(text)
    except (*_MALFORMED, RecursionError) as error:
        raise PlanError(f"{where}: not YAML: {error}") from None
