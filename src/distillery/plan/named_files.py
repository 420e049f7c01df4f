"""Files that recipes name count by their content: another content is another artefact.

A field of any component that is called `path` or `file`, or ends in `_path` or `_file`, names a
file. The identity holds its SHA-256; the path, which differs between machines, only the job sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distillery.store.canonical import file_sha256
from distillery.store.named_files import ABSENT, CONTENT

_NAMES = ("path", "file")


def names_a_file(field: str) -> bool:
    """Whether a recipe's field of this name holds the path of a file."""
    return field in _NAMES or field.endswith(tuple(f"_{name}" for name in _NAMES))


def by_content(
    recipe: Mapping[str, Any], root: Path, digest: Callable[[Path], str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recipe whose files are named by content, and what the job gets in its place.

    Args:
        recipe: resolved values.
        root: the project's folder, from which paths lead.
        digest: of a file, as `content` gives it, perhaps remembered.

    Returns:
        The recipe for the identity, and those of its top-level fields that hold paths, as `local`.
    """
    named, local = {}, {}
    for field, value in recipe.items():
        named[field] = _replaced(field, value, lambda path: digest(root / path))
        if named[field] != value:
            local[field] = _replaced(field, value, lambda path: str(root / path))
    return named, local


def _replaced(field: str, value: Any, replace: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(key, item, replace) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(field, item, replace) for item in value]
    return replace(value) if isinstance(value, str) and value and names_a_file(field) else value


def content(file: Path) -> str:
    """What stands for a file in an identity: its SHA-256, or that it is absent."""
    return f"{CONTENT}{file_sha256(file)}" if file.is_file() else ABSENT
