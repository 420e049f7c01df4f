"""Files that a recipe names, as the job finds them: they must be those that were planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError
from distillery.store.canonical import file_sha256

CONTENT = "sha256:"  # before the digest, in place of a path in a recipe
ABSENT = f"{CONTENT}absent"


def check_files(recipe: Mapping[str, Any], local: Mapping[str, Any]) -> None:
    """Check the files of a job against the content that its recipe was planned with.

    Args:
        recipe: of the spec, with a digest for each file.
        local: the same fields, where they differ on this machine: with a path for each file.

    Raises:
        ArtefactError: a file is not there, or has changed since planning.
    """
    for planned, place in file_pairs(recipe, local):
        if not Path(place).is_file():
            raise ArtefactError(f"{place}: no such file; put it there, or change the path")
        if f"{CONTENT}{file_sha256(Path(place))}" != planned:
            raise ArtefactError(f"{place}: changed since planning; run the same command again")


def file_pairs(planned: Any, local: Any) -> Iterator[tuple[str, str]]:
    """What stands for each file in a recipe, with its path in `local`."""
    if isinstance(planned, str) and planned.startswith(CONTENT) and isinstance(local, str):
        yield planned, local
    elif isinstance(planned, Mapping) and isinstance(local, Mapping):
        for key in planned.keys() & local.keys():
            yield from file_pairs(planned[key], local[key])
    elif isinstance(planned, list) and isinstance(local, list):
        for one, other in zip(planned, local, strict=False):
            yield from file_pairs(one, other)
